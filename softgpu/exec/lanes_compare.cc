#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;

template <class T>
LANE_FN bool eq(T a, T b) {
  return a == b;
}
template <class T>
LANE_FN bool ne(T a, T b) {
  return a != b;
}
template <class T>
LANE_FN bool lt(T a, T b) {
  return a < b;
}
template <class T>
LANE_FN bool le(T a, T b) {
  return a <= b;
}
template <class T>
LANE_FN bool gt(T a, T b) {
  return a > b;
}
template <class T>
LANE_FN bool ge(T a, T b) {
  return a >= b;
}

// Floats: the plain forms are false with a NaN, the `u` forms true.
template <class T>
LANE_FN bool either_nan(T a, T b) {
  return (a != a) | (b != b);
}
template <class T>
LANE_FN bool f_ne(T a, T b) {
  return (a < b) | (a > b);
}
template <class T>
LANE_FN bool f_equ(T a, T b) {
  return (a == b) | either_nan(a, b);
}
template <class T>
LANE_FN bool f_neu(T a, T b) {
  return !(a == b);
}
template <class T>
LANE_FN bool f_ltu(T a, T b) {
  return !(a >= b);
}
template <class T>
LANE_FN bool f_leu(T a, T b) {
  return !(a > b);
}
template <class T>
LANE_FN bool f_gtu(T a, T b) {
  return !(a <= b);
}
template <class T>
LANE_FN bool f_geu(T a, T b) {
  return !(a < b);
}
template <class T>
LANE_FN bool f_num(T a, T b) {
  return !either_nan(a, b);
}
template <class T>
LANE_FN bool f_nan(T a, T b) {
  return either_nan(a, b);
}

// The stored form and what is compared: half precision as float, and float with subnormals as zero.
struct Plain32 {
  using Stored = float;
  using Value = float;
  LANE_FN float load(float v) { return v; }
};
struct Flush32 {
  using Stored = float;
  using Value = float;
  LANE_FN float load(float v) { return flush(v); }
};
struct Plain64 {
  using Stored = double;
  using Value = double;
  LANE_FN double load(double v) { return v; }
};
struct Half {
  using Stored = u16;
  using Value = float;
  LANE_FN float load(u16 v) { return from_half(v); }
};
struct Brain {
  using Stored = u16;
  using Value = float;
  LANE_FN float load(u16 v) { return from_bf16(v); }
};

template <class K, bool (*F)(typename K::Value, typename K::Value)>
LANE_FN bool through(typename K::Stored a, typename K::Stored b) {
  return F(K::load(a), K::load(b));
}

// Packed halves: the low halves decide dst, the high halves e.
template <class K, bool (*F)(float, float)>
void compare_packed(const MicroOp& op, Warp& w, uint32_t mask) {
  const u32* a = lanes<u32>(w, op.a);
  const u32* b = lanes<u32>(w, op.b);
  u32 low = 0, high = 0;
  for (u32 i = 0; i < 32; ++i) {
    low |= u32(F(K::load(static_cast<u16>(a[i])), K::load(static_cast<u16>(b[i])))) << i;
    high |= u32(F(K::load(static_cast<u16>(a[i] >> 16)), K::load(static_cast<u16>(b[i] >> 16)))) << i;
  }
  const u32 c = predicate(w, op.c);
  const auto combine = [&](u32 bits) {
    switch (static_cast<BoolOp>(op.x)) {
      case BoolOp::kAnd:
        return bits & c;
      case BoolOp::kOr:
        return bits | c;
      case BoolOp::kXor:
        return bits ^ c;
      default:
        return bits;
    }
  };
  set_predicate(w, op.dst, mask, combine(low));
  set_predicate(w, op.e, mask, combine(high));
}

#define INT_ROW(op, F, t, T) \
  { "setp." op "." t, Compare<T, &F<T>>::run }
#define INT_ORDER(op, F)                                                                                          \
  INT_ROW(op, F, "u16", u16), INT_ROW(op, F, "u32", u32), INT_ROW(op, F, "u64", u64), INT_ROW(op, F, "s16", s16), \
      INT_ROW(op, F, "s32", s32), INT_ROW(op, F, "s64", s64)
#define INT_EQUAL(op, F) \
  INT_ROW(op, F, "b16", u16), INT_ROW(op, F, "b32", u32), INT_ROW(op, F, "b64", u64), INT_ORDER(op, F)
#define FLOAT_ROW(op, F, t, K) \
  { "setp." op "." t, Compare<K::Stored, &through<K, &F<K::Value>>>::run }
#define FLOAT(op, F)                                                                                        \
  FLOAT_ROW(op, F, "f32", Plain32), FLOAT_ROW(op, F, "f32.ftz", Flush32), FLOAT_ROW(op, F, "f64", Plain64), \
      FLOAT_ROW(op, F, "f16", Half), FLOAT_ROW(op, F, "bf16", Brain),                                       \
      {"setp." op ".f16x2", compare_packed<Half, &F<float>>}, {                                             \
    "setp." op ".bf16x2", compare_packed<Brain, &F<float>>                                                  \
  }

constexpr HandlerRow kRows[] = {
    INT_EQUAL("eq", eq), INT_EQUAL("ne", ne), INT_ORDER("lt", lt), INT_ORDER("le", le), INT_ORDER("gt", gt),
    INT_ORDER("ge", ge), INT_ORDER("lo", lt), INT_ORDER("ls", le), INT_ORDER("hi", gt), INT_ORDER("hs", ge),
    FLOAT("eq", eq),     FLOAT("ne", f_ne),   FLOAT("lt", lt),     FLOAT("le", le),     FLOAT("gt", gt),
    FLOAT("ge", ge),     FLOAT("equ", f_equ), FLOAT("neu", f_neu), FLOAT("ltu", f_ltu), FLOAT("leu", f_leu),
    FLOAT("gtu", f_gtu), FLOAT("geu", f_geu), FLOAT("num", f_num), FLOAT("nan", f_nan),
};

}  // namespace

HandlerRows compare_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
