// Arithmetic that is put together from plainer operations: three-input minima, products of halves added to floats,
// logic with a predicate, packed conversions.

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

// min and max of three.
bool KernelLowering::lower_pick_of_three() {
  const bool ftz = take("ftz"), nan = take("NaN"), relu = take("relu"), magnitude = take("abs");
  const Type type = take_type();
  if (type == Type::kNone || !done()) return unsupported();
  const std::string stem = std::string(in_->opcode) + (nan ? ".nan" : "") + (relu ? ".relu" : "");
  const uint32_t width = width_of(type);
  uint32_t dst = 0, s[3] = {};
  if (!dest(at(0), width, &dst)) return false;
  for (size_t i = 0; i < 3; ++i) {
    if (!source(at(i + 1), type, &s[i])) return false;
    if (!magnitude) continue;
    const uint32_t positive = temporary(width);
    if (!emit_named("abs." + name_of(type), positive, s[i])) return false;
    s[i] = positive;
  }
  const uint32_t first = temporary(width);
  if (ptx::is_float(type)) {
    const uint32_t two[2] = {first, s[2]};
    return emit_float(stem, type, ftz, false, first, s, 2) && emit_float(stem, type, ftz, false, dst, two, 2);
  }
  return emit_named(stem + "." + name_of(type), first, s[0], s[1]) &&
         emit_named(stem + "." + name_of(type), dst, first, s[2]);
}

// add.f32.f16 and its kin: the narrow operands are widened, which is exact.
bool KernelLowering::lower_mixed(const std::string& stem, std::string_view round, bool sat) {
  const Type narrow = take_type();
  const size_t sources = stem == "fma" ? 3 : 2;
  if ((narrow != Type::kF16 && narrow != Type::kBf16) || !done() || count() != sources + 1) return unsupported();
  uint32_t dst = 0, s[3] = {};
  if (!dest(at(0), 4, &dst)) return false;
  for (size_t i = 0; i < sources; ++i) {
    const bool last = i + 1 == sources;
    if (!source(at(i + 1), last ? Type::kF32 : narrow, &s[i])) return false;
    if (last) continue;
    const uint32_t wide = temporary(4);
    if (!emit_named("cvt.f32." + name_of(narrow), wide, s[i])) return false;
    s[i] = wide;
  }
  const std::string rounding = round.empty() || round == "rn" ? "" : "." + std::string(round);
  return emit_float(stem + rounding, Type::kF32, false, sat, dst, s, static_cast<int>(sources));
}

bool KernelLowering::lower_fns() {
  uint32_t dst = 0, s[3] = {};
  if (take_type() != Type::kB32 || !done()) return unsupported();
  if (!dest(at(0), 4, &dst)) return false;
  for (size_t i = 0; i < 3; ++i) {
    if (!source(at(i + 1), Type::kU32, &s[i])) return false;
  }
  return emit_named("fns.b32", dst, s[0], s[1], s[2]);
}

// lop3.b32, and with a predicate that says whether the result is zero.
bool KernelLowering::lower_lop3() {
  const std::string_view combine = take_one_of({"and", "or", "xor"});
  const Type type = take_type();
  if (type != Type::kB32 || !done() || at(4).kind != Operand::Kind::kInteger) return unsupported();
  const bool pair = at(0).kind == Operand::Kind::kPair;
  if (pair == combine.empty()) return unsupported();
  uint32_t dst = 0, p = 0, a = 0, b = 0, c = 0, q = 0;
  if (!dest(pair ? at(0).parts[0] : at(0), 4, &dst) || !source(at(1), type, &a) || !source(at(2), type, &b) ||
      !source(at(3), type, &c)) {
    return false;
  }
  if (pair && (!predicate_dest(at(0).parts[1], &p) || !predicate_source(at(5), &q))) return false;
  emit(find("lop3.b32"), dst, a, b, c).imm = static_cast<int64_t>(at(4).bits);
  if (!pair) return true;
  const uint32_t truth = temporary_predicate();
  return emit_named("setp.ne.u32", truth, dst, constant(0, 4), kTruePredicate) &&
         emit_named(std::string(combine) + ".pred", p, truth, q);
}

// cvt.pack: two integers clamped and packed, above them what c holds.
bool KernelLowering::lower_cvt_pack() {
  if (!take("sat") || !take("s32")) return unsupported();
  const std::string_view to = take_one_of({"u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"});
  const bool three = take("b32");
  if (to.empty() || !done() || three == (to == "u16" || to == "s16")) return unsupported();
  uint32_t dst = 0, s[3] = {};
  if (!dest(at(0), 4, &dst)) return false;
  for (size_t i = 0; i < (three ? 3 : 2); ++i) {
    if (!source(at(i + 1), Type::kS32, &s[i])) return false;
  }
  return emit_named("cvt.pack." + std::string(to), dst, s[0], s[1], s[2]);
}

// cvt to a pair of halves; the first source is the upper one.
bool KernelLowering::lower_cvt_packed(Type to, std::string_view round, bool relu, bool satfinite) {
  const bool random = round == "rs";
  uint32_t dst = 0, s[3] = {};
  if (!dest(at(0), 4, &dst)) return false;
  for (size_t i = 0; i < 2; ++i) {
    if (!source(at(i + 1), Type::kF32, &s[i])) return false;
    if (!relu) continue;
    const uint32_t positive = temporary(4);
    if (!emit_named("relu.f32", positive, s[i])) return false;
    s[i] = positive;
  }
  if (random && !source(at(3), Type::kB32, &s[2])) return false;
  const std::string name = name_of(to);
  if (random) {
    if (!emit_named("cvt.rs." + name, dst, s[0], s[1], s[2])) return false;
  } else if (!emit_named("cvt." + std::string(round == "rz" ? "rz." : "") + name + ".f32", dst, s[0], s[1])) {
    return false;
  }
  return !satfinite || emit_named("finite." + name, dst, dst);
}

// mov.v4.u32 {a, b, c, d}, %tid: its components.
bool KernelLowering::lower_mov_special_vector() {
  take("v4");
  static constexpr std::string_view kComponents[] = {".x", ".y", ".z", ".w"};
  if (!take("u32") || !done() || at(0).kind != Operand::Kind::kVector || at(0).parts.size() != 4 ||
      at(1).kind != Operand::Kind::kSpecial) {
    return unsupported();
  }
  for (size_t i = 0; i < 4; ++i) {
    uint32_t dst = 0, from = 0, width = 0;
    const std::string name = std::string(at(1).name) + std::string(kComponents[i]);
    if (!dest(at(0).parts[i], 4, &dst) || !special(name, &from, &width)) return false;
    if (!emit_named("mov.b32", dst, from)) return false;
  }
  return true;
}

}  // namespace softgpu
