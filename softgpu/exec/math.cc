// Functions that the host's mathematics library computes, and the directed rounding modes. One build serves every
// instruction-set level.

#include <cfenv>
#include <cmath>

#define SOFTGPU_ISA isa_base
#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu {
namespace {

using namespace isa_base;

float f_ex2(float v) { return canon(std::exp2(v)); }
float f_sin(float v) { return canon(std::sin(v)); }
float f_cos(float v) { return canon(std::cos(v)); }
float f_tanh(float v) { return canon(std::tanh(v)); }
double d_rsqrt(double v) { return 1.0 / std::sqrt(v); }

template <float (*F)(float)>
uint16_t through_half(uint16_t v) {
  return to_half(F(from_half(v)));
}
template <float (*F)(float)>
uint16_t through_bf16(uint16_t v) {
  return to_bf16(F(from_bf16(v)));
}
template <uint16_t (*F)(uint16_t)>
uint32_t both(uint32_t v) {
  return F(static_cast<uint16_t>(v)) | static_cast<uint32_t>(F(static_cast<uint16_t>(v >> 16))) << 16;
}

// Runs F with the host rounding as asked; the barriers keep the compiler from moving the arithmetic out.
template <int Mode, auto F>
struct Rounded;

template <int Mode, class D, class... S, D (*F)(S...)>
struct Rounded<Mode, F> {
  static D call(S... s) {
    const int before = std::fegetround();
    std::fesetround(Mode);
    const D r = F(s...);
    std::fesetround(before);
    if constexpr (sizeof(D) == 4) return canon(r);
    return r;
  }
};

template <class T>
[[gnu::noinline]] T r_add(T a, T b) {
  volatile T x = a;
  return x + b;
}
template <class T>
[[gnu::noinline]] T r_sub(T a, T b) {
  volatile T x = a;
  return x - b;
}
template <class T>
[[gnu::noinline]] T r_mul(T a, T b) {
  volatile T x = a;
  return x * b;
}
template <class T>
[[gnu::noinline]] T r_div(T a, T b) {
  volatile T x = a;
  return x / b;
}
template <class T>
[[gnu::noinline]] T r_fma(T a, T b, T c) {
  volatile T x = a;
  return std::fma(x, b, c);
}
template <class T>
[[gnu::noinline]] T r_rcp(T a) {
  volatile T x = a;
  return T(1) / x;
}
template <class T>
[[gnu::noinline]] T r_sqrt(T a) {
  volatile T x = a;
  return std::sqrt(x);
}
template <class D, class S>
[[gnu::noinline]] D r_cvt(S a) {
  volatile S x = a;
  return static_cast<D>(x);
}

// Two floats of one register.
float low_of(uint64_t v) { return bits_as<float>(static_cast<uint32_t>(v)); }
float high_of(uint64_t v) { return bits_as<float>(static_cast<uint32_t>(v >> 32)); }
uint64_t pair_of(float low, float high) {
  return bits_as<uint32_t>(low) | static_cast<uint64_t>(bits_as<uint32_t>(high)) << 32;
}
template <auto F, bool Flush>
float with_flush(float a, float b) {
  return Flush ? flush(F(flush(a), flush(b))) : F(a, b);
}
template <auto F, bool Flush>
float with_flush(float a, float b, float c) {
  return Flush ? flush(F(flush(a), flush(b), flush(c))) : F(a, b, c);
}
template <auto F, bool Flush>
uint64_t two(uint64_t a, uint64_t b) {
  return pair_of(with_flush<F, Flush>(low_of(a), low_of(b)), with_flush<F, Flush>(high_of(a), high_of(b)));
}
template <auto F, bool Flush>
uint64_t two(uint64_t a, uint64_t b, uint64_t c) {
  return pair_of(with_flush<F, Flush>(low_of(a), low_of(b), low_of(c)),
                 with_flush<F, Flush>(high_of(a), high_of(b), high_of(c)));
}
using Two2 = uint64_t (*)(uint64_t, uint64_t);
using Two3 = uint64_t (*)(uint64_t, uint64_t, uint64_t);

// An integer of 64 bits as a double that is odd where it is inexact, so that a second rounding is right.
template <class T>
double odd_from(T v) {
  const auto d = static_cast<double>(v);
  const auto back = static_cast<__int128>(d);
  const auto bits = bits_as<uint64_t>(d);
  if (back == v || (bits & 1) != 0) return d;
  const bool away = (back < 0 ? -back : back) > (v < 0 ? -static_cast<__int128>(v) : static_cast<__int128>(v));
  return bits_as<double>(away ? bits - 1 : bits + 1);
}

// To a half or a bfloat16 towards zero, down or up. Truncating twice truncates once; then the magnitude grows by one
// place where the rounding goes away from zero.
template <bool Half, int Mode>
uint16_t narrow(double v) {
  float f = static_cast<float>(v);
  if (v == v && std::fabs(static_cast<double>(f)) > std::fabs(v)) f = bits_as<float>(bits_as<uint32_t>(f) - 1);
  uint16_t r = Half ? to_half_zero(f) : to_bf16_zero(f);
  const double back = Half ? static_cast<double>(from_half(r)) : static_cast<double>(from_bf16(r));
  if ((Mode == FE_UPWARD && back < v) || (Mode == FE_DOWNWARD && back > v)) ++r;
  return r;
}

// Stochastic rounding of the magnitude: random bits are added below the last place that stays.
template <bool Half>
uint16_t stochastic(float v, uint32_t random) {
  if (v != v) return 0x7fff;
  const auto magnitude = static_cast<double>(std::fabs(v));
  const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  if (std::isinf(v)) return sign | (Half ? 0x7c00 : 0x7f80);
  const uint16_t below = narrow<Half, FE_TOWARDZERO>(magnitude);
  const uint16_t above = static_cast<uint16_t>(below + 1);
  const auto value = [](uint16_t h) {
    return Half ? static_cast<double>(from_half(h)) : static_cast<double>(from_bf16(h));
  };
  const double floor = value(below),
               top = below == (Half ? 0x7bff : 0x7f7f) ? floor + (floor - value(below - 1)) : value(above);
  const uint32_t bits = Half ? 13 : 16;
  const auto part = static_cast<uint32_t>((magnitude - floor) / (top - floor) * (1u << bits));
  return sign | (part + (random & ((1u << bits) - 1)) >= (1u << bits) ? above : below);
}
template <bool Half>
uint32_t stochastic_pair(float a, float b, uint32_t random) {
  return static_cast<uint32_t>(stochastic<Half>(a, random >> 16)) << 16 | stochastic<Half>(b, random);
}

// The largest finite number instead of anything beyond it.
template <bool Half>
uint32_t finite_pair(uint32_t v) {
  constexpr uint32_t kInfinity = Half ? 0x7c00 : 0x7f80;
  uint32_t out = 0;
  for (const uint32_t shift : {0u, 16u}) {
    const uint32_t h = v >> shift & 0xffff;
    out |= ((h & 0x7fff) == kInfinity ? h - 1 : h) << shift;
  }
  return out;
}
float finite_bf16(float v) {
  const float most = bits_as<float>(0x7f7f0000u);
  return v > most ? most : v < -most ? -most : v;
}

template <class T>
uint32_t pack_two(int32_t a, int32_t b) {
  const auto clamp = [](int32_t v) {
    const int64_t low = T(-1) < T(0) ? -(int64_t{1} << (8 * sizeof(T) - 1)) : 0;
    const int64_t high = low + (int64_t{1} << (8 * sizeof(T))) - 1;
    return static_cast<uint32_t>(v < low ? low : v > high ? high : v) & 0xffff;
  };
  return clamp(a) << 16 | clamp(b);
}
template <int Bits, bool Signed>
uint32_t pack_more(int32_t a, int32_t b, uint32_t c) {
  const auto clamp = [](int32_t v) {
    const int32_t low = Signed ? -(1 << (Bits - 1)) : 0, high = low + (1 << Bits) - 1;
    return static_cast<uint32_t>(v < low ? low : v > high ? high : v) & ((1u << Bits) - 1);
  };
  return c << (2 * Bits) | clamp(a) << Bits | clamp(b);
}

// The position of a set bit: the offset-th from base on, down where offset is negative, base itself where it is 0.
uint32_t find_nth(uint32_t mask, uint32_t base, int32_t offset) {
  const int step = offset < 0 ? -1 : 1;
  int64_t left = offset == 0 ? 1 : std::abs(static_cast<int64_t>(offset));
  if (offset == 0) return base < 32 && (mask >> base & 1) != 0 ? base : ~0u;
  for (int64_t at = base; at >= 0 && at < 32; at += step) {
    if ((mask >> at & 1) != 0 && --left == 0) return static_cast<uint32_t>(at);
  }
  return ~0u;
}

template <auto F, int Mode>
constexpr Handler rounded() {
  return Each<&Rounded<Mode, F>::call>::run;
}

// Directed results keep the canonical NaN too.
#define MODES(name, tail, F)                                                                        \
  {name ".rz" tail, rounded<&F, FE_TOWARDZERO>()}, {name ".rm" tail, rounded<&F, FE_DOWNWARD>()}, { \
    name ".rp" tail, rounded<&F, FE_UPWARD>()                                                       \
  }
#define OPERATION(name, F) MODES(name, ".f32", F<float>), MODES(name, ".f64", F<double>)
#define TWO(name, F, T)                                                                                    \
  {name ".f32x2", Each<static_cast<T>(&two<&Rounded<FE_TONEAREST, &F<float>>::call, false>)>::run},        \
      {name ".f32x2.ftz", Each<static_cast<T>(&two<&Rounded<FE_TONEAREST, &F<float>>::call, true>)>::run}, \
      TWO_MODE(name ".rz", F, T, FE_TOWARDZERO), TWO_MODE(name ".rm", F, T, FE_DOWNWARD),                  \
      TWO_MODE(name ".rp", F, T, FE_UPWARD)
#define TWO_MODE(name, F, T, mode)                                                            \
  {name ".f32x2", Each<static_cast<T>(&two<&Rounded<mode, &F<float>>::call, false>)>::run}, { \
    name ".f32x2.ftz", Each<static_cast<T>(&two<&Rounded<mode, &F<float>>::call, true>)>::run \
  }
#define NARROW(name, Half)                                              \
  {"cvt.rz." name ".f64", Each<&narrow<Half, FE_TOWARDZERO>>::run},     \
      {"cvt.rm." name ".f64", Each<&narrow<Half, FE_DOWNWARD>>::run}, { \
    "cvt.rp." name ".f64", Each<&narrow<Half, FE_UPWARD>>::run          \
  }
#define PACK(bits, n) \
  {"cvt.pack.u" n, Each<&pack_more<bits, false>>::run}, { "cvt.pack.s" n, Each<&pack_more<bits, true>>::run }
#define FROM(s, S) MODES("cvt", ".f32." s, (r_cvt<float, S>)), MODES("cvt", ".f64." s, (r_cvt<double, S>))
#define HALVES(name, F)                                                                                        \
  {name ".f16", Each<&through_half<&F>>::run}, {name ".bf16.ftz", Each<&through_bf16<&F>>::run},               \
      {name ".bf16x2.ftz", Each<&both<&through_bf16<&F>>>::run}, {name ".bf16", Each<&through_bf16<&F>>::run}, \
      {name ".f16x2", Each<&both<&through_half<&F>>>::run}, {                                                  \
    name ".bf16x2", Each<&both<&through_bf16<&F>>>::run                                                        \
  }

const HandlerRow kRows[] = {
    {"rsqrt.f64", Each<&d_rsqrt>::run},
    HALVES("ex2", f_ex2),
    {"sin.f32", Each<&f_sin>::run},
    {"cos.f32", Each<&f_cos>::run},
    {"tanh.f32", Each<&f_tanh>::run},
    HALVES("tanh", f_tanh),
    OPERATION("add", r_add),
    OPERATION("sub", r_sub),
    OPERATION("mul", r_mul),
    OPERATION("div", r_div),
    OPERATION("fma", r_fma),
    OPERATION("rcp", r_rcp),
    OPERATION("sqrt", r_sqrt),
    FROM("u16", uint16_t),
    FROM("s16", int16_t),
    FROM("u32", uint32_t),
    FROM("s32", int32_t),
    FROM("u64", uint64_t),
    FROM("s64", int64_t),
    MODES("cvt", ".f32.f64", (r_cvt<float, double>)),
    TWO("add", r_add, Two2),
    TWO("sub", r_sub, Two2),
    TWO("mul", r_mul, Two2),
    TWO("fma", r_fma, Two3),
    NARROW("f16", true),
    NARROW("bf16", false),
    {"cvt.odd.f64.u64", Each<&odd_from<uint64_t>>::run},
    {"cvt.odd.f64.s64", Each<&odd_from<int64_t>>::run},
    {"cvt.rs.f16x2", Each<&stochastic_pair<true>>::run},
    {"cvt.rs.bf16x2", Each<&stochastic_pair<false>>::run},
    {"finite.f16x2", Each<&finite_pair<true>>::run},
    {"finite.bf16x2", Each<&finite_pair<false>>::run},
    {"satfinite.bf16", Each<&finite_bf16>::run},
    {"cvt.pack.u16", Each<&pack_two<uint16_t>>::run},
    {"cvt.pack.s16", Each<&pack_two<int16_t>>::run},
    PACK(8, "8"),
    PACK(4, "4"),
    PACK(2, "2"),
    {"fns.b32", Each<&find_nth>::run},
};

}  // namespace

HandlerRows math_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu
