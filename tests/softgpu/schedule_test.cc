// Grids that are paused, held, looked at and cancelled; and results that no order of execution changes.

#include <atomic>
#include <thread>

#include "base/clock.h"
#include "machine.h"
#include "softgpu/exec/pool.h"

namespace softgpu {
namespace {

// out[thread] gets a sum over the block's values through shared memory, barriers, shuffles and divergent loops.
const char* const kMixed = R"(
.visible .entry mixed(.param .u64 in, .param .u64 out, .param .u64 total)
{
.reg .pred %p<9>; .reg .b32 %r<40>; .reg .b64 %rd<20>; .shared .align 4 .b8 tile[1024];
ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; ld.param.u64 %rd3, [total];
mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mad.lo.u32 %r4, %r2, %r3, %r1;
mul.wide.u32 %rd4, %r4, 4; add.u64 %rd5, %rd1, %rd4; ld.global.u32 %r5, [%rd5];
and.b32 %r6, %r5, 31; mov.u32 %r7, 0; mov.u32 %r8, 0;
$LOOP: setp.ge.u32 %p1, %r8, %r6; @%p1 bra $OUT;
mad.lo.u32 %r7, %r7, 5, %r5; add.u32 %r8, %r8, 1; bra $LOOP;
$OUT: shfl.sync.bfly.b32 %r9, %r7, 7, 31, -1; add.u32 %r9, %r9, %r7;
shl.b32 %r10, %r1, 2; mov.u32 %r11, tile; add.u32 %r12, %r11, %r10; st.shared.u32 [%r12], %r9;
bar.sync 0;
sub.u32 %r13, %r3, 1; sub.u32 %r13, %r13, %r1; shl.b32 %r13, %r13, 2; add.u32 %r13, %r11, %r13;
ld.shared.u32 %r14, [%r13]; bar.sync 0;
st.shared.u32 [%r12], %r14; bar.sync 0;
ld.shared.u32 %r15, [%r13]; add.u32 %r16, %r14, %r15;
add.u64 %rd6, %rd2, %rd4; st.global.u32 [%rd6], %r16;
red.global.add.u32 [%rd3], %r16;
ret;
}
.visible .entry spin(.param .u64 flag)
{
.reg .pred %p1; .reg .b32 %r<4>; .reg .b64 %rd1;
ld.param.u64 %rd1, [flag];
$WAIT: ld.volatile.global.u32 %r1, [%rd1];
setp.eq.u32 %p1, %r1, 0;
@%p1 bra $WAIT;
ret;
}
)";

std::vector<uint32_t> run_mixed(unsigned threads, IsaLevel level, unsigned quantum, uint64_t seed) {
  constexpr uint32_t kBlocks = 24, kThreads = 224;
  Machine m(threads);
  m.load(with_header(kMixed), level);
  std::vector<uint32_t> in(kBlocks * kThreads);
  for (uint32_t i = 0; i < in.size(); ++i) in[i] = i * 2654435761u;
  const uint64_t a = m.upload(in), out = m.allocate(in.size() * 4), total = m.allocate(4);
  m.launch().quantum = quantum;
  m.launch().seed = seed;
  EXPECT_TRUE(m.run("mixed", {kBlocks, 1, 1}, {kThreads, 1, 1}, {a, out, total}).ok());
  std::vector<uint32_t> result = m.download<uint32_t>(out, in.size());
  result.push_back(m.download<uint32_t>(total, 1)[0]);
  return result;
}

TEST(Schedule, no_quantum_seed_number_of_threads_or_level_changes_a_result) {
  const std::vector<uint32_t> expected = run_mixed(1, levels()[0], 0, 0);
  for (const IsaLevel level : levels()) {
    for (const unsigned threads : {1u, 2u, 5u}) {
      for (const unsigned quantum : {1u, 7u, 64u, 1000u}) {
        EXPECT_EQ(run_mixed(threads, level, quantum, 0), expected) << threads << " threads, quantum " << quantum;
      }
    }
    for (const uint64_t seed : {1u, 2u, 77u, 12345u}) {
      EXPECT_EQ(run_mixed(1, level, 0, seed), expected) << "seed " << seed;
    }
  }
}

// The order in which lanes of many warps count up: the same for the same seed, another for another.
std::vector<uint32_t> order_of(uint64_t seed) {
  Machine m(1);
  m.load(
      with_header(".visible .entry k(.param .u64 next, .param .u64 out)\n{\n.reg .b32 %r<9>; .reg .b64 %rd<9>;\n"
                  "ld.param.u64 %rd1, [next]; ld.param.u64 %rd2, [out];\nmov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; "
                  "mad.lo.u32 %r3, %r2, 256, %r1; atom.global.add.u32 %r4, [%rd1], 1;\nmul.wide.u32 %rd3, %r3, 4; "
                  "add.u64 %rd4, %rd2, %rd3; st.global.u32 [%rd4], %r4; ret;\n}\n"));
  const uint64_t next = m.allocate(4), out = m.allocate(4 * 1024);
  m.launch().seed = seed;
  EXPECT_TRUE(m.run("k", {4, 1, 1}, {256, 1, 1}, {next, out}).ok());
  return m.download<uint32_t>(out, 1024);
}

TEST(Schedule, a_seed_gives_one_order) {
  EXPECT_EQ(order_of(5), order_of(5));
  EXPECT_NE(order_of(5), order_of(6));
  EXPECT_NE(order_of(5), order_of(0));
}

class Spinning : public ::testing::Test {
 protected:
  void SetUp() override {
    m_.load(with_header(kMixed));
    flag_ = m_.allocate(4);
    m_.launch().cancel = &cancel_;
    m_.launch().owner = 3;
  }
  void begin() {
    runner_ = std::thread([this] { fault_ = m_.run("spin", {2, 1, 1}, {64, 1, 1}, {flag_}).kind, done_ = true; });
  }
  void TearDown() override {
    if (runner_.joinable()) runner_.join();
  }
  void let_go() { __atomic_store_n(reinterpret_cast<uint32_t*>(m_.host(flag_)), 1, __ATOMIC_RELAXED); }
  std::vector<GridView> wait_for(bool (*condition)(const std::vector<GridView>&)) {
    for (int i = 0; i < 5000; ++i) {
      std::vector<GridView> seen = running_grids(m_.pool(), 8);
      if (condition(seen)) return seen;
      tide::sleep_us(1000);
    }
    ADD_FAILURE() << "it never came";
    return {};
  }

  Machine m_{1};
  std::atomic<bool> cancel_{false};
  std::atomic<bool> done_{false};
  uint64_t flag_ = 0;
  FaultKind fault_ = FaultKind::kNone;
  std::thread runner_;
};

TEST_F(Spinning, a_grid_can_be_looked_at_while_it_runs) {
  begin();
  const std::vector<GridView> seen =
      wait_for([](const std::vector<GridView>& g) { return g.size() == 1 && !g[0].running.empty(); });
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].kernel, "spin");
  EXPECT_EQ(seen[0].owner, 3u);
  EXPECT_EQ(seen[0].blocks, 2u);
  ASSERT_FALSE(seen[0].running[0].groups.empty());
  const GroupView& group = seen[0].running[0].groups[0];
  EXPECT_EQ(group.mask, ~0u);
  EXPECT_GE(group.line, 20u);
  EXPECT_FALSE(group.text.empty());
  EXPECT_FALSE(done_);
  let_go();
}

TEST_F(Spinning, a_paused_grid_stands_still_and_goes_on) {
  begin();
  wait_for([](const std::vector<GridView>& g) { return g.size() == 1 && g[0].instructions > 100; });
  pause_grids(m_.pool(), 3, true);
  const uint64_t before = running_grids(m_.pool(), 0)[0].instructions;
  let_go();
  tide::sleep_us(30000);
  const std::vector<GridView> seen = running_grids(m_.pool(), 8);
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_TRUE(seen[0].paused);
  EXPECT_EQ(seen[0].instructions, before);
  EXPECT_FALSE(done_);
  pause_grids(m_.pool(), 3, false);
  runner_.join();
  EXPECT_EQ(fault_, FaultKind::kNone);
}

TEST_F(Spinning, a_held_grid_does_not_begin_and_can_be_cancelled) {
  let_go();
  m_.launch().hold = true;
  begin();
  wait_for([](const std::vector<GridView>& g) { return g.size() == 1; });
  tide::sleep_us(30000);
  EXPECT_EQ(running_grids(m_.pool(), 8)[0].blocks_started, 0u);
  cancel_ = true;
  runner_.join();
  EXPECT_EQ(fault_, FaultKind::kCancelled);
}

TEST_F(Spinning, a_held_grid_runs_when_it_is_released) {
  let_go();
  m_.launch().hold = true;
  begin();
  wait_for([](const std::vector<GridView>& g) { return g.size() == 1; });
  release_held_grids(m_.pool(), 3);
  runner_.join();
  EXPECT_EQ(fault_, FaultKind::kNone);
}

TEST_F(Spinning, a_spinning_grid_is_cancelled_where_it_stands) {
  begin();
  wait_for([](const std::vector<GridView>& g) { return g.size() == 1 && g[0].instructions > 100; });
  cancel_ = true;
  runner_.join();
  EXPECT_EQ(fault_, FaultKind::kCancelled);
}

}  // namespace
}  // namespace softgpu
