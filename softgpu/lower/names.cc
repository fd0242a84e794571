// Registers that are only another name for a constant or a special register: compilers emit a `mov` for each of these
// and use the register from there on. Such a register shares the constant's place, and the `mov` goes.

#include "softgpu/lower/kernel_lowering.h"
#include "softgpu/lower/liveness.h"

namespace softgpu {
namespace {

using ptx::Operand;

bool changes_while_running(std::string_view special) {
  return special.starts_with("%clock") || special.starts_with("%globaltimer") || special.starts_with("%pm");
}

bool names_a_constant(const ptx::Instruction& in) {
  if (in.opcode != "mov" || in.guard >= 0 || in.modifiers.size() != 1 || in.operands.size() != 2) return false;
  const Operand& from = in.operands[1];
  switch (from.kind) {
    case Operand::Kind::kInteger:
    case Operand::Kind::kReal:
    case Operand::Kind::kReal32:
      return in.operands[0].kind == Operand::Kind::kRegister;
    case Operand::Kind::kSpecial:
      return in.operands[0].kind == Operand::Kind::kRegister && !changes_while_running(from.name);
    default:
      return false;
  }
}

}  // namespace

bool KernelLowering::name_constants(Instance* instance) {
  const ptx::Function& f = *instance->function;
  const std::vector<uint32_t> written = writes(f);
  instance->named.assign(f.body.size(), false);
  for (size_t i = 0; i < f.body.size(); ++i) {
    const ptx::Instruction& in = f.body[i];
    if (!names_a_constant(in) || written[in.operands[0].reg] != 1) continue;
    const Type type = ptx::type_of(in.modifiers[0]);
    const uint32_t reg = in.operands[0].reg;
    if (type == Type::kNone || type == Type::kPred || width_of(type) != width_of(f.registers[reg])) continue;
    if (in.operands[1].kind == Operand::Kind::kSpecial && width_of(type) != 4) continue;  // would need a conversion
    in_ = &in;
    if (!source(in.operands[1], type, &instance->registers[reg])) return false;
    instance->named[i] = true;
  }
  return true;
}

}  // namespace softgpu
