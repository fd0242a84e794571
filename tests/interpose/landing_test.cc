// The bytes of a copy from the GPU, put by the link where they belong while the program gives the memory up.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "interpose/channel.h"
#include "transport/region.h"

namespace tide {
namespace {

constexpr uint64_t kBytes = 400'000;
constexpr uint32_t kStream = 1;

// What the channel gives its link is the test's to call.
class HandOver : public Link {
 public:
  HandOver(Region region, Landings** landings) : landings_(landings) { region_ = region; }
  bool progress() override { return false; }
  void note(const Word&) override {}
  void wake() override {}
  void sleep(uint32_t, uint32_t) override {}
  bool alive() override { return true; }
  const char* transport() const override { return "none"; }
  void abandon() override {}
  void land_in(Landings* landings) override { *landings_ = landings; }

 private:
  Landings** landings_;
};

struct LandingTest : testing::Test {
  LandingTest() {
    EXPECT_TRUE(create_region(&fd, &region).ok());
    channel = Channel::adopt(region, std::make_unique<HandOver>(region, &landings));
  }
  ~LandingTest() override {
    channel.reset();
    destroy_region(fd, region);
  }
  uint64_t copy_out(const Landing& landing) {
    uint64_t sequence = 0;
    const CommandSpec spec{.call = Call::tideCopyOut, .stream = kStream, .landing = &landing};
    EXPECT_EQ(channel->send(
                  spec, [](std::byte*) {}, &sequence),
              CUDA_SUCCESS);
    return sequence;
  }
  static AnswerHeader data(uint64_t sequence, uint64_t offset, uint32_t bytes) {
    AnswerHeader header;
    header.kind = uint16_t(AnswerKind::kData);
    header.sequence = sequence;
    header.offset = offset;
    header.payload_bytes = bytes;
    return header;
  }
  // As the link leaves it in the ring.
  void finish(AnswerHeader header) {
    AnswerWriter writer(region);
    AnswerHeader* place = writer.reserve(header.payload_bytes);
    header.bytes = place->bytes;
    header.flags = kAnswerLanded;
    *place = header;
    writer.publish(place);
  }
  bool all_are(std::byte value) const {
    return std::all_of(memory.begin(), memory.end(), [&](std::byte each) { return each == value; });
  }

  int fd = -1;
  Region region;
  Landings* landings = nullptr;
  std::unique_ptr<Channel> channel;
  std::vector<std::byte> memory = std::vector<std::byte>(kBytes);
  std::vector<std::byte> come = std::vector<std::byte>(kBytes, std::byte{5});
};

TEST_F(LandingTest, bytes_that_are_in_their_place_are_not_looked_for_in_the_ring) {
  ASSERT_NE(landings, nullptr);
  const uint64_t sequence = copy_out({memory.data(), kBytes, kBytes, 1});
  for (const uint64_t offset : {uint64_t{0}, kBytes / 2}) {
    const AnswerHeader header = data(sequence, offset, kBytes / 2);
    EXPECT_TRUE(landings->put(header, 0, come.data(), 100));
    EXPECT_TRUE(landings->put(header, 100, come.data(), kBytes / 2 - 100));
    EXPECT_TRUE(channel->copies_pending()) << "not before its record is whole";
    finish(header);
    channel->drain();
  }
  EXPECT_FALSE(channel->copies_pending());
  EXPECT_TRUE(all_are(std::byte{5})) << "what lies in the ring was taken";
  EXPECT_EQ(channel->counters().bytes_out.load(), kBytes);
  EXPECT_FALSE(landings->put(data(sequence, 0, 1000), 0, come.data(), 1000)) << "it is over";
}

TEST_F(LandingTest, rows_land_apart) {
  const uint64_t sequence = copy_out({memory.data(), 1000, 300, 5});
  EXPECT_TRUE(landings->put(data(sequence, 250, 1000), 100, come.data(), 400));
  for (uint64_t i = 0; i < 5000; ++i) {
    const uint64_t packed = i / 1000 * 300 + i % 1000;
    const bool hit = i % 1000 < 300 && packed >= 350 && packed < 750;
    ASSERT_EQ(memory[i], hit ? std::byte{5} : std::byte{}) << i;
  }
}

TEST_F(LandingTest, what_was_not_asked_for_so_lands_nowhere) {
  const uint64_t sequence = copy_out({memory.data(), kBytes, kBytes, 1});
  EXPECT_FALSE(landings->put(data(sequence + 1, 0, 1000), 0, come.data(), 1000));
  EXPECT_FALSE(landings->put(data(sequence, kBytes, 1), 0, come.data(), 1));
  EXPECT_FALSE(landings->put(data(sequence, 1, kBytes), 0, come.data(), 1)) << "the record as a whole does not fit";
  EXPECT_FALSE(landings->put(data(sequence, ~uint64_t{0}, 2), 0, come.data(), 2));
  finish(data(sequence, 0, kBytes / 2));
  channel->drain();
  EXPECT_FALSE(landings->put(data(sequence, 0, kBytes), 0, come.data(), 1)) << "more than is to come";
  EXPECT_TRUE(all_are(std::byte{}));
}

// A wait that failed: the caller's memory is its own again.
TEST_F(LandingTest, nothing_is_written_after_a_copy_was_given_up) {
  for (int round = 0; round < 30; ++round) {
    const uint64_t sequence = copy_out({memory.data(), kBytes, kBytes, 1});
    std::atomic<int> puts{0};
    std::thread link([&] {
      while (landings->put(data(sequence, 0, kBytes), 0, come.data(), kBytes)) ++puts;
    });
    while (puts.load() < 3) std::this_thread::yield();
    channel->forget(sequence);
    std::fill(memory.begin(), memory.end(), std::byte{9});
    EXPECT_TRUE(all_are(std::byte{9}));
    link.join();
    EXPECT_TRUE(all_are(std::byte{9})) << "round " << round;
  }
  EXPECT_FALSE(channel->copies_pending());
}

}  // namespace
}  // namespace tide
