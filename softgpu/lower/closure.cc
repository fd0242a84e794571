// Which functions and variables a kernel needs, and where they lie.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"
#include "softgpu/lower/liveness.h"
#include "softgpu/ptx/parser.h"

namespace softgpu {

using ptx::Function;
using ptx::Space;
using ptx::Variable;

KernelLowering::KernelLowering(const ptx::Module& module, const ImageLayout& image, const HandlerTable& handlers)
    : module_(module), image_(image), handlers_(handlers) {}

bool KernelLowering::lower(const Function& kernel, KernelInfo* info, KernelCode* code, std::string* error) {
  error_ = error;
  info_ = info;
  code_ = code;
  static_cast<KernelHead&>(*info) = head_of(module_, kernel);
  code->name = info->name;
  carry_ = allocate_predicate();
  if (!collect(kernel) || (indirect_calls_ && !collect_indirect())) return false;
  find_recursion();
  for (const Instance& i : instances_) {
    for (const auto& in : i.function->body) {
      for (const Operand& o : in.operands) reserve_shared(o);
    }
  }
  if (reserves_shared_) shared_bytes_ = code->reserved_shared_bytes = kReservedSharedBytes;
  for (const Instance& i : instances_) {
    for (const auto& in : i.function->body) {
      for (const Operand& o : in.operands) reference_shared(o, i.function->unit);
    }
  }
  for (Instance& i : instances_) layout_variables(&i);
  layout_shared();
  if (!check_sizes()) return false;
  code->function_of.assign(module_.functions.size(), -1);
  for (Instance& i : instances_) {
    const int64_t at = module_.find_function(i.function->unit, i.function->name);
    if (at >= 0) code->function_of[static_cast<size_t>(at)] = static_cast<int32_t>(i.code);
  }
  for (Instance& i : instances_) {
    if (!lower_function(&i)) return false;
  }
  finish();
  return true;
}

KernelHead KernelLowering::head_of(const ptx::Module& module, const Function& kernel) {
  KernelHead head;
  head.name = std::string(kernel.name);
  head.ptx_version = module.target;
  head.max_threads_per_block = kernel.max_threads;
  head.cluster = {kernel.cluster[0], kernel.cluster[1], kernel.cluster[2]};
  uint64_t end = 0;
  for (const Variable& v : kernel.params) {
    const uint64_t align = std::max<uint32_t>(v.align, 1);
    const uint64_t at = (end + align - 1) / align * align;
    head.params.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(v.bytes)});
    end = at + v.bytes;
  }
  head.param_bytes = static_cast<uint32_t>(end);
  return head;
}

void KernelLowering::probe(const Function& head,
                           const std::function<void(const Function&, const Instruction&)>& visit) {
  KernelInfo info;
  KernelCode code;
  std::string error;
  static_cast<KernelHead&>(info) = head_of(module_, head);
  error_ = &error;
  info_ = &info;
  code_ = &code;
  carry_ = allocate_predicate();
  std::unique_ptr<const Function> whole = ptx::parse_body(head, error_);
  if (whole == nullptr) return;
  const Function& body = *whole;
  Instance instance;
  instance.function = std::move(whole);
  instance.registers.assign(body.registers.size(), 0);
  instances_.push_back(std::move(instance));
  instance_ = &instances_[0];
  layout_variables(instance_);
  for (const Instruction& in : body.body) visit(body, in);
}

bool KernelLowering::supports(const Instruction& in) {
  for (const Operand& o : in.operands) reference_shared(o, instance_->function->unit);
  in_ = &in;
  missing_ = false;
  lower_instruction();
  return !missing_;
}

bool KernelLowering::collect(const Function& function) {
  if (instance_of_.contains(&function)) return true;
  const auto index = static_cast<uint32_t>(instances_.size());
  std::unique_ptr<const Function> whole = ptx::parse_body(function, error_);
  if (whole == nullptr) return false;
  const Function& body = *whole;
  instance_of_[&function] = index;
  Instance instance;
  instance.function = std::move(whole);
  instance.registers.assign(body.registers.size(), 0);
  instance.code = index;
  instances_.push_back(std::move(instance));
  callees_.emplace_back();
  calls_pointers_.push_back(false);
  return visit_calls(body, index);
}

bool KernelLowering::visit_calls(const Function& function, uint32_t caller) {
  for (const auto& in : function.body) {
    if (in.opcode == "alloca" || in.opcode == "stacksave") uses_stack_ = true;
    if (in.opcode != "call") continue;
    for (const Operand& o : in.operands) {
      if (o.kind == Operand::Kind::kRegister) indirect_calls_ = calls_pointers_[caller] = true;
      if (o.kind != Operand::Kind::kSymbol) continue;
      const int64_t at = module_.find_function(function.unit, o.name);
      if (at < 0) break;
      const Function& callee = *module_.functions[static_cast<size_t>(at)];
      if (callee.has_body && !collect(callee)) return false;
      if (callee.has_body) callees_[caller].push_back(instance_of_.at(&callee));
      break;
    }
  }
  return true;
}

// A call through a register may reach every function whose address the module takes.
bool KernelLowering::collect_indirect() {
  for (const uint32_t f : module_.address_taken) {
    const Function& function = *module_.functions[f];
    if (function.has_body && !function.entry && !collect(function)) return false;
  }
  return true;
}

// Functions that can reach themselves get frames, and with them what uses the stack by itself.
void KernelLowering::find_recursion() {
  std::vector<uint32_t> pointed;
  for (const uint32_t f : module_.address_taken) {
    const auto at = instance_of_.find(module_.functions[f].get());
    if (at != instance_of_.end()) pointed.push_back(at->second);
  }
  for (Instance& start : instances_) {
    if (start.function->entry) continue;
    bool framed = std::any_of(start.function->body.begin(), start.function->body.end(),
                              [](const Instruction& in) { return in.opcode == "alloca"; });
    std::vector<bool> seen(instances_.size());
    std::vector<uint32_t> left = {start.code};
    while (!left.empty() && !framed) {
      const uint32_t at = left.back();
      left.pop_back();
      const auto visit = [&](uint32_t callee) {
        framed = framed || callee == start.code;
        if (!seen[callee]) left.push_back(callee);
        seen[callee] = true;
      };
      for (const uint32_t callee : callees_[at]) visit(callee);
      if (!calls_pointers_[at]) continue;
      for (const uint32_t callee : pointed) visit(callee);
    }
    if (!framed) continue;
    uses_stack_ = true;
    start.frame = allocate(4);
    start.owned.push_back({start.frame, 4});
  }
  if (uses_stack_) code_->stack_slot = allocate(4);
  code_->returned_slot = allocate(4);
}

// In the function's frame, or at a place of its own.
uint64_t KernelLowering::place_variable(Instance* instance, uint64_t bytes, uint64_t align) {
  align = std::max<uint64_t>(align, 1);
  uint64_t& end = instance->frame != 0 ? instance->frame_bytes : local_bytes_;
  end = (end + align - 1) / align * align;
  const uint64_t at = end;
  end += bytes;
  return at;
}

uint64_t KernelLowering::place_shared(const Variable& v) {
  const uint64_t align = std::max<uint64_t>(v.align, 1);
  shared_bytes_ = (shared_bytes_ + align - 1) / align * align;
  const uint64_t at = shared_bytes_;
  shared_bytes_ += v.bytes;
  return at;
}

void KernelLowering::reserve_shared(const Operand& operand) {
  for (const Operand& part : operand.parts) reserve_shared(part);
  reserves_shared_ = reserves_shared_ || operand.name.starts_with("%reserved_smem_offset");
}

void KernelLowering::reference_shared(const Operand& operand, uint32_t unit) {
  for (const Operand& part : operand.parts) reference_shared(part, unit);
  if (operand.kind != Operand::Kind::kSymbol) return;
  const int64_t at = module_.find_variable(unit, operand.name);
  if (at < 0 || shared_of_.contains(static_cast<uint32_t>(at))) return;
  const auto index = static_cast<uint32_t>(at);
  const Variable& v = module_.variables[index];
  if (v.space != Space::kShared) return;
  if (v.bytes == 0) {
    dynamic_align_ = std::max<uint64_t>(dynamic_align_, v.align);
    dynamic_shared_.push_back(index);
    shared_of_[index] = 0;
  } else {
    shared_of_[index] = place_shared(v);
  }
}

// What is known of the variables before the size of the static shared memory is.
void KernelLowering::layout_variables(Instance* instance) {
  const Function& f = *instance->function;
  FunctionCode code;
  for (size_t i = 0; i < f.variables.size(); ++i) {
    const Variable& v = f.variables[i];
    uint64_t at = 0;
    const bool own = i < f.returns.size() + f.params.size();
    if (v.space == Space::kShared && v.bytes == 0) {
      dynamic_align_ = std::max<uint64_t>(dynamic_align_, v.align);
      at = ~uint64_t{0};  // set by layout_shared
    } else if (v.space == Space::kShared) {
      at = place_shared(v);
    } else if (f.entry && own) {
      at = info_->params[i].offset;
    } else if (v.space != Space::kRegister || own) {
      at = place_variable(instance, v.bytes, std::max<uint64_t>(v.align, 8));
    }
    instance->variables.push_back(at);
    if (!f.entry && own) {
      const bool returned = i < f.returns.size();
      (returned ? code.returns : code.params).push_back(static_cast<uint32_t>(at));
      (returned ? code.return_bytes : code.param_bytes).push_back(static_cast<uint32_t>(v.bytes));
    }
  }
  code.return_slot = allocate(4);
  code.frame_slot = instance->frame;
  if (instance->frame != 0) instance->owned.push_back({code.return_slot, 4});
  code_->functions.push_back(code);
}

void KernelLowering::layout_shared() {
  info_->static_shared_bytes = static_cast<uint32_t>(shared_bytes_) - code_->reserved_shared_bytes;
  const uint64_t base = (shared_bytes_ + dynamic_align_ - 1) / dynamic_align_ * dynamic_align_;
  for (const uint32_t v : dynamic_shared_) shared_of_[v] = base;
  for (Instance& i : instances_) {
    for (uint64_t& at : i.variables) {
      if (at == ~uint64_t{0}) at = base;
    }
  }
  code_->static_shared_bytes = static_cast<uint32_t>(base);
}

// Registers of one width share places where their values are not wanted at the same time.
void KernelLowering::place_registers(Instance* instance) {
  const std::vector<LiveRange> ranges = live_ranges(*instance->function);
  for (const LiveRange& r : ranges) instance->last_use.push_back(r.last);
  std::vector<uint32_t> order;
  for (uint32_t r = 0; r < ranges.size(); ++r) {
    if (ranges[r].first <= ranges[r].last && instance->registers[r] == 0) order.push_back(r);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return ranges[a].first < ranges[b].first; });
  std::multimap<uint32_t, uint32_t> active;  // last statement -> register
  std::map<uint32_t, std::vector<uint32_t>> idle;
  uint32_t words = 0, most = 0;
  const auto width = [&](uint32_t r) { return width_of(instance->function->registers[r]); };
  for (const uint32_t r : order) {
    while (!active.empty() && active.begin()->first < ranges[r].first) {
      const uint32_t gone = active.begin()->second;
      idle[width(gone)].push_back(instance->registers[gone]);
      words -= (width(gone) + 3) / 4;
      active.erase(active.begin());
    }
    std::vector<uint32_t>& free = idle[width(r)];
    if (free.empty()) {
      free.push_back(own(width(r)));
    }
    instance->registers[r] = free.back();
    free.pop_back();
    active.emplace(ranges[r].last, r);
    words += (width(r) + 3) / 4;
    most = std::max(most, words);
  }
  pressure_ = std::max(pressure_, most);
}

bool KernelLowering::lower_function(Instance* instance) {
  instance_ = instance;
  instance->unread = unread_registers(*instance->function);
  if (!name_constants(instance)) return false;
  place_registers(instance);
  FunctionCode& code = code_->functions[instance->code];
  code.entry = static_cast<uint32_t>(code_->ops.size());
  fixups_.clear();
  table_fixups_.clear();
  if (!emit_parameters(false)) return false;
  for (const Instruction& in : instance->function->body) {
    const size_t statement = instance->first_op.size();
    instance->first_op.push_back(static_cast<uint32_t>(code_->ops.size()));
    if (instance->named[statement]) continue;
    in_ = &in;
    if (!lower_instruction()) return false;
  }
  instance->first_op.push_back(static_cast<uint32_t>(code_->ops.size()));
  // A body may end without `ret`, or with a label.
  static constexpr std::string_view kEnd = "ret";
  Instruction end;
  end.opcode = kEnd;
  end.line = instance->function->body.empty() ? instance->function->line : instance->function->body.back().line;
  end.text = kEnd;
  in_ = &end;
  if (!lower_instruction()) return false;
  code.frame_bytes = instance->frame == 0 ? 0 : static_cast<uint32_t>((instance->frame_bytes + 15) / 16 * 16 + 16);
  code.saved = instance->owned;
  for (const auto& [op, statement] : fixups_) code_->ops[op].target = instance->first_op[statement];
  for (const auto& [row, statement] : table_fixups_) code_->tables[row] = instance->first_op[statement];
  fuse(*instance);
  return true;
}

bool KernelLowering::lower_instruction() {
  guard_ = kTruePredicate;
  guard_xor_ = 0;
  modifiers_ = in_->modifiers;
  temporaries_used_.clear();
  code_->texts.emplace_back(in_->text.substr(0, 100));
  const auto row = rows().find(in_->opcode);
  if (row == rows().end()) return unsupported();
  if (in_->guard >= 0) {
    if (instance_->function->registers[in_->guard] != Type::kPred) return fail("the guard is not a predicate");
    guard_ = register_offset(static_cast<uint32_t>(in_->guard));
    guard_xor_ = in_->guard_negated ? ~uint32_t{0} : 0;
  }
  return (this->*row->second)();
}

// What no GPU has room for, before anything is cut to 32 bits.
bool KernelLowering::check_sizes() {
  constexpr uint64_t kParamMax = 32764, kSharedMax = 48 << 10, kLocalMax = 512 << 10;
  const auto fail_with = [&](const char* what, uint64_t bytes, uint64_t most) {
    *error_ = "kernel " + info_->name + ", line " + std::to_string(instances_[0].function->line) + ": " + what + ": " +
              std::to_string(bytes) + " bytes, at most " + std::to_string(most);
    return false;
  };
  uint64_t params = 0, frames = 0;
  for (const Variable& v : instances_[0].function->params) params += v.bytes;
  for (const Instance& i : instances_) frames = std::max(frames, i.frame_bytes);
  const uint64_t shared = shared_bytes_ - code_->reserved_shared_bytes;
  if (params > kParamMax) return fail_with("too many parameters", params, kParamMax);
  if (shared > kSharedMax) return fail_with("uses too much shared data", shared, kSharedMax);
  const uint64_t local = std::max(local_bytes_, frames);
  return local <= kLocalMax || fail_with("uses too much local data", local, kLocalMax);
}

void KernelLowering::finish() {
  code_->register_bytes = (next_ + 63) / 64 * 64;
  code_->local_bytes = static_cast<uint32_t>((local_bytes_ + 15) / 16 * 16);
  code_->param_bytes = info_->param_bytes;
  info_->local_bytes = code_->local_bytes;
  info_->constant_bytes = static_cast<uint32_t>(image_.constant_bytes());
  info_->registers = std::min<uint32_t>(255, 16 + pressure_);
}

}  // namespace softgpu
