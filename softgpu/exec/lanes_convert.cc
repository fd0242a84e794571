#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;

// A value of a narrow type lies in a register of the next size; eight bits take sixteen.
template <class T>
struct HoldsOf {
  using type = T;
};
template <>
struct HoldsOf<u8> {
  using type = u16;
};
template <>
struct HoldsOf<s8> {
  using type = s16;
};
template <class T>
using Holds = typename HoldsOf<T>::type;

template <class D, class S>
LANE_FN D convert(S v) {
  return static_cast<D>(v);
}
// The low bits of a register of type R as a value of type T.
template <class T, class R>
LANE_FN Holds<T> extract(R v) {
  return static_cast<Holds<T>>(static_cast<T>(v));
}

template <class D, class S>
LANE_FN Holds<D> clamp(S v) {
  constexpr bool kFromSigned = S(-1) < S(0);
  constexpr bool kToSigned = D(-1) < D(0);
  constexpr D kLow = kToSigned ? static_cast<D>(D(1) << (sizeof(D) * 8 - 1)) : D(0);
  constexpr D kHigh = static_cast<D>(~kLow);
  if (kFromSigned && v < S(0)) {
    if (!kToSigned) return 0;
    return static_cast<Holds<D>>(static_cast<s64>(v) < static_cast<s64>(kLow) ? kLow : static_cast<D>(v));
  }
  return static_cast<Holds<D>>(static_cast<u64>(v) > static_cast<u64>(kHigh) ? kHigh : static_cast<D>(v));
}

LANE_FN f32 round_rni(f32 v) { return __builtin_rintf(v); }
LANE_FN f32 round_rzi(f32 v) { return __builtin_truncf(v); }
LANE_FN f32 round_rmi(f32 v) { return __builtin_floorf(v); }
LANE_FN f32 round_rpi(f32 v) { return __builtin_ceilf(v); }
LANE_FN f64 round_rni(f64 v) { return __builtin_rint(v); }
LANE_FN f64 round_rzi(f64 v) { return __builtin_trunc(v); }
LANE_FN f64 round_rmi(f64 v) { return __builtin_floor(v); }
LANE_FN f64 round_rpi(f64 v) { return __builtin_ceil(v); }

template <class D, class F>
LANE_FN Holds<D> to_integer(F v) {
  constexpr bool kSigned = D(-1) < D(0);
  constexpr D kLow = kSigned ? static_cast<D>(D(1) << (sizeof(D) * 8 - 1)) : D(0);
  constexpr D kHigh = static_cast<D>(~kLow);
  constexpr bool kNanIsZero = sizeof(F) == 4 && sizeof(D) < 8;
  constexpr D kNan = kNanIsZero ? D(0) : static_cast<D>(u64{1} << (sizeof(D) * 8 - 1));
  constexpr F kLimit = static_cast<F>(kSigned ? 0x1p7 : 0x1p8) * static_cast<F>(sizeof(D) == 1   ? 1
                                                                                : sizeof(D) == 2 ? 0x1p8
                                                                                : sizeof(D) == 4 ? 0x1p24
                                                                                                 : 0x1p56);
  if (v != v) return static_cast<Holds<D>>(kNan);
  if (v >= kLimit) return static_cast<Holds<D>>(kHigh);
  if (kSigned ? v < -kLimit : v < F(0)) return static_cast<Holds<D>>(kLow);
  return static_cast<Holds<D>>(static_cast<D>(v));
}
template <class D, class F>
LANE_FN Holds<D> rni(F v) {
  return to_integer<D, F>(round_rni(v));
}
template <class D, class F>
LANE_FN Holds<D> rzi(F v) {
  return to_integer<D, F>(round_rzi(v));
}
template <class D, class F>
LANE_FN Holds<D> rmi(F v) {
  return to_integer<D, F>(round_rmi(v));
}
template <class D, class F>
LANE_FN Holds<D> rpi(F v) {
  return to_integer<D, F>(round_rpi(v));
}

template <f32 (*F)(f32)>
LANE_FN f32 canonical(f32 v) {
  return canon(F(v));
}
LANE_FN f32 f32_from_f64(f64 v) { return canon(static_cast<f32>(v)); }
LANE_FN f64 f64_from_f32(f32 v) {
  return v != v ? bits_as<f64>(u64{0x7ff8000000000000} | u64(bits_as<u32>(v) & 0x80000000) << 32 |
                               u64(bits_as<u32>(v) & 0x7fffff) << 29)
                : static_cast<f64>(v);
}
LANE_FN f64 sat_f64(f64 v) { return saturate(v); }
LANE_FN f32 f32_from_f16(u16 v) { return canon(from_half(v)); }
LANE_FN f32 f32_from_bf16(u16 v) { return canon(from_bf16(v)); }
LANE_FN u16 f16_from_f32(f32 v) { return to_half(v); }
LANE_FN u16 f16_from_f64(f64 v) { return to_half(v); }
LANE_FN u16 bf16_from_f32(f32 v) { return to_bf16(v); }
LANE_FN u16 bf16_from_f64(f64 v) { return to_bf16(v); }
LANE_FN f32 relu(f32 v) { return v < 0.0f ? 0.0f : v; }
LANE_FN f32 satfinite_half(f32 v) { return v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v; }
// Packed results: the first source is the upper half.
LANE_FN u32 f16x2(f32 a, f32 b) { return u32(to_half(a)) << 16 | to_half(b); }
LANE_FN u32 f16x2_rz(f32 a, f32 b) { return u32(to_half_zero(a)) << 16 | to_half_zero(b); }
LANE_FN u32 f16x2_relu(f32 a, f32 b) { return f16x2(relu(a), relu(b)); }
LANE_FN u32 bf16x2(f32 a, f32 b) { return u32(to_bf16(a)) << 16 | to_bf16(b); }
LANE_FN u32 bf16x2_rz(f32 a, f32 b) { return u32(to_bf16_zero(a)) << 16 | to_bf16_zero(b); }
LANE_FN u32 bf16x2_relu(f32 a, f32 b) { return bf16x2(relu(a), relu(b)); }

#define R(name, ...) \
  { name, Lanes<&__VA_ARGS__>::run }
#define FROM(D, d, S, s) R("cvt." d "." s, convert<D, S>)
#define FROM_INTS(D, d)                                                                           \
  FROM(D, d, u16, "u16"), FROM(D, d, s16, "s16"), FROM(D, d, u32, "u32"), FROM(D, d, s32, "s32"), \
      FROM(D, d, u64, "u64"), FROM(D, d, s64, "s64")
#define EXTRACT(T, t) \
  R("ext." t ".16", extract<T, u16>), R("ext." t ".32", extract<T, u32>), R("ext." t ".64", extract<T, u64>)
#define CLAMP(D, d)                                                                                              \
  R("clamp." d ".u16", clamp<D, u16>), R("clamp." d ".s16", clamp<D, s16>), R("clamp." d ".u32", clamp<D, u32>), \
      R("clamp." d ".s32", clamp<D, s32>), R("clamp." d ".u64", clamp<D, u64>), R("clamp." d ".s64", clamp<D, s64>)
#define ROUND(mode, F, f)                                                               \
  R("cvt." #mode ".u8." f, mode<u8, F>), R("cvt." #mode ".s8." f, mode<s8, F>),         \
      R("cvt." #mode ".u16." f, mode<u16, F>), R("cvt." #mode ".s16." f, mode<s16, F>), \
      R("cvt." #mode ".u32." f, mode<u32, F>), R("cvt." #mode ".s32." f, mode<s32, F>), \
      R("cvt." #mode ".u64." f, mode<u64, F>), R("cvt." #mode ".s64." f, mode<s64, F>)
#define ROUND_SAME(mode)                                                        \
  R("round." #mode ".f32", canonical<&round_##mode>), {                         \
    "round." #mode ".f64", Lanes<static_cast<f64 (*)(f64)>(&round_##mode)>::run \
  }

constexpr HandlerRow kRows[] = {
    FROM_INTS(u16, "16"),
    FROM_INTS(u32, "32"),
    FROM_INTS(u64, "64"),
    FROM_INTS(f32, "f32"),
    FROM_INTS(f64, "f64"),
    EXTRACT(u8, "u8"),
    EXTRACT(s8, "s8"),
    EXTRACT(u16, "u16"),
    EXTRACT(s16, "s16"),
    EXTRACT(u32, "u32"),
    EXTRACT(s32, "s32"),
    EXTRACT(u64, "u64"),
    EXTRACT(s64, "s64"),
    CLAMP(u8, "u8"),
    CLAMP(s8, "s8"),
    CLAMP(u16, "u16"),
    CLAMP(s16, "s16"),
    CLAMP(u32, "u32"),
    CLAMP(s32, "s32"),
    CLAMP(u64, "u64"),
    CLAMP(s64, "s64"),
    ROUND(rni, f32, "f32"),
    ROUND(rzi, f32, "f32"),
    ROUND(rmi, f32, "f32"),
    ROUND(rpi, f32, "f32"),
    ROUND(rni, f64, "f64"),
    ROUND(rzi, f64, "f64"),
    ROUND(rmi, f64, "f64"),
    ROUND(rpi, f64, "f64"),
    ROUND_SAME(rni),
    ROUND_SAME(rzi),
    ROUND_SAME(rmi),
    ROUND_SAME(rpi),
    R("cvt.f32.f64", f32_from_f64),
    R("cvt.f64.f32", f64_from_f32),
    R("sat.f64", sat_f64),
    R("cvt.f32.f16", f32_from_f16),
    R("cvt.f32.bf16", f32_from_bf16),
    R("cvt.f16.f32", f16_from_f32),
    R("cvt.f16.f64", f16_from_f64),
    R("cvt.bf16.f32", bf16_from_f32),
    R("cvt.bf16.f64", bf16_from_f64),
    R("cvt.rz.f16.f32", to_half_zero),
    R("cvt.rz.bf16.f32", to_bf16_zero),
    R("relu.f32", relu),
    R("satfinite.f16", satfinite_half),
    R("cvt.f16x2.f32", f16x2),
    R("cvt.rz.f16x2.f32", f16x2_rz),
    R("cvt.relu.f16x2.f32", f16x2_relu),
    R("cvt.bf16x2.f32", bf16x2),
    R("cvt.rz.bf16x2.f32", bf16x2_rz),
    R("cvt.relu.bf16x2.f32", bf16x2_relu),
};

}  // namespace

HandlerRows convert_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
