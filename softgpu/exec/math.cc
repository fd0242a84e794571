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

float f_rsqrt(float v) { return canon(static_cast<float>(1.0 / std::sqrt(static_cast<double>(v)))); }
float f_ex2(float v) { return canon(std::exp2(v)); }
float f_lg2(float v) { return canon(std::log2(v)); }
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
#define FROM(s, S) MODES("cvt", ".f32." s, (r_cvt<float, S>)), MODES("cvt", ".f64." s, (r_cvt<double, S>))
#define UNARY(name, F)                                                                                             \
  {name ".f32", Each<&F>::run}, {name ".f16", Each<&through_half<&F>>::run},                                       \
      {name ".bf16.ftz", Each<&through_bf16<&F>>::run}, {name ".bf16x2.ftz", Each<&both<&through_bf16<&F>>>::run}, \
      {name ".bf16", Each<&through_bf16<&F>>::run}, {name ".f16x2", Each<&both<&through_half<&F>>>::run}, {        \
    name ".bf16x2", Each<&both<&through_bf16<&F>>>::run                                                            \
  }

const HandlerRow kRows[] = {
    {"rsqrt.f32", Each<&f_rsqrt>::run},
    {"rsqrt.f64", Each<&d_rsqrt>::run},
    UNARY("ex2", f_ex2),
    {"lg2.f32", Each<&f_lg2>::run},
    {"sin.f32", Each<&f_sin>::run},
    {"cos.f32", Each<&f_cos>::run},
    UNARY("tanh", f_tanh),
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
};

}  // namespace

HandlerRows math_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu
