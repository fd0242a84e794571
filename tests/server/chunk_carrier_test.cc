// What a move sends of memory that changes meanwhile, against a destination that is made of what was sent.

#include "server/chunk_carrier.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <thread>

#include "server/precopy.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(6);

// Does with a model of the destination what is sent.
class Model : public ByteStream {
 public:
  Outcome send(const void* data, size_t bytes, uint32_t) override {
    if (bytes == 0) return {};
    const auto* at = static_cast<const std::byte*>(data);
    if (data_for_ != 0) {
      EXPECT_EQ(bytes, kChunkBytes);
      chunks[data_for_].assign(at, at + bytes);
      data_for_ = 0;
      return {};
    }
    ChunkFrame frame;
    EXPECT_EQ(bytes, sizeof frame);
    memcpy(&frame, data, sizeof frame);
    if (frame.kind == ChunkFrameKind::kData) data_for_ = frame.address;
    if (frame.kind == ChunkFrameKind::kMap) maps.push_back({frame.address, frame.bytes});
    for (uint64_t chunk = frame.address; chunk < frame.address + frame.bytes; chunk += kChunkBytes) take(frame, chunk);
    return {};
  }
  Outcome receive(void*, size_t, uint32_t) override { return Outcome::fail("nothing comes"); }
  Outcome flush(uint32_t) override { return {}; }
  void cancel() override {}
  void close() override {}

  std::map<uint64_t, std::vector<std::byte>> chunks;  // what is mapped there
  std::vector<MemoryRange> maps;                      // as they were told
  uint32_t data = 0, zeros = 0;                       // chunks that came so
  std::unique_ptr<ChunkSlots> slots;

 private:
  void take(const ChunkFrame& frame, uint64_t chunk) {
    const bool known = chunks.count(chunk) != 0;
    EXPECT_EQ(known, frame.kind != ChunkFrameKind::kMap) << "chunk " << chunk - kBase;
    if (frame.kind == ChunkFrameKind::kMap) {
      // As a piece of which a part stayed mapped: what was there is there again.
      chunks[chunk] = old_.count(chunk) != 0 ? old_[chunk] : std::vector<std::byte>(kChunkBytes);
    } else if (frame.kind == ChunkFrameKind::kUnmap) {
      old_[chunk] = chunks[chunk];
      chunks.erase(chunk);
    } else if (frame.kind == ChunkFrameKind::kZero) {
      chunks[chunk].assign(kChunkBytes, std::byte{0});
      ++zeros;
    } else {
      ++data;
    }
    if (frame.kind == ChunkFrameKind::kSlot) take_slot(frame.slot, chunk);
  }
  // As one whose GPU still reads the last.
  void take_slot(uint32_t slot, uint64_t chunk) {
    ASSERT_TRUE(slots != nullptr && slots->is_ours(slot));
    chunks[chunk].assign(slots->at(slot), slots->at(slot) + kChunkBytes);
    if (last_ != kNoSlot) slots->give_back(last_);
    last_ = slot;
  }

  uint64_t data_for_ = 0;
  uint32_t last_ = kNoSlot;
  std::map<uint64_t, std::vector<std::byte>> old_;
};

class ChunkCarrierTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Outcome outcome = open_driver(&library_);
    session_ = std::make_unique<Session>(library_);
    if (outcome.ok()) outcome = session_->start(6, 1u << 30);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    sender_ = std::make_unique<ChunkSender>(library_, session_->contexts(), session_->memory(), model_);
    outcome = sender_->start();
    ASSERT_TRUE(outcome.ok()) << outcome.message();
  }
  // Of the test's driver the CPU sees the memory, too.
  static std::byte* host(uint64_t chunk) { return reinterpret_cast<std::byte*>(kBase + chunk * kChunkBytes); }
  void map(uint64_t chunk, uint64_t chunks) {
    ASSERT_EQ(session_->memory().map(kBase + chunk * kChunkBytes, chunks * kChunkBytes), CUDA_SUCCESS);
  }
  void unmap(uint64_t chunk, uint64_t chunks) {
    ASSERT_EQ(session_->memory().unmap(kBase + chunk * kChunkBytes, chunks * kChunkBytes, 0), CUDA_SUCCESS);
    session_->memory().collect(session_->streams());
  }
  ChunkSender::Pass pass() {
    ChunkSender::Pass pass;
    const Outcome outcome = sender_->pass([] { return true; }, &pass);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    EXPECT_TRUE(pass.whole);
    return pass;
  }
  void expect_equal() {
    uint64_t mapped = 0;
    for (const MemoryRange& range : session_->memory().ranges()) {
      for (uint64_t at = range.address; at < range.address + range.bytes; at += kChunkBytes, ++mapped) {
        ASSERT_EQ(model_.chunks.count(at), 1u);
        ASSERT_EQ(memcmp(model_.chunks[at].data(), reinterpret_cast<void*>(at), kChunkBytes), 0) << at - kBase;
      }
    }
    EXPECT_EQ(model_.chunks.size(), mapped);
  }

  DriverLibrary library_;
  std::unique_ptr<Session> session_;
  Model model_;
  std::unique_ptr<ChunkSender> sender_;
};

class ThroughSlots : public ChunkCarrierTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(ChunkCarrierTest::SetUp());
    std::unique_ptr<ChunkSlots> slots;
    Outcome outcome = ChunkSlots::make(&model_.slots);
    if (outcome.ok()) outcome = ChunkSlots::take(model_.slots->offer(), &slots);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    sender_->use(std::move(slots));
  }
};

TEST_F(ChunkCarrierTest, only_what_changed_is_sent_again) {
  map(0, 40);
  for (uint64_t chunk = 0; chunk < 30; ++chunk) memset(host(chunk), int(chunk) + 1, kChunkBytes);
  EXPECT_EQ(pass().bytes, 30 * kChunkBytes);
  EXPECT_EQ(model_.zeros, 0u) << "new memory is zero there, too";
  EXPECT_EQ(pass().chunks, 0u);
  host(4)[77] = std::byte{99};
  memset(host(5), 0, kChunkBytes);
  EXPECT_EQ(pass().bytes, kChunkBytes);
  EXPECT_EQ(model_.zeros, 1u);
  expect_equal();
}

TEST_F(ChunkCarrierTest, what_is_mapped_again_is_sent_again) {
  map(0, 32);
  for (uint64_t chunk = 0; chunk < 32; ++chunk) memset(host(chunk), 1, kChunkBytes);
  pass();
  unmap(3, 1);
  unmap(16, 16);  // all of a piece
  pass();
  EXPECT_EQ(model_.chunks.size(), 15u);
  map(3, 1);
  map(16, 4);
  memset(host(3), 0, kChunkBytes);
  pass();
  expect_equal();
  unmap(16, 4);
  map(16, 4);  // between two passes: nobody has seen it
  pass();
  expect_equal();
}

// Others have a shared piece as it is cut here, and all of it.
TEST_F(ChunkCarrierTest, a_shared_piece_is_told_in_one_whatever_of_it_is_mapped) {
  map(0, 3);
  map(3, 4);
  map(7, 2);
  for (uint64_t chunk = 0; chunk < 9; ++chunk) memset(host(chunk), int(chunk) + 1, kChunkBytes);
  pass();
  EXPECT_EQ(model_.maps, (std::vector<MemoryRange>{{kBase, 9 * kChunkBytes}}));
  model_.maps.clear();
  session_->memory().name_pieces({kBase + 3 * kChunkBytes, 4 * kChunkBytes});
  unmap(4, 1);
  pass();
  EXPECT_EQ(model_.maps, (std::vector<MemoryRange>{{kBase, 3 * kChunkBytes},
                                                   {kBase + 3 * kChunkBytes, 4 * kChunkBytes},
                                                   {kBase + 7 * kChunkBytes, 2 * kChunkBytes}}));
  EXPECT_EQ(memcmp(model_.chunks[kBase + 4 * kChunkBytes].data(), host(4), kChunkBytes), 0);
  EXPECT_EQ(model_.chunks.size(), 9u);
  EXPECT_EQ(pass().chunks, 0u);
  unmap(3, 1);
  unmap(5, 2);
  pass();
  EXPECT_EQ(model_.chunks.size(), 5u) << "a piece of which nothing is mapped has ended";
  expect_equal();
}

TEST_F(ChunkCarrierTest, what_is_read_stays_until_it_was_read) {
  map(0, 2);
  Memory& memory = session_->memory();
  ASSERT_TRUE(memory.pin(kBase));
  unmap(0, 2);
  EXPECT_TRUE(memory.has_condemned());
  EXPECT_FALSE(memory.pin(kBase)) << "it is not mapped";
  EXPECT_EQ(host(0)[5], std::byte{0}) << "but can be read";
  memory.unpin(kBase);
  memory.collect(session_->streams());
  EXPECT_FALSE(memory.has_condemned());
}

TEST_F(ThroughSlots, only_what_changed_is_sent_again) {
  map(0, 40);
  for (uint64_t chunk = 0; chunk < 30; ++chunk) memset(host(chunk), int(chunk) + 1, kChunkBytes);
  EXPECT_EQ(pass().bytes, 30 * kChunkBytes);
  EXPECT_EQ(model_.data, 30u);
  EXPECT_EQ(pass().chunks, 0u);
  host(4)[77] = std::byte{99};
  memset(host(5), 0, kChunkBytes);
  EXPECT_EQ(pass().bytes, kChunkBytes);
  expect_equal();
}

// What is looked at and not sent leaves the destination with the last slot in its hands.
TEST_F(ThroughSlots, much_that_need_not_be_sent_waits_for_no_slot) {
  map(0, 200);
  for (uint64_t chunk = 0; chunk < 200; chunk += 50) memset(host(chunk), 3, kChunkBytes);
  for (int round = 1; round < 4; ++round) {
    EXPECT_EQ(pass().chunks, 4u);
    for (uint64_t chunk = 0; chunk < 200; chunk += 50) host(chunk)[round] = std::byte{7};
  }
  pass();
  expect_equal();
}

TEST_F(ThroughSlots, what_goes_to_and_fro_while_it_is_read_arrives_as_it_is_at_the_end) {
  map(0, 4);
  for (int round = 0; round < 20; ++round) {
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      for (uint32_t turn = 0; !stop || turn % 2 != 0; ++turn) {
        for (uint64_t chunk = 0; chunk < 4; ++chunk) memset(host(chunk), turn % 2 == 0 ? 0x33 : 0x11, kChunkBytes);
      }
    });
    for (int i = 0; i < 3; ++i) pass();
    stop = true;
    writer.join();
    pass();
    ASSERT_NO_FATAL_FAILURE(expect_equal()) << "round " << round;
  }
}

// Its hash is taken when it has one content, it is read when it has the other, and at the end it has the first again.
TEST_F(ChunkCarrierTest, what_goes_to_and_fro_while_it_is_read_arrives_as_it_is_at_the_end) {
  map(0, 2);
  for (int round = 0; round < 60; ++round) {
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      for (uint32_t turn = 0; !stop || turn % 2 != 0; ++turn) {
        memset(host(0), turn % 2 == 0 ? 0x33 : 0x11, kChunkBytes);
        memset(host(1) + 4096, turn % 2 == 0 ? 0x44 : 0, 4096);
      }
    });
    for (int i = 0; i < 3; ++i) pass();
    stop = true;
    writer.join();
    pass();
    ASSERT_NO_FATAL_FAILURE(expect_equal()) << "round " << round;
    EXPECT_EQ(pass().chunks, 0u);
  }
}

TEST_F(ChunkCarrierTest, a_pass_that_ends_early_leaves_the_rest_to_the_next) {
  map(0, 20);
  for (uint64_t chunk = 0; chunk < 20; ++chunk) memset(host(chunk), 7, kChunkBytes);
  int asked = 0;
  ChunkSender::Pass first;
  const Outcome outcome = sender_->pass([&] { return ++asked < 5; }, &first);
  ASSERT_TRUE(outcome.ok()) << outcome.message();
  EXPECT_FALSE(first.whole);
  EXPECT_LT(first.chunks, 20u);
  EXPECT_EQ(first.chunks + pass().chunks, 20u);
  expect_equal();
}

TEST(Rounds, end_when_a_short_pause_can_carry_the_rest) {
  RoundJudge judge;
  EXPECT_FALSE(judge.enough(1u << 30, 500'000'000));
  EXPECT_FALSE(judge.enough(200u << 20, 100'000'000));
  EXPECT_TRUE(judge.enough(40u << 20, 20'000'000));
}

TEST(Rounds, end_when_another_one_would_not_help) {
  RoundJudge judge;
  EXPECT_FALSE(judge.enough(1u << 30, 500'000'000));
  EXPECT_FALSE(judge.enough(1u << 30, 500'000'000));
  EXPECT_TRUE(judge.enough(1000u << 20, 500'000'000));
}

TEST(Rounds, end_at_last) {
  RoundJudge judge;
  int rounds = 1;
  for (double bytes = 1e12; !judge.enough(uint64_t(bytes), 1'000'000'000); bytes *= 0.7) ++rounds;
  EXPECT_GT(rounds, 10);
  EXPECT_LT(rounds, 50);
}

}  // namespace
}  // namespace tide
