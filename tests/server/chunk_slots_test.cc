// Slots between a source and a destination, here of one process; tests/server/move_test.cc has them between two.

#include "server/chunk_slots.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>

#include "base/log.h"
#include "server/chunk_carrier.h"
#include "transport/door.h"

namespace tide {
namespace {

// A stream on which nothing happens until it breaks.
class Quiet : public ByteStream {
 public:
  Outcome send(const void*, size_t bytes, uint32_t) override {
    EXPECT_EQ(bytes, 0u);
    return broken ? Outcome::fail("the far side is gone") : Outcome();
  }
  Outcome receive(void*, size_t, uint32_t) override { return Outcome::fail("nothing comes"); }
  Outcome flush(uint32_t) override { return {}; }
  void cancel() override {}
  void close() override {}

  std::atomic<bool> broken{false};
};

class ChunkSlotsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Outcome outcome = ChunkSlots::make(&destination_);
    if (outcome.ok()) outcome = ChunkSlots::take(destination_->offer(), &source_);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
  }
  std::string refused(const std::string& offer) {
    std::unique_ptr<ChunkSlots> slots;
    return ChunkSlots::take(offer, &slots).message();
  }
  uint32_t fill() {
    uint32_t slot = kNoSlot;
    EXPECT_TRUE(source_->find_free(kNoSlot, stream_, &slot).ok());
    source_->hand_over(slot);
    return slot;
  }

  std::unique_ptr<ChunkSlots> destination_, source_;
  Quiet stream_;
};

TEST_F(ChunkSlotsTest, what_the_source_writes_the_destination_reads) {
  memset(source_->at(3), 0x5c, kChunkBytes);
  EXPECT_EQ(memcmp(source_->at(3), destination_->at(3), kChunkBytes), 0);
  EXPECT_EQ(destination_->at(3)[kChunkBytes - 1], std::byte{0x5c});
  EXPECT_EQ(destination_->at(4)[0], std::byte{0});
  EXPECT_LT(destination_->offer().size(), 300u);
}

TEST_F(ChunkSlotsTest, belong_to_one_side_at_a_time) {
  const uint32_t slot = fill();
  EXPECT_TRUE(destination_->is_ours(slot));
  EXPECT_FALSE(destination_->is_ours((slot + 1) % ChunkSlots::kSlots));
  EXPECT_FALSE(destination_->is_ours(ChunkSlots::kSlots)) << "there is none of that number";
  destination_->give_back(slot);
  EXPECT_FALSE(destination_->is_ours(slot));
}

TEST_F(ChunkSlotsTest, a_source_waits_for_one_and_gets_no_other_than_the_one_that_came_back) {
  std::map<uint32_t, int> times;
  for (uint32_t i = 0; i < ChunkSlots::kSlots; ++i) ++times[fill()];
  EXPECT_EQ(times.size(), ChunkSlots::kSlots);
  std::thread other([&] { destination_->give_back(2); });
  uint32_t slot = kNoSlot;
  EXPECT_TRUE(source_->find_free(kNoSlot, stream_, &slot).ok());
  other.join();
  EXPECT_EQ(slot, 2u);
}

TEST_F(ChunkSlotsTest, a_source_that_looks_at_one_gets_another) {
  for (uint32_t i = 0; i + 2 < ChunkSlots::kSlots; ++i) fill();
  uint32_t first = kNoSlot, second = kNoSlot;
  ASSERT_TRUE(source_->find_free(kNoSlot, stream_, &first).ok());
  ASSERT_TRUE(source_->find_free(first, stream_, &second).ok());
  EXPECT_NE(first, second);
}

TEST_F(ChunkSlotsTest, a_source_does_not_wait_for_a_destination_that_is_gone) {
  for (uint32_t i = 0; i < ChunkSlots::kSlots; ++i) fill();
  stream_.broken = true;
  uint32_t slot = kNoSlot;
  EXPECT_EQ(source_->find_free(kNoSlot, stream_, &slot).message(), "the far side is gone");
}

TEST_F(ChunkSlotsTest, many_go_through_in_order) {
  constexpr uint32_t kMany = 20'000;
  std::atomic<uint32_t> told[kMany];
  for (auto& slot : told) slot = kNoSlot;
  std::thread source([&] {
    for (uint32_t i = 0; i < kMany; ++i) {
      uint32_t slot = kNoSlot;
      if (!source_->find_free(kNoSlot, stream_, &slot).ok()) return;
      memcpy(source_->at(slot), &i, sizeof(i));
      source_->hand_over(slot);
      told[i] = slot;
    }
  });
  uint32_t wrong = 0;
  for (uint32_t i = 0; i < kMany; ++i) {
    while (told[i] == kNoSlot) std::this_thread::yield();
    uint32_t found = 0;
    memcpy(&found, destination_->at(told[i]), sizeof(found));
    wrong += found != i || !destination_->is_ours(told[i]) ? 1 : 0;
    destination_->give_back(told[i]);
  }
  source.join();
  EXPECT_EQ(wrong, 0u);
}

TEST_F(ChunkSlotsTest, offers_that_are_no_good_are_refused) {
  const std::string offer = destination_->offer(), host = this_host_id();
  EXPECT_EQ(refused(""), "it offers none");
  EXPECT_EQ(refused("slots -1 3 00 " + host), "it offers none");
  EXPECT_EQ(refused(offer.substr(0, offer.size() - host.size()) + "another-machine"), "it is on another machine");
  EXPECT_EQ(refused(format("slots %d 0 %s %s", getpid(), std::string(64, '0').c_str(), host.c_str())),
            "its memory is not within reach")
      << "standard input is no such memory";
  const size_t nonce = offer.rfind(' ') - 64;
  std::string other = offer;
  other[nonce] = other[nonce] == '0' ? '1' : '0';
  EXPECT_EQ(refused(other), "what is there is somebody else's");
}

TEST_F(ChunkSlotsTest, can_be_left_out) {
  setenv("TIDE_MOVE_OVER", "ucx", 1);
  std::unique_ptr<ChunkSlots> slots;
  EXPECT_FALSE(ChunkSlots::make(&slots).ok());
  unsetenv("TIDE_MOVE_OVER");
}

}  // namespace
}  // namespace tide
