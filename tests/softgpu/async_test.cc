// cp.async and mbarrier: what arrives when, and who waits for whom.

#include "machine.h"

namespace softgpu {
namespace {

// `out[tid] = %r9` of a kernel of some threads.
std::string kernel_of(const std::string& body) {
  return with_header(
      ".visible .entry k(.param .u64 out, .param .u64 in)\n{\n.reg .pred %p<9>; .reg .b32 %r<30>; .reg .b64 %rd<20>;\n"
      ".shared .align 16 .b8 buf[4096]; .shared .align 8 .b64 bar;\nmov.u32 %r1, %tid.x; ld.param.u64 %rd1, [out]; "
      "ld.param.u64 %rd2, [in];\nmul.wide.u32 %rd3, %r1, 4; add.u64 %rd4, %rd1, %rd3; mov.u32 %r2, buf;\n" +
      body + "\nst.global.u32 [%rd4], %r9; ret;\n}\n");
}

std::vector<uint32_t> run_threads(const std::string& body, uint32_t threads, bool late) {
  Machine m;
  m.load(kernel_of(body));
  if (::testing::Test::HasFatalFailure()) return {};
  std::vector<uint32_t> in(1024);
  for (uint32_t i = 0; i < in.size(); ++i) in[i] = 1000 + i;
  const uint64_t out = m.allocate(threads * 4);
  m.launch().late_copies = late;
  const Fault fault = m.run("k", {1, 1, 1}, {threads, 1, 1}, {out, m.upload(in)});
  EXPECT_TRUE(fault.ok()) << fault.where;
  return m.download<uint32_t>(out, threads);
}

// Each thread copies 16 bytes and looks at the third word.
const char* const kCopy =
    "shl.b32 %r3, %r1, 4; add.u32 %r4, %r2, %r3; mul.wide.u32 %rd5, %r1, 16; add.u64 %rd6, %rd2, %rd5;\n"
    "cp.async.cg.shared.global [%r4], [%rd6], 16;\ncp.async.commit_group;\n";

TEST(CpAsync, BringsWhatIsWaitedFor) {
  for (const bool late : {false, true}) {
    for (const std::string wait : {"cp.async.wait_group 0;", "cp.async.wait_all;"}) {
      const auto out = run_threads(kCopy + wait + "ld.shared.u32 %r9, [%r4+8];", 96, late);
      for (uint32_t i = 0; i < 96; ++i) EXPECT_EQ(out[i], 1000 + 4 * i + 2);
    }
  }
}

TEST(CpAsync, LateCopiesShowAMissingWait) {
  const std::string body = std::string(
                               "mov.u32 %r10, 7; add.u32 %r11, %r2, 0; shl.b32 %r12, %r1, 4; add.u32 %r11, "
                               "%r11, %r12; st.shared.u32 [%r11+8], %r10;\n") +
                           kCopy;
  for (const std::string wait : {"", "cp.async.wait_group 1;"}) {  // the newest group may still be under way
    const auto out = run_threads(body + wait + "ld.shared.u32 %r9, [%r4+8];", 32, true);
    for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], 7u);
  }
}

TEST(CpAsync, ShortAndIgnoredSourcesLeaveZeros) {
  for (const bool late : {false, true}) {
    // Word 1 of 8 bytes of which 4 are read, word 0 of 8 of which odd threads ignore all.
    const auto out = run_threads(
        "mov.u32 %r10, -1; shl.b32 %r3, %r1, 4; add.u32 %r4, %r2, %r3; st.shared.v4.u32 [%r4], {%r10, %r10, %r10, "
        "%r10};\nmul.wide.u32 %rd5, %r1, 8; add.u64 %rd6, %rd2, %rd5; and.b32 %r5, %r1, 1; setp.eq.u32 %p1, %r5, "
        "1;\nmov.u32 %r6, 4; cp.async.ca.shared.global [%r4], [%rd6], 8, %r6;\ncp.async.ca.shared.global [%r4+8], "
        "[%rd6], 8, %p1; cp.async.wait_all;\nld.shared.v4.u32 {%r11, %r12, %r13, %r14}, [%r4];\n"
        "mul.lo.u32 %r9, %r12, 1000000; add.u32 %r9, %r9, %r13; mad.lo.u32 %r9, %r11, 10000, %r9;",
        32, late);
    for (uint32_t i = 0; i < 32; ++i) {
      EXPECT_EQ(out[i], (1000 + 2 * i) * 10000 + (i % 2 == 1 ? 0 : 1000 + 2 * i));
    }
  }
}

const char* const kInit =
    "setp.ne.u32 %p1, %r1, 0; mov.u32 %r15, bar; mov.u32 %r16, %ntid.x; @!%p1 mbarrier.init.shared.b64 [%r15], %r16; "
    "bar.sync 0;\n";

TEST(Mbarrier, HoldsEveryThreadUntilTheLastHasArrived) {
  for (const std::string wait :
       {"$W: mbarrier.test_wait.shared.b64 %p2, [%r15], %rd9; @!%p2 bra $W;",
        "$W: mbarrier.try_wait.shared::cta.b64 %p2, [%r15], %rd9; @!%p2 bra $W;",
        "$W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r15], %r20, 1000; @!%p2 bra $W;"}) {
    const auto out = run_threads(
        std::string(kInit) +
            "mov.u32 %r20, 0; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3; mov.u32 %r5, 0;\n$L: add.u32 %r5, %r5, 1; "
            "setp.lt.u32 %p3, %r5, %r1; @%p3 bra $L;\nst.shared.u32 [%r4], %r1; mbarrier.arrive.shared.b64 %rd9, "
            "[%r15];\n" +
            wait +
            "\nsub.u32 %r6, %r16, 1; sub.u32 %r6, %r6, %r1; shl.b32 %r6, %r6, 2; add.u32 %r6, %r6, %r2; "
            "ld.shared.u32 %r9, [%r6];",
        160, false);
    for (uint32_t i = 0; i < 160; ++i) EXPECT_EQ(out[i], 159 - i);
  }
}

TEST(Mbarrier, CountsArrivalsOfEveryPhase) {
  // Two phases of three arrivals each; a dropped one lowers the second to two. Pending counts tell.
  const auto out = run_threads(
      "mov.u32 %r15, bar; mbarrier.init.shared::cta.b64 [%r15], 3; mbarrier.arrive.shared.b64 %rd9, [%r15], 2; "
      "mbarrier.pending_count.b64 %r10, %rd9;\nmbarrier.test_wait.shared.b64 %p1, [%r15], %rd9; selp.u32 %r11, 1, 0, "
      "%p1;\nmbarrier.arrive_drop.shared.b64 %rd10, [%r15]; mbarrier.pending_count.b64 %r12, %rd10;\n"
      "mbarrier.test_wait.shared.b64 %p1, [%r15], %rd10; selp.u32 %r13, 1, 0, %p1;\nmbarrier.arrive.shared.b64 %rd11, "
      "[%r15]; mbarrier.pending_count.b64 %r14, %rd11; mbarrier.inval.shared.b64 [%r15];\nmul.lo.u32 %r9, %r10, 10000; "
      "mad.lo.u32 %r9, %r11, 1000, %r9; mad.lo.u32 %r9, %r12, 100, %r9; mad.lo.u32 %r9, %r13, 10, %r9; add.u32 %r9, "
      "%r9, %r14;",
      1, false);
  EXPECT_EQ(out[0], 30112u);
}

TEST(Mbarrier, AwaitsBytesAsWellAsArrivals) {
  const auto out = run_threads(
      "mov.u32 %r15, bar; mbarrier.init.shared.b64 [%r15], 1; mbarrier.arrive.expect_tx.shared.b64 %rd9, [%r15], 48;\n"
      "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r15], 40; mbarrier.test_wait.parity.shared.b64 %p1, [%r15], "
      "0; "
      "selp.u32 %r10, 1, 0, %p1;\nmbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r15], 8; "
      "mbarrier.test_wait.parity.shared.b64 %p2, [%r15], 0; selp.u32 %r11, 1, 0, %p2;\nmad.lo.u32 %r9, %r10, 10, %r11;",
      1, false);
  EXPECT_EQ(out[0], 1u);
}

TEST(Mbarrier, CopiesArriveAtIt) {
  for (const bool late : {false, true}) {
    const auto out = run_threads(
        std::string(kInit) + kCopy +
            "cp.async.mbarrier.arrive.noinc.shared.b64 [%r15];\n$W: mbarrier.test_wait.parity.shared.b64 %p2, [%r15], "
            "0; "
            "@!%p2 bra $W;\nsub.u32 %r6, %r16, 1; sub.u32 %r6, %r6, %r1; shl.b32 %r6, %r6, 4; add.u32 %r6, %r6, %r2; "
            "ld.shared.u32 %r9, [%r6+4];",
        64, late);
    for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(out[i], 1000 + 4 * (63 - i) + 1);
  }
}

}  // namespace
}  // namespace softgpu
