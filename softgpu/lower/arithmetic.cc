#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

std::string KernelLowering::name_of(Type type) {
  static constexpr const char* kNames[] = {"",      "pred", "b8",    "b16",   "b32",    "b64", "b128",  "u8",
                                           "u16",   "u32",  "u64",   "u16x2", "s8",     "s16", "s32",   "s64",
                                           "s16x2", "f16",  "f16x2", "bf16",  "bf16x2", "f32", "f32x2", "f64"};
  return kNames[static_cast<size_t>(type)];
}

namespace {

// Widths of the operands, destination first: T of the type, W twice that, I 32 bits.
struct Shape {
  std::string_view opcode;
  std::string_view widths;
};

constexpr Shape kShapes[] = {
    {"add", "TTT"},    {"sub", "TTT"},   {"mul", "TTT"},  {"mad", "TTTT"}, {"fma", "TTTT"},     {"mul24", "TTT"},
    {"mad24", "TTTT"}, {"div", "TTT"},   {"rem", "TTT"},  {"neg", "TT"},   {"abs", "TT"},       {"min", "TTT"},
    {"max", "TTT"},    {"sad", "TTTT"},  {"rcp", "TT"},   {"sqrt", "TT"},  {"rsqrt", "TT"},     {"ex2", "TT"},
    {"lg2", "TT"},     {"sin", "TT"},    {"cos", "TT"},   {"tanh", "TT"},  {"copysign", "TTT"}, {"shl", "TTI"},
    {"shr", "TTI"},    {"shf", "TTTI"},  {"popc", "IT"},  {"clz", "IT"},   {"brev", "TT"},      {"bfind", "IT"},
    {"bfe", "TTII"},   {"bfi", "TTTII"}, {"bmsk", "III"}, {"cnot", "TT"},
};

}  // namespace

// The instructions whose handlers are named by their own spelling.
bool KernelLowering::lower_arithmetic() {
  if (take("cc")) return lower_carry();
  std::string_view widths;
  for (const Shape& s : kShapes) {
    if (s.opcode == in_->opcode) widths = s.widths;
  }
  const bool picks = in_->opcode == "min" || in_->opcode == "max";
  if (picks && count() == 4) return lower_pick_of_three();
  const bool wide = take("wide");
  std::string stem(in_->opcode);
  const std::string_view half = wide ? "wide" : take_one_of({"lo", "hi"});
  const std::string_view round = take_one_of({"rn", "rna", "rz", "rm", "rp"});
  const bool approximate = take("approx") || take("full");
  const bool ftz = take("ftz"), sat = take("sat"), nan = take("NaN"), relu = take("relu");
  const bool xorsign = picks && take("xorsign") && take("abs");
  const std::string_view shape = take_one_of({"wrap", "clamp", "shiftamt"});
  const std::string_view side = take_one_of({"l", "r"});
  const Type type = take_type();
  if (type == Type::kF32 && !modifiers_.empty()) return lower_mixed(stem, round, sat);
  if (type == Type::kNone || type == Type::kPred || !done()) return unsupported();
  const bool floating = ptx::is_float(type);
  if (stem == "mad" && floating) stem = "fma";
  if (!side.empty()) stem.append(".").append(side);
  if (!half.empty()) stem.append(".").append(half);
  if (!shape.empty()) stem.append(".").append(shape);
  if (nan) stem += ".nan";
  if (xorsign) stem += ".xorsign";
  if (approximate && ftz && type == Type::kF64) stem += ".approx";  // without .ftz it is as exact as any
  if (!round.empty() && round != "rn") stem.append(".").append(round);

  const uint32_t width = width_of(type);
  if (count() != widths.size()) return fail("wrong number of operands");
  uint32_t dst = 0, s[4] = {};
  for (size_t i = 0; i < widths.size(); ++i) {
    const bool doubled = wide && (i == 0 || i == 3);
    const uint32_t w = widths[i] == 'I' ? 4 : doubled ? 2 * width : width;
    if (i == 0 ? !dest(at(i), w, &dst) : !source(at(i), widths[i] == 'I' ? Type::kU32 : type, w, &s[i - 1]))
      return false;
  }
  if (floating)
    return emit_float(stem + (relu ? ".relu" : ""), type, ftz, sat, dst, s, static_cast<int>(widths.size()) - 1);
  const std::string name = stem + (relu ? ".relu" : "") + (sat ? ".sat." : ".") + name_of(type);
  const Handler fn = find(name);
  if (fn == nullptr) return unsupported();
  emit(fn, dst, s[0], s[1], s[2]).d = s[3];
  return true;
}

// Tries the exact form, then builds it from plainer ones: flushing and saturation as steps of their own.
bool KernelLowering::emit_float(const std::string& stem, Type type, bool ftz, bool sat, uint32_t dst, const uint32_t* s,
                                int n) {
  std::string base = stem;
  std::string tail;
  if (base.ends_with(".relu")) {
    base.resize(base.size() - 5);
    tail = ".relu";
  }
  // Double precision never flushes; `.ftz` is part of the name of its approximations.
  const bool flushes = ftz && type != Type::kF64;
  const std::string name = base + "." + name_of(type);
  if (const Handler fn = find(name + (flushes ? ".ftz" : "") + (sat ? ".sat" : "") + tail)) {
    emit(fn, dst, s[0], n > 1 ? s[1] : 0, n > 2 ? s[2] : 0);
    return true;
  }
  const Handler fn = find(name + tail);
  if (fn == nullptr || (type != Type::kF32 && (flushes || (sat && type != Type::kF64)))) return unsupported();
  uint32_t in[3] = {s[0], n > 1 ? s[1] : 0, n > 2 ? s[2] : 0};
  for (int i = 0; flushes && i < n; ++i) {
    const uint32_t flushed = temporary(4);
    if (!emit_named("ftz.f32", flushed, in[i])) return false;
    in[i] = flushed;
  }
  emit(fn, dst, in[0], in[1], in[2]);
  if (flushes && !emit_named("ftz.f32", dst, dst)) return false;
  return !sat || emit_named("sat." + name_of(type), dst, dst);
}

// addc, subc, madc, and the .cc forms of add, sub and mad.
bool KernelLowering::lower_carry() {
  const bool out = take("cc") || in_->modifiers.end() != std::find(in_->modifiers.begin(), in_->modifiers.end(), "cc");
  const std::string_view half = take_one_of({"lo", "hi"});
  const Type type = take_type();
  if (type == Type::kNone || !done()) return unsupported();
  const uint32_t width = width_of(type);
  const bool in = in_->opcode.ends_with("c");
  const bool multiply = in_->opcode.starts_with("mad");
  uint32_t dst = 0, a = 0, b = 0;
  if (!dest(at(0), width, &dst) || !source(at(1), type, &a) || !source(at(2), type, &b)) return false;
  if (multiply) {
    const uint32_t product = temporary(width);
    if (!emit_named("mul." + std::string(half) + "." + name_of(type), product, a, b)) return false;
    a = product;
    if (!source(at(3), type, &b)) return false;
  }
  const Handler fn = find(width == 8 ? "carry.64" : "carry.32");
  MicroOp& op = emit(fn, dst, a, b);
  op.e = carry_;
  op.y = static_cast<uint8_t>((in ? 1 : 0) | (out ? 2 : 0) | (in_->opcode.starts_with("sub") ? 4 : 0));
  return true;
}

bool KernelLowering::lower_logic() {
  const Type type = take_type();
  if (!done()) return false;
  const size_t sources = in_->opcode == "not" ? 1 : 2;
  uint32_t dst = 0, s[2] = {};
  if (type == Type::kPred) {
    if (!predicate_dest(at(0), &dst)) return false;
    for (size_t i = 0; i < sources; ++i) {
      if (!predicate_source(at(i + 1), &s[i])) return false;
    }
  } else {
    if (!dest(at(0), width_of(type), &dst)) return false;
    for (size_t i = 0; i < sources; ++i) {
      if (!source(at(i + 1), type, &s[i])) return false;
    }
  }
  return emit_named(std::string(in_->opcode) + "." + name_of(type), dst, s[0], s[1]);
}

bool KernelLowering::lower_mov() {
  if (std::find(modifiers_.begin(), modifiers_.end(), "v4") != modifiers_.end()) return lower_mov_special_vector();
  const Type type = take_type();
  if (type == Type::kNone || !done()) return unsupported();
  if (at(0).kind == Operand::Kind::kVector || at(1).kind == Operand::Kind::kVector) return lower_mov_vector(type);
  uint32_t dst = 0, a = 0;
  if (type == Type::kPred) {
    return predicate_dest(at(0), &dst) && predicate_source(at(1), &a) && emit_named("mov.pred", dst, a);
  }
  const uint32_t width = width_of(type);
  return dest(at(0), width, &dst) && source(at(1), type, &a) && emit_named("mov.b" + std::to_string(8 * width), dst, a);
}

// mov.b64 {a, b}, d and back: parts of equal size, the first lowest.
bool KernelLowering::lower_mov_vector(Type type) {
  const bool unpack = at(0).kind == Operand::Kind::kVector;
  const Operand& vector = unpack ? at(0) : at(1);
  const size_t n = vector.parts.size();
  const uint32_t width = width_of(type);
  if (n != 2 && n != 4) return unsupported();
  const uint32_t bytes = width / static_cast<uint32_t>(n), part = std::max(bytes, 2u);  // a byte lies in 16 bits
  const Type part_type = part == 2 ? Type::kB16 : part == 4 ? Type::kB32 : Type::kB64;
  uint32_t whole = 0, parts[4] = {};
  if (unpack ? !source(at(1), type, width, &whole) : !dest(at(0), width, &whole)) return false;
  for (size_t i = 0; i < n; ++i) {
    const Operand& o = vector.parts[i];
    if (unpack ? !dest(o, part, &parts[i]) : !source(o, part_type, part, &parts[i])) return false;
  }
  const Handler fn = find((unpack ? "unpack." : "pack.") + std::to_string(8 * width) + "." + std::to_string(8 * bytes));
  if (fn == nullptr) return unsupported();
  if (!unpack) {
    emit(fn, whole, parts[0], parts[1], parts[2]).d = parts[3];
    return true;
  }
  MicroOp& op = emit(fn, parts[0], whole, parts[1], parts[2]);
  op.d = parts[3];
  return true;
}

namespace {

BoolOp bool_op(std::string_view word) {
  return word == "and" ? BoolOp::kAnd : word == "or" ? BoolOp::kOr : word == "xor" ? BoolOp::kXor : BoolOp::kNone;
}

}  // namespace

bool KernelLowering::lower_setp() {
  const std::string_view compare = take_one_of({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ",
                                                "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
  const BoolOp combine = bool_op(take_one_of({"and", "or", "xor"}));
  const bool ftz = take("ftz");
  const Type type = take_type();
  if (type == Type::kNone || compare.empty() || !done()) return unsupported();
  const bool pair = at(0).kind == Operand::Kind::kPair;
  uint32_t p = 0, q = kSinkPredicate, a = 0, b = 0, c = kTruePredicate;
  if (!predicate_dest(pair ? at(0).parts[0] : at(0), &p)) return false;
  if (pair && !predicate_dest(at(0).parts[1], &q)) return false;
  if (!source(at(1), type, &a) || !source(at(2), type, &b)) return false;
  if (combine != BoolOp::kNone && !predicate_source(at(3), &c)) return false;
  const Handler fn =
      find("setp." + std::string(compare) + "." + name_of(type) + (ftz && type == Type::kF32 ? ".ftz" : ""));
  if (fn == nullptr) return unsupported();
  MicroOp& op = emit(fn, p, a, b, c);
  op.e = q;
  op.x = static_cast<uint8_t>(combine);
  return true;
}

// set: a comparison whose result is all ones, or one, in a register.
bool KernelLowering::lower_set() {
  const std::string_view compare = take_one_of({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ",
                                                "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
  const BoolOp combine = bool_op(take_one_of({"and", "or", "xor"}));
  const bool ftz = take("ftz");
  const Type to = take_type(), from = take_type();
  if (to == Type::kNone || from == Type::kNone || compare.empty() || !done()) return unsupported();
  uint32_t dst = 0, a = 0, b = 0, c = kTruePredicate;
  if (!dest(at(0), width_of(to), &dst) || !source(at(1), from, &a) || !source(at(2), from, &b)) return false;
  if (combine != BoolOp::kNone && !predicate_source(at(3), &c)) return false;
  const Handler fn =
      find("setp." + std::string(compare) + "." + name_of(from) + (ftz && from == Type::kF32 ? ".ftz" : ""));
  const bool packed = from == Type::kF16x2 || from == Type::kBf16x2;
  if (fn == nullptr) return unsupported();
  const uint32_t p = temporary_predicate(), q = packed ? temporary_predicate() : kSinkPredicate;
  MicroOp& op = emit(fn, p, a, b, c);
  op.e = q;
  op.x = static_cast<uint8_t>(combine);
  const uint32_t width = width_of(to);
  uint64_t one = ~uint64_t{0};
  if (to == Type::kF32) one = 0x3f800000;
  if (to == Type::kF16) one = 0x3c00;
  if (to == Type::kBf16) one = 0x3f80;
  if (packed) {
    const uint64_t half = to == Type::kF16x2 ? 0x3c00 : to == Type::kBf16x2 ? 0x3f80 : 0xffff;
    const uint32_t low = temporary(4), high = temporary(4);
    return emit_named("selp.32", low, constant(half, 4), constant(0, 4), p) &&
           emit_named("selp.32", high, constant(half << 16, 4), constant(0, 4), q) &&
           emit_named("or.b32", dst, low, high);
  }
  return emit_named("selp." + std::to_string(8 * width), dst, constant(one, width), constant(0, width), p);
}

bool KernelLowering::lower_selp() {
  const Type type = take_type();
  if (type == Type::kNone || !done()) return unsupported();
  const uint32_t width = width_of(type);
  uint32_t dst = 0, a = 0, b = 0, p = 0;
  if (!dest(at(0), width, &dst) || !source(at(1), type, &a) || !source(at(2), type, &b)) return false;
  return predicate_source(at(3), &p) && emit_named("selp." + std::to_string(8 * width), dst, a, b, p);
}

bool KernelLowering::lower_slct() {
  const bool ftz = take("ftz");
  const Type type = take_type(), by = take_type();
  if (type == Type::kNone || (by != Type::kS32 && by != Type::kF32) || !done()) return unsupported();
  const uint32_t width = width_of(type);
  uint32_t dst = 0, a = 0, b = 0, c = 0;
  if (!dest(at(0), width, &dst) || !source(at(1), type, &a) || !source(at(2), type, &b) || !source(at(3), by, &c))
    return false;
  const uint32_t p = temporary_predicate();
  return emit_named(std::string(by == Type::kS32 ? "setp.ge.s32" : "setp.ge.f32") + (ftz ? ".ftz" : ""), p, c,
                    constant(0, 4)) &&
         emit_named("selp." + std::to_string(8 * width), dst, a, b, p);
}

bool KernelLowering::lower_testp() {
  const std::string_view what = take_one_of({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  const Type type = take_type();
  uint32_t p = 0, a = 0;
  if (what.empty() || !done() || !predicate_dest(at(0), &p) || !source(at(1), type, &a)) return unsupported();
  return emit_named("testp." + std::string(what) + "." + name_of(type), p, a);
}

bool KernelLowering::lower_prmt() {
  const std::string_view mode = take_one_of({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
  const Type type = take_type();
  if (type != Type::kB32 || !done()) return unsupported();
  uint32_t dst = 0, a = 0, b = 0, c = 0;
  if (!dest(at(0), 4, &dst) || !source(at(1), type, &a) || !source(at(2), type, &b) || !source(at(3), type, &c))
    return false;
  return emit_named("prmt.b32" + (mode.empty() ? "" : "." + std::string(mode)), dst, a, b, c);
}

// dp4a and dp2a.
bool KernelLowering::lower_simple() {
  const std::string_view half = take_one_of({"lo", "hi"});
  const Type a_type = take_type(), b_type = take_type();
  if (!done()) return false;
  uint32_t dst = 0, a = 0, b = 0, c = 0;
  if (!dest(at(0), 4, &dst) || !source(at(1), a_type, 4, &a) || !source(at(2), b_type, 4, &b) ||
      !source(at(3), a_type, 4, &c))
    return false;
  return emit_named(std::string(in_->opcode) + (half.empty() ? "" : "." + std::string(half)) + "." + name_of(a_type) +
                        "." + name_of(b_type),
                    dst, a, b, c);
}

// szext: sign or zero extension from a bit position.
bool KernelLowering::lower_szext() {
  const std::string_view mode = take_one_of({"wrap", "clamp"});
  const Type type = take_type();
  if (mode.empty() || (type != Type::kU32 && type != Type::kS32) || !done()) return unsupported();
  uint32_t dst = 0, a = 0, n = 0;
  if (!dest(at(0), 4, &dst) || !source(at(1), type, &a) || !source(at(2), Type::kU32, &n)) return false;
  const uint32_t width = temporary(4);  // bfe looks at eight bits of it
  const bool wraps = mode == "wrap";
  if (!emit_named(wraps ? "and.b32" : "min.u32", width, n, constant(wraps ? 31 : 32, 4))) return false;
  return emit_named("bfe." + name_of(type), dst, a, constant(0, 4), width);
}

}  // namespace softgpu
