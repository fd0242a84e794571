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
  for (const Instance& i : instances_) {
    for (const auto& in : i.function->body) {
      for (const Operand& o : in.operands) reserve_shared(o);
    }
  }
  if (reserves_shared_) shared_bytes_ = code->reserved_shared_bytes = kReservedSharedBytes;
  for (const Instance& i : instances_) {
    for (const auto& in : i.function->body) {
      for (const Operand& o : in.operands) reference_shared(o);
    }
  }
  for (Instance& i : instances_) layout_variables(&i);
  layout_shared();
  code->function_of.assign(module_.functions.size(), -1);
  for (Instance& i : instances_) {
    const auto at = module_.function_index.find(i.function->name);
    if (at != module_.function_index.end()) code->function_of[at->second] = static_cast<int32_t>(i.code);
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
  instances_.push_back({std::move(whole), std::vector<uint32_t>(body.registers.size(), 0), {}, {}, {}, 0});
  instance_ = &instances_[0];
  layout_variables(instance_);
  for (const Instruction& in : body.body) visit(body, in);
}

bool KernelLowering::supports(const Instruction& in) {
  for (const Operand& o : in.operands) reference_shared(o);
  in_ = &in;
  missing_ = false;
  lower_instruction();
  return !missing_;
}

bool KernelLowering::collect(const Function& function) {
  if (std::find(call_path_.begin(), call_path_.end(), &function) != call_path_.end()) {
    *error_ = "kernel " + info_->name + ", line " + std::to_string(function.line) + ": recursive function '" +
              std::string(function.name) + "' is not supported";
    return false;
  }
  if (instance_of_.contains(&function)) return true;
  const auto index = static_cast<uint32_t>(instances_.size());
  std::unique_ptr<const Function> whole = ptx::parse_body(function, error_);
  if (whole == nullptr) return false;
  const Function& body = *whole;
  instance_of_[&function] = index;
  instances_.push_back({std::move(whole), std::vector<uint32_t>(body.registers.size(), 0), {}, {}, {}, index});
  call_path_.push_back(&function);
  const bool ok = visit_calls(body);
  call_path_.pop_back();
  return ok;
}

bool KernelLowering::visit_calls(const Function& function) {
  for (const auto& in : function.body) {
    if (in.opcode != "call") continue;
    for (const Operand& o : in.operands) {
      if (o.kind == Operand::Kind::kRegister) indirect_calls_ = true;
      if (o.kind != Operand::Kind::kSymbol) continue;
      const auto at = module_.function_index.find(o.name);
      if (at == module_.function_index.end()) break;
      const Function& callee = *module_.functions[at->second];
      if (callee.has_body && !collect(callee)) return false;
      break;
    }
  }
  return true;
}

// A call through a register may reach every function of the module that could have its address taken.
bool KernelLowering::collect_indirect() {
  for (const auto& f : module_.functions) {
    if (f->has_body && !f->entry && !collect(*f)) return false;
  }
  return true;
}

uint64_t KernelLowering::place_local(uint64_t bytes, uint64_t align) {
  align = std::max<uint64_t>(align, 1);
  local_bytes_ = (local_bytes_ + align - 1) / align * align;
  const uint64_t at = local_bytes_;
  local_bytes_ += bytes;
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

void KernelLowering::reference_shared(const Operand& operand) {
  for (const Operand& part : operand.parts) reference_shared(part);
  if (operand.kind != Operand::Kind::kSymbol || shared_of_.contains(operand.name)) return;
  const auto at = module_.variable_index.find(operand.name);
  if (at == module_.variable_index.end()) return;
  const Variable& v = module_.variables[at->second];
  if (v.space != Space::kShared) return;
  if (v.bytes == 0) {
    dynamic_align_ = std::max<uint64_t>(dynamic_align_, v.align);
    dynamic_shared_.push_back(v.name);
    shared_of_[v.name] = 0;
  } else {
    shared_of_[v.name] = place_shared(v);
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
    } else if (v.space != Space::kRegister) {
      at = place_local(v.bytes, std::max<uint64_t>(v.align, 8));
    }
    instance->variables.push_back(at);
    if (!f.entry && own) {
      const bool returned = i < f.returns.size();
      (returned ? code.returns : code.params).push_back(static_cast<uint32_t>(at));
      (returned ? code.return_bytes : code.param_bytes).push_back(static_cast<uint32_t>(v.bytes));
    }
  }
  code.return_slot = allocate(4);
  code_->functions.push_back(code);
}

void KernelLowering::layout_shared() {
  info_->static_shared_bytes = static_cast<uint32_t>(shared_bytes_) - code_->reserved_shared_bytes;
  const uint64_t base = (shared_bytes_ + dynamic_align_ - 1) / dynamic_align_ * dynamic_align_;
  for (const std::string_view name : dynamic_shared_) shared_of_[name] = base;
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
      free.push_back(width(r) == 0 ? allocate_predicate() : allocate(width(r)));
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
  if (!name_constants(instance)) return false;
  place_registers(instance);
  code_->functions[instance->code].entry = static_cast<uint32_t>(code_->ops.size());
  fixups_.clear();
  table_fixups_.clear();
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
  for (const auto& [op, statement] : fixups_) code_->ops[op].target = instance->first_op[statement];
  for (const auto& [row, statement] : table_fixups_) code_->tables[row] = instance->first_op[statement];
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

void KernelLowering::finish() {
  code_->register_bytes = (next_ + 63) / 64 * 64;
  code_->local_bytes = static_cast<uint32_t>((local_bytes_ + 15) / 16 * 16);
  code_->param_bytes = info_->param_bytes;
  info_->local_bytes = code_->local_bytes;
  info_->constant_bytes = static_cast<uint32_t>(image_.constant_bytes());
  info_->registers = std::min<uint32_t>(255, 16 + pressure_);
}

}  // namespace softgpu
