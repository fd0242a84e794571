#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

using u32 = uint32_t;
using u64 = uint64_t;

constexpr u64 kQuiet = u64{1} << 51;

LANE_FN double quiet(double v) { return bits_as<double>(bits_as<u64>(v) | kQuiet); }
// The first NaN operand comes out, quiet; a NaN of the operation itself is the negative default one.
LANE_FN double result(double r, double a, double b) {
  const double fresh = bits_as<double>(u64{0xfff8000000000000});
  return r == r ? r : a != a ? quiet(a) : b != b ? quiet(b) : fresh;
}

LANE_FN double add(double a, double b) { return result(a + b, a, b); }
LANE_FN double sub(double a, double b) { return result(a - b, a, b); }
LANE_FN double mul(double a, double b) { return result(a * b, a, b); }
LANE_FN double div(double a, double b) { return result(a / b, a, b); }
LANE_FN double fma(double a, double b, double c) { return result(__builtin_fma(a, b, c), a, b != b ? b : c); }
LANE_FN double rcp(double a) { return result(1.0 / a, a, a); }
LANE_FN double sqrt(double a) { return result(__builtin_sqrt(a), a, a); }
LANE_FN double neg(double a) { return bits_as<double>(bits_as<u64>(a) ^ (u64{1} << 63)); }
LANE_FN double abs(double a) { return bits_as<double>(bits_as<u64>(a) & ~(u64{1} << 63)); }
LANE_FN double min(double a, double b) {
  const double tie = bits_as<double>(bits_as<u64>(a) | bits_as<u64>(b));
  return a != a ? (b != b ? quiet(a) : b) : b != b ? a : a == b ? tie : a < b ? a : b;
}
LANE_FN double max(double a, double b) {
  const double tie = bits_as<double>(bits_as<u64>(a) & bits_as<u64>(b));
  return a != a ? (b != b ? quiet(a) : b) : b != b ? a : a == b ? tie : a > b ? a : b;
}
LANE_FN double copysign(double a, double b) {
  return bits_as<double>((bits_as<u64>(a) & (u64{1} << 63)) | (bits_as<u64>(b) & ~(u64{1} << 63)));
}
// The .approx.ftz forms give what their upper 32 bits hold.
LANE_FN double upper(double v) { return bits_as<double>(bits_as<u64>(v) & 0xffffffff00000000); }
LANE_FN double flush64(double v) {
  const u64 bits = bits_as<u64>(v);
  return bits_as<double>((bits >> 52 & 0x7ff) == 0 ? bits & (u64{1} << 63) : bits);
}
LANE_FN double rcp_approx(double a) { return flush64(upper(rcp(flush64(upper(a))))); }
LANE_FN double rsqrt_approx(double a) {
  const double v = flush64(upper(a));
  return flush64(upper(result(1.0 / __builtin_sqrt(v), v, v)));
}

template <bool (*F)(double)>
void test(const MicroOp& op, Warp& w, uint32_t mask) {
  const double* a = lanes<double>(w, op.a);
  u32 bits = 0;
  for (u32 i = 0; i < 32; ++i) bits |= u32(F(a[i])) << i;
  set_predicate(w, op.dst, mask, bits);
}
LANE_FN u32 exponent(double a) { return bits_as<u64>(a) >> 52 & 0x7ff; }
LANE_FN bool finite(double a) { return exponent(a) != 0x7ff; }
LANE_FN bool infinite(double a) { return (bits_as<u64>(a) << 1) == u64{0xffe} << 52; }
LANE_FN bool number(double a) { return a == a; }
LANE_FN bool not_number(double a) { return a != a; }
// Zeros count as normal.
LANE_FN bool subnormal(double a) { return exponent(a) == 0 && (bits_as<u64>(a) << 1) != 0; }
LANE_FN bool normal(double a) { return exponent(a) != 0x7ff && !subnormal(a); }

constexpr HandlerRow kRows[] = {
    {"add.f64", Lanes<&add>::run},
    {"sub.f64", Lanes<&sub>::run},
    {"mul.f64", Lanes<&mul>::run},
    {"div.f64", Lanes<&div>::run},
    {"fma.f64", Lanes<&fma>::run},
    {"rcp.f64", Lanes<&rcp>::run},
    {"sqrt.f64", Lanes<&sqrt>::run},
    {"neg.f64", Lanes<&neg>::run},
    {"abs.f64", Lanes<&abs>::run},
    {"min.f64", Lanes<&min>::run},
    {"max.f64", Lanes<&max>::run},
    {"copysign.f64", Lanes<&copysign>::run},
    {"rcp.approx.f64", Lanes<&rcp_approx>::run},
    {"rsqrt.approx.f64", Lanes<&rsqrt_approx>::run},
    {"testp.finite.f64", test<&finite>},
    {"testp.infinite.f64", test<&infinite>},
    {"testp.number.f64", test<&number>},
    {"testp.notanumber.f64", test<&not_number>},
    {"testp.normal.f64", test<&normal>},
    {"testp.subnormal.f64", test<&subnormal>},
};

}  // namespace

HandlerRows double_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
