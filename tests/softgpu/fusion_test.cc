// What runs as one operation where a turn is long enough gives the same bits as its parts, however long turns are and
// at every level; so do the short ways of loads, stores and special functions.

#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "machine.h"

namespace softgpu {
namespace {

constexpr uint32_t kThreads = 80;  // the last warp is half empty

// `out[tid] = %r9` of two blocks, from %r1 = tid, %r2 = lane, %r3 = in[tid].
std::string kernel(const std::string& body) {
  return with_header(
      ".visible .entry k(.param .u64 out, .param .u64 in)\n{\n.reg .pred %p<40>; .reg .b32 %r<99>; .reg .b64 %rd<40>;\n"
      ".shared .align 16 .b8 buf[8192];\nld.param.u64 %rd1, [out]; ld.param.u64 %rd4, [in]; mov.u32 %r1, %tid.x;\n"
      "cvta.to.global.u64 %rd7, %rd4; mov.u32 %r2, %laneid; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd3, %rd1, %rd2;\n"
      "add.u64 %rd5, %rd7, %rd2; ld.global.b32 %r3, [%rd5];\n" +
      body + "\nst.global.u32 [%rd3], %r9;\nret;\n}\n");
}

std::vector<uint32_t> run_once(const std::string& ptx, const std::vector<uint32_t>& in, IsaLevel level,
                               uint32_t quantum) {
  Machine m;
  m.load(ptx, level);
  if (::testing::Test::HasFatalFailure()) return {};
  m.launch().quantum = quantum;
  const uint64_t out = m.allocate(kThreads * 4);
  const Fault fault = m.run("k", {2, 1, 1}, {kThreads, 1, 1}, {out, m.upload(in)});
  EXPECT_TRUE(fault.ok()) << fault.where;
  return m.download<uint32_t>(out, kThreads);
}

// The results of turns of one instruction at the lowest level, where nothing is joined, after all others gave the same.
std::vector<uint32_t> same_everywhere(const std::string& body, const std::vector<uint32_t>& in) {
  const std::string ptx = kernel(body);
  const std::vector<uint32_t> first = run_once(ptx, in, levels().front(), 1);
  for (const IsaLevel level : levels()) {
    for (const uint32_t quantum : {1u, 2u, 3u, 5u, 11u, 32u, 4000u}) {
      EXPECT_EQ(run_once(ptx, in, level, quantum), first)
          << body << "\nquantum " << quantum << ", level " << static_cast<int>(level);
    }
  }
  return first;
}

std::vector<uint32_t> mixed_numbers() {
  const float special[] = {0.0f, -0.0f, 1.0f, -1.5f, std::numeric_limits<float>::infinity(), 3e38f, 1e-40f};
  std::vector<uint32_t> out;
  for (uint32_t i = 0; i < kThreads; ++i) {
    out.push_back(i % 5 == 0 ? std::bit_cast<uint32_t>(special[i / 5 % 7]) : i * 0x9e3779b9u);
  }
  out[7] = 0xffc00001;
  return out;
}

// The unrolled loop of a reduction as nvcc writes it. `used`: each step's results are read once more at the end.
std::string reduction(const std::string& shuffle, const std::string& operation, bool used) {
  std::string text, uses = "mov.b32 %r9, %r60;\n";
  for (int i = 0; i < 5; ++i) {
    const std::string value = i == 0 ? "%r3" : "%r" + std::to_string(50 + 2 * i);
    const std::string moved = "%r" + std::to_string(51 + 2 * i), next = "%r" + std::to_string(52 + 2 * i);
    const std::string distance = "%r" + std::to_string(20 + i);
    text += "mov.b32 " + distance + ", " + std::to_string(16 >> i) + ";\nshfl.sync." + shuffle + ".b32 " + moved +
            "|%p" + std::to_string(i + 1) + ", " + value + ", " + distance + ", 31, -1;\n" + operation + " " + next +
            ", " + (i % 2 == 0 ? moved + ", " + value : value + ", " + moved) + ";\n";
    uses += "xor.b32 %r9, %r9, " + moved + "; shl.b32 %r9, %r9, 1; xor.b32 %r9, %r9, " + next + ";\n";
  }
  return text + (used ? uses : "mov.b32 %r9, %r60;");
}

TEST(Fusion, RowsOfShufflesAndOperations) {
  for (const std::string shuffle : {"bfly", "down"}) {
    for (const std::string operation : {"add.u32", "add.s32", "add.f32", "min.u32", "min.s32", "min.f32", "max.u32",
                                        "max.s32", "max.f32", "and.b32", "or.b32", "xor.b32", "sub.u32"}) {
      for (const bool used : {false, true}) same_everywhere(reduction(shuffle, operation, used), mixed_numbers());
    }
  }
  std::vector<uint32_t> ones(kThreads, 1);
  const auto sums = same_everywhere(reduction("bfly", "add.u32", false), ones);
  for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(sums[i], 32u);
}

TEST(Fusion, ShufflesByKnownDistances) {
  for (const std::string shuffle : {"bfly", "down", "up", "idx"}) {
    for (const char* distance : {"0", "1", "15", "31", "33"}) {
      const std::string clamp = shuffle == "up" ? "0" : "31";
      same_everywhere("shfl.sync." + shuffle + ".b32 %r9, %r3, " + distance + ", " + clamp + ", -1;", mixed_numbers());
    }
  }
}

TEST(Fusion, LanesThatSkipAFewOperations) {
  const auto out = same_everywhere(
      "mov.b32 %r9, %r2; and.b32 %r10, %r2, 3; setp.ne.u32 %p1, %r10, 0; @%p1 bra $SKIP;\nmul.lo.u32 %r9, %r9, 100; "
      "setp.gt.u32 %p2, %r9, 1200; @%p2 add.u32 %r9, %r9, 7; mov.u32 %r11, buf; mad.lo.u32 %r11, %r2, 4, %r11; "
      "st.shared.u32 [%r11], %r9; ld.shared.u32 %r9, [%r11];\n$SKIP: add.u32 %r9, %r9, 1; setp.lt.u32 %p3, %r2, 9; "
      "@!%p3 bra $OUT; add.u32 %r9, %r9, 5000;\n$OUT:",
      mixed_numbers());
  for (uint32_t i = 0; i < kThreads; ++i) {
    const uint32_t lane = i % 32, inside = lane * 100 + (lane * 100 > 1200 ? 7 : 0);
    EXPECT_EQ(out[i], (lane % 4 == 0 ? inside : lane) + 1 + (lane < 9 ? 5000 : 0));
  }
}

TEST(Fusion, AFaultInWhatOthersSkipHasItsPlace) {
  Machine m;
  m.load(
      kernel("mov.b32 %r9, 0; setp.ne.u32 %p1, %r2, 5; @%p1 bra $SKIP;\nadd.u32 %r9, %r9, 1;\nld.global.u32 %r9, "
             "[%rd5+2];\n$SKIP:"));
  const Fault fault = m.run("k", {1, 1, 1}, {32, 1, 1}, {m.allocate(128), m.allocate(128)});
  EXPECT_EQ(fault.kind, FaultKind::kMisalignedAddress);
  EXPECT_NE(fault.where.find("thread (5,0,0)"), std::string::npos) << fault.where;
  EXPECT_NE(fault.where.find("[%rd5+2]"), std::string::npos) << fault.where;
}

// %r10 = place of the lane in two rows of 16, `stride` bytes apart.
std::string rows(uint32_t stride, const std::string& then) {
  return "shr.u32 %r11, %r2, 4; and.b32 %r12, %r2, 15; mul.lo.u32 %r10, %r11, " + std::to_string(stride) +
         "; mad.lo.u32 %r10, %r12, 4, %r10; mov.u32 %r13, buf; mad.lo.u32 %r14, %r1, 4, %r13; st.shared.u32 [%r14], 0; "
         "bar.sync 0;\n" +
         then;
}

TEST(Fusion, HalvesOfAWarpInRows) {
  // They overlap, touch, and lie apart; where two lanes store to one place, the lower one wins.
  for (const uint32_t stride : {0u, 4u, 32u, 60u, 64u, 68u, 256u, 1020u}) {
    const auto out = same_everywhere(
        rows(stride,
             "setp.ge.u32 %p1, %r1, 32; @%p1 bra $LATE; add.u32 %r15, %r13, %r10; add.u32 %r16, %r2, 1; st.shared.u32 "
             "[%r15], %r16;\n$LATE: bar.sync 0; add.u32 %r15, %r13, %r10; ld.shared.u32 %r9, [%r15];"),
        mixed_numbers());
    for (uint32_t lane = 0; lane < 32; ++lane) {
      uint32_t want = 0;
      for (uint32_t other = 32; other-- > 0;) {
        if (other / 16 * stride + other % 16 * 4 == lane / 16 * stride + lane % 16 * 4) want = other + 1;
      }
      EXPECT_EQ(out[lane], want) << "stride " << stride << ", lane " << lane;
    }
  }
}

TEST(Fusion, HalvesOfAWarpThatReadOneValueEach) {
  const auto out = same_everywhere(
      "shr.u32 %r10, %r2, 4; mul.wide.u32 %rd8, %r10, 12; add.u64 %rd9, %rd7, %rd8;\n"
      "ld.global.u32 %r9, [%rd9+4];",
      mixed_numbers());
  for (uint32_t i = 0; i < kThreads; ++i) EXPECT_EQ(out[i], mixed_numbers()[i % 32 < 16 ? 1 : 4]);
}

TEST(Fusion, DivisionsOf32Bits) {
  for (const std::string operation : {"div.u32", "div.s32", "rem.u32", "rem.s32"}) {
    std::vector<uint32_t> in = mixed_numbers();
    in[1] = 0x80000000, in[2] = 0xffffffff, in[3] = 0x7fffffff, in[4] = 0xfffffffe;
    for (const std::string divisor : {"0", "1", "-1", "2", "3", "7", "65535", "0x7fffffff", "0x80000000"}) {
      const auto out = same_everywhere(operation + " %r9, %r3, " + divisor + ";", in);
      const auto b = static_cast<uint32_t>(std::stoll(divisor, nullptr, 0));
      for (uint32_t i = 0; i < kThreads; ++i) {
        const bool is_signed = operation.ends_with("s32"), quotient = operation.starts_with("div");
        const int64_t a = is_signed ? static_cast<int32_t>(in[i]) : int64_t{in[i]};
        const int64_t by = is_signed ? static_cast<int32_t>(b) : int64_t{b};
        const int64_t want = by == 0 ? (quotient ? -1 : a) : quotient ? a / by : a % by;
        EXPECT_EQ(out[i], static_cast<uint32_t>(want)) << operation << " of " << in[i] << " by " << divisor;
      }
    }
  }
}

TEST(Fusion, SpecialFunctions) {
  std::vector<uint32_t> in = mixed_numbers();
  for (int i = 10; i < 40; ++i) in[static_cast<size_t>(i)] = std::bit_cast<uint32_t>(static_cast<float>((i - 25) * 11));
  const auto powers = same_everywhere("ex2.approx.f32 %r9, %r3;", in);
  const auto logarithms = same_everywhere("lg2.approx.f32 %r9, %r3;", in);
  const auto roots = same_everywhere("rsqrt.approx.f32 %r9, %r3;", in);
  const auto flushed = same_everywhere("ex2.approx.ftz.f32 %r9, %r3;", in);
  const auto check = [](uint32_t got, double want, uint32_t of) {
    const auto nearest = static_cast<float>(want);
    const auto is = std::bit_cast<float>(got);
    if (std::isnan(nearest) || std::isinf(nearest) || nearest == 0) {
      EXPECT_EQ(got, std::isnan(nearest) ? 0x7fffffff : std::bit_cast<uint32_t>(nearest)) << of;
    } else {
      const float next = std::nextafter(nearest, is);
      EXPECT_TRUE(is == nearest || is == next) << is << " for " << nearest << " of " << of;
    }
  };
  for (uint32_t i = 0; i < kThreads; ++i) {
    const double v = std::bit_cast<float>(in[i]);
    check(powers[i], std::exp2(v), in[i]);
    check(logarithms[i], std::log2(v), in[i]);
    check(roots[i], 1 / std::sqrt(v), in[i]);
    if (std::bit_cast<float>(powers[i]) >= 0x1p-126f) {
      EXPECT_EQ(flushed[i], powers[i]);
    }
    if (v == std::floor(v) && std::fabs(v) < 120) {
      EXPECT_EQ(std::bit_cast<float>(powers[i]), std::ldexp(1.0f, int(v)));
    }
  }
}

}  // namespace
}  // namespace softgpu
