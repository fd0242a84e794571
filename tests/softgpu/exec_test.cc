// What a grid does as a whole: divergence, barriers, shuffles, atomics, calls, memory, faults, scheduling.

#include <numeric>
#include <thread>

#include "base/clock.h"
#include "machine.h"

namespace softgpu {
namespace {

// `out[tid] = %r9` of a one-block kernel: body computes %r9 from %r1 = tid.
std::string thread_kernel(const std::string& body, const std::string& before = "") {
  return with_header(before +
                     ".visible .entry k(.param .u64 out, .param .u64 in)\n{\n.reg .pred %p<20>; .reg .b32 %r<100>; "
                     ".reg .b64 %rd<40>; .reg .f32 %f<20>;\nmov.u32 %r1, %tid.x; mov.u32 %r2, %laneid;\nld.param.u64 "
                     "%rd1, [out]; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd3, %rd1, %rd2;\nld.param.u64 %rd4, [in];\n" +
                     body + "\nst.global.u32 [%rd3], %r9;\nret;\n}\n");
}

std::vector<uint32_t> run_threads(const std::string& ptx, uint32_t threads, const std::vector<uint32_t>& in = {0}) {
  Machine m;
  m.load(ptx);
  if (::testing::Test::HasFatalFailure()) return {};
  const uint64_t out = m.allocate(threads * 4);
  const Fault fault = m.run("k", {1, 1, 1}, {threads, 1, 1}, {out, m.upload(in)});
  EXPECT_TRUE(fault.ok()) << fault.where;
  return m.download<uint32_t>(out, threads);
}

const char* const kVectorAdd = R"(
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{
  .reg .pred %p<2>; .reg .f32 %f<4>; .reg .b32 %r<6>; .reg .b64 %rd<11>;
  ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; ld.param.u32 %r2, [n];
  mov.u32 %r3, %ntid.x; mov.u32 %r4, %ctaid.x; mov.u32 %r5, %tid.x;
  mad.lo.s32 %r1, %r4, %r3, %r5;
  setp.ge.s32 %p1, %r1, %r2;
  @%p1 bra $DONE;
  cvta.to.global.u64 %rd4, %rd1; mul.wide.s32 %rd5, %r1, 4; add.s64 %rd6, %rd4, %rd5; ld.global.f32 %f1, [%rd6];
  cvta.to.global.u64 %rd7, %rd2; add.s64 %rd8, %rd7, %rd5; ld.global.f32 %f2, [%rd8];
  add.f32 %f3, %f1, %f2;
  cvta.to.global.u64 %rd9, %rd3; add.s64 %rd10, %rd9, %rd5; st.global.f32 [%rd10], %f3;
$DONE:
  ret;
}
)";

TEST(Exec, AddsVectorsWhoseLengthIsNoMultipleOfABlock) {
  Machine m(2);
  m.load(with_header(kVectorAdd));
  std::vector<float> a(1000), b(1000);
  std::iota(a.begin(), a.end(), 0.5f);
  std::iota(b.begin(), b.end(), -3.0f);
  const uint64_t c = m.allocate(4096);
  ASSERT_TRUE(m.run("add", {8, 1, 1}, {128, 1, 1}, {m.upload(a), m.upload(b), c, 1000}).ok());
  const auto out = m.download<float>(c, 1024);
  for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(out[i], a[i] + b[i]);
  for (size_t i = 1000; i < 1024; ++i) EXPECT_EQ(out[i], 0.0f);
}

TEST(Exec, KernelInfoTellsParametersAndResources) {
  Machine m;
  m.load(
      with_header(".visible .entry k(.param .u32 a, .param .u64 b, .param .align 16 .b8 s[20], .param .u8 c)\n.maxntid "
                  "64, 2, 1\n{ .shared .align 4 .b8 buf[100]; .local .align 8 .b8 depot[24]; .reg .b32 %r<3>;\nmov.u32 "
                  "%r1, buf; st.shared.u32 [%r1], %r1; ret; }"));
  std::string error;
  const KernelInfo& k = *m.program().kernel(0, &error);
  EXPECT_EQ(k.name, "k");
  ASSERT_EQ(k.params.size(), 4u);
  EXPECT_EQ(k.params[1].offset, 8u);
  EXPECT_EQ(k.params[2].offset, 16u);
  EXPECT_EQ(k.params[2].bytes, 20u);
  EXPECT_EQ(k.params[3].offset, 36u);
  EXPECT_EQ(k.param_bytes, 37u);
  EXPECT_EQ(k.static_shared_bytes, 100u);
  EXPECT_GE(k.local_bytes, 24u);
  EXPECT_EQ(k.max_threads_per_block, 128u);
  EXPECT_EQ(k.ptx_version, 80u);
  EXPECT_GE(k.registers, 16u);
  EXPECT_LE(k.registers, 255u);
}

TEST(ExecDivergence, LanesMeetAgainAfterALoopOfDifferentLengths) {
  const auto out =
      run_threads(thread_kernel("mov.u32 %r9, 0; mov.u32 %r10, 0;\n$LOOP: setp.ge.u32 %p1, %r10, %r1; @%p1 bra "
                                "$OUT;\nadd.u32 %r9, %r9, %r10; add.u32 %r10, %r10, 1; bra $LOOP;\n$OUT: "
                                "activemask.b32 %r11; popc.b32 %r12, %r11; mad.lo.u32 %r9, %r12, 1000, %r9;"),
                  32);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], 32000 + (i == 0 ? 0 : i * (i - 1) / 2));
}

TEST(ExecDivergence, BothArmsRunForTheirOwnLanes) {
  const auto out = run_threads(
      thread_kernel("and.b32 %r3, %r1, 3; setp.eq.u32 %p1, %r3, 2; @!%p1 bra $ELSE; mov.u32 %r9, 7; bra.uni "
                    "$JOIN;\n$ELSE: mov.u32 %r9, 5; setp.eq.u32 %p2, %r3, 1; @%p2 add.u32 %r9, %r9, 100;\n$JOIN:"),
      70);
  for (uint32_t i = 0; i < 70; ++i) EXPECT_EQ(out[i], i % 4 == 2 ? 7u : i % 4 == 1 ? 105u : 5u);
}

TEST(ExecDivergence, ALaneThatHoldsALockIsNotStarvedByThoseThatSpin) {
  const auto out =
      run_threads(thread_kernel("$TRY: atom.global.cas.b32 %r3, [%rd4], 0, 1; setp.ne.u32 %p1, %r3, 0; @%p1 bra "
                                "$TRY;\nld.global.u32 %r4, [%rd4+4]; add.u32 %r4, %r4, 1; st.global.u32 [%rd4+4], %r4; "
                                "mov.u32 %r9, %r4;\nmembar.gl; atom.global.exch.b32 %r5, [%rd4], 0;"),
                  64, {0, 0});
  std::vector<uint32_t> sorted = out;
  std::sort(sorted.begin(), sorted.end());
  for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(sorted[i], i + 1);
}

TEST(ExecBarrier, SharedMemoryIsSeenByOtherWarps) {
  const auto out =
      run_threads(thread_kernel(".shared .align 4 .b8 buf[1024]; mov.u32 %r3, buf; mov.u32 %r5, %ntid.x; mad.lo.u32 "
                                "%r4, %r1, 4, %r3;\nst.shared.u32 [%r4], %r1; bar.sync 0; sub.u32 %r6, %r5, %r1; "
                                "sub.u32 %r6, %r6, 1;\nmad.lo.u32 %r7, %r6, 4, %r3; ld.shared.u32 %r9, [%r7];"),
                  200);
  for (uint32_t i = 0; i < 200; ++i) EXPECT_EQ(out[i], 199 - i);
}

TEST(ExecBarrier, ThreadsThatHaveExitedAreNotWaitedFor) {
  const auto out = run_threads(
      thread_kernel("mov.u32 %r9, 1; setp.gt.u32 %p1, %r1, 40; @%p1 bra $STAY; exit;\n$STAY: bar.sync 0; bar.sync 0;"),
      96);
  for (uint32_t i = 0; i < 96; ++i) EXPECT_EQ(out[i], i > 40 ? 1u : 0u);
}

TEST(ExecBarrier, ReductionsCountAndCombine) {
  const auto out = run_threads(
      thread_kernel("setp.lt.u32 %p1, %r1, 37; bar.red.popc.u32 %r9, 0, %p1; bar.red.and .pred %p2, 0, %p1; "
                    "bar.red.or.pred %p3, 0, %p1;\n@%p2 add.u32 %r9, %r9, 1000; @%p3 add.u32 %r9, %r9, 2000;"),
      100);
  for (const uint32_t v : out) EXPECT_EQ(v, 2037u);
}

TEST(ExecBarrier, NamedBarriersCountTheirThreads) {
  // The second warp produces and only arrives; the first waits. The third takes no part.
  const auto out = run_threads(
      thread_kernel(".shared .align 4 .b8 cell[4]; mov.u32 %r9, 0; shr.u32 %r3, %r1, 5; setp.eq.u32 %p1, %r3, 1; "
                    "setp.eq.u32 %p2, %r3, 0;\n@!%p1 bra $NEXT; mov.u32 %r4, 100;\n$SPIN: sub.u32 %r4, %r4, 1; "
                    "setp.ne.u32 %p3, %r4, 0; @%p3 bra $SPIN;\nst.shared.u32 [cell], 42; membar.cta; bar.arrive 3, "
                    "64;\n$NEXT: @!%p2 bra $END; bar.sync 3, 64; ld.shared.u32 %r9, [cell];\n$END:"),
      96);
  for (uint32_t i = 0; i < 96; ++i) EXPECT_EQ(out[i], i < 32 ? 42u : 0u);
}

TEST(ExecBarrier, AWarpBarrierInBothArmsOfABranchPasses) {
  const auto out =
      run_threads(thread_kernel("setp.lt.u32 %p1, %r2, 13; @%p1 bra $A; bar.warp.sync 0xffffffff; mov.u32 %r9, 1; bra "
                                "$J;\n$A: bar.warp.sync 0xffffffff; mov.u32 %r9, 2;\n$J: bar.warp.sync 0xffffffff;"),
                  32);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], i < 13 ? 2u : 1u);
}

TEST(ExecBarrier, ADeadlockIsAFaultThatNamesTheKernel) {
  Machine m;
  m.load(thread_kernel(
      "bar.sync 1, 64; mov.u32 %r9, 0;\n setp.lt.u32 %p1, %r1, 32; @%p1 bra $X; bar.sync 2, 64;\n$X: bar.sync 3;"));
  const Fault fault = m.run("k", {1, 1, 1}, {64, 1, 1}, {m.allocate(4096), m.allocate(64)});
  EXPECT_EQ(fault.kind, FaultKind::kTrap);
  EXPECT_NE(fault.where.find("kernel k"), std::string::npos) << fault.where;
}

uint32_t shuffled(const std::string& mode, uint32_t lane, uint32_t b, uint32_t c, bool* inside) {
  const uint32_t segment = c >> 8 & 31, most = (lane & segment) | (c & 31 & ~segment);
  int from = 0;
  if (mode == "up") from = static_cast<int>(lane) - static_cast<int>(b);
  if (mode == "down") from = static_cast<int>(lane + b);
  if (mode == "bfly") from = static_cast<int>(lane ^ b);
  if (mode == "idx") from = static_cast<int>((lane & segment) | (b & ~segment));
  *inside = mode == "up" ? from >= static_cast<int>(most) : from <= static_cast<int>(most);
  return *inside ? static_cast<uint32_t>(from) : lane;
}

TEST(ExecWarp, ShufflesReadTheLaneThatTheyShould) {
  for (const std::string mode : {"up", "down", "bfly", "idx"}) {
    for (const uint32_t width : {32u, 16u, 8u}) {
      for (const uint32_t b : {0u, 1u, 5u, 16u, 31u}) {
        const uint32_t c = (32 - width) << 8 | (mode == "up" ? 0 : 31);
        const auto out = run_threads(
            thread_kernel("mul.lo.u32 %r3, %r1, 3; shfl.sync." + mode + ".b32 %r4|%p1, %r3, " + std::to_string(b) +
                          ", " + std::to_string(c) + ", -1; selp.u32 %r5, 1000, 0, %p1; add.u32 %r9, %r4, %r5;"),
            32);
        for (uint32_t i = 0; i < 32; ++i) {
          bool inside = false;
          const uint32_t from = shuffled(mode, i, b, c, &inside);
          EXPECT_EQ(out[i], 3 * from + (inside ? 1000 : 0)) << mode << " " << width << " by " << b << " lane " << i;
        }
      }
    }
  }
}

TEST(ExecWarp, ShuffleWaitsForLanesThatComeLater) {
  const auto out =
      run_threads(thread_kernel("setp.lt.u32 %p1, %r2, 16; mov.u32 %r3, %r2; mov.u32 %r10, 50; @%p1 bra $GO;\n$SPIN: "
                                "sub.u32 %r10, %r10, 1; setp.ne.u32 %p2, %r10, 0; @%p2 bra $SPIN; add.u32 %r3, %r3, "
                                "100;\n$GO: shfl.sync.bfly.b32 %r9, %r3, 16, 31, 0xffffffff;"),
                  32);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], i < 16 ? i + 116 : i - 16);
}

TEST(ExecWarp, ShuffleFromAnAbsentLaneGivesZero) {
  // The last step of a block's reduction as programs write it: eight lanes, whose first step reaches beyond them.
  const auto out = run_threads(thread_kernel("mov.u32 %r9, %r2; setp.ge.u32 %p1, %r2, 8; @%p1 bra $END; "
                                             "shfl.sync.down.b32 %r9, %r2, 4, 31, 0xff;\n$END:"),
                               32);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], i < 4 ? i + 4 : i < 8 ? 0 : i);
}

TEST(ExecWarp, VotesMatchesAndReductions) {
  const auto lanes_below_9 =
      run_threads(thread_kernel("setp.lt.u32 %p1, %r2, 9; vote.sync.ballot.b32 %r9, %p1, -1;"), 32);
  for (const uint32_t v : lanes_below_9) EXPECT_EQ(v, 0x1ffu);
  const auto flags =
      run_threads(thread_kernel("setp.lt.u32 %p1, %r2, 9; vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, "
                                "%p1, -1; vote.sync.uni.pred %p4, %p1, -1;\nselp.u32 %r9, 1, 0, %p2; @%p3 add.u32 %r9, "
                                "%r9, 2; @%p4 add.u32 %r9, %r9, 4;"),
                  32);
  for (const uint32_t v : flags) EXPECT_EQ(v, 1u);
  const auto matched = run_threads(thread_kernel("and.b32 %r3, %r2, 3; match.any.sync.b32 %r9, %r3, -1;"), 32);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(matched[i], 0x11111111u << (i % 4));
  const auto all = run_threads(thread_kernel("mov.u32 %r3, 5; match.all.sync.b32 %r9|%p1, %r3, -1;"), 32);
  for (const uint32_t v : all) EXPECT_EQ(v, ~0u);
  const auto halves = run_threads(
      thread_kernel(
          "setp.lt.u32 %p1, %r2, 16; selp.u32 %r3, 0xffff, 0xffff0000, %p1; redux.sync.add.u32 %r9, %r2, %r3;"),
      32);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(halves[i], i < 16 ? 120u : 376u);
  const auto least = run_threads(thread_kernel("sub.s32 %r3, 7, %r2; redux.sync.min.s32 %r9, %r3, -1;"), 32);
  for (const uint32_t v : least) EXPECT_EQ(static_cast<int32_t>(v), -24);
}

TEST(ExecAtomic, GridsCountRight) {
  Machine m(2);
  m.load(thread_kernel(
      "atom.global.add.u32 %r3, [%rd4], 1; red.global.max.s32 [%rd4+4], %r1; red.global.min.s32 [%rd4+8], -5; "
      "atom.global.inc.u32 %r4, [%rd4+12], 9;\nred.global.add.f32 [%rd4+16], 0f3F000000; red.global.or.b32 [%rd4+20], "
      "%r1; atom.global.dec.u32 %r5, [%rd4+24], 6; red.global.add.u64 [%rd4+32], 3; mov.u32 %r9, 0;"));
  const uint64_t in = m.allocate(256), out = m.allocate(4096);
  ASSERT_TRUE(m.run("k", {50, 1, 1}, {100, 1, 1}, {out, in}).ok());
  const auto v = m.download<uint32_t>(in, 10);
  EXPECT_EQ(v[0], 5000u);
  EXPECT_EQ(v[1], 99u);
  EXPECT_EQ(static_cast<int32_t>(v[2]), -5);
  EXPECT_EQ(v[3], 0u);  // counts 0..9
  EXPECT_EQ(m.download<float>(in, 5)[4], 2500.0f);
  EXPECT_EQ(v[5], 127u);
  EXPECT_EQ(v[6], (7u - 5000 % 7) % 7);
  EXPECT_EQ(v[8], 15000u);
}

TEST(ExecAtomic, LanesTakeTurnsInOrder) {
  const auto out = run_threads(thread_kernel("atom.global.add.u32 %r9, [%rd4], %r2;"), 32, {100});
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], 100 + (i == 0 ? 0 : i * (i - 1) / 2));
}

TEST(ExecMemory, TheLowestLaneWinsAStore) {
  Machine m;
  m.load(thread_kernel("add.u32 %r3, %r1, 5; st.global.u32 [%rd4], %r3; mov.u32 %r9, 0;"));
  const uint64_t in = m.allocate(64);
  ASSERT_TRUE(m.run("k", {1, 1, 1}, {32, 1, 1}, {m.allocate(256), in}).ok());
  EXPECT_EQ(m.download<uint32_t>(in, 1)[0], 5u);
}

TEST(ExecMemory, VectorsOfEverySizeAndPattern) {
  std::vector<uint32_t> in(1024);
  std::iota(in.begin(), in.end(), 1000);
  const auto side_by_side =
      run_threads(thread_kernel("mul.wide.u32 %rd5, %r1, 16; add.u64 %rd6, %rd4, %rd5; ld.global.v4.u32 {%r3, %r4, _, "
                                "%r6}, [%rd6];\nxor.b32 %r9, %r3, %r4; add.u32 %r9, %r9, %r6;"),
                  45, in);
  for (uint32_t i = 0; i < 45; ++i) EXPECT_EQ(side_by_side[i], (in[4 * i] ^ in[4 * i + 1]) + in[4 * i + 3]);
  const auto backwards =
      run_threads(thread_kernel("sub.u32 %r3, 500, %r1; mul.wide.u32 %rd5, %r3, 8; add.u64 %rd6, %rd4, %rd5; "
                                "ld.global.v2.u32 {%r3, %r4}, [%rd6]; sub.u32 %r9, %r4, %r3; add.u32 %r9, %r9, %r3;"),
                  45, in);
  for (uint32_t i = 0; i < 45; ++i) EXPECT_EQ(backwards[i], in[2 * (500 - i) + 1]);
  const auto bytes = run_threads(thread_kernel("cvt.u64.u32 %rd5, %r1; add.u64 %rd6, %rd4, %rd5; ld.global.s8 %r3, "
                                               "[%rd6+3]; ld.global.u16 %r4, [%rd4+2]; add.u32 %r9, %r3, %r4;"),
                                 45, in);
  for (uint32_t i = 0; i < 45; ++i) {
    EXPECT_EQ(bytes[i], static_cast<uint32_t>(reinterpret_cast<const int8_t*>(in.data())[i + 3]) + (in[0] >> 16));
  }
}

TEST(ExecMemory, LocalArraysBelongToTheThread) {
  const auto out = run_threads(
      thread_kernel(".local .align 16 .b8 depot[128]; mov.u64 %rd5, depot; cvta.local.u64 %rd6, %rd5; mov.u32 %r3, "
                    "0;\n$FILL: mul.wide.u32 %rd7, %r3, 4; add.u64 %rd8, %rd5, %rd7; mad.lo.u32 %r4, %r1, 100, %r3; "
                    "st.local.u32 [%rd8], %r4; add.u32 %r3, %r3, 1;\nsetp.lt.u32 %p1, %r3, 32; @%p1 bra $FILL; "
                    "mul.wide.u32 %rd7, %r2, 4; add.u64 %rd8, %rd6, %rd7; ld.u32 %r9, [%rd8];"),
      64);
  for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(out[i], i * 100 + i % 32);
}

TEST(ExecMemory, DynamicSharedMemoryLiesBehindTheStatic) {
  Machine m;
  m.load(thread_kernel(
      ".shared .align 4 .b8 st[12]; mov.u32 %r3, dyn; mad.lo.u32 %r4, %r1, 4, %r3; st.shared.u32[%r4], %r1; "
      "st.shared.u32 [st+8], 77; bar.sync 0;\ncvta.shared.u64 %rd5, 0; cvt.u64.u32 %rd6, %r4; add.u64 %rd7, %rd5, "
      "%rd6; ld.u32 %r9, [%rd7]; mov.u32 %r5, %dynamic_smem_size; add.u32 %r9, %r9, %r5;",
      ".extern .shared .align 16 .b8 dyn[];\n"));
  m.launch().dynamic_shared_bytes = 256;
  const uint64_t out = m.allocate(256);
  const Fault fault = m.run("k", {1, 1, 1}, {64, 1, 1}, {out, 0});
  ASSERT_TRUE(fault.ok()) << fault.where;
  const auto v = m.download<uint32_t>(out, 64);
  for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(v[i], i + 256);
}

TEST(ExecMemory, RegisteredHostMemoryIsReachedAtItsOwnAddress) {
  Machine m;
  m.load(thread_kernel(
      "mul.wide.u32 %rd5, %r1, 4; add.u64 %rd6, %rd4, %rd5; ld.global.u32 %r9, [%rd6]; st.global.u32 [%rd6], 1;"));
  std::vector<uint32_t> mine(32);
  std::iota(mine.begin(), mine.end(), 7);
  const auto address = reinterpret_cast<uint64_t>(mine.data());
  const uint64_t out = m.allocate(128);
  EXPECT_EQ(m.run("k", {1, 1, 1}, {32, 1, 1}, {out, address}).kind, FaultKind::kIllegalAddress);
  m.space().host_pages().add(address, 128);
  ASSERT_TRUE(m.run("k", {1, 1, 1}, {32, 1, 1}, {out, address}).ok());
  EXPECT_EQ(m.download<uint32_t>(out, 32)[31], 38u);
  EXPECT_EQ(mine[5], 1u);
}

TEST(ExecMemory, InitialisersHoldNumbersFloatsAndPointers) {
  Machine m;
  m.load(with_header(
      ".const .align 4 .f32 weights[2] = {0f3F800000, 2.5};\n.visible .global .align 8 .u64 table[2] = {weights, "
      "generic(target)+4};\n.global .align 4 .b32 target[2] = {11, -3};\n.global .align 1 .b8 text[4] = {72, 105, "
      "0xFF(target), 0xFF00(target)};\n.visible .entry k(.param .u64 out) { .reg .b64 %rd<9>; .reg .b32 %r<9>; "
      "ld.param.u64 %rd1, [out]; ld.global.u64 %rd2, [table+8]; ld.global.u32 %r1, [%rd2];\nld.global.u64 %rd3, "
      "[table]; ld.u32 %r2, [%rd3+4]; ld.const.u32 %r3, [weights]; ld.global.u8 %r4, [text+3]; mov.u64 %rd4, target; "
      "shr.u64 %rd5, %rd4, 8; cvt.u32.u64 %r5, %rd5; and.b32 %r5, %r5, 255;\nst.global.v4.u32 [%rd1], {%r1, %r2, %r3, "
      "%r4}; st.global.u32 [%rd1+16], %r5; ret; }"));
  const uint64_t out = m.allocate(64);
  const Fault fault = m.run("k", {1, 1, 1}, {1, 1, 1}, {out});
  ASSERT_TRUE(fault.ok()) << fault.where;
  const auto v = m.download<uint32_t>(out, 5);
  EXPECT_EQ(static_cast<int32_t>(v[0]), -3);
  EXPECT_EQ(v[1], 0x40200000u);
  EXPECT_EQ(v[2], 0x3f800000u);
  EXPECT_EQ(v[3], v[4]);
  ASSERT_EQ(m.program().globals().size(), 4u);
  EXPECT_TRUE(m.program().globals()[0].constant);
  EXPECT_EQ(m.program().globals()[1].bytes, 16u);
}

const char* const kFunctions = R"(
.version 8.3
.target sm_80
.address_size 64
.func (.param .b32 result) twice(.param .b32 v) { .reg .b32 %r<4>; ld.param.b32 %r1, [v];
  add.u32 %r2, %r1, %r1; st.param.b32 [result], %r2; ret; }
.func (.param .b32 result) thrice(.param .b32 v)
{
  .reg .b32 %r<4>; ld.param.b32 %r1, [v];
  { .param .b32 a; st.param.b32 [a], %r1; .param .b32 r; call.uni (r), twice, (a); ld.param.b32 %r2, [r]; }
  add.u32 %r3, %r2, %r1; st.param.b32 [result], %r3; ret;
}
.global .align 8 .u64 choices[2] = {twice, thrice};
.visible .entry k(.param .u64 out)
{
  .reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %rd<9>;
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd3, %rd1, %rd2;
  setp.lt.u32 %p1, %r1, 10;
  @%p1 bra $FEW;
  { .param .b32 a; st.param.b32 [a], %r1; .param .b32 r; call (r), thrice, (a); ld.param.b32 %r2, [r]; }
  bra $JOIN;
$FEW:
  { .param .b32 a; st.param.b32 [a+0], %r1; .param .b32 r; call (r), twice, (a); ld.param.b32 %r2, [r+0]; }
$JOIN:
  and.b32 %r3, %r1, 1; mul.wide.u32 %rd4, %r3, 8; mov.u64 %rd5, choices; add.u64 %rd6, %rd5, %rd4;
  ld.global.u64 %rd7, [%rd6];
  { .param .b32 a; st.param.b32 [a], 1000; .param .b32 r;
  prototype_0 : .callprototype (.param .b32 _) _ (.param .b32 _); call (r), %rd7, (a), prototype_0;
  ld.param.b32 %r4, [r]; }
  add.u32 %r5, %r2, %r4;
  st.global.u32 [%rd3], %r5;
  ret;
}
)";

TEST(ExecCall, LanesCallDifferentFunctions) {
  Machine m;
  m.load(kFunctions);
  const uint64_t out = m.allocate(256);
  const Fault fault = m.run("k", {1, 1, 1}, {40, 1, 1}, {out});
  ASSERT_TRUE(fault.ok()) << fault.where;
  const auto v = m.download<uint32_t>(out, 40);
  for (uint32_t i = 0; i < 40; ++i) EXPECT_EQ(v[i], (i < 10 ? 2 * i : 3 * i) + (i % 2 == 0 ? 2000 : 3000));
}

TEST(ExecCall, PrintfWritesToStandardOutput) {
  Machine m;
  m.load(with_header(
      ".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);\n.global .align 1 .b8 text[27] = "
      "{108,61,37,51,100,32,120,61,37,46,50,102,32,115,61,37,115,32,37,108,108,117,37,37,10,0};\n.global .align 1 .b8 "
      "word[3] = {104, 105, 0};\n.visible .entry k() { .local .align 8 .b8 depot[32]; .reg .b64 %rd<9>; .reg .b32 "
      "%r<9>; .reg .f64 %fd<3>;\nmov.u64 %rd1, depot; cvta.local.u64 %rd2, %rd1; mov.u32 %r1, %tid.x; add.u32 %r1, "
      "%r1, 7; st.local.u32 [%rd1], %r1; st.local.f64 [%rd1+8], 0d3FF8000000000000; mov.u64 %rd3, word; "
      "cvta.global.u64 %rd4, %rd3; st.local.u64 [%rd1+16], %rd4; st.local.u64 [%rd1+24], 99;\nmov.u64 %rd5, text; "
      "cvta.global.u64 %rd6, %rd5; { .param .b64 p0; st.param.b64 [p0], %rd6; .param .b64 p1; st.param.b64 [p1], %rd2; "
      ".param .b32 r; call.uni (r), vprintf, (p0, p1); } ret; }"));
  testing::internal::CaptureStdout();
  const Fault fault = m.run("k", {1, 1, 1}, {2, 1, 1}, {0});
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "l=  7 x=1.50 s=hi 99%\nl=  8 x=1.50 s=hi 99%\n");
  EXPECT_TRUE(fault.ok()) << fault.where;
}

TEST(ExecFault, NamesKernelBlockThreadLineAndInstruction) {
  Machine m;
  m.load(thread_kernel("setp.eq.u32 %p1, %r1, 37;\n\n@%p1 ld.global.f32 %f1, [%rd4+12];\nmov.u32 %r9, 0;"));
  const Fault fault = m.run("k", {1, 1, 1}, {64, 1, 1}, {m.allocate(256), kWindowBase + Machine::kBytes + kChunkBytes});
  EXPECT_EQ(fault.kind, FaultKind::kIllegalAddress);
  EXPECT_EQ(fault.address, kWindowBase + Machine::kBytes + kChunkBytes + 12);
  EXPECT_EQ(fault.where, "kernel k, block (0,0,0), thread (37,0,0), line 12: @%p1 ld.global.f32 %f1, [%rd4+12]");
}

TEST(ExecFault, EachKindIsTold) {
  const auto kind = [](const std::string& body) {
    Machine m;
    m.load(thread_kernel(body + " mov.u32 %r9, 0;"));
    return m.run("k", {2, 1, 1}, {32, 1, 1}, {m.allocate(256), m.allocate(64)}).kind;
  };
  EXPECT_EQ(kind("ld.global.u32 %r3, [%rd4+2];"), FaultKind::kMisalignedAddress);
  EXPECT_EQ(kind("mov.u64 %rd5, 0; st.global.u32 [%rd5], 1;"), FaultKind::kIllegalAddress);
  EXPECT_EQ(kind("mov.u64 %rd5, 0; atom.global.add.u32 %r3, [%rd5], 1;"), FaultKind::kIllegalAddress);
  EXPECT_EQ(kind("mov.u32 %r3, 65536; st.shared.u32 [%r3], 1;"), FaultKind::kIllegalAddress);
  EXPECT_EQ(kind("mov.u32 %r3, 65536; st.local.u32 [%r3], 1;"), FaultKind::kIllegalAddress);
  EXPECT_EQ(kind("trap;"), FaultKind::kTrap);
  EXPECT_EQ(kind("st.global.u32 [%rd4], 1;"), FaultKind::kNone);
}

TEST(ExecFault, AnEndlessKernelCanBeCancelled) {
  Machine m;
  m.load(thread_kernel("$L: bra $L; mov.u32 %r9, 0;"));
  std::atomic<bool> cancel = false;
  m.launch().cancel = &cancel;
  std::thread later([&] { cancel = true; });
  EXPECT_EQ(m.run("k", {4, 1, 1}, {32, 1, 1}, {m.allocate(256), 0}).kind, FaultKind::kCancelled);
  later.join();
}

std::string load_error(const std::string& ptx) {
  std::string error;
  EXPECT_EQ(Program::load(ptx, &error), nullptr);
  return error;
}

TEST(ExecLoad, ErrorsNameInstructionKernelAndLine) {
  EXPECT_EQ(load_error(with_header(".entry attend() {\n.reg .b64 %rd<4>;\nwgmma.fence.sync.aligned;\nret; }")),
            "kernel attend, line 6: instruction 'wgmma.fence.sync.aligned' is not supported");
  EXPECT_EQ(load_error(with_header(".entry k() {\n.reg .b32 %r<4>;\nadd.u32.bogus %r1, %r2, %r3;\nret; }")),
            "kernel k, line 6: instruction 'add.u32.bogus' is not supported");
  EXPECT_EQ(load_error(with_header(".entry k() {\n.reg .b32 %r<4>;\nadd.u32 %r1, %r2, %r9;\nret; }")),
            "kernel k, line 6: unknown symbol '%r9'");
  EXPECT_EQ(load_error(with_header(".entry k() {\n.reg .b32 %r<4>;\nadd.u32 %r1 %r2;\nret; }")),
            "kernel k, line 6: expected ';' before '%r2'");
  EXPECT_EQ(load_error(with_header(".entry k() {\nbra $NOWHERE;\nret; }")),
            "kernel k, line 5: unknown symbol '$NOWHERE'");
  EXPECT_NE(load_error("not ptx at all"), "");
  EXPECT_NE(load_error(with_header(".entry k() {")), "");
}

TEST(ExecLoad, AKernelThatCannotRunLeavesTheOthersAlone) {
  std::string error;
  const auto program = Program::load(with_header(R"(.extern .func gone();
.func helper() { .reg .b64 %rd<4>; wgmma.fence.sync.aligned; ret; }
.entry bad() {
  call helper; ret; }
.entry good(.param .u32 n) { ret; }
.entry unlinked() {
  call gone; ret; }
)"),
                                     &error);
  ASSERT_NE(program, nullptr) << error;
  const std::string why = "kernel bad, line 5: instruction 'wgmma.fence.sync.aligned' is not supported";
  ASSERT_EQ(program->kernels().size(), 3u);
  EXPECT_EQ(program->kernels()[0].missing, why);
  EXPECT_EQ(program->kernel(0, &error), nullptr);
  EXPECT_EQ(error, why);
  ASSERT_EQ(program->warnings().size(), 1u);
  EXPECT_EQ(program->warnings()[0], "function helper, line 5: instruction 'wgmma.fence.sync.aligned' is not supported");
  ASSERT_NE(program->kernel(1, &error), nullptr);
  EXPECT_EQ(program->kernel(1, &error), program->kernel(1, &error));
  EXPECT_EQ(program->kernel(1, &error)->param_bytes, 4u);
  EXPECT_EQ(program->kernels()[1].params.size(), 1u);
  EXPECT_EQ(program->kernels()[2].missing, "");
  EXPECT_EQ(program->kernel(2, &error), nullptr);
  EXPECT_EQ(error, "kernel unlinked, line 10: instruction 'call': function 'gone' is not defined");
}

TEST(ExecLoad, ManyThreadsMayAskForAKernelAtOnce) {
  std::string error;
  const auto program = Program::load(with_header(kVectorAdd), &error);
  ASSERT_NE(program, nullptr) << error;
  std::vector<const KernelInfo*> found(8);
  std::vector<std::thread> threads;
  for (const KernelInfo*& slot : found) {
    threads.emplace_back([&] {
      std::string why;
      slot = program->kernel(0, &why);
    });
  }
  for (std::thread& t : threads) t.join();
  for (const KernelInfo* info : found) EXPECT_EQ(info, found[0]);
  EXPECT_NE(found[0], nullptr);
}

TEST(ExecLoad, MegabytesOfTextLoadWithinASecond) {
  std::string text = with_header("");
  for (int k = 0; k < 700; ++k) {
    text += ".visible .entry k" + std::to_string(k) + "(.param .u64 out)\n{\n.reg .b32 %r<2000>; .reg .b64 %rd<4>;\n";
    for (int i = 1; i < 1000; ++i) {
      const auto r = [&](int n) { return "%r" + std::to_string(n); };
      text += "\tadd.s32 \t" + r(i) + ", " + r(i - 1) + ", " + r(i) + ";\n";
    }
    text += "ld.param.u64 %rd1, [out]; st.global.u32 [%rd1], %r999; ret;\n}\n";
  }
  ASSERT_GT(text.size(), size_t{15} << 20);
  std::string error;
  const uint64_t begin = tide::now_ns();
  const auto program = Program::load(text, &error);
  const double seconds = static_cast<double>(tide::now_ns() - begin) * 1e-9;
  ASSERT_NE(program, nullptr) << error;
  EXPECT_NE(program->kernel(123, &error), nullptr) << error;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(seconds, 5.0);  // a tenth of that on a machine that does nothing else
#endif
}

TEST(ExecLoad, AcceptsWhatInlineAssemblyWrites) {
  const auto out = run_threads(
      thread_kernel("{.reg.b16 low,high;\n .reg .pred q; mov.b32 {low,high}, 0x00050003; { .reg.b32 %r9x; mov.u32 "
                    "%r9x, 4U; cvt.u32.u16 %r20, high; add.u32 %r9, %r9x, %r20; }\nsetp.eq.u32 q|%p5, %r9, 9; @q "
                    "add.u32 %r9, %r9, 010; /* a\n comment */ }\n// another\n.pragma \"nounroll\";"),
      3);
  for (const uint32_t v : out) EXPECT_EQ(v, 17u);
}

// Sums blocks of 256 by shared memory and barriers, then all blocks by an atomic.
const char* const kSum = R"(
.visible .entry sum(.param .u64 in, .param .u64 out, .param .u64 total)
{
  .reg .pred %p<4>; .reg .b32 %r<20>; .reg .b64 %rd<9>; .shared .align 4 .b8 buf[1024];
  mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mad.lo.u32 %r3, %r2, 256, %r1; ld.param.u64 %rd1, [in];
  mul.wide.u32 %rd2, %r3, 4; add.u64 %rd3, %rd1, %rd2;
  ld.global.u32 %r4, [%rd3]; mov.u32 %r5, buf; mad.lo.u32 %r6, %r1, 4, %r5; st.shared.u32 [%r6], %r4;
  mov.u32 %r7, 128;
$L: bar.sync 0; setp.ge.u32 %p1, %r1, %r7; @%p1 bra $SKIP; mad.lo.u32 %r8, %r7, 4, %r6;
  ld.shared.u32 %r9, [%r8]; ld.shared.u32 %r10, [%r6]; add.u32 %r11, %r9, %r10; st.shared.u32 [%r6], %r11;
$SKIP: shr.u32 %r7, %r7, 1; setp.ne.u32 %p2, %r7, 0; @%p2 bra $L;
  setp.ne.u32 %p3, %r1, 0; @%p3 bra $END; ld.shared.u32 %r12, [buf]; ld.param.u64 %rd4, [out];
  mul.wide.u32 %rd5, %r2, 4; add.u64 %rd6, %rd4, %rd5; st.global.u32 [%rd6], %r12;
  ld.param.u64 %rd7, [total]; red.global.add.u32 [%rd7], %r12;
$END: ret;
}
)";

TEST(ExecSchedule, ResultsDoNotDependOnQuantumThreadsOrLevel) {
  std::vector<uint32_t> in(256 * 40);
  std::iota(in.begin(), in.end(), 17);
  std::vector<uint32_t> first;
  for (const IsaLevel level : levels()) {
    for (const uint32_t quantum : {1u, 7u, 32u, 5000u}) {
      for (const unsigned threads : {1u, 3u}) {
        Machine m(threads);
        m.load(with_header(kSum), level);
        m.launch().quantum = quantum;
        const uint64_t out = m.allocate(160), total = m.allocate(4);
        ASSERT_TRUE(m.run("sum", {40, 1, 1}, {256, 1, 1}, {m.upload(in), out, total}).ok());
        auto v = m.download<uint32_t>(out, 40);
        v.push_back(m.download<uint32_t>(total, 1)[0]);
        if (first.empty()) first = v;
        EXPECT_EQ(v, first) << "quantum " << quantum << ", threads " << threads;
      }
    }
  }
  EXPECT_EQ(first.back(), std::accumulate(in.begin(), in.end(), 0u));
}

TEST(ExecSchedule, CooperativeGridsMeetThroughTheWorkspace) {
  // What the grid barrier of cooperative groups does with the pointer in %envreg1 and %envreg2.
  const std::string body =
      "mov.u32 %r10, %envreg1; mov.u32 %r11, %envreg2; mov.b64 %rd10, {%r11, %r10}; mov.u32 %r12, %nctaid.x; mov.u32 "
      "%r13, %ctaid.x; mov.u32 %r9, 0;\nred.global.add.u32 [%rd4], 1; bar.sync 0; setp.ne.u32 %p1, %r1, 0; @%p1 bra "
      "$WAIT; membar.gl; atom.add.u32 %r14, [%rd10+4], 1;\n$SPIN: ld.volatile.u32 %r15, [%rd10+4]; setp.lt.u32 %p2, "
      "%r15, %r12; @%p2 bra $SPIN;\n$WAIT: bar.sync 0; ld.global.u32 %r9, [%rd4]; mov.u32 %r16, %ntid.x; mad.lo.u32 "
      "%r17, %r13, %r16, %r1; mul.wide.u32 %rd2, %r17, 4; add.u64 %rd3, %rd1, %rd2;";
  for (const unsigned threads : {1u, 2u}) {
    Machine m(threads);
    m.load(thread_kernel(body));
    m.launch().cooperative = true;
    const uint64_t out = m.allocate(4 * 20 * 64);
    ASSERT_TRUE(m.run("k", {20, 1, 1}, {64, 1, 1}, {out, m.allocate(4)}).ok());
    for (const uint32_t v : m.download<uint32_t>(out, 20 * 64)) EXPECT_EQ(v, 20u * 64);
  }
}

TEST(ExecSchedule, ABlockMayWaitForALaterOneOnOneThread) {
  Machine m(1);
  m.load(
      thread_kernel("mov.u32 %r9, 1; mov.u32 %r3, %ctaid.x; setp.eq.u32 %p1, %r3, 5; @%p1 st.global.u32 [%rd4], "
                    "1;\n$SPIN: ld.volatile.global.u32 %r4, [%rd4]; setp.eq.u32 %p2, %r4, 0; @%p2 bra $SPIN;"));
  EXPECT_TRUE(m.run("k", {6, 1, 1}, {32, 1, 1}, {m.allocate(256), m.allocate(4)}).ok());
}

TEST(ExecSchedule, GridsOfTwoStreamsMayWaitForEachOtherOnOneThread) {
  Machine m(1);
  m.load(
      thread_kernel("mov.u32 %r9, 1; ld.global.u64 %rd5, [%rd4]; ld.global.u64 %rd6, [%rd4+8]; st.global.u32 [%rd5], "
                    "1;\n$SPIN: ld.volatile.global.u32 %r4, [%rd6]; setp.eq.u32 %p2, %r4, 0; @%p2 bra $SPIN;"));
  const uint64_t a = m.allocate(4), b = m.allocate(4), out = m.allocate(256);
  const uint64_t ab = m.upload<uint64_t>({a, b}), ba = m.upload<uint64_t>({b, a});
  BlockPool pool(1);
  const auto start = [&](uint64_t in) {
    const uint64_t params[] = {out, in};
    Launch launch = m.launch();
    launch.params = reinterpret_cast<const std::byte*>(params);
    launch.block = {32, 1, 1};
    return softgpu::run(launch, pool).ok();
  };
  bool first = false;
  std::thread other([&] { first = start(ab); });
  EXPECT_TRUE(start(ba));
  other.join();
  EXPECT_TRUE(first);
}

}  // namespace
}  // namespace softgpu
