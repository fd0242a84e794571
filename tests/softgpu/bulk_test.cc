// Copies through tensor maps in every mode, multicast memory, launches that are cancelled: without a driver.

#include "machine.h"
#include "softgpu/exec/tensor_map.h"

namespace softgpu {
namespace {

// %r1 the thread, %r2 room for 2 KiB in shared memory, %r3 a barrier for one arrival; out, map and in as parameters.
std::string kernel_of(const std::string& body) {
  return ".version 9.0\n.target sm_120a\n.address_size 64\n.visible .entry k(.param .u64 out, .param .u64 map, .param "
         ".u64 in)\n{\n.reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<40>; .reg .b64 %rd<20>; .reg .b128 %q<3>;\n"
         ".shared .align 128 .b8 room[2048]; .shared .align 8 .b64 bar;\nmov.u32 %r1, %tid.x; mov.u32 %r2, room; "
         "mov.u32 %r3, bar; ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [map]; ld.param.u64 %rd3, [in]; setp.eq.u32 "
         "%p1, %r1, 0; shl.b32 %r5, %r1, 2; add.u32 %r6, %r2, %r5; cvt.u64.u32 %rd4, %r5; add.u64 %rd5, %rd1, "
         "%rd4;\n@%p1 mbarrier.init.shared::cta.b64 [%r3], 1; bar.sync 0;\n" +
         body + "\nret;\n}\n";
}

// Brings what `copy` copies, `bytes` of it, and writes 32 words of it to out.
std::string loading(const std::string& copy, uint32_t bytes) {
  return "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], " + std::to_string(bytes) + ";\n@%p1 " + copy +
         "\n$W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0; @!%p2 bra $W;\nld.shared.u32 %r9, [%r6]; "
         "st.global.u32 [%rd5], %r9;";
}

class BulkTest : public ::testing::Test {
 protected:
  // A tensor of words that count up, and its map.
  TensorMap map_of(std::vector<uint32_t> lengths, std::vector<uint32_t> box) {
    uint32_t words = 1;
    TensorMap map;
    map.rank = static_cast<uint8_t>(lengths.size());
    map.element_bytes = 4;
    map.type = TensorElement::kU32;
    for (size_t d = 0; d < lengths.size(); ++d) {
      words *= lengths[d];
      map.last[d] = lengths[d] - 1;
      map.box[d] = static_cast<uint16_t>(box[d]);
      map.steps[d] = 1;
      if (d + 1 < lengths.size()) map.strides[d] = words * 4;
    }
    std::vector<uint32_t> values(words);
    for (uint32_t i = 0; i < words; ++i) values[i] = i;
    tensor_ = m_.upload(values);
    map.address = tensor_;
    return map;
  }

  Fault run(const std::string& body, const TensorMap& map, std::vector<uint32_t> in = {}) {
    m_.load(kernel_of(body));
    if (HasFatalFailure()) return {};
    out_ = m_.allocate(128);
    in.resize(64);
    return m_.run("k", {blocks_, 1, 1}, {32, 1, 1}, {out_, m_.upload(std::vector<TensorMap>{map}), m_.upload(in)});
  }
  std::vector<uint32_t> out() { return m_.download<uint32_t>(out_, 32); }

  Machine m_{1};
  uint32_t blocks_ = 1;
  uint64_t tensor_ = 0, out_ = 0;
};

TEST_F(BulkTest, FourRowsAreGatheredAndScattered) {
  const TensorMap map = map_of({8, 16}, {8, 1});
  const std::string rows = "{%r30, %r31, %r32, %r33, %r34}";
  const std::string set = "mov.u32 %r30, 0; mov.u32 %r31, 9; mov.u32 %r32, 2; mov.u32 %r33, 15; mov.u32 %r34, 3;\n";
  ASSERT_TRUE(run(set + loading("cp.async.bulk.tensor.2d.shared::cta.global.tile::gather4.mbarrier::complete_tx::bytes "
                                "[%r2], [%rd2, " +
                                    rows + "], [%r3];",
                                128),
                  map)
                  .ok());
  const uint32_t wanted[] = {9, 2, 15, 3};
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out()[i], wanted[i / 8] * 8 + i % 8);
  ASSERT_TRUE(run(set +
                      "add.u32 %r9, %r1, 1000; st.shared.u32 [%r6], %r9; bar.sync 0;\n@%p1 "
                      "cp.async.bulk.tensor.2d.global.shared::cta.tile::scatter4.bulk_group [%rd2, " +
                      rows + "], [%r2];",
                  map)
                  .ok());
  const auto tensor = m_.download<uint32_t>(tensor_, 128);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(tensor[wanted[i / 8] * 8 + i % 8], 1000 + i);
  EXPECT_EQ(tensor[8], 8u);
}

TEST_F(BulkTest, TensorsAreReducedByTheTypeOfTheirMap) {
  const std::string reduce =
      "st.shared.u32 [%r6], %r1; bar.sync 0;\n@%p1 mov.u32 %r30, 0; @%p1 mov.u32 %r31, 1;\n"
      "@%p1 cp.reduce.async.bulk.tensor.2d.global.shared::cta.";
  const std::string place = ".tile.bulk_group [%rd2, {%r30, %r31}], [%r2];";
  TensorMap map = map_of({8, 8}, {8, 4});
  ASSERT_TRUE(run(reduce + "add" + place, map).ok());
  ASSERT_TRUE(run(reduce + "max" + place, map).ok());
  ASSERT_TRUE(run(reduce + "xor" + place, map).ok());
  auto tensor = m_.download<uint32_t>(tensor_, 64);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(tensor[8 + i], (8 + i + i) ^ i);
  map.type = TensorElement::kF16;
  map.element_bytes = 2;
  for (uint32_t d = 0; d < 2; ++d) map.box[d] = 4;
  EXPECT_EQ(run(reduce + "xor" + place, map).kind, FaultKind::kIllegalInstruction);
  std::vector<uint16_t> halves(64, 0x3c00);  // one
  map.address = m_.upload(halves);
  map.strides[0] = 16;
  const std::string ones =
      "mov.u32 %r9, 0x40003c00; st.shared.u32 [%r6], %r9; bar.sync 0; @%p1 mov.u32 %r30, 0; @%p1 "
      "mov.u32 %r31, 0;\n@%p1 cp.reduce.async.bulk.tensor.2d.global.shared::cta.add" +
      place;
  ASSERT_TRUE(run(ones, map).ok());
  const auto sums = m_.download<uint16_t>(map.address, 64);
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(sums[i], i % 8 >= 4 ? 0x3c00 : i % 2 == 0 ? 0x4000 : 0x4200) << i;
}

// Channels, width 4, height 3, two images; windows of the size of the filter's reach.
TEST_F(BulkTest, PixelsFollowEachOtherThroughTheImages) {
  TensorMap map = map_of({4, 4, 3, 2}, {4, 1, 1, 1});
  map.image_to_column = true;
  map.pixels = 8;
  for (uint32_t d = 0; d < 2; ++d) map.lower[d] = map.upper[d] = -1;  // a filter of 3 x 3, its corner at -1
  const std::string copy =
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r2], [%rd2, {%r30, %r31, "
      "%r32, %r33}], [%r3], {%h1, %h2};";
  const std::string set =
      "mov.u32 %r30, 0; mov.u32 %r31, 1; mov.u32 %r32, -1; mov.u32 %r33, 0; mov.u16 %h1, 2; mov.u16 %h2, 1;\n";
  ASSERT_TRUE(run(set + loading(copy, 128), map).ok());
  // Corners go through -1..2 by -1..1 in each image.
  int w = 1, h = -1, n = 0;
  for (uint32_t pixel = 0; pixel < 8; ++pixel) {
    const int x = w + 2, y = h + 1;
    const bool inside = x < 4 && y < 3;
    for (uint32_t c = 0; c < 4; ++c) {
      const auto want = static_cast<uint32_t>(((n * 3 + y) * 4 + x) * 4) + c;
      EXPECT_EQ(out()[pixel * 4 + c], inside ? want : 0) << pixel;
    }
    if (++w > 2) w = -1, ++h;
    if (h > 1) h = -1, ++n;
  }
  map.image_to_column = false;
  EXPECT_EQ(run(set + loading(copy, 128), map).kind, FaultKind::kIllegalInstruction);
}

TEST_F(BulkTest, BytesAreMaskedAndZeroed) {
  const TensorMap map = map_of({8}, {8});
  ASSERT_TRUE(run("mov.u32 %r9, -1; st.shared.u32 [%r6], %r9; mov.u16 %h1, 0x8001; bar.sync 0;\n@%p1 "
                  "cp.async.bulk.global.shared::cta.bulk_group.cp_mask [%rd1], [%r2], 32, %h1;",
                  map)
                  .ok());
  EXPECT_EQ(out()[0], 0xffu);
  EXPECT_EQ(out()[3], 0xff000000u);
  EXPECT_EQ(out()[4], 0xffu);
  EXPECT_EQ(out()[8], 0u);
  ASSERT_TRUE(run("mov.u32 %r9, -1; st.shared.u32 [%r6], %r9; mov.u64 %rd9, 24; bar.sync 0;\n@%p1 "
                  "st.bulk.weak.shared::cta [%r2+8], %rd9, 0;\nbar.sync 0; ld.shared.u32 %r9, [%r6]; st.global.u32 "
                  "[%rd5], %r9;",
                  map)
                  .ok());
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out()[i], i >= 2 && i < 8 ? 0u : ~0u);
}

TEST_F(BulkTest, KernelsChangeTensorMaps) {
  // A copy of the map in shared memory gets another box and address, goes to device memory and is used from there.
  const TensorMap map = map_of({8, 8}, {8, 1});
  std::string body;
  for (int word = 0; word < 16; ++word) {
    const std::string at = std::to_string(8 * word);
    body += "@%p1 ld.global.u64 %rd9, [%rd2+" + at + "]; @%p1 st.shared.u64 [%r2+" + at + "], %rd9;\n";
  }
  body +=
      "@%p1 ld.shared.u64 %rd10, [%r2+8]; @%p1 add.u64 %rd10, %rd10, 32; @%p1 mov.u32 %r30, 4; @%p1 mov.u32 %r31, 2;"
      "\n@%p1 tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%r2], %rd10;\n@%p1 "
      "tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%r2], 0, %r30;\n@%p1 "
      "tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%r2], 1, %r31;\n@%p1 "
      "tensormap.replace.tile.elemtype.shared::cta.b1024.b32 [%r2], 3;\nbar.warp.sync -1;\n"
      "tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%rd3], [%r2], "
      "128;\nfence.proxy.tensormap::generic.acquire.gpu [%rd3], 128; bar.sync 0; mov.u32 %r30, 0; mov.u32 %r31, 0;\n";
  ASSERT_TRUE(run(body + loading("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                                 "[%r2], [%rd3, {%r30, %r31}], [%r3];",
                                 32),
                  map)
                  .ok());
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(out()[i], 8 + i % 4 + i / 4 * 8);
  const TensorMap changed = m_.download<TensorMap>(tensor_, 1)[0];
  EXPECT_NE(changed.magic, TensorMap::kMagic);  // the tensor itself is no map
  EXPECT_EQ(run("tensormap.replace.tile.rank.global.b1024.b32 [%rd3], 1;", map).kind, FaultKind::kIllegalInstruction);
}

TEST_F(BulkTest, MultimemReachesAllMembers) {
  constexpr uint64_t kAt = kWindowBase + 0x1000'0000;
  const uint64_t one = m_.upload(std::vector<uint32_t>{5, 6, 0x40003c00, 0x40003c00, 7, 8});
  const uint64_t two = m_.upload(std::vector<uint32_t>{9, 2, 0x3c003c00, 0x42004200, 7, 8});
  m_.space().multicast().bind(kAt, 24, {m_.host(one), m_.host(two)});
  const std::string base = "mov.u64 %rd6, " + std::to_string(kAt) + ";\n";
  ASSERT_TRUE(
      run(base + "@!%p1 ret; multimem.ld_reduce.relaxed.sys.global.add.u32 %r10, [%rd6]; "
                 "multimem.ld_reduce.weak.global.min.s32 %r11, [%rd6+4]; "
                 "multimem.ld_reduce.global.add.noftz.v2.f16x2 {%r12, %r13}, [%rd6+8]; "
                 "multimem.ld_reduce.global.add.acc::f32.f16x2 %r14, [%rd6+8]; multimem.ld_reduce.global.or.b64 %rd7, "
                 "[%rd6]; st.global.v4.u32 [%rd1], {%r10, %r11, %r12, %r13}; st.global.u32 [%rd1+16], %r14; "
                 "st.global.u64 [%rd1+24], %rd7;\nmov.u32 %r15, 3; multimem.red.release.gpu.global.add.u32 [%rd6], "
                 "%r15; multimem.st.weak.global.v2.f32 [%rd6+16], {%r15, %r15};",
          map_of({8}, {8}))
          .ok());
  const std::vector<uint32_t> want = {14, 2, 0x42004000, 0x45004400, 0x42004000, 0, 13, 6};
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(out()[i], want[i]) << i;
  for (const auto& [member, first] : {std::pair{one, 8u}, std::pair{two, 12u}}) {
    const auto words = m_.download<uint32_t>(member, 6);
    EXPECT_EQ(words[0], first);
    EXPECT_EQ(words[4], 3u);
    EXPECT_EQ(words[5], 3u);
  }
  EXPECT_EQ(run(base + "multimem.red.global.add.u32 [%rd6+24], %r1;", map_of({8}, {8})).kind,
            FaultKind::kIllegalAddress);
  EXPECT_EQ(run(base + "multimem.red.global.add.u32 [%rd6+2], %r1;", map_of({8}, {8})).kind,
            FaultKind::kMisalignedAddress);
  EXPECT_EQ(run("multimem.st.global.u32 [%rd1], %r1;", map_of({8}, {8})).kind, FaultKind::kIllegalAddress);
  m_.space().multicast().unbind(kAt);
  EXPECT_EQ(run(base + "multimem.red.global.add.u32 [%rd6], %r1;", map_of({8}, {8})).kind, FaultKind::kIllegalAddress);
}

// The first block takes over the work of all others: each number is added up once.
TEST_F(BulkTest, LaunchesAreCancelledAndTakenOver) {
  blocks_ = 5000;
  ASSERT_TRUE(run("mov.u32 %r20, %ctaid.x; mov.u32 %r21, 0; @!%p1 ret;\n$L: add.u32 %r22, %r20, 1; red.global.add.u32 "
                  "[%rd1], %r22; red.global.add.u32 [%rd1+4], 1;\nmbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], "
                  "16; clusterlaunchcontrol.try_cancel.async.shared::cta.mbarrier::complete_tx::bytes.b128 [%r2], "
                  "[%r3];\n$W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], %r21; @!%p2 bra $W;\nxor.b32 %r21, "
                  "%r21, 1; ld.shared.b128 %q1, [%r2]; clusterlaunchcontrol.query_cancel.is_canceled.pred.b128 %p3, "
                  "%q1; @!%p3 ret; red.global.add.u32 [%rd1+8], 1;\n"
                  "clusterlaunchcontrol.query_cancel.get_first_ctaid.v4.b32.b128 {%r20, %r23, %r24, _}, %q1; "
                  "clusterlaunchcontrol.query_cancel.get_first_ctaid::x.b32.b128 %r25, %q1; setp.ne.u32 %p4, %r20, "
                  "%r25; @%p4 trap; bra $L;",
                  map_of({8}, {8}))
                  .ok());
  EXPECT_EQ(out()[0], 5000u * 5001 / 2);
  EXPECT_EQ(out()[1], 5000u);
  EXPECT_GT(out()[2], 0u);
}

}  // namespace
}  // namespace softgpu
