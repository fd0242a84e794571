// Floating-point instructions against IEEE arithmetic of the host.

#include <bit>
#include <cfenv>
#include <cmath>

#include "opcode_bench.h"

namespace softgpu {
namespace {

float f32(u64 v) { return std::bit_cast<float>(static_cast<u32>(v)); }
double f64(u64 v) { return std::bit_cast<double>(v); }
u64 bits(float v) { return std::isnan(v) ? 0x7fffffff : std::bit_cast<u32>(v); }
u64 raw(double v) { return std::bit_cast<u64>(v); }
float flush(float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.0f, v) : v; }
float saturate(float v) { return v > 0 ? std::min(v, 1.0f) : 0.0f; }

template <class F>
void binary32(const std::string& op, F f) {
  check({{op + ".f32 %d, %a, %b;", 4, 4, 4}, [f](u64 a, u64 b, u64) { return bits(f(f32(a), f32(b))); }});
}

TEST(ExecFloat, SinglePrecisionIsIeee) {
  binary32("add", [](float a, float b) { return a + b; });
  binary32("sub.rn", [](float a, float b) { return a - b; });
  binary32("mul", [](float a, float b) { return a * b; });
  binary32("div.rn", [](float a, float b) { return a / b; });
  check({{"fma.rn.f32 %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return bits(std::fma(f32(a), f32(b), f32(c))); }});
  check({{"mad.rn.f32 %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return bits(std::fma(f32(a), f32(b), f32(c))); }});
  check({{"sqrt.rn.f32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return bits(std::sqrt(f32(a))); }});
  check({{"rcp.rn.f32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return bits(1.0f / f32(a)); }});
  check({{"neg.f32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return a ^ 0x80000000; }});
  check({{"abs.f32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return a & 0x7fffffff; }});
  check({{"copysign.f32 %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) { return (a & 0x80000000) | (b & 0x7fffffff); }});
}

TEST(ExecFloat, SubnormalsAreFlushedWhenAsked) {
  check({{"add.ftz.f32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return bits(flush(flush(f32(a)) + flush(f32(b)))); }});
  check({{"mul.ftz.f32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return bits(flush(flush(f32(a)) * flush(f32(b)))); }});
  check({{"fma.rn.ftz.f32 %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return bits(flush(std::fma(flush(f32(a)), flush(f32(b)), flush(f32(c))))); }});
  check({{"rcp.rn.ftz.f32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return bits(flush(1.0f / flush(f32(a)))); }});
  check({{"setp.lt.ftz.f32 %q, %a, %b; selp.u32 %d, 1, 0, %q;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return u64{flush(f32(a)) < flush(f32(b))}; }});
}

TEST(ExecFloat, SaturationTurnsNanIntoZero) {
  check({{"add.sat.f32 %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) { return bits(saturate(f32(a) + f32(b))); }});
  check({{"fma.rn.ftz.sat.f32 %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           return bits(flush(saturate(std::fma(flush(f32(a)), flush(f32(b)), flush(f32(c))))));
         }});
  check({{"cvt.sat.f32.f32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return bits(saturate(f32(a))); }});
}

float least(float a, float b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}

TEST(ExecFloat, MinimumAndMaximumPreferNumbers) {
  binary32("min", least);
  binary32("max", [](float a, float b) { return -least(-a, -b); });
  binary32("min.NaN", [](float a, float b) { return std::isnan(a) || std::isnan(b) ? NAN : least(a, b); });
}

template <class F>
float in_mode(int mode, F f) {
  const int before = std::fegetround();
  std::fesetround(mode);
  const volatile float r = f();
  std::fesetround(before);
  return r;
}

TEST(ExecFloat, DirectedRounding) {
  const std::pair<const char*, int> modes[] = {{"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (const auto& [name, mode] : modes) {
    check({{"add." + std::string(name) + ".f32 %d, %a, %b;", 4, 4, 4}, [mode = mode](u64 a, u64 b, u64) {
             const volatile float x = f32(a), y = f32(b);
             return bits(in_mode(mode, [&] { return x + y; }));
           }});
    check({{"div." + std::string(name) + ".f32 %d, %a, %b;", 4, 4, 4}, [mode = mode](u64 a, u64 b, u64) {
             const volatile float x = f32(a), y = f32(b);
             return bits(in_mode(mode, [&] { return x / y; }));
           }});
    check({{"cvt." + std::string(name) + ".f32.s32 %d, %a;", 4, 4}, [mode = mode](u64 a, u64, u64) {
             const volatile s32 x = static_cast<s32>(a);
             return bits(in_mode(mode, [&] { return static_cast<float>(x); }));
           }});
  }
}

// The first NaN operand comes out, quiet.
u64 result64(double r, double a, double b) {
  if (!std::isnan(r)) return raw(r);
  const u64 quiet = u64{1} << 51;
  return std::isnan(a) ? raw(a) | quiet : std::isnan(b) ? raw(b) | quiet : u64{0xfff8000000000000};
}

TEST(ExecFloat, DoublePrecisionIsIeee) {
  check(
      {{"add.f64 %d, %a, %b;", 8, 8, 8}, [](u64 a, u64 b, u64) { return result64(f64(a) + f64(b), f64(a), f64(b)); }});
  check(
      {{"sub.f64 %d, %a, %b;", 8, 8, 8}, [](u64 a, u64 b, u64) { return result64(f64(a) - f64(b), f64(a), f64(b)); }});
  check(
      {{"mul.f64 %d, %a, %b;", 8, 8, 8}, [](u64 a, u64 b, u64) { return result64(f64(a) * f64(b), f64(a), f64(b)); }});
  check({{"div.rn.f64 %d, %a, %b;", 8, 8, 8},
         [](u64 a, u64 b, u64) { return result64(f64(a) / f64(b), f64(a), f64(b)); }});
  check({{"sqrt.rn.f64 %d, %a;", 8, 8}, [](u64 a, u64, u64) { return result64(std::sqrt(f64(a)), f64(a), f64(a)); }});
  check({{"fma.rn.f64 %d, %a, %b, %c;", 8, 8, 8, 8}, [](u64 a, u64 b, u64 c) {
           return result64(std::fma(f64(a), f64(b), f64(c)), f64(a), std::isnan(f64(b)) ? f64(b) : f64(c));
         }});
}

TEST(ExecFloat, ComparisonsKnowUnordered) {
  const std::string tail = " selp.u32 %d, 1, 0, %q;";
  const auto both = [&](const std::string& op, auto f) {
    check({{"setp." + op + ".f32 %q, %a, %b;" + tail, 4, 4, 4},
           [f](u64 a, u64 b, u64) { return u64{f(double{f32(a)}, double{f32(b)})}; }});
    check({{"setp." + op + ".f64 %q, %a, %b;" + tail, 4, 8, 8},
           [f](u64 a, u64 b, u64) { return u64{f(f64(a), f64(b))}; }});
  };
  both("eq", [](double a, double b) { return a == b; });
  both("ne", [](double a, double b) { return a < b || a > b; });
  both("lt", [](double a, double b) { return a < b; });
  both("ge", [](double a, double b) { return a >= b; });
  both("equ", [](double a, double b) { return !(a < b || a > b); });
  both("neu", [](double a, double b) { return a != b; });
  both("ltu", [](double a, double b) { return !(a >= b); });
  both("gtu", [](double a, double b) { return !(a <= b); });
  both("num", [](double a, double b) { return !std::isnan(a) && !std::isnan(b); });
  both("nan", [](double a, double b) { return std::isnan(a) || std::isnan(b); });
}

template <class D>
u64 to_integer(long double v, bool from_double) {
  if (std::isnan(v))
    return !from_double && sizeof(D) < 8
               ? 0
               : static_cast<u64>(static_cast<s64>(static_cast<D>(u64{1} << (8 * sizeof(D) - 1))));
  v = std::rint(v);
  const long double low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
  if (v <= low) return static_cast<u64>(static_cast<s64>(std::numeric_limits<D>::min()));
  if (v >= high) return static_cast<u64>(std::numeric_limits<D>::max());
  return static_cast<u64>(static_cast<D>(v));
}

template <class D>
void to_integers(const std::string& name) {
  constexpr int kWidth = std::max<int>(sizeof(D), 2);
  check(
      {{"cvt.rni." + name + ".f32 %d, %a;", kWidth, 4}, [](u64 a, u64, u64) { return to_integer<D>(f32(a), false); }});
  check({{"cvt.rzi." + name + ".f32 %d, %a;", kWidth, 4},
         [](u64 a, u64, u64) { return to_integer<D>(std::trunc(f32(a)), false); }});
  check({{"cvt.rmi." + name + ".f64 %d, %a;", kWidth, 8},
         [](u64 a, u64, u64) { return to_integer<D>(std::floor(f64(a)), true); }});
  check({{"cvt.rpi." + name + ".f64 %d, %a;", kWidth, 8},
         [](u64 a, u64, u64) { return to_integer<D>(std::ceil(f64(a)), true); }});
}

TEST(ExecFloat, ConversionsToIntegersRoundAndClamp) {
  to_integers<uint8_t>("u8");
  to_integers<int8_t>("s8");
  to_integers<u16>("u16");
  to_integers<int16_t>("s16");
  to_integers<u32>("u32");
  to_integers<s32>("s32");
  to_integers<u64>("u64");
  to_integers<s64>("s64");
}

TEST(ExecFloat, ConversionsFromIntegers) {
  check({{"cvt.rn.f32.u32 %d, %a;", 4, 4},
         [](u64 a, u64, u64) { return bits(static_cast<float>(static_cast<u32>(a))); }});
  check({{"cvt.rn.f32.s64 %d, %a;", 4, 8},
         [](u64 a, u64, u64) { return bits(static_cast<float>(static_cast<s64>(a))); }});
  check({{"cvt.rn.f32.u64 %d, %a;", 4, 8}, [](u64 a, u64, u64) { return bits(static_cast<float>(a)); }});
  check({{"cvt.rn.f64.u64 %d, %a;", 8, 8}, [](u64 a, u64, u64) { return raw(static_cast<double>(a)); }});
  check({{"cvt.rn.f64.s32 %d, %a;", 8, 4},
         [](u64 a, u64, u64) { return raw(static_cast<double>(static_cast<s32>(a))); }});
  check({{"cvt.rn.f32.u8 %d, %a;", 4, 2}, [](u64 a, u64, u64) { return bits(static_cast<float>(a & 255)); }});
}

TEST(ExecFloat, ConversionsBetweenFloats) {
  check({{"cvt.rn.f32.f64 %d, %a;", 4, 8}, [](u64 a, u64, u64) { return bits(static_cast<float>(f64(a))); }});
  check({{"cvt.f64.f32 %d, %a; and.b64 %d, %d, 0xfff0000000000000;", 8, 4},
         [](u64 a, u64, u64) { return raw(static_cast<double>(f32(a))) & 0xfff0000000000000; }});
  check({{"cvt.rni.f32.f32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return bits(std::rint(f32(a))); }});
  check({{"cvt.rmi.f32.f32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return bits(std::floor(f32(a))); }});
}

// Half precision by the definition: every value times a power of two, found by search over all halves.
double half_value(u16 v) {
  const int e = v >> 10 & 31, m = v & 1023;
  const double magnitude = e == 31  ? (m == 0 ? INFINITY : NAN)
                           : e == 0 ? std::ldexp(m, -24)
                                    : std::ldexp(m + 1024, e - 25);
  return (v & 0x8000) != 0 ? -magnitude : magnitude;
}

u64 nearest_half(double v) {
  if (std::isnan(v)) return 0x7fff;
  const u64 sign = std::signbit(v) ? 0x8000 : 0;
  const double a = std::fabs(v);
  if (a >= 65520.0) return sign | 0x7c00;
  u16 low = 0, high = 0x7bff;  // the largest half not above a
  while (low < high) {
    const auto middle = static_cast<u16>((low + high + 1) / 2);
    if (half_value(middle) <= a)
      low = middle;
    else
      high = static_cast<u16>(middle - 1);
  }
  const double below = half_value(low), above = low == 0x7bff ? 65536.0 : half_value(static_cast<u16>(low + 1));
  const double down = a - below, up = above - a;
  const bool choose_up = up < down || (up == down && (low & 1) != 0);
  return sign | static_cast<u64>(low + (choose_up ? 1 : 0));
}

TEST(ExecFloat, HalfPrecisionRoundsOnce) {
  check({{"cvt.rn.f16.f32 %d, %a;", 2, 4}, [](u64 a, u64, u64) { return nearest_half(f32(a)); }});
  check({{"cvt.rn.f16.f64 %d, %a;", 2, 8}, [](u64 a, u64, u64) { return nearest_half(f64(a)); }});
  check({{"cvt.f32.f16 %d, %a;", 4, 2},
         [](u64 a, u64, u64) { return bits(static_cast<float>(half_value(static_cast<u16>(a)))); }});
  const auto h = [](u64 v) { return half_value(static_cast<u16>(v)); };
  check({{"add.f16 %d, %a, %b;", 2, 2, 2}, [h](u64 a, u64 b, u64) { return nearest_half(h(a) + h(b)); }});
  check({{"mul.f16 %d, %a, %b;", 2, 2, 2}, [h](u64 a, u64 b, u64) { return nearest_half(h(a) * h(b)); }});
  check({{"fma.rn.f16 %d, %a, %b, %c;", 2, 2, 2, 2},
         [h](u64 a, u64 b, u64 c) { return nearest_half(h(a) * h(b) + h(c)); }});
  check({{"add.f16x2 %d, %a, %b;", 4, 4, 4},
         [h](u64 a, u64 b, u64) { return nearest_half(h(a) + h(b)) | nearest_half(h(a >> 16) + h(b >> 16)) << 16; }});
  check({{"cvt.rn.f16x2.f32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return nearest_half(f32(a)) << 16 | nearest_half(f32(b)); }});
}

u64 nearest_bf16(float v) {
  if (std::isnan(v)) return 0x7fff;
  const u32 b = std::bit_cast<u32>(v);
  const u32 rest = b & 0xffff;
  const bool up = rest > 0x8000 || (rest == 0x8000 && (b >> 16 & 1) != 0);
  return (b >> 16) + (up ? 1 : 0);
}
float bf16(u64 v) { return f32((v & 0xffff) << 16); }

TEST(ExecFloat, Bfloat16RoundsOnce) {
  check({{"cvt.rn.bf16.f32 %d, %a;", 2, 4}, [](u64 a, u64, u64) { return nearest_bf16(f32(a)); }});
  check({{"cvt.f32.bf16 %d, %a;", 4, 2}, [](u64 a, u64, u64) { return bits(bf16(a)); }});
  check({{"cvt.rn.bf16x2.f32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return nearest_bf16(f32(a)) << 16 | nearest_bf16(f32(b)); }});
  // A product of two has sixteen bits: exact as float unless it is subnormal there.
  check({{"mul.bf16 %d, %a, %b;", 2, 2, 2}, [](u64 a, u64 b, u64) {
           const double exact = double{bf16(a)} * bf16(b);
           const auto f = static_cast<float>(exact);
           if (static_cast<double>(f) == exact || std::isnan(exact)) return nearest_bf16(f);
           const double step = std::ldexp(1.0, -133);  // the last place of a subnormal result
           if (std::fabs(exact) < std::ldexp(1.0, -126))
             return nearest_bf16(static_cast<float>(std::rint(exact / step) * step));
           return nearest_bf16(f);
         }});
}

void within(const std::string& op, double (*f)(double), double low, double high, double error) {
  Operands o;
  Random noise(7);
  for (int i = 0; i < 330; ++i) {
    const double v = low + (high - low) * static_cast<double>(noise.next() >> 11) * 0x1p-53;
    o.a.push_back(std::bit_cast<u32>(static_cast<float>(v)));
  }
  o.b = o.c = o.a;
  const std::vector<u64> results = run_statement({op + ".f32 %d, %a;", 4, 4}, o, best_isa_level());
  for (size_t i = 0; i < results.size(); ++i) {
    const double want = f(double{f32(o.a[i])});
    EXPECT_NEAR(f32(results[i]), want, error * std::max(1.0, std::fabs(want))) << op << " of " << f32(o.a[i]);
  }
}

TEST(ExecFloat, ApproximationsAreClose) {
  within(
      "ex2.approx", [](double v) { return std::exp2(v); }, -20, 20, 1e-6);
  within(
      "lg2.approx", [](double v) { return std::log2(v); }, 0.01, 100, 1e-6);
  within(
      "sin.approx", [](double v) { return std::sin(v); }, -3, 3, 1e-6);
  within(
      "cos.approx.ftz", [](double v) { return std::cos(v); }, -3, 3, 1e-6);
  within(
      "rsqrt.approx.ftz", [](double v) { return 1 / std::sqrt(v); }, 0.1, 100, 1e-6);
  within(
      "rcp.approx.ftz", [](double v) { return 1 / v; }, 0.1, 100, 1e-6);
  within(
      "sqrt.approx", [](double v) { return std::sqrt(v); }, 0.1, 100, 1e-6);
  within(
      "tanh.approx", [](double v) { return std::tanh(v); }, -3, 3, 1e-6);
}

}  // namespace
}  // namespace softgpu
