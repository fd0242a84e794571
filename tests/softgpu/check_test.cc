// What checked kernels are told about: accesses outside of allocations, reads of what nobody wrote, races.

#include "softgpu/exec/check.h"

#include "machine.h"

namespace softgpu {
namespace {

class Check : public ::testing::Test, public Allocations {
 public:
  bool find(uint64_t address, uint64_t* start, uint64_t* bytes) const override {
    for (const auto& [at, size] : live_) {
      if (address - at < size) return *start = at, *bytes = size, true;
    }
    return false;
  }
  std::string describe(uint64_t) const override { return "in no allocation"; }

 protected:
  // Device memory that the checks know of, of exactly so many bytes.
  uint64_t allocate(uint64_t bytes) {
    const uint64_t at = machine_.allocate(bytes);
    live_.emplace_back(at, bytes);
    return at;
  }

  Fault run(const CheckOptions& options, const std::string& body, Dim3 grid, Dim3 block,
            std::vector<uint64_t> params = {}) {
    lines_.clear();
    made_ = std::make_unique<Checker>(options, *this, [this](const std::string& line) { lines_.push_back(line); });
    for (const auto& [at, size] : live_) made_->allocated(at, size);
    for (const auto& [at, size] : written_) made_->written(at, size);
    machine_.load(
        with_header(".visible .entry k(.param .u64 a, .param .u64 b)\n{\n.reg .pred %p<9>; .reg .b32 %r<30>; "
                    ".reg .b64 %rd<30>; .shared .align 8 .b8 tile[1024];\n"
                    "mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, "
                    "[b];\nmul.wide.u32 %rd3, %r1, 4; add.u64 %rd4, %rd1, %rd3; shl.b32 %r3, %r1, 2;\n" +
                    body + "\nret;\n}\n"));
    machine_.launch().checker = made_.get();
    if (params.size() < 2) params.resize(2);
    const Fault fault = machine_.run("k", grid, block, std::move(params), &counters_);
    return fault;
  }

  bool told(const std::string& what, const std::string& where) const {
    return std::any_of(lines_.begin(), lines_.end(), [&](const std::string& line) {
      return line.starts_with(what) && line.find(where) != std::string::npos;
    });
  }

  Machine machine_{2};
  std::unique_ptr<Checker> made_;
  std::vector<std::pair<uint64_t, uint64_t>> live_, written_;
  std::vector<std::string> lines_;
  Counters counters_;
};

const std::string kStore = "st.global.u32 [%rd4], %r1;";

TEST_F(Check, an_access_behind_an_allocation_is_found_to_the_byte) {
  const uint64_t a = allocate(100);
  const Fault fault = run({.granularity = 1}, kStore, {1, 1, 1}, {32, 1, 1}, {a});
  EXPECT_EQ(fault.kind, FaultKind::kIllegalAddress);
  EXPECT_EQ(fault.address, a + 100);
  EXPECT_TRUE(told("out of bounds", "kernel k, block (0,0,0), thread (25,0,0), line 9: st.global.u32")) << fault.where;
  EXPECT_NE(fault.where.find("thread (25,0,0)"), std::string::npos);
}

TEST_F(Check, an_access_that_begins_inside_and_ends_outside_is_found) {
  const uint64_t a = allocate(4 * 32 + 4);
  EXPECT_TRUE(run({.granularity = 1}, "st.global.u32 [%rd4+4], %r1;", {1, 1, 1}, {32, 1, 1}, {a}).ok());
  const uint64_t odd = allocate(4 * 32 - 2);
  EXPECT_EQ(run({.granularity = 1}, kStore, {1, 1, 1}, {32, 1, 1}, {odd}).address, odd + 4 * 31);
}

TEST_F(Check, pages_forgive_what_lies_beside_an_allocation) {
  const uint64_t a = allocate(100);
  EXPECT_TRUE(run({.granularity = 4096}, kStore, {1, 1, 1}, {32, 1, 1}, {a}).ok());
  EXPECT_EQ(run({.granularity = 4096}, "st.global.u32 [%rd4+1048576], %r1;", {1, 1, 1}, {32, 1, 1}, {a}).kind,
            FaultKind::kIllegalAddress);
}

TEST_F(Check, atomics_are_checked_too) {
  const uint64_t a = allocate(64);
  EXPECT_EQ(run({.granularity = 1}, "red.global.add.u32 [%rd1+64], 1;", {1, 1, 1}, {1, 1, 1}, {a}).kind,
            FaultKind::kIllegalAddress);
}

TEST_F(Check, a_misaligned_access_stays_one) {
  const uint64_t a = allocate(64);
  EXPECT_EQ(run({.granularity = 1}, "ld.global.u32 %r9, [%rd1+62];", {1, 1, 1}, {1, 1, 1}, {a}).kind,
            FaultKind::kMisalignedAddress);
}

TEST_F(Check, reads_of_what_nobody_wrote_are_told_once) {
  const uint64_t a = allocate(4 * 64);
  written_ = {{a, 4 * 32}};
  const std::string read = "ld.global.u32 %r9, [%rd4];";
  EXPECT_TRUE(run({.uninitialised = true}, read, {1, 1, 1}, {32, 1, 1}, {a}).ok());
  EXPECT_TRUE(lines_.empty());
  EXPECT_TRUE(run({.uninitialised = true}, read, {4, 1, 1}, {64, 1, 1}, {a}).ok());
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_TRUE(told("uninitialised read", "thread (32,0,0), line 9: ld.global.u32")) << lines_[0];
  EXPECT_TRUE(run({.uninitialised = true}, kStore + read, {1, 1, 1}, {64, 1, 1}, {a}).ok());
  EXPECT_TRUE(lines_.empty());
  EXPECT_EQ(run({.uninitialised = true, .fatal = true}, read, {1, 1, 1}, {64, 1, 1}, {a}).kind, FaultKind::kTrap);
}

TEST_F(Check, shared_memory_begins_unwritten_in_every_block) {
  run({.uninitialised = true}, "mov.u32 %r9, tile; ld.shared.u32 %r10, [%r9+8];", {1, 1, 1}, {1, 1, 1});
  EXPECT_TRUE(told("uninitialised read", "ld.shared.u32"));
  run({.uninitialised = true},
      "mov.u32 %r9, tile; setp.eq.u32 %p1, %r2, 0; @%p1 st.shared.u32 [%r9+8], 7; ld.shared.u32 %r10, [%r9+8];",
      {2, 1, 1}, {1, 1, 1});
  EXPECT_TRUE(told("uninitialised read", "block (1,0,0)"));
}

TEST_F(Check, a_copy_carries_what_is_unwritten) {
  const uint64_t a = allocate(256), b = allocate(256);
  run({.uninitialised = true}, "", {1, 1, 1}, {1, 1, 1});
  made_->written(a, 4);
  made_->copied(b, a, 8);
  machine_.load(
      with_header(".visible .entry k(.param .u64 a, .param .u64 b)\n{\n.reg .b64 %rd1; .reg .b32 %r1;\n"
                  "ld.param.u64 %rd1, [a];\nld.global.u32 %r1, [%rd1];\nld.global.u32 %r1, [%rd1+4];\nret;\n}"));
  machine_.launch().checker = made_.get();
  machine_.run("k", {1, 1, 1}, {1, 1, 1}, {b, 0});
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_TRUE(told("uninitialised read", "[%rd1+4]"));
}

// Every thread reads what its neighbour in the next warp wrote.
std::string exchange(const std::string& between) {
  return "mov.u32 %r9, tile; add.u32 %r10, %r9, %r3; st.shared.u32 [%r10], %r1;\n" + between +
         "\nxor.b32 %r11, %r3, 128; add.u32 %r11, %r9, %r11; ld.shared.u32 %r12, [%r11];";
}

TEST_F(Check, a_missing_barrier_is_a_race) {
  EXPECT_TRUE(run({.races = true}, exchange("bar.sync 0;"), {2, 1, 1}, {64, 1, 1}).ok());
  EXPECT_TRUE(lines_.empty()) << lines_[0];
  EXPECT_TRUE(run({.races = true}, exchange(""), {2, 1, 1}, {64, 1, 1}).ok());
  EXPECT_TRUE(told("race", "without a barrier between them"));
  EXPECT_EQ(run({.races = true, .fatal = true}, exchange(""), {1, 1, 1}, {64, 1, 1}).kind, FaultKind::kTrap);
}

TEST_F(Check, bytes_of_one_word_may_belong_to_several_warps) {
  run({.races = true}, "shr.u32 %r9, %r1, 5; mov.u32 %r10, tile; add.u32 %r9, %r10, %r9; st.shared.u8 [%r9], 1;",
      {1, 1, 1}, {128, 1, 1});
  EXPECT_TRUE(lines_.empty()) << lines_[0];
}

TEST_F(Check, blocks_race_in_global_memory_unless_they_are_atomic) {
  const uint64_t a = allocate(4096);
  run({.races = true}, "st.global.u32 [%rd4], 1;", {2, 1, 1}, {32, 1, 1}, {a});
  EXPECT_TRUE(told("race", "with nothing that orders them"));
  run({.races = true}, "red.global.add.u32 [%rd4], 1;", {4, 1, 1}, {64, 1, 1}, {a});
  EXPECT_TRUE(lines_.empty()) << lines_[0];
  run({.races = true}, "shl.b32 %r9, %r2, 7; cvt.u64.u32 %rd9, %r9; add.u64 %rd9, %rd9, %rd4; st.global.u32 [%rd9], 1;",
      {4, 1, 1}, {32, 1, 1}, {a});
  EXPECT_TRUE(lines_.empty()) << lines_[0];
}

TEST_F(Check, what_is_published_by_fence_and_counter_is_no_race) {
  const uint64_t a = allocate(4096), b = allocate(4);
  // Every block writes its sum; the last one that comes reads all.
  const auto last_block = [](const std::string& fence) {
    return "shl.b32 %r9, %r2, 2; cvt.u64.u32 %rd9, %r9; add.u64 %rd9, %rd9, %rd1; st.global.u32 [%rd9], %r2;\n" +
           fence +
           "\natom.global.add.u32 %r10, [%rd2], 1; setp.ne.u32 %p1, %r10, 3; @%p1 bra $OUT;\n"
           "ld.global.u32 %r11, [%rd1]; ld.global.u32 %r11, [%rd1+4]; ld.global.u32 %r11, [%rd1+8];\n$OUT:";
  };
  run({.races = true}, last_block("membar.gl;"), {4, 1, 1}, {1, 1, 1}, {a, b});
  EXPECT_TRUE(lines_.empty()) << lines_[0];
  std::memset(machine_.host(b), 0, 4);
  run({.races = true}, last_block(""), {4, 1, 1}, {1, 1, 1}, {a, b});
  EXPECT_TRUE(told("race", "ld.global.u32"));
}

TEST_F(Check, lanes_that_write_different_values_to_one_place_race) {
  const uint64_t a = allocate(4);
  run({.races = true}, "st.global.u32 [%rd1], %r1;", {1, 1, 1}, {32, 1, 1}, {a});
  EXPECT_TRUE(told("race", "thread (1,0,0)"));
  run({.races = true}, "st.global.u32 [%rd1], %r2;", {1, 1, 1}, {32, 1, 1}, {a});
  EXPECT_TRUE(lines_.empty());
}

TEST_F(Check, counters_say_what_a_grid_did) {
  const uint64_t a = allocate(4 * 64);
  run({.count_bytes = true}, kStore + "ld.global.u32 %r9, [%rd4];", {3, 1, 1}, {64, 1, 1}, {a});
  EXPECT_EQ(counters_.bytes, 3u * 64 * 8);
  EXPECT_GE(counters_.instructions, 3u * 2 * 6);  // constants and parameters take none
  EXPECT_LT(counters_.instructions, 3u * 2 * 20);
}

}  // namespace
}  // namespace softgpu
