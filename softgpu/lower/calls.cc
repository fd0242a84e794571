// Calls, returns and the stack.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Space;
using ptx::Type;
using ptx::Variable;

uint32_t KernelLowering::own(uint32_t width) {
  const uint32_t at = width == 0 ? allocate_predicate() : allocate(width);
  if (instance_ != nullptr && instance_->frame != 0) instance_->owned.push_back({at, width});
  return at;
}

// Whether the variable lies in the function's frame.
bool KernelLowering::is_framed(const Operand& o) const {
  if (o.kind != Operand::Kind::kVariable || instance_->frame == 0) return false;
  return instance_->function->variables[o.reg].space != Space::kShared;
}

// Between a register and its place in local memory.
bool KernelLowering::copy_register(uint32_t reg, uint32_t width, uint64_t place, bool load) {
  const std::string bits = std::to_string(8 * width);
  const Handler fn = find((load ? "ld.local.u" : "st.local.u") + bits + "." + bits);
  if (fn == nullptr) return unsupported();
  MicroOp& op = emit(fn, reg, instance_->frame);
  op.imm = static_cast<int64_t>(place);
  op.y = instance_->frame != 0 ? 1 : 0;
  return true;
}

// Parameters of a function that it declares as registers come and go through memory like the others.
bool KernelLowering::emit_parameters(bool results) {
  const ptx::Function& f = *instance_->function;
  if (f.entry) return true;
  uint32_t reg = 0;
  Instruction none;
  none.opcode = "call";
  none.line = f.line;
  none.text = f.name;
  if (!results) {
    in_ = &none;
    guard_ = kTruePredicate;
    guard_xor_ = 0;
    code_->texts.emplace_back(f.name);
  }
  for (size_t i = 0; i < f.returns.size() + f.params.size(); ++i) {
    const Variable& v = f.variables[i];
    if (v.space != Space::kRegister) continue;
    const uint32_t number = reg++;
    if ((i < f.returns.size()) != results) continue;
    if (!copy_register(register_offset(number), width_of(v.type), instance_->variables[i], !results)) return false;
  }
  return true;
}

bool KernelLowering::lower_ret() {
  if (instance_->function->entry) return lower_exit();
  take("uni");
  if (!done() || !emit_parameters(true)) return false;
  emit(find("call.returning")).imm = instance_->code;
  emit(nullptr, code_->functions[instance_->code].return_slot).flow = Flow::kReturn;
  return true;
}

bool KernelLowering::store_argument(const Operand& o, const std::vector<Variable>* formal, size_t index,
                                    CallCopy* place) {
  const bool typed = formal != nullptr && index < formal->size();
  uint32_t width = o.kind == Operand::Kind::kRegister ? register_width(o) : 0;
  if (width == 0 && typed) width = width_of((*formal)[index].type);
  if (width == 0) return fail("an argument has no size");
  uint32_t value = 0;
  if (!source(o, typed ? (*formal)[index].type : Type::kNone, width, &value)) return false;
  *place = {static_cast<uint32_t>(place_variable(instance_, 8, 8)), width};
  return copy_register(value, width, place->from, false);
}

bool KernelLowering::call_places(const Operand& list, const std::vector<Variable>* formal, bool results,
                                 std::vector<CallCopy>* out) {
  for (const Operand& o : list.parts) {
    CallCopy place{};
    if (o.kind == Operand::Kind::kVariable && instance_->function->variables[o.reg].space == Space::kParam) {
      place = {static_cast<uint32_t>(instance_->variables[o.reg]),
               static_cast<uint32_t>(instance_->function->variables[o.reg].bytes)};
    } else if (results) {
      if (o.kind != Operand::Kind::kRegister && o.kind != Operand::Kind::kSink) return fail("a result has no place");
      const uint32_t width = o.kind == Operand::Kind::kRegister ? register_width(o) : 8;
      place = {static_cast<uint32_t>(place_variable(instance_, 8, 8)), width};
    } else if (!store_argument(o, formal, out->size(), &place)) {
      return false;
    }
    out->push_back(place);
  }
  return true;
}

bool KernelLowering::load_results(const Operand& list, const std::vector<CallCopy>& places) {
  for (size_t i = 0; i < list.parts.size(); ++i) {
    const Operand& o = list.parts[i];
    if (o.kind != Operand::Kind::kRegister) continue;
    if (!copy_register(register_offset(o.reg), places[i].bytes, places[i].from, true)) return false;
  }
  return true;
}

uint32_t KernelLowering::call_site(std::vector<CallCopy> copies) {
  code_->sites.push_back({std::move(copies), instance_->frame});
  return static_cast<uint32_t>(code_->sites.size() - 1);
}

bool KernelLowering::lower_call() {
  take("uni");
  if (!done()) return false;
  // Lanes that do not call go around all that belongs to it; the guard's register may be another activation's then.
  const uint32_t guard = guard_;
  const size_t around = code_->ops.size();
  if (guard != kTruePredicate) {
    guard_xor_ = ~guard_xor_;
    emit(nullptr).flow = Flow::kBranch;
    guard_ = kTruePredicate;
    guard_xor_ = 0;
  }
  static const Operand kNothing;
  const bool has_results = at(0).kind == Operand::Kind::kList;
  const Operand& callee = at(has_results ? 1 : 0);
  const Operand& list = at(has_results ? 2 : 1);
  const Operand& arguments_of = list.kind == Operand::Kind::kList ? list : kNothing;
  const Operand& results_of = has_results ? at(0) : kNothing;
  const bool indirect = callee.kind == Operand::Kind::kRegister;
  const ptx::Function* f = nullptr;
  uint32_t address = 0;
  if (indirect) {
    if (!source(callee, Type::kU64, &address)) return false;
  } else {
    const int64_t index = module_.find_function(instance_->function->unit, callee.name);
    if (callee.kind != Operand::Kind::kSymbol || index < 0) {
      return fail("unknown function '" + std::string(callee.name) + "'");
    }
    f = module_.functions[static_cast<size_t>(index)].get();
  }
  std::vector<CallCopy> arguments, results;
  if (!call_places(arguments_of, f == nullptr ? nullptr : &f->params, false, &arguments)) return false;
  if (!call_places(results_of, nullptr, true, &results)) return false;
  if (f != nullptr && (arguments.size() != f->params.size() || results.size() != f->returns.size())) {
    return fail("wrong number of arguments");
  }
  if (f != nullptr && !f->has_body) {
    if (!call_builtin(f->name, arguments, results)) return false;
  } else {
    MicroOp& call = emit(nullptr, 0, address);
    call.flow = indirect ? Flow::kCallIndirect : Flow::kCall;
    call.target = indirect ? 0 : instance_of_.at(f);
    call.imm = call_site(arguments);
    emit(find("call.results")).imm = call_site(results);
  }
  if (!load_results(results_of, results)) return false;
  if (guard != kTruePredicate) code_->ops[around].target = static_cast<uint32_t>(code_->ops.size());
  return true;
}

bool KernelLowering::call_builtin(std::string_view name, const std::vector<CallCopy>& arguments,
                                  const std::vector<CallCopy>& results) {
  const Handler fn = find("call." + std::string(name));
  if (fn == nullptr) return fail("function '" + std::string(name) + "' is not defined");
  MicroOp& op = emit(fn);
  op.imm = call_site(arguments);
  op.target = results.empty() ? ~uint32_t{0} : results[0].from;
  return true;
}

bool KernelLowering::lower_alloca() {
  const Type type = take_type();
  const uint32_t width = type == Type::kNone ? 0 : width_of(type);
  uint32_t dst = 0, bytes = 0;
  if ((width != 4 && width != 8) || !done() || !dest(at(0), width, &dst)) return unsupported();
  if (!source(at(1), type, &bytes)) return false;
  MicroOp& op = emit(find("alloca"), dst, 0, bytes);
  op.x = static_cast<uint8_t>(width);
  op.imm = at(2).kind == Operand::Kind::kInteger && at(2).bits != 0 ? static_cast<int64_t>(at(2).bits) : 8;
  return true;
}

bool KernelLowering::lower_stack() {
  const Type type = take_type();
  const uint32_t width = type == Type::kNone ? 0 : width_of(type);
  if ((width != 4 && width != 8) || !done()) return unsupported();
  const bool save = in_->opcode == "stacksave";
  uint32_t reg = 0;
  if (save ? !dest(at(0), width, &reg) : !source(at(0), type, &reg)) return false;
  emit(find(save ? "stacksave" : "stackrestore"), reg, reg).x = static_cast<uint8_t>(width);
  return true;
}

}  // namespace softgpu
