#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

using u32 = uint32_t;

// What happens to operands and results: `in` before, `out` after.
struct Plain {
  LANE_FN float in(float v) { return v; }
  LANE_FN float out(float v) { return canon(v); }
};
struct Ftz {
  LANE_FN float in(float v) { return flush(v); }
  LANE_FN float out(float v) { return flush(canon(v)); }
};
struct Sat {
  LANE_FN float in(float v) { return v; }
  LANE_FN float out(float v) { return saturate(v); }
};
struct FtzSat {
  LANE_FN float in(float v) { return flush(v); }
  LANE_FN float out(float v) { return flush(saturate(v)); }
};

template <class M>
LANE_FN float add(float a, float b) {
  return M::out(M::in(a) + M::in(b));
}
template <class M>
LANE_FN float sub(float a, float b) {
  return M::out(M::in(a)-M::in(b));
}
template <class M>
LANE_FN float mul(float a, float b) {
  return M::out(M::in(a)*M::in(b));
}
template <class M>
LANE_FN float fma(float a, float b, float c) {
  return M::out(__builtin_fmaf(M::in(a), M::in(b), M::in(c)));
}
template <class M>
LANE_FN float div(float a, float b) {
  return M::out(M::in(a) / M::in(b));
}
template <class M>
LANE_FN float rcp(float a) {
  return M::out(1.0f / M::in(a));
}
template <class M>
LANE_FN float sqrt(float a) {
  return M::out(__builtin_sqrtf(M::in(a)));
}
template <class M>
LANE_FN float rsqrt(float a) {
  return M::out(static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(M::in(a)))));
}

// Two to the power of a: a polynomial in double, far closer than float can tell, times a power of two. Beyond the
// clamps the result is infinite or 0.
template <class M>
LANE_FN float ex2(float a) {
  constexpr double kRound = 6755399441055744.0;  // added, it leaves a double's nearest integer in the low bits
  constexpr double kTerms[] = {1.0,
                               0.69314718055994530942,
                               0.24022650695910071233,
                               0.055504108664821579953,
                               0.0096181291076284771620,
                               0.0013333558146428443423,
                               0.00015403530393381609954,
                               0.000015252733804059840280,
                               0.0000013215486790144309489,
                               1.0178086009239699727e-7,
                               7.0549116208011233299e-9};
  const double v = static_cast<double>(M::in(a));
  const double x = v < -200.0 ? -200.0 : v > 200.0 ? 200.0 : v;
  const double shifted = x + kRound;
  const double f = x - (shifted - kRound);
  double sum = kTerms[10];
  for (int i = 9; i >= 0; --i) sum = sum * f + kTerms[i];
  const double power = bits_as<double>((bits_as<uint64_t>(shifted) << 52) + (uint64_t{1023} << 52));
  return M::out(static_cast<float>(sum * power));
}

// The logarithm of a = m * 2^e, with m around 1, from the series of the inverse hyperbolic tangent.
template <class M>
LANE_FN float lg2(float a) {
  constexpr double kTwoOverLn2 = 2.8853900817779268147;
  const float v = M::in(a);
  const uint64_t bits = bits_as<uint64_t>(static_cast<double>(v));
  constexpr uint64_t kHalfRoot = 0x3fe6a09e667f3bcd;  // sqrt(1/2)
  const uint64_t above = bits - kHalfRoot;
  const double m = bits_as<double>((above & ((uint64_t{1} << 52) - 1)) + kHalfRoot);
  const double e = static_cast<double>(static_cast<int32_t>(static_cast<int64_t>(above) >> 52));
  const double r = (m - 1.0) / (m + 1.0), s = r * r;
  double sum = 1.0 / 17;
  for (int i = 15; i >= 1; i -= 2) sum = sum * s + 1.0 / i;
  const float out = static_cast<float>(e + sum * r * kTwoOverLn2);
  const float infinity = bits_as<float>(u32{0x7f800000}), nan = bits_as<float>(u32{0x7fffffff});
  const float positive = v == infinity ? infinity : out;
  return M::out(v > 0.0f ? positive : v == 0.0f ? -infinity : nan);
}
template <class M>
LANE_FN float neg(float a) {
  return bits_as<float>(bits_as<u32>(M::in(a)) ^ 0x80000000);
}
template <class M>
LANE_FN float abs(float a) {
  return bits_as<float>(bits_as<u32>(M::in(a)) & 0x7fffffff);
}
template <class M>
LANE_FN float sat(float a) {
  return M::out(M::in(a));
}

// -0 is less than +0; a NaN loses against a number.
LANE_FN float lesser(float a, float b) {
  const float r = a < b ? a : b;
  const float tie = bits_as<float>(bits_as<u32>(a) | bits_as<u32>(b));
  return a != a ? b : b != b ? a : a == b ? tie : r;
}
LANE_FN float greater(float a, float b) {
  const float r = a > b ? a : b;
  const float tie = bits_as<float>(bits_as<u32>(a) & bits_as<u32>(b));
  return a != a ? b : b != b ? a : a == b ? tie : r;
}
LANE_FN float with_nan(float r, float a, float b) { return (a != a) | (b != b) ? bits_as<float>(u32{0x7fffffff}) : r; }
template <class M>
LANE_FN float min(float a, float b) {
  return M::out(lesser(M::in(a), M::in(b)));
}
template <class M>
LANE_FN float max(float a, float b) {
  return M::out(greater(M::in(a), M::in(b)));
}
template <class M>
LANE_FN float min_nan(float a, float b) {
  return with_nan(min<M>(a, b), a, b);
}
template <class M>
LANE_FN float max_nan(float a, float b) {
  return with_nan(max<M>(a, b), a, b);
}
// Of the magnitudes, with the sign of the product. The one NaN has no sign.
template <float (*F)(float, float)>
LANE_FN float xorsign(float a, float b) {
  const float r = F(bits_as<float>(bits_as<u32>(a) & 0x7fffffff), bits_as<float>(bits_as<u32>(b) & 0x7fffffff));
  return r != r ? r
                : bits_as<float>((bits_as<u32>(r) & 0x7fffffff) | ((bits_as<u32>(a) ^ bits_as<u32>(b)) & 0x80000000));
}
LANE_FN float copysign(float a, float b) {  // the sign of a, the magnitude of b
  return bits_as<float>((bits_as<u32>(a) & 0x80000000) | (bits_as<u32>(b) & 0x7fffffff));
}

template <bool (*F)(float)>
void test(const MicroOp& op, Warp& w, uint32_t mask) {
  const float* a = lanes<float>(w, op.a);
  u32 bits = 0;
  for (u32 i = 0; i < 32; ++i) bits |= u32(F(a[i])) << i;
  set_predicate(w, op.dst, mask, bits);
}
LANE_FN u32 exponent(float a) { return bits_as<u32>(a) >> 23 & 255; }
LANE_FN bool finite(float a) { return exponent(a) != 255; }
LANE_FN bool infinite(float a) { return (bits_as<u32>(a) & 0x7fffffff) == 0x7f800000; }
LANE_FN bool number(float a) { return a == a; }
LANE_FN bool not_number(float a) { return a != a; }
// Zeros count as normal.
LANE_FN bool subnormal(float a) { return exponent(a) == 0 && (bits_as<u32>(a) << 1) != 0; }
LANE_FN bool normal(float a) { return exponent(a) != 255 && !subnormal(a); }

#define MODES(name, F)                                                          \
  {name ".f32", Lanes<&F<Plain>>::run}, {name ".f32.ftz", Lanes<&F<Ftz>>::run}, \
      {name ".f32.sat", Lanes<&F<Sat>>::run}, {                                 \
    name ".f32.ftz.sat", Lanes<&F<FtzSat>>::run                                 \
  }
#define FLUSHES(name, F) \
  {name ".f32", Lanes<&F<Plain>>::run}, { name ".f32.ftz", Lanes<&F<Ftz>>::run }

constexpr HandlerRow kRows[] = {
    MODES("add", add),
    MODES("sub", sub),
    MODES("mul", mul),
    MODES("fma", fma),
    MODES("div", div),
    FLUSHES("rcp", rcp),
    FLUSHES("sqrt", sqrt),
    FLUSHES("rsqrt", rsqrt),
    FLUSHES("ex2", ex2),
    FLUSHES("lg2", lg2),
    FLUSHES("neg", neg),
    FLUSHES("abs", abs),
    FLUSHES("min", min),
    FLUSHES("max", max),
    {"min.nan.f32", Lanes<&min_nan<Plain>>::run},
    {"max.nan.f32", Lanes<&max_nan<Plain>>::run},
    {"min.nan.f32.ftz", Lanes<&min_nan<Ftz>>::run},
    {"max.nan.f32.ftz", Lanes<&max_nan<Ftz>>::run},
    {"min.xorsign.f32", Lanes<&xorsign<&min<Plain>>>::run},
    {"max.xorsign.f32", Lanes<&xorsign<&max<Plain>>>::run},
    {"min.xorsign.f32.ftz", Lanes<&xorsign<&min<Ftz>>>::run},
    {"max.xorsign.f32.ftz", Lanes<&xorsign<&max<Ftz>>>::run},
    {"min.nan.xorsign.f32", Lanes<&xorsign<&min_nan<Plain>>>::run},
    {"max.nan.xorsign.f32", Lanes<&xorsign<&max_nan<Plain>>>::run},
    {"min.nan.xorsign.f32.ftz", Lanes<&xorsign<&min_nan<Ftz>>>::run},
    {"max.nan.xorsign.f32.ftz", Lanes<&xorsign<&max_nan<Ftz>>>::run},
    {"copysign.f32", Lanes<&copysign>::run},
    {"sat.f32", Lanes<&sat<Sat>>::run},
    {"ftz.f32", Lanes<&sat<Ftz>>::run},
    {"testp.finite.f32", test<&finite>},
    {"testp.infinite.f32", test<&infinite>},
    {"testp.number.f32", test<&number>},
    {"testp.notanumber.f32", test<&not_number>},
    {"testp.normal.f32", test<&normal>},
    {"testp.subnormal.f32", test<&subnormal>},
};

}  // namespace

HandlerRows float_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
