// Registers that are only another name for a constant, a special register or a parameter of the kernel: compilers emit
// a `mov` or `ld.param` for each of these and use the register from there on. Such a register shares the constant's
// place, and the instruction goes. So does a conversion of such an address between generic and global.

#include <algorithm>

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

// Parameters of a kernel that are kept in registers: more would cost each block more than they save.
constexpr size_t kNamedParameters = 24;

// cvta.global.u64 and cvta.to.global.u64: an address is the same in both.
bool is_pointer_conversion(const ptx::Function& f, const ptx::Instruction& in) {
  const size_t words = in.modifiers.size();
  if (in.opcode != "cvta" || in.guard >= 0 || in.operands.size() != 2 || words < 2 || words > 3) return false;
  if (words == 3 && in.modifiers[0] != "to") return false;
  if (in.modifiers[words - 2] != "global" || in.modifiers[words - 1] != "u64") return false;
  return std::all_of(in.operands.begin(), in.operands.end(), [&](const Operand& o) {
    return o.kind == Operand::Kind::kRegister && ptx::bytes_of(f.registers[o.reg]) == 8 && !o.negated;
  });
}

}  // namespace

// `ld.param` of one parameter as wide as the register: where all warps keep it.
bool KernelLowering::name_parameter(const Instruction& in, uint32_t* offset) {
  const ptx::Function& f = *instance_->function;
  if (!f.entry || in.opcode != "ld" || in.guard >= 0 || in.modifiers.size() != 2 || in.operands.size() != 2)
    return false;
  if (in.modifiers[0] != "param" || in.operands[0].kind != Operand::Kind::kRegister) return false;
  const Operand& from = in.operands[1];
  if (from.kind != Operand::Kind::kAddress || from.parts.size() != 1) return false;
  const Operand& base = from.parts[0];
  if (base.kind != Operand::Kind::kVariable || base.reg >= f.params.size()) return false;
  const Type type = ptx::type_of(in.modifiers[1]);
  const uint32_t width = width_of(f.registers[in.operands[0].reg]);
  if (type == Type::kNone || (width != 4 && width != 8) || ptx::bytes_of(type) != width) return false;
  const auto place = static_cast<int64_t>(instance_->variables[base.reg]) + base.offset + from.offset;
  if (place < 0 || place % width != 0 || place + width > info_->param_bytes) return false;
  const auto [slot, fresh] = param_slots_.emplace(std::make_pair(width, static_cast<uint64_t>(place)), 0);
  if (fresh && param_slots_.size() > kNamedParameters) {
    param_slots_.erase(slot);
    return false;
  }
  if (fresh) {
    slot->second = allocate(width);
    code_->param_slots.push_back({slot->second, width, static_cast<uint32_t>(place)});
  }
  *offset = slot->second;
  return true;
}

bool KernelLowering::name_constants(Instance* instance) {
  const ptx::Function& f = *instance->function;
  const std::vector<uint32_t> written = writes(f);
  instance->named.assign(f.body.size(), false);
  for (size_t i = 0; i < f.body.size(); ++i) {
    const ptx::Instruction& in = f.body[i];
    const bool one_result = !in.operands.empty() && in.operands[0].kind == Operand::Kind::kRegister;
    if (one_result && written[in.operands[0].reg] == 1) {
      uint32_t& place = instance->registers[in.operands[0].reg];
      if (is_pointer_conversion(f, in)) {
        place = instance->registers[in.operands[1].reg];  // 0 unless that is a name, too
      } else {
        name_parameter(in, &place);
      }
      instance->named[i] = place != 0;
      if (place != 0) continue;
    }
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
