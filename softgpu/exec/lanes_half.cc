#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

using u16 = uint16_t;
using u32 = uint32_t;

struct Half {
  LANE_FN double load(u16 v) { return static_cast<double>(from_half(v)); }
  LANE_FN u16 store(double v) { return to_half(v); }
  LANE_FN bool is_nan(u16 v) { return (v & 0x7fff) > 0x7c00; }
  LANE_FN u16 flush(u16 v) { return (v & 0x7c00) == 0 ? v & 0x8000 : v; }
};
struct Brain {
  LANE_FN double load(u16 v) { return static_cast<double>(from_bf16(v)); }
  LANE_FN u16 store(double v) { return to_bf16(v); }
  LANE_FN bool is_nan(u16 v) { return (v & 0x7fff) > 0x7f80; }
  LANE_FN u16 flush(u16 v) { return (v & 0x7f80) == 0 ? v & 0x8000 : v; }
};

struct Plain {
  template <class K>
  LANE_FN u16 in(u16 v) {
    return v;
  }
  template <class K>
  LANE_FN u16 out(double v) {
    return K::store(v);
  }
};
struct Ftz {
  template <class K>
  LANE_FN u16 in(u16 v) {
    return K::flush(v);
  }
  template <class K>
  LANE_FN u16 out(double v) {
    return K::flush(K::store(v));
  }
};
struct Sat {
  template <class K>
  LANE_FN u16 in(u16 v) {
    return v;
  }
  template <class K>
  LANE_FN u16 out(double v) {
    return K::store(saturate(v));
  }
};
struct FtzSat {
  template <class K>
  LANE_FN u16 in(u16 v) {
    return K::flush(v);
  }
  template <class K>
  LANE_FN u16 out(double v) {
    return K::flush(K::store(saturate(v)));
  }
};
struct Relu {
  template <class K>
  LANE_FN u16 in(u16 v) {
    return v;
  }
  template <class K>
  LANE_FN u16 out(double v) {
    return K::store(v < 0 ? 0.0 : v);
  }
};
struct FtzRelu {
  template <class K>
  LANE_FN u16 in(u16 v) {
    return K::flush(v);
  }
  template <class K>
  LANE_FN u16 out(double v) {
    return K::flush(K::store(v < 0 ? 0.0 : v));
  }
};

// a + b in double, made odd when inexact, so that the narrowing that follows is the only rounding that counts.
LANE_FN double sum_odd(double a, double b) {
  const double s = a + b;
  const double bb = s - a;
  const double error = (a - (s - bb)) + (b - bb);
  const uint64_t bits = bits_as<uint64_t>(s);
  if (!(error != 0) || (bits & 1) != 0 || error != error) return s;
  const bool away = (error < 0) == (s > 0);  // the exact sum is nearer to zero
  return bits_as<double>(away ? bits - 1 : bits + 1);
}

template <class K, class M>
LANE_FN u16 add(u16 a, u16 b) {
  return M::template out<K>(sum_odd(K::load(M::template in<K>(a)), K::load(M::template in<K>(b))));
}
template <class K, class M>
LANE_FN u16 sub(u16 a, u16 b) {
  return M::template out<K>(sum_odd(K::load(M::template in<K>(a)), -K::load(M::template in<K>(b))));
}
template <class K, class M>
LANE_FN u16 mul(u16 a, u16 b) {
  return M::template out<K>(K::load(M::template in<K>(a)) * K::load(M::template in<K>(b)));
}
template <class K, class M>
LANE_FN u16 fma(u16 a, u16 b, u16 c) {
  const double product = K::load(M::template in<K>(a)) * K::load(M::template in<K>(b));
  return M::template out<K>(sum_odd(product, K::load(M::template in<K>(c))));
}
template <class K, class M>
LANE_FN u16 neg(u16 a) {
  return M::template in<K>(a) ^ 0x8000;
}
template <class K, class M>
LANE_FN u16 abs(u16 a) {
  return M::template in<K>(a) & 0x7fff;
}
template <class K, bool Less>
LANE_FN u16 pick(u16 a, u16 b) {
  if (K::is_nan(a)) return K::is_nan(b) ? 0x7fff : b;
  if (K::is_nan(b)) return a;
  const double x = K::load(a), y = K::load(b);
  if (x == y) return Less ? a | b : a & b;
  return (x < y) == Less ? a : b;
}
template <class K, class M>
LANE_FN u16 min(u16 a, u16 b) {
  return pick<K, true>(M::template in<K>(a), M::template in<K>(b));
}
template <class K, class M>
LANE_FN u16 max(u16 a, u16 b) {
  return pick<K, false>(M::template in<K>(a), M::template in<K>(b));
}
template <class K, class M>
LANE_FN u16 min_nan(u16 a, u16 b) {
  return K::is_nan(a) || K::is_nan(b) ? 0x7fff : min<K, M>(a, b);
}
template <class K, class M>
LANE_FN u16 max_nan(u16 a, u16 b) {
  return K::is_nan(a) || K::is_nan(b) ? 0x7fff : max<K, M>(a, b);
}
// Of the magnitudes, with the sign of the product. The one NaN has no sign.
template <class K, u16 (*F)(u16, u16)>
LANE_FN u16 xorsign(u16 a, u16 b) {
  const u16 r = F(a & 0x7fff, b & 0x7fff);
  return K::is_nan(r) ? r : static_cast<u16>((r & 0x7fff) | ((a ^ b) & 0x8000));
}
template <class K, class M>
LANE_FN u16 min_xorsign(u16 a, u16 b) {
  return xorsign<K, &min<K, M>>(a, b);
}
template <class K, class M>
LANE_FN u16 max_xorsign(u16 a, u16 b) {
  return xorsign<K, &max<K, M>>(a, b);
}
template <class K, class M>
LANE_FN u16 min_nan_xorsign(u16 a, u16 b) {
  return xorsign<K, &min_nan<K, M>>(a, b);
}
template <class K, class M>
LANE_FN u16 max_nan_xorsign(u16 a, u16 b) {
  return xorsign<K, &max_nan<K, M>>(a, b);
}

LANE_FN u16 low(u32 v) { return static_cast<u16>(v); }
LANE_FN u16 high(u32 v) { return static_cast<u16>(v >> 16); }
LANE_FN u32 pair(u16 lo, u16 hi) { return lo | static_cast<u32>(hi) << 16; }
template <u16 (*F)(u16)>
LANE_FN u32 both(u32 a) {
  return pair(F(low(a)), F(high(a)));
}
template <u16 (*F)(u16, u16)>
LANE_FN u32 both(u32 a, u32 b) {
  return pair(F(low(a), low(b)), F(high(a), high(b)));
}
template <u16 (*F)(u16, u16, u16)>
LANE_FN u32 both(u32 a, u32 b, u32 c) {
  return pair(F(low(a), low(b), low(c)), F(high(a), high(b), high(c)));
}
template <u16 (*F)(u16)>
LANE_FN u32 both1(u32 a) {
  return both<F>(a);
}
template <u16 (*F)(u16, u16)>
LANE_FN u32 both2(u32 a, u32 b) {
  return both<F>(a, b);
}
template <u16 (*F)(u16, u16, u16)>
LANE_FN u32 both3(u32 a, u32 b, u32 c) {
  return both<F>(a, b, c);
}

#define KIND(name, F, n, K, k, M, m) \
  {name "." k m, Each<&F<K, M>>::run}, { name "." k "x2" m, Each<&both##n<&F<K, M>>>::run }
#define KINDS(name, F, n, M, m) KIND(name, F, n, Half, "f16", M, m), KIND(name, F, n, Brain, "bf16", M, m)
#define MODES(name, F, n)                                                                       \
  KINDS(name, F, n, Plain, ""), KINDS(name, F, n, Ftz, ".ftz"), KINDS(name, F, n, Sat, ".sat"), \
      KINDS(name, F, n, FtzSat, ".ftz.sat")
#define FLUSHES(name, F, n) KINDS(name, F, n, Plain, ""), KINDS(name, F, n, Ftz, ".ftz")

constexpr HandlerRow kRows[] = {
    MODES("add", add, 2),
    MODES("sub", sub, 2),
    MODES("mul", mul, 2),
    MODES("fma", fma, 3),
    KINDS("fma", fma, 3, Relu, ".relu"),
    KINDS("fma", fma, 3, FtzRelu, ".ftz.relu"),
    FLUSHES("neg", neg, 1),
    FLUSHES("abs", abs, 1),
    FLUSHES("min", min, 2),
    FLUSHES("max", max, 2),
    FLUSHES("min.nan", min_nan, 2),
    FLUSHES("max.nan", max_nan, 2),
    FLUSHES("min.xorsign", min_xorsign, 2),
    FLUSHES("max.xorsign", max_xorsign, 2),
    FLUSHES("min.nan.xorsign", min_nan_xorsign, 2),
    FLUSHES("max.nan.xorsign", max_nan_xorsign, 2),
};

}  // namespace

HandlerRows half_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
