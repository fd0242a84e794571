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
