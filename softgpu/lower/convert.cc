// cvt, cvta and isspacep.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

namespace {

// The integer type's name in handlers: u8 .. s64; .b types are unsigned.
std::string integer_name(Type type) {
  return (ptx::is_signed(type) ? "s" : "u") + std::to_string(8 * ptx::bytes_of(type));
}

// The integer type as it lies in a register: eight bits take sixteen.
std::string held_name(Type type) {
  return (ptx::is_signed(type) ? "s" : "u") + std::to_string(8 * std::max<uint32_t>(ptx::bytes_of(type), 2));
}

std::string float_name(Type type) {
  return type == Type::kF16 ? "f16" : type == Type::kBf16 ? "bf16" : type == Type::kF32 ? "f32" : "f64";
}

}  // namespace

bool KernelLowering::lower_cvt() {
  if (is_narrow_cvt()) return lower_cvt_narrow();
  if (take("pack")) return lower_cvt_pack();
  const std::string_view round = take_one_of({"rni", "rzi", "rmi", "rpi", "rn", "rna", "rz", "rm", "rp", "rs"});
  const bool ftz = take("ftz");
  const bool satfinite = take("satfinite");
  const bool sat = take("sat"), relu = take("relu");
  const Type to = take_type(), from = take_type();
  if (to == Type::kNone || from == Type::kNone || !done()) return unsupported();
  if (to == Type::kF16x2 || to == Type::kBf16x2) {
    if (from != Type::kF32) return unsupported();
    return lower_cvt_packed(to, round, relu, satfinite);
  }
  uint32_t a = 0;
  uint32_t from_width = width_of(from), to_width = width_of(to);
  if (at(1).kind == Operand::Kind::kRegister) from_width = register_width(at(1));
  if (at(0).kind == Operand::Kind::kRegister) to_width = register_width(at(0));
  if (from_width < width_of(from) || to_width < width_of(to)) return fail("operand too small");
  uint32_t dst = 0;
  if (!source(at(1), from, from_width, &a) || !dest(at(0), to_width, &dst)) return false;
  if (!ptx::is_float(from) && (from_width != width_of(from) || ptx::bytes_of(from) == 1)) {
    const uint32_t narrow = temporary(width_of(from));
    if (!emit_named("ext." + integer_name(from) + "." + std::to_string(8 * from_width), narrow, a)) return false;
    a = narrow;
  }
  const bool widen = to_width != width_of(to);
  const uint32_t direct = widen ? temporary(width_of(to)) : dst;
  if (relu) {
    const uint32_t positive = temporary(4);
    if (from != Type::kF32 || !emit_named("relu.f32", positive, a)) return unsupported();
    a = positive;
  }
  if (satfinite) {
    const uint32_t finite = temporary(4);
    if ((to != Type::kF16 && to != Type::kBf16) || !emit_named("satfinite." + name_of(to), finite, a)) {
      return unsupported();
    }
    a = finite;
  }
  if (!convert_value(to, from, round, ftz, sat, a, direct)) return false;
  if (!widen) return true;
  if (ptx::is_float(to)) return unsupported();
  return emit_named("cvt." + std::to_string(8 * to_width) + "." + held_name(to), dst, direct);
}

bool KernelLowering::convert_value(Type to, Type from, std::string_view round, bool ftz, bool sat, uint32_t a,
                                   uint32_t dst) {
  const bool to_float = ptx::is_float(to), from_float = ptx::is_float(from);
  if (!to_float && !from_float) return convert_integers(to, from, sat, a, dst);
  if (to_float && from_float) return convert_floats(to, from, round, ftz, sat, a, dst);
  const bool half = (to_float ? to : from) == Type::kF16 || (to_float ? to : from) == Type::kBf16;
  if (to_float) {
    const bool nearest = round.empty() || round == "rn";
    if (half) {  // through double, which holds every value that does not overflow
      const uint32_t wide = temporary(8);
      const std::string odd = width_of(from) == 8 ? "odd." : "";
      if (!emit_named("cvt." + odd + "f64." + held_name(from), wide, a)) return false;
      return convert_floats(to, Type::kF64, round, false, sat, wide, dst);
    }
    const std::string mode = nearest ? "" : std::string(round) + ".";
    if (!emit_named("cvt." + mode + float_name(to) + "." + held_name(from), dst, a)) return false;
    return !sat || emit_named("sat." + float_name(to), dst, dst);
  }
  // Float to integer always clamps.
  const std::string mode = round.empty() ? "rzi" : std::string(round).substr(0, 2) + "i";
  if (half) {
    const uint32_t wide = temporary(4);
    if (!emit_named("cvt.f32." + float_name(from), wide, a)) return false;
    a = wide;
    from = Type::kF32;
  } else if (ftz && from == Type::kF32) {
    const uint32_t flushed = temporary(4);
    if (!emit_named("ftz.f32", flushed, a)) return false;
    a = flushed;
  }
  return emit_named("cvt." + mode + "." + integer_name(to) + "." + float_name(from), dst, a);
}

bool KernelLowering::convert_integers(Type to, Type from, bool sat, uint32_t a, uint32_t dst) {
  if (sat) return emit_named("clamp." + integer_name(to) + "." + held_name(from), dst, a);
  if (!emit_named("cvt." + std::to_string(8 * width_of(to)) + "." + held_name(from), dst, a)) return false;
  return ptx::bytes_of(to) != 1 || emit_named("ext." + integer_name(to) + ".16", dst, dst);
}

bool KernelLowering::convert_floats(Type to, Type from, std::string_view round, bool ftz, bool sat, uint32_t a,
                                    uint32_t dst) {
  const bool flush_in = ftz && from == Type::kF32;
  if (flush_in) {
    const uint32_t flushed = temporary(4);
    if (!emit_named("ftz.f32", flushed, a)) return false;
    a = flushed;
  }
  const bool whole = round.size() == 3 && round != "rna";
  const bool directed = round == "rm" || round == "rp" || round == "rz";
  const bool exact = width_of(to) > width_of(from) || to == from;
  if (width_of(to) == 2 && !whole && !exact &&
      ((directed && (round != "rz" || from != Type::kF32)) || (sat && from == Type::kF64))) {
    return narrow_value(to, from, round, sat, a, dst);
  }
  if (to == from && (to == Type::kF32 || to == Type::kF64)) {
    const std::string name =
        whole ? "round." + std::string(round) + "." + float_name(to) : "mov.b" + std::to_string(8 * width_of(to));
    if (!emit_named(name, dst, a)) return false;
    return !sat || emit_named("sat." + float_name(to), dst, dst);
  }
  if (to == from || whole || (sat && width_of(to) == 2)) {  // halves: round or clamp as float, which is exact
    uint32_t wide = a;
    if (width_of(from) == 2) {
      wide = temporary(4);
      if (!emit_named("cvt.f32." + float_name(from), wide, a)) return false;
    } else if (from == Type::kF64) {
      return unsupported();
    }
    const uint32_t rounded = temporary(4);
    if (!emit_named(whole ? "round." + std::string(round) + ".f32" : "mov.b32", rounded, wide)) return false;
    if (sat && !emit_named("sat.f32", rounded, rounded)) return false;
    return to == Type::kF32 ? emit_named("mov.b32", dst, rounded)
                            : emit_named("cvt." + float_name(to) + ".f32", dst, rounded);
  }
  if (width_of(from) == 2 && to != Type::kF32) {
    const uint32_t wide = temporary(4);
    if (!emit_named("cvt.f32." + float_name(from), wide, a)) return false;
    a = wide;
    from = Type::kF32;
  }
  const bool widening = width_of(to) > width_of(from);
  const std::string mode = round.empty() || round == "rn" || round == "rna" || widening ? "" : std::string(round) + ".";
  if (!emit_named("cvt." + mode + float_name(to) + "." + float_name(from), dst, a)) return false;
  if (ftz && to == Type::kF32 && !emit_named("ftz.f32", dst, dst)) return false;
  return !sat || emit_named("sat." + float_name(to), dst, dst);
}

// To a half, through double: rounded once, in any direction.
bool KernelLowering::narrow_value(Type to, Type from, std::string_view round, bool sat, uint32_t a, uint32_t dst) {
  if (width_of(from) == 2) {
    const uint32_t wide = temporary(4);
    if (!emit_named("cvt.f32." + float_name(from), wide, a)) return false;
    a = wide;
    from = Type::kF32;
  }
  if (from == Type::kF32) {
    const uint32_t wide = temporary(8);
    if (!emit_named("cvt.f64.f32", wide, a)) return false;
    a = wide;
  }
  if (sat) {
    const uint32_t between = temporary(8);
    if (!emit_named("sat.f64", between, a)) return false;
    a = between;
  }
  const std::string mode = round.empty() || round == "rn" ? "" : std::string(round) + ".";
  return emit_named("cvt." + mode + float_name(to) + ".f64", dst, a);
}

namespace {

uint64_t window_of(std::string_view space) {
  if (space.starts_with("shared")) return kSharedWindow;
  if (space == "local") return kLocalWindow;
  if (space.starts_with("param")) return kParamWindow;
  return 0;
}

}  // namespace

bool KernelLowering::lower_cvta() {
  const bool to = take("to");
  const std::string_view space =
      take_one_of({"global", "const", "shared", "shared::cta", "shared::cluster", "local", "param", "param::entry"});
  const Type type = take_type();
  if (space.empty() || type == Type::kNone || !done()) return unsupported();
  if (type != Type::kU64) return fail("only 64-bit addresses are supported");
  uint32_t dst = 0, a = 0;
  if (!dest(at(0), 8, &dst) || !source(at(1), Type::kU64, &a)) return false;
  const uint64_t window = window_of(space);
  if (window == 0) return emit_named("mov.b64", dst, a);
  if (!emit_named(to ? "sub.u64" : "add.u64", dst, a, constant(window, 8))) return false;
  return true;
}

bool KernelLowering::lower_isspacep() {
  const std::string_view space =
      take_one_of({"global", "const", "shared", "shared::cta", "shared::cluster", "local", "param", "param::entry"});
  if (space.empty() || !done()) return unsupported();
  uint32_t p = 0, a = 0;
  if (!predicate_dest(at(0), &p) || !source(at(1), Type::kU64, &a)) return false;
  const Handler fn = find("isspacep");
  MicroOp& op = emit(fn, p, a);
  // 0: anything but the private windows.
  op.imm = static_cast<int64_t>(window_of(space));
  return true;
}

}  // namespace softgpu
