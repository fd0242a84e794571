// Instructions that no other test runs: rare integer ones, the packed video instructions one by one, hints, the stack.

#include <algorithm>
#include <bit>
#include <cmath>

#include "opcode_bench.h"

namespace softgpu {
namespace {

// f on each element of N bits; signed or not.
template <class F>
u64 packed(u64 a, u64 b, int bits, bool is_signed, F f) {
  u32 out = 0;
  for (int at = 0; at < 32; at += bits) {
    const auto field = [&](u64 v) -> s64 {
      const s64 raw = static_cast<s64>(static_cast<u32>(v) >> at & ((1u << bits) - 1));
      return is_signed && raw >> (bits - 1) != 0 ? raw - (s64{1} << bits) : raw;
    };
    out |= (static_cast<u32>(f(field(a), field(b))) & ((1u << bits) - 1)) << at;
  }
  return out;
}

s64 average(s64 x, s64 y) { return (x + y >= 0 ? x + y + 1 : x + y - 1) / 2; }

TEST(ExecRest, PackedIntegers) {
  struct Row {
    const char* name;
    s64 (*f)(s64, s64);
  };
  static constexpr Row kRows[] = {
      {"vadd", [](s64 x, s64 y) { return x + y; }},
      {"vsub", [](s64 x, s64 y) { return x - y; }},
      {"vavrg", [](s64 x, s64 y) { return average(x, y); }},
      {"vabsdiff", [](s64 x, s64 y) { return x > y ? x - y : y - x; }},
      {"vmin", [](s64 x, s64 y) { return std::min(x, y); }},
      {"vmax", [](s64 x, s64 y) { return std::max(x, y); }},
  };
  for (const Row& row : kRows) {
    for (const int count : {2, 4}) {
      for (const bool is_signed : {false, true}) {
        const std::string t = is_signed ? ".s32" : ".u32";
        const std::string words = row.name + std::to_string(count) + t + t + t;
        const int bits = 32 / count;
        check({{words + " %d, %a, %b, %c;", 4, 4, 4, 4},
               [=, &row](u64 a, u64 b, u64) { return packed(a, b, bits, is_signed, row.f); }});
        const s64 low = is_signed ? -(s64{1} << (bits - 1)) : 0;
        const s64 high = is_signed ? (s64{1} << (bits - 1)) - 1 : (s64{1} << bits) - 1;
        check({{words + ".sat %d, %a, %b, %c;", 4, 4, 4, 4}, [=, &row](u64 a, u64 b, u64) {
                 return packed(a, b, bits, is_signed, [&](s64 x, s64 y) { return std::clamp(row.f(x, y), low, high); });
               }});
      }
    }
  }
  for (const int count : {2, 4}) {
    check({{"vset" + std::to_string(count) + ".u32.u32.lt %d, %a, %b, %c;", 4, 4, 4, 4}, [=](u64 a, u64 b, u64) {
             return packed(a, b, 32 / count, false, [](s64 x, s64 y) { return s64{x < y ? 1 : 0}; });
           }});
  }
}

TEST(ExecRest, VideoOfWholeWords) {
  check({{"vmin.u32.s32.s32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return static_cast<u64>(std::min(static_cast<s32>(a), static_cast<s32>(b))); }});
  check({{"vmax.u32.u32.s32 %d, %a.h1, %b.b0;", 4, 4, 4}, [](u64 a, u64 b, u64) {
           return static_cast<u64>(std::max<s64>(static_cast<u32>(a) >> 16, static_cast<int8_t>(b)));
         }});
}

TEST(ExecRest, RareIntegers) {
  check({{"cnot.b32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return u64{static_cast<u32>(a) == 0}; }});
  check({{"cnot.b16 %d, %a;", 2, 2}, [](u64 a, u64, u64) { return u64{static_cast<u16>(a) == 0}; }});
  check({{"cnot.b64 %d, %a;", 8, 8}, [](u64 a, u64, u64) { return u64{a == 0}; }});
  check({{"or.b32 %b, %b, 1; rem.u32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return u64{static_cast<u32>(a) % static_cast<u32>(b | 1)}; }});
  check({{"or.b32 %b, %b, 1; and.b32 %b, %b, 0x7fffffff; rem.s32 %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) {
           return static_cast<u64>(static_cast<s32>(a) % static_cast<s32>((b | 1) & 0x7fffffff));
         }});
  check({{"or.b64 %b, %b, 1; rem.u64 %d, %a, %b;", 8, 8, 8}, [](u64 a, u64 b, u64) { return a % (b | 1); }});
  for (const bool wrap : {false, true}) {
    for (const bool is_signed : {false, true}) {
      const std::string words = std::string("szext.") + (wrap ? "wrap" : "clamp") + (is_signed ? ".s32" : ".u32");
      check({{words + " %d, %a, %b;", 4, 4, 4}, [=](u64 a, u64 b, u64) -> u64 {
               const auto n = static_cast<u32>(b);
               const u32 width = wrap ? n & 31 : std::min(n, 32u);
               if (width == 0) return 0;
               const u64 low = static_cast<u32>(a) & ((u64{1} << width) - 1);
               return is_signed && (low >> (width - 1) & 1) != 0 ? low | ~u64{0} << width : low;
             }});
    }
  }
  for (const bool high : {false, true}) {
    const auto half = [high](u64 a, int i) { return static_cast<u32>(a) >> 16 * i & 0xffff; };
    const auto byte = [high](u64 b, int i) { return static_cast<u32>(b) >> 8 * (i + (high ? 2 : 0)) & 0xff; };
    const std::string words = std::string("dp2a.") + (high ? "hi" : "lo");
    check({{words + ".u32.u32 %d, %a, %b, %c;", 4, 4, 4, 4},
           [=](u64 a, u64 b, u64 c) { return u64{half(a, 0) * byte(b, 0) + half(a, 1) * byte(b, 1)} + c; }});
    check({{words + ".s32.u32 %d, %a, %b, %c;", 4, 4, 4, 4}, [=](u64 a, u64 b, u64 c) {
             return static_cast<u64>(static_cast<int16_t>(half(a, 0)) * static_cast<s32>(byte(b, 0)) +
                                     static_cast<int16_t>(half(a, 1)) * static_cast<s32>(byte(b, 1))) +
                    c;
           }});
  }
}

TEST(ExecRest, KindsOfFloats) {
  const std::pair<const char*, bool (*)(double)> kKinds[] = {
      {"finite", [](double v) { return std::isfinite(v); }},
      {"infinite", [](double v) { return std::isinf(v); }},
      {"number", [](double v) { return !std::isnan(v); }},
      {"notanumber", [](double v) { return std::isnan(v); }},
  };
  for (const auto& [name, f] : kKinds) {
    check({{std::string("testp.") + name + ".f32 %q, %a; selp.u32 %d, 1, 0, %q;", 4, 4}, [f = f](u64 a, u64, u64) {
             return u64{f(static_cast<double>(std::bit_cast<float>(static_cast<u32>(a))))};
           }});
    check({{std::string("testp.") + name + ".f64 %q, %a; selp.u32 %d, 1, 0, %q;", 4, 8},
           [f = f](u64 a, u64, u64) { return u64{f(std::bit_cast<double>(a))}; }});
  }
  check({{"testp.subnormal.f32 %q, %a; selp.u32 %d, 1, 0, %q;", 4, 4},
         [](u64 a, u64, u64) { return u64{(a & 0x7f800000) == 0 && (a & 0x7fffff) != 0}; }});
  check({{"testp.normal.f64 %q, %a; selp.u32 %d, 1, 0, %q;", 4, 8}, [](u64 a, u64, u64) {
           const double v = std::bit_cast<double>(a);
           return u64{std::isnormal(v) || v == 0};  // zeros count as normal
         }});
}

// One warp; out[thread] = %r9.
std::vector<u32> run_warp(const std::string& body, FaultKind expected = FaultKind::kNone) {
  Machine m;
  m.load(
      ".version 8.8\n.target sm_120\n.address_size 64\n.visible .entry k(.param .u64 out, .param .u64 data)\n{\n.reg "
      ".pred %p<9>; .reg .b32 %r<50>; .reg .b64 %rd<20>; .local .b32 own; .shared .b32 common;\nmov.u32 %r1, %tid.x; "
      "mul.wide.u32 %rd2, %r1, 4; ld.param.u64 %rd1, [out]; add.u64 %rd3, %rd1, %rd2; ld.param.u64 %rd4, [data]; "
      "add.u64 %rd5, %rd4, %rd2; mov.u32 %r9, 0;\n" +
      body + "\nst.global.u32 [%rd3], %r9;\nret;\n}\n");
  if (::testing::Test::HasFatalFailure()) return {};
  std::vector<u32> data(64);
  for (u32 i = 0; i < 64; ++i) data[i] = 100 + i;
  const u64 out = m.allocate(128);
  const Fault fault = m.run("k", {1, 1, 1}, {32, 1, 1}, {out, m.upload(data)});
  EXPECT_EQ(fault.kind, expected) << fault.where;
  return m.download<u32>(out, 32);
}

// What only concerns caches and clocks leaves values as they are.
TEST(ExecRest, HintsChangeNothing) {
  const auto out = run_warp(
      "prefetch.global.L2 [%rd5]; prefetchu.L1 [%rd5]; applypriority.global.L2::evict_normal [%rd4], 128; "
      "createpolicy.fractional.L2::evict_last.b64 %rd7, 0.5; nanosleep.u32 20; pmevent 3; fence.acq_rel.gpu; "
      "fence.proxy.alias; griddepcontrol.wait; griddepcontrol.launch_dependents; setmaxnreg.inc.sync.aligned.u32 64;\n"
      "ldu.global.u32 %r9, [%rd5]; ld.global.L2::cache_hint.u32 %r10, [%rd5], %rd7; add.u32 %r9, %r9, %r10; "
      "discard.global.L2 [%rd4], 128;");
  for (u32 t = 0; t < 32; ++t) EXPECT_EQ(out[t], 2 * (100 + t));
}

TEST(ExecRest, OneLaneIsElected) {
  const auto out = run_warp(
      "setp.gt.u32 %p1, %r1, 4; @!%p1 bra $E; elect.sync %r10|%p2, 0xffffffe0; selp.u32 %r9, 1, 0, %p2; shl.b32 %r10, "
      "%r10, 8; or.b32 %r9, %r9, %r10;\n$E:");
  for (u32 t = 0; t < 32; ++t) EXPECT_EQ(out[t], t <= 4 ? 0u : t == 5 ? 0x501u : 0x500u);
}

TEST(ExecRest, AddressesAreOfTheirSpaces) {
  const auto out = run_warp(
      "cvta.shared.u64 %rd7, common; cvta.local.u64 %rd8, own; isspacep.shared %p1, %rd7; isspacep.local %p2, %rd8; "
      "isspacep.global %p3, %rd4; isspacep.global %p4, %rd7; isspacep.shared %p5, %rd4;\nselp.u32 %r9, 1, 0, %p1; @%p2 "
      "add.u32 %r9, %r9, 2; @%p3 add.u32 %r9, %r9, 4; @%p4 add.u32 %r9, %r9, 8; @%p5 add.u32 %r9, %r9, 16;");
  EXPECT_EQ(out[0], 7u);
}

// Rooms of different sizes in each lane; the second lies where the first was.
TEST(ExecRest, TheStackGrowsAndShrinks) {
  const auto out = run_warp(
      "stacksave.u64 %rd6; mad.lo.u32 %r10, %r1, 8, 16; cvt.u64.u32 %rd7, %r10; alloca.u64 %rd8, %rd7; "
      "st.local.u32 [%rd8], %r1; alloca.u64 %rd9, 16, 16; st.local.u32 [%rd9], 7; ld.local.u32 %r9, [%rd8];\n"
      "and.b64 %rd10, %rd9, 15; setp.ne.u64 %p1, %rd10, 0; @%p1 trap; stackrestore.u64 %rd6; alloca.u64 %rd11, %rd7; "
      "setp.ne.u64 %p2, %rd11, %rd8; @%p2 add.u32 %r9, %r9, 1000;");
  for (u32 t = 0; t < 32; ++t) EXPECT_EQ(out[t], t);
}

TEST(ExecRest, ThreadsEndAndBreak) {
  const auto out = run_warp("mov.u32 %r9, 5; setp.lt.u32 %p1, %r1, 9; @%p1 exit;");
  for (u32 t = 0; t < 32; ++t) EXPECT_EQ(out[t], t < 9 ? 0u : 5u);
  run_warp("setp.eq.u32 %p1, %r1, 9; @%p1 brkpt;", FaultKind::kTrap);
}

}  // namespace
}  // namespace softgpu
