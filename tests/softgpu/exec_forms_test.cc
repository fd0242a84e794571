// Forms beyond what compilers write every day: video instructions, pairs, mixed precision, directed and packed
// conversions, wide values. What is expected is written from the instruction set's description, in other words.

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>

#include "opcode_bench.h"

namespace softgpu {
namespace {

u64 canonical(float v) { return std::isnan(v) ? 0x7fffffff : std::bit_cast<u32>(v); }
float f32(u64 v) { return std::bit_cast<float>(static_cast<u32>(v)); }
double f64(u64 v) { return std::bit_cast<double>(v); }
float flush(float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.0f, v) : v; }

// The value of a half or a bfloat16, from its fields.
double small(u16 h, bool half) {
  const int fraction_bits = half ? 10 : 7, bias = half ? 15 : 127, most = half ? 31 : 255;
  const int exponent = h >> fraction_bits & most, fraction = h & ((1 << fraction_bits) - 1);
  const double sign = (h & 0x8000) != 0 ? -1 : 1;
  if (exponent == most) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

// Every half in order of value, to look a rounding up in.
const std::vector<std::pair<double, u16>>& ladder(bool half) {
  static const auto make = [](bool kind) {
    std::vector<std::pair<double, u16>> out;
    for (u32 h = 0; h < 0x10000; ++h) {
      const double v = small(static_cast<u16>(h), kind);
      if (!std::isnan(v) && h != 0x8000) out.emplace_back(v, static_cast<u16>(h));
    }
    std::sort(out.begin(), out.end());
    return out;
  };
  static const auto halves = make(true), brains = make(false);
  return half ? halves : brains;
}

u64 directed(double v, bool half, char mode) {
  if (std::isnan(v)) return 0x7fff;
  if (v == 0) return std::signbit(v) ? 0x8000 : 0;
  const auto& all = ladder(half);
  const auto above = std::lower_bound(all.begin(), all.end(), std::make_pair(v, u16{0}));
  const bool up = mode == 'p' || (mode == 'z' && v < 0);
  const auto found = above->first == v || up ? above : above - 1;
  // A negative value that becomes zero keeps its sign.
  return found->second == 0 && v < 0 ? 0x8000 : found->second;
}

TEST(ExecForms, HalvesAreRoundedInEveryDirection) {
  for (const bool half : {true, false}) {
    const std::string to = half ? "f16" : "bf16";
    for (const char mode : {'z', 'm', 'p'}) {
      const std::string stem = std::string("cvt.r") + mode + "." + to;
      check({{stem + ".f32 %d, %a;", 2, 4}, [=](u64 a, u64, u64) { return directed(f32(a), half, mode); }});
      check({{stem + ".f64 %d, %a;", 2, 8}, [=](u64 a, u64, u64) { return directed(f64(a), half, mode); }});
      check(
          {{stem + ".s32 %d, %a;", 2, 4}, [=](u64 a, u64, u64) { return directed(static_cast<s32>(a), half, mode); }});
      check(
          {{stem + ".u16 %d, %a;", 2, 2}, [=](u64 a, u64, u64) { return directed(static_cast<u16>(a), half, mode); }});
    }
  }
  check({{"cvt.rn.sat.f16.f64 %d, %a;", 2, 8}, [](u64 a, u64, u64) -> u64 {
           const double v = f64(a);
           if (!(v > 0)) return 0;
           if (v >= 1) return 0x3c00;
           const u64 low = directed(v, true, 'm'), high = directed(v, true, 'p');
           const double under = v - small(static_cast<u16>(low), true), over = small(static_cast<u16>(high), true) - v;
           return under < over ? low : over < under ? high : (low & 1) != 0 ? high : low;
         }});
}

// 64-bit integers do not fit a double: rounding must not happen twice.
TEST(ExecForms, LargeIntegersAreRoundedOnce) {
  check({{"shl.b64 %d, %a, 40; or.b64 %d, %d, %b; cvt.rn.bf16.u64 %h1, %d; cvt.u64.u16 %d, %h1;", 8, 8, 8},
         [](u64 a, u64 b, u64) -> u64 {
           const u64 v = a << 40 | b;
           if (v == 0) return 0;
           const int drop = std::max(0, 56 - std::countl_zero(v));  // eight bits stay
           const u64 rest = v & ((u64{1} << drop) - 1), half = drop == 0 ? 0 : u64{1} << (drop - 1);
           u64 kept = v >> drop;
           if (drop != 0 && (rest > half || (rest == half && (kept & 1) != 0))) ++kept;
           return std::bit_cast<u32>(static_cast<float>(std::ldexp(static_cast<double>(kept), drop))) >> 16;
         }});
}

TEST(ExecForms, ConversionsClampAndPack) {
  const auto clamp = [](s32 v, s64 low, s64 high) { return static_cast<u64>(std::clamp<s64>(v, low, high)); };
  check({{"cvt.pack.sat.s16.s32 %d, %a, %b;", 4, 4, 4}, [=](u64 a, u64 b, u64) {
           return (clamp(static_cast<s32>(a), -32768, 32767) & 0xffff) << 16 |
                  (clamp(static_cast<s32>(b), -32768, 32767) & 0xffff);
         }});
  check({{"cvt.pack.sat.u8.s32.b32 %d, %a, %b, %c;", 4, 4, 4, 4}, [=](u64 a, u64 b, u64 c) {
           return c << 16 | clamp(static_cast<s32>(a), 0, 255) << 8 | clamp(static_cast<s32>(b), 0, 255);
         }});
  check({{"cvt.pack.sat.s4.s32.b32 %d, %a, %b, %c;", 4, 4, 4, 4}, [=](u64 a, u64 b, u64 c) {
           return c << 8 | (clamp(static_cast<s32>(a), -8, 7) & 15) << 4 | (clamp(static_cast<s32>(b), -8, 7) & 15);
         }});
  const auto finite = [](float v, float most) { return std::isnan(v) ? v : std::clamp(v, -most, most); };
  const float most = f32(0x7f7f0000);
  check({{"cvt.rz.satfinite.bf16.f32 %d, %a;", 2, 4},
         [=](u64 a, u64, u64) { return directed(finite(f32(a), most), false, 'z'); }});
  check({{"cvt.rz.relu.satfinite.f16x2.f32 %d, %a, %b;", 4, 4, 4}, [=](u64 a, u64 b, u64) {
           const auto one = [&](u64 v) {
             const float x = finite(f32(v), 65504.0f);
             return directed(x < 0 ? 0.0f : x, true, 'z');
           };
           return one(a) << 16 | one(b);
         }});
  // Without random bits stochastic rounding truncates.
  check({{"cvt.rs.bf16x2.f32 %d, %a, %b, 0;", 4, 4, 4},
         [=](u64 a, u64 b, u64) { return directed(f32(a), false, 'z') << 16 | directed(f32(b), false, 'z'); }});
}

template <class F>
u64 each_float(u64 a, u64 b, u64 c, F f) {
  return canonical(f(f32(a), f32(b), f32(c))) | canonical(f(f32(a >> 32), f32(b >> 32), f32(c >> 32))) << 32;
}

TEST(ExecForms, PairsOfFloatsAreTwoFloats) {
  check({{"add.f32x2 %d, %a, %b;", 8, 8, 8},
         [](u64 a, u64 b, u64) { return each_float(a, b, 0, [](float x, float y, float) { return x + y; }); }});
  check({{"mul.rn.ftz.f32x2 %d, %a, %b;", 8, 8, 8}, [](u64 a, u64 b, u64) {
           return each_float(a, b, 0, [](float x, float y, float) { return flush(flush(x) * flush(y)); });
         }});
  check({{"fma.rn.f32x2 %d, %a, %b, %c;", 8, 8, 8, 8}, [](u64 a, u64 b, u64 c) {
           return each_float(a, b, c, [](float x, float y, float z) { return std::fma(x, y, z); });
         }});
  check({{"sub.rz.f32x2 %d, %a, %b;", 8, 8, 8}, [](u64 a, u64 b, u64) {
           std::fesetround(FE_TOWARDZERO);
           const u64 r = each_float(a, b, 0, [](float x, float y, float) {
             volatile float v = x;
             return v - y;
           });
           std::fesetround(FE_TONEAREST);
           return r;
         }});
}

TEST(ExecForms, NarrowOperandsAreWidenedExactly) {
  check({{"add.rn.f32.f16 %d, %a, %b;", 4, 2, 4},
         [](u64 a, u64 b, u64) { return canonical(static_cast<float>(small(static_cast<u16>(a), true)) + f32(b)); }});
  check({{"sub.sat.f32.bf16 %d, %a, %b;", 4, 2, 4}, [](u64 a, u64 b, u64) {
           const float v = static_cast<float>(small(static_cast<u16>(a), false)) - f32(b);
           return canonical(v > 0 ? std::min(v, 1.0f) : 0.0f);
         }});
  check({{"fma.rn.f32.f16 %d, %a, %b, %c;", 4, 2, 2, 4}, [](u64 a, u64 b, u64 c) {
           return canonical(std::fma(static_cast<float>(small(static_cast<u16>(a), true)),
                                     static_cast<float>(small(static_cast<u16>(b), true)), f32(c)));
         }});
}

float lesser(float a, float b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return std::min(a, b);
}

TEST(ExecForms, MinimaOfThreeAndOfMagnitudes) {
  check({{"min.f32 %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return canonical(lesser(lesser(f32(a), f32(b)), f32(c))); }});
  check({{"max.NaN.abs.f32 %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           if (std::isnan(f32(a)) || std::isnan(f32(b)) || std::isnan(f32(c))) return u64{0x7fffffff};
           return canonical(std::max({std::fabs(f32(a)), std::fabs(f32(b)), std::fabs(f32(c))}));
         }});
  check({{"min.xorsign.abs.f32 %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) {
           const float r = lesser(std::fabs(f32(a)), std::fabs(f32(b)));
           return std::isnan(r) ? u64{0x7fffffff} : (std::bit_cast<u32>(r) | ((a ^ b) & 0x80000000));
         }});
  check({{"min.s32 %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           return static_cast<u64>(std::min({static_cast<s32>(a), static_cast<s32>(b), static_cast<s32>(c)}));
         }});
}

template <class T, class F>
u64 halves(u64 a, u64 b, F f) {
  const auto one = [&](int shift) {
    return static_cast<u64>(static_cast<u16>(f(static_cast<T>(a >> shift), static_cast<T>(b >> shift)))) << shift;
  };
  return one(0) | one(16);
}

TEST(ExecForms, HalfRegistersAreIntegersOfTheirOwn) {
  check({{"add.u16x2 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return halves<u16>(a, b, [](int x, int y) { return x + y; }); }});
  check({{"min.s16x2 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return halves<int16_t>(a, b, [](int x, int y) { return std::min(x, y); }); }});
  check({{"max.u16x2 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return halves<u16>(a, b, [](int x, int y) { return std::max(x, y); }); }});
  check({{"min.relu.s16x2 %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) {
           return halves<int16_t>(a, b, [](int x, int y) { return std::max(0, std::min(x, y)); });
         }});
  check({{"mad24.hi.sat.s32 %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const s64 x = static_cast<s32>(a << 8) >> 8, y = static_cast<s32>(b << 8) >> 8;
           return static_cast<u64>(std::clamp<s64>((x * y >> 16) + static_cast<s32>(c), INT32_MIN, INT32_MAX));
         }});
}

TEST(ExecForms, VideoInstructionsSelectClampAndMerge) {
  check({{"vadd.s32.u32.s32.sat %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) {
           return static_cast<u64>(
               std::clamp<s64>(s64{static_cast<u32>(a)} + static_cast<s32>(b), INT32_MIN, INT32_MAX));
         }});
  check({{"vsub.u32.s32.u32 %d.b2, %a.b3, %b.h1, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const u32 r = static_cast<u32>(static_cast<int8_t>(a >> 24) - static_cast<s32>(b >> 16 & 0xffff)) & 0xff;
           return (c & 0xff00ffff) | r << 16;
         }});
  check({{"vabsdiff.u32.u32.u32.add %d, %a.h0, %b.b1, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const s64 x = static_cast<u16>(a), y = b >> 8 & 0xff;
           return static_cast<u64>(std::abs(x - y)) + c;
         }});
  check({{"vshr.u32.u32.u32.clamp.add %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const u32 n = static_cast<u32>(b);
           return (n > 31 ? 0 : static_cast<u32>(a) >> n) + c;
         }});
  check({{"vshl.u32.s32.u32.wrap %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) { return a << (b & 31); }});
  check({{"vmad.s32.s32.u32.sat.shr7 %d, %a.b1, %b.h0, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const s64 sum = s64{static_cast<int8_t>(a >> 8)} * static_cast<u16>(b) + static_cast<s32>(c);
           return static_cast<u64>(std::clamp<s64>(sum >> 7, INT32_MIN, INT32_MAX));
         }});
  check({{"vmad.s32.s32.s32 %d, -%a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) { return c - a * b; }});
  check({{"vmad.u32.u32.u32.po %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) { return a * b + c + 1; }});
  check({{"vset.s32.u32.lt.max %d, %a, %b.h0, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const u32 r = s64{static_cast<s32>(a)} < static_cast<u16>(b) ? 1 : 0;
           return static_cast<u64>(std::max(r, static_cast<u32>(c)));
         }});
  check({{"vset2.u32.u32.ge %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64) { return halves<u16>(a, b, [](int x, int y) { return x >= y ? 1 : 0; }); }});
  check({{"vadd4.s32.s32.u32.sat %d.b20, %a.b3210, %b.b7654, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           u64 out = c & 0xff00ff00;
           for (const int shift : {0, 16}) {
             const int sum = static_cast<int8_t>(a >> shift) + static_cast<int>(b >> shift & 0xff);
             out |= static_cast<u64>(std::clamp(sum, -128, 127) & 0xff) << shift;
           }
           return out;
         }});
  check({{"vavrg2.s32.s32.s32 %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64) {
           return halves<int16_t>(a, b, [](int x, int y) { return (x + y) / 2 + (x + y) % 2; });  // away from zero
         }});
}

TEST(ExecForms, BitsAreFoundAndCombined) {
  check({{"and.b32 %r6, %b, 31; and.b32 %r7, %c, 7; sub.u32 %r7, %r7, 4; fns.b32 %d, %a, %r6, %r7;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) -> u64 {
           const auto base = static_cast<int>(b & 31);
           const int offset = static_cast<int>(c & 7) - 4;
           if (offset == 0) return (a >> base & 1) != 0 ? static_cast<u64>(base) : 0xffffffff;
           int left = std::abs(offset);
           for (int i = base; i >= 0 && i < 32; i += offset < 0 ? -1 : 1) {
             if ((a >> i & 1) != 0 && --left == 0) return static_cast<u64>(i);
           }
           return 0xffffffff;
         }});
  // 0x80: all three bits set. %p is bit 0 of c.
  check({{"lop3.and.b32 %r6|%q, %a, %b, %c, 0x80, %p; selp.u32 %d, %r6, 77, %q;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const u32 r = static_cast<u32>(a & b & c);
           return r != 0 && (c & 1) != 0 ? r : u64{77};
         }});
  check({{".reg .b8 %y<5>; mov.b32 {%y1,%y2,%y3,%y4}, %a; mov.b32 %d, {%y4,%y3,%y2,%y1};", 4, 4},
         [](u64 a, u64, u64) { return static_cast<u64>(__builtin_bswap32(static_cast<u32>(a))); }});
  check({{".reg .b128 %q<3>; mov.b128 %q1, {%a, %b}; mov.b128 %q2, %q1; mov.b128 {%rd5, %d}, %q2;", 8, 8, 8},
         [](u64, u64 b, u64) { return b; }});
}

// One block of one warp; out[tid] = the 32 bits that the body leaves in %r9.
std::vector<u32> run_warp(const std::string& body, std::vector<u32>* memory) {
  Machine m;
  m.load(
      with_header(".visible .entry k(.param .u64 out, .param .u64 data)\n{\n.reg .pred %p<9>; .reg .b16 %h<20>; .reg "
                  ".b32 %r<50>; .reg .b64 %rd<20>; .reg .b128 %q<9>;\nmov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, "
                  "4;\nld.param.u64 %rd1, [out]; add.u64 %rd3, %rd1, %rd2; ld.param.u64 %rd4, [data]; mul.wide.u32 "
                  "%rd5, %r1, 32; add.u64 %rd6, %rd4, %rd5;\n" +
                  body + "\nst.global.u32 [%rd3], %r9;\nret;\n}\n"));
  if (::testing::Test::HasFatalFailure()) return {};
  const u64 out = m.allocate(128), data = m.upload(*memory);
  const Fault fault = m.run("k", {1, 1, 1}, {32, 1, 1}, {out, data});
  EXPECT_TRUE(fault.ok()) << fault.where;
  *memory = m.download<u32>(data, memory->size());
  return m.download<u32>(out, 32);
}

std::vector<u32> counted(size_t n) {
  std::vector<u32> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<u32>(i * 3 + 1);
  return out;
}

TEST(ExecForms, EightElementsAreLoadedAndStored) {
  std::vector<u32> data = counted(32 * 8);
  const std::vector<u32> before = data;
  const auto out = run_warp(
      "ld.global.v8.b32 {%r10,%r11,%r12,%r13,%r14,%r15,%r16,%r17}, [%rd6]; st.global.v8.b32 [%rd6], "
      "{%r17,%r16,%r15,%r14,%r13,%r12,%r11,%r10}; mov.u32 %r9, %r15;",
      &data);
  for (u32 t = 0; t < 32; ++t) {
    EXPECT_EQ(out[t], before[8 * t + 5]);
    for (u32 i = 0; i < 8; ++i) EXPECT_EQ(data[8 * t + i], before[8 * t + 7 - i]);
  }
}

TEST(ExecForms, AVectorAccessMustBeAlignedAsAWhole) {
  Machine m;
  m.load(with_header(
      ".entry k(.param .u64 p) { .reg .b64 %rd<2>; .reg .b32 %r<9>; ld.param.u64 %rd1, [p];\nld.global.v8.b32 "
      "{%r1,%r2,%r3,%r4,%r5,%r6,%r7,%r8}, [%rd1+16]; ret; }"));
  EXPECT_EQ(m.run("k", {1, 1, 1}, {1, 1, 1}, {m.allocate(64)}).kind, FaultKind::kMisalignedAddress);
}

TEST(ExecForms, SixteenBytesAtOnce) {
  std::vector<u32> data(8, 0);
  data[4] = 5;
  // Every lane adds 2^64 - 1 to a number of 128 bits, by compare and swap.
  run_warp(
      ".shared .align 16 .b8 buf[16]; ld.global.b128 %q1, [%rd4];\n$AGAIN: mov.b128 {%rd7, %rd8}, %q1; add.cc.u64 "
      "%rd9, %rd7, 0xffffffffffffffff; "
      "addc.u64 %rd10, %rd8, 0; mov.b128 %q2, {%rd9, %rd10}; atom.global.cas.b128 %q3, [%rd4], %q1, %q2; mov.b128 "
      "{%rd11, %rd12}, %q3; setp.ne.u64 %p1, %rd11, %rd7; setp.ne.or.u64 %p2, %rd12, %rd8, %p1; mov.b128 %q1, %q3; "
      "@%p2 bra $AGAIN;\nsetp.eq.u32 %p3, %r1, 7; mov.b128 %q4, {%rd4, %rd4}; @%p3 atom.global.exch.b128 %q5, "
      "[%rd4+16], %q4; st.shared.b128 [buf], %q4; ld.shared.v2.u64 {%rd13, %rd14}, [buf]; cvt.u32.u64 %r9, %rd14; ",
      &data);
  const unsigned __int128 want = static_cast<unsigned __int128>(0xffffffffffffffff) * 32;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(data[static_cast<size_t>(i)], static_cast<u32>(want >> (32 * i)));
  EXPECT_EQ(data[4], data[6]);
  EXPECT_NE(data[4], 5u);
}

TEST(ExecForms, VectorAtomicsTreatEachElement) {
  std::vector<u32> data(8, 0);
  data[4] = 0x3c003c00;  // two halves of 1
  const auto out = run_warp(
      "cvt.rn.f32.u32 %r10, %r1; mov.b32 %r11, 0f3f800000; atom.global.add.v2.f32 {%r12, %r13}, [%rd4], {%r10, %r11};\n"
      "red.global.add.v4.f32 [%rd4], {%r11, %r11, %r11, %r10}; cvt.rn.f16.u32 %h1, %r1; mov.b32 %r14, {%h1, %h1}; "
      "red.global.max.noftz.v2.f16x2 [%rd4+16], {%r14, %r14}; cvt.rzi.u32.f32 %r9, %r13;",
      &data);
  EXPECT_EQ(f32(data[0]), 496.0f + 32.0f);
  EXPECT_EQ(f32(data[1]), 64.0f);
  EXPECT_EQ(f32(data[2]), 32.0f);
  EXPECT_EQ(f32(data[3]), 496.0f);
  EXPECT_EQ(data[4], 0x4fc04fc0u);  // 31
  EXPECT_EQ(data[5], 0x4fc04fc0u);
  EXPECT_EQ(out[31], 31u);  // lanes take their turn in order
}

TEST(ExecForms, FloatsAreReducedOverAWarp) {
  std::vector<u32> data(1);
  auto out =
      run_warp("cvt.rn.f32.u32 %r10, %r1; sub.f32 %r10, %r10, 0f41200000; redux.sync.min.f32 %r9, %r10, -1;", &data);
  for (const u32 v : out) EXPECT_EQ(f32(v), -10.0f);
  out = run_warp(
      "cvt.rn.f32.u32 %r10, %r1; setp.eq.u32 %p1, %r1, 3; @%p1 mov.b32 %r10, 0x7fc00000; redux.sync.max.abs.f32 %r9, "
      "%r10, -1;",
      &data);
  for (const u32 v : out) EXPECT_EQ(f32(v), 31.0f);
  out = run_warp(
      "cvt.rn.f32.u32 %r10, %r1; setp.eq.u32 %p1, %r1, 3; @%p1 mov.b32 %r10, 0x7fc00000; redux.sync.max.NaN.f32 %r9, "
      "%r10, -1;",
      &data);
  for (const u32 v : out) EXPECT_EQ(v, 0x7fffffffu);
}

}  // namespace
}  // namespace softgpu
