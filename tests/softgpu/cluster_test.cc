// Clusters without a driver: addresses of other blocks' shared memory, copies and stores that arrive there, faults.

#include "machine.h"

namespace softgpu {
namespace {

// `out[block * 32 + thread] = %r9`; %r20 is the block's rank in its cluster, buf and bar lie in shared memory.
std::string kernel_of(const std::string& body) {
  return ".version 8.6\n.target sm_90\n.address_size 64\n"
         ".visible .entry k(.param .u64 out, .param .u64 in)\n{\n.reg .pred %p<9>; .reg .b16 %h<4>; .reg .b32 %r<40>; "
         ".reg .b64 %rd<20>;\n.shared .align 128 .b8 buf[1024]; .shared .align 8 .b64 bar;\nmov.u32 %r1, %tid.x; "
         "mov.u32 "
         "%r2, buf; mov.u32 %r3, bar; mov.u32 %r20, %cluster_ctarank; mov.u32 %r21, %ctaid.x;\nld.param.u64 %rd1, "
         "[out]; "
         "ld.param.u64 %rd2, [in]; mad.lo.u32 %r4, %r21, 32, %r1; mul.wide.u32 %rd3, %r4, 4; add.u64 %rd4, %rd1, "
         "%rd3;\nshl.b32 %r5, %r1, 2; add.u32 %r6, %r2, %r5; setp.eq.u32 %p1, %r1, 0; mov.u32 %r9, 0;\n" +
         body + "\nst.global.u32 [%rd4], %r9; ret;\n}\n";
}

struct Result {
  std::vector<uint32_t> out;
  Fault fault;
};

Result run_clusters(const std::string& body, uint32_t blocks, uint32_t cluster, bool late = false) {
  Machine m(2);
  m.load(kernel_of(body));
  if (::testing::Test::HasFatalFailure()) return {};
  std::vector<uint32_t> in(256);
  for (uint32_t i = 0; i < in.size(); ++i) in[i] = 500 + i;
  const uint64_t out = m.allocate(blocks * 128);
  m.launch().cluster = {cluster, 1, 1};
  m.launch().late_copies = late;
  Result result;
  result.fault = m.run("k", {blocks, 1, 1}, {32, 1, 1}, {out, m.upload(in)});
  result.out = m.download<uint32_t>(out, blocks * 32);
  return result;
}

const char* const kSync = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;\n";

TEST(Cluster, BlocksReadAndChangeEachOthersSharedMemory) {
  const Result r = run_clusters(
      std::string("mov.u32 %r10, %cluster_nctarank; add.u32 %r11, %r20, 1; rem.u32 %r11, %r11, %r10; st.shared.u32 "
                  "[%r6], %r4;\n") +
          kSync +
          "mapa.shared::cluster.u32 %r12, %r6, %r11; ld.shared::cluster.u32 %r13, [%r12]; atom.shared::cluster.add.u32 "
          "%r14, [%r12], 1000;\n" +
          kSync +
          "ld.shared.u32 %r15, [%r6]; getctarank.shared::cluster.u32 %r16, %r12;\nmad.lo.u32 %r9, %r16, 1000000, "
          "%r13; sub.u32 %r15, %r15, %r4; mad.lo.u32 %r9, %r15, 10, %r9;",
      6, 3);
  ASSERT_TRUE(r.fault.ok()) << r.fault.where;
  for (uint32_t i = 0; i < r.out.size(); ++i) {
    const uint32_t block = i / 32, next = (block % 3 + 1) % 3;
    EXPECT_EQ(r.out[i], next * 1000000 + (block / 3 * 3 + next) * 32 + i % 32 + 10000);
  }
}

TEST(Cluster, GenericAddressesReachOtherBlocksToo) {
  const Result r = run_clusters(
      std::string(
          "st.shared.u32 [%r6], %r4; cvt.u64.u32 %rd5, %r6; cvta.shared.u64 %rd6, %rd5; xor.b32 %r11, %r20, 1;\n") +
          kSync +
          "mapa.u64 %rd7, %rd6, %r11; ld.u32 %r9, [%rd7]; isspacep.shared::cluster %p2, %rd7; @!%p2 mov.u32 %r9, 0;\n" +
          kSync,
      4, 2);
  ASSERT_TRUE(r.fault.ok()) << r.fault.where;
  for (uint32_t i = 0; i < r.out.size(); ++i) EXPECT_EQ(r.out[i], (i / 32 ^ 1) * 32 + i % 32);
}

TEST(Cluster, StoresAndReductionsArriveAtTheOtherBlocksBarrier) {
  // Each thread stores 4 bytes and adds 4 in the other block, which awaits 256 bytes.
  const Result r = run_clusters(
      std::string("@%p1 mbarrier.init.shared::cta.b64 [%r3], 1; st.shared.u32 [%r6+128], 70; xor.b32 %r11, %r20, 1;\n"
                  "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 256;\n") +
          kSync +
          "mapa.shared::cluster.u32 %r12, %r6, %r11; mapa.shared::cluster.u32 %r13, %r3, %r11;\nst.async.weak.shared::"
          "cluster.mbarrier::complete_tx::bytes.u32 [%r12], %r4, [%r13];\nred.async.relaxed.cluster.shared::cluster."
          "mbarrier::complete_tx::bytes.add.u32 [%r12+128], %r1, [%r13];\n$W: mbarrier.try_wait.parity.shared::cta.b64 "
          "%p2, [%r3], 0; @!%p2 bra $W;\nld.shared.u32 %r14, [%r6]; ld.shared.u32 %r15, [%r6+128]; mad.lo.u32 %r9, "
          "%r15, "
          "1000, %r14;\n" +
          kSync,
      2, 2);
  ASSERT_TRUE(r.fault.ok()) << r.fault.where;
  for (uint32_t i = 0; i < r.out.size(); ++i) {
    EXPECT_EQ(r.out[i], (70 + i % 32) * 1000 + (i / 32 ^ 1) * 32 + i % 32);
  }
}

TEST(Cluster, OneBulkCopyFillsSeveralBlocks) {
  // Block 0 brings 64 bytes to blocks 1 and 2, the others wait for nothing.
  const Result r = run_clusters(
      std::string("st.shared.u32 [%r6], 7; @%p1 mbarrier.init.shared::cta.b64 [%r3], 1;\nadd.u32 %r10, %r20, -1; "
                  "setp.lt.u32 %p3, %r10, 2; and.pred %p4, %p1, %p3; @%p4 mbarrier.arrive.expect_tx.shared::cta.b64 _, "
                  "[%r3], 64;\n") +
          kSync +
          "setp.eq.u32 %p5, %r20, 0; and.pred %p6, %p5, %p1; mov.u16 %h1, 6;\n@%p6 "
          "cp.async.bulk.shared::cluster.global."
          "mbarrier::complete_tx::bytes.multicast::cluster [%r2], [%rd2], 64, [%r3], %h1;\n@!%p3 bra $D;\n$W: "
          "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0; @!%p2 bra $W;\n$D: " +
          kSync + "ld.shared.u32 %r9, [%r6];",
      4, 4);
  ASSERT_TRUE(r.fault.ok()) << r.fault.where;
  for (uint32_t i = 0; i < r.out.size(); ++i) {
    const bool filled = (i / 32 == 1 || i / 32 == 2) && i % 32 < 16;
    EXPECT_EQ(r.out[i], filled ? 500 + i % 32 : 7);
  }
}

TEST(BulkCopy, LateOnesArriveForThoseWhoWait) {
  const std::string copy =
      "st.shared.u32 [%r6], 7; @%p1 mbarrier.init.shared::cta.b64 [%r3], 1; bar.sync 0;\n@%p1 "
      "mbarrier.arrive.expect_tx."
      "shared::cta.b64 _, [%r3], 128;\n@%p1 cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r2], "
      "[%rd2], "
      "128, [%r3]; bar.sync 0;\n";
  const std::string wait = "$W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0; @!%p2 bra $W;\n";
  for (const bool late : {false, true}) {
    const Result waited = run_clusters(copy + wait + "ld.shared.u32 %r9, [%r6];", 1, 1, late);
    const Result forgotten = run_clusters(copy + "ld.shared.u32 %r9, [%r6];", 1, 1, late);
    ASSERT_TRUE(waited.fault.ok()) << waited.fault.where;
    for (uint32_t i = 0; i < 32; ++i) {
      EXPECT_EQ(waited.out[i], 500 + i);
      EXPECT_EQ(forgotten.out[i], late ? 7u : 500 + i);
    }
  }
}

TEST(BulkCopy, SizesAndAddressesAreMultiplesOfSixteen) {
  for (const std::string size : {"24", "32"}) {
    const Result r = run_clusters("@%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r2+" +
                                      std::string(size == "24" ? "0" : "8") + "], " + size + ";",
                                  1, 1);
    EXPECT_EQ(r.fault.kind, FaultKind::kMisalignedAddress);
  }
}

TEST(Cluster, ThreadsThatHaveEndedAreNotWaitedFor) {
  const Result r = run_clusters(
      "setp.gt.u32 %p2, %r1, 4; @%p2 exit;\nbarrier.cluster.arrive; barrier.cluster.wait; mov.u32 "
      "%r9, 1;",
      4, 2);
  ASSERT_TRUE(r.fault.ok()) << r.fault.where;
  for (uint32_t i = 0; i < r.out.size(); ++i) EXPECT_EQ(r.out[i], i % 32 > 4 ? 0u : 1u);
}

TEST(Cluster, AFaultNamesTheBlockThatHasIt) {
  const Result r = run_clusters(
      "mapa.shared::cluster.u32 %r12, %r6, 5; setp.eq.u32 %p2, %r20, 1; @%p2 "
      "ld.shared::cluster.u32 %r9, [%r12];",
      4, 2);
  EXPECT_EQ(r.fault.kind, FaultKind::kIllegalAddress);
  EXPECT_NE(r.fault.where.find("block (1,0,0)"), std::string::npos) << r.fault.where;
}

}  // namespace
}  // namespace softgpu
