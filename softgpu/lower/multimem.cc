// multimem.ld_reduce, .st and .red.

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

namespace {

// Pairs of 16-bit floats are reduced one by one.
std::string_view element_of(Type type, std::string_view name) {
  if (type == Type::kF16x2) return "f16";
  return type == Type::kBf16x2 ? "bf16" : name;
}

}  // namespace

bool KernelLowering::lower_multimem() {
  MultimemOp x;
  const std::string_view kind = take_one_of({"ld_reduce", "st", "red"});
  take_memory_words();
  take("global");
  const bool in_float = take("acc::f32");
  const std::string_view what = take_one_of({"add", "min", "max", "and", "or", "xor"});
  const std::string_view vector = take_one_of({"v2", "v4", "v8"});
  const Type type = take_type();
  if (kind.empty() || type == Type::kNone || (kind == "st") != what.empty() || !done()) return unsupported();
  x.kind = kind == "ld_reduce" ? MultimemOp::Kind::kReduceLoad
           : kind == "st"      ? MultimemOp::Kind::kStore
                               : MultimemOp::Kind::kReduce;
  x.register_bytes = static_cast<uint8_t>(width_of(type));
  x.count = static_cast<uint8_t>(vector.empty() ? 1 : vector[1] - '0');
  if (kind != "st") {
    const std::string name = name_of(type);
    const std::string_view element = element_of(type, name);
    x.reduce = reduction_of(what, element, &x.element_bytes);
    if (x.reduce == nullptr) return unsupported();
    if (in_float && element != "f16" && element != "bf16") return unsupported();
    if (in_float) x.sum = element == "f16" ? MultimemOp::Sum::kHalfInFloat : MultimemOp::Sum::kBrainInFloat;
  }
  const bool load = x.kind == MultimemOp::Kind::kReduceLoad;
  const Operand& data = at(load ? 0 : 1);
  const bool list = data.kind == Operand::Kind::kVector;
  if ((list ? data.parts.size() : 1) != x.count) return fail("wrong number of registers");
  for (uint32_t i = 0; i < x.count; ++i) {
    const Operand& part = list ? data.parts[i] : data;
    if (load ? !dest(part, x.register_bytes, &x.regs[i]) : !source(part, type, &x.regs[i])) return false;
  }
  if (!bulk_address(at(load ? 1 : 0), "global", &x.address)) return false;
  code_->multimem_ops.push_back(x);
  emit(find("multimem")).target = static_cast<uint32_t>(code_->multimem_ops.size() - 1);
  return true;
}

}  // namespace softgpu
