// Senders of one server that share a rate, on a clock of their own.

#include "server/move_rate.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"

namespace tide {
namespace {

constexpr uint64_t kRate = 100u << 20;
constexpr uint64_t kSecondNs = 1'000'000'000;

class MoveRateTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(directory_), nullptr); }
  void TearDown() override {
    unlink(page().c_str());
    rmdir(directory_);
  }
  std::string page() const { return std::string(directory_) + "/move-rate"; }
  std::unique_ptr<MoveRate> sender(uint64_t rate = kRate) {
    auto made = std::make_unique<MoveRate>();
    const Outcome outcome = made->start(rate, page());
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    return made;
  }

  char directory_[32] = "/tmp/move-rate-XXXXXX";
};

struct Sender {
  std::unique_ptr<MoveRate> rate;
  uint64_t at_ns = 0;  // when it sends next
  uint64_t bytes = 0;
};

// Each sends a chunk, in `work_ns`, waits as it is told and up to `late_ns` longer, and sends the next.
uint64_t bytes_sent(std::vector<Sender>* senders, uint64_t seconds, uint64_t work_ns, uint64_t late_ns) {
  constexpr uint64_t kBegin = 12'345 * kSecondNs;
  for (Sender& sender : *senders) sender.at_ns = kBegin;
  uint64_t bytes = 0;
  for (uint64_t turn = 0;; ++turn) {
    Sender* next = &senders->front();
    for (Sender& sender : *senders) {
      if (sender.at_ns < next->at_ns) next = &sender;
    }
    if (next->at_ns >= kBegin + seconds * kSecondNs) return bytes;
    next->at_ns += work_ns;
    next->bytes += kChunkBytes;
    bytes += kChunkBytes;
    const uint64_t wait = next->rate->sent(kChunkBytes, next->at_ns);
    if (wait != 0) next->at_ns += wait + turn * 7919 % (late_ns + 1);
  }
}

TEST_F(MoveRateTest, three_senders_keep_it_together_and_share_it_alike) {
  std::vector<Sender> senders(3);
  for (Sender& sender : senders) sender.rate = this->sender();
  const uint64_t bytes = bytes_sent(&senders, 20, 300'000, 0);
  EXPECT_NEAR(double(bytes), 20.0 * kRate, 20.0 * kRate / 100);
  for (const Sender& sender : senders) EXPECT_NEAR(double(sender.bytes), double(bytes) / 3, double(bytes) / 50);
}

TEST_F(MoveRateTest, who_wakes_late_makes_up_for_it) {
  std::vector<Sender> senders(1);
  senders[0].rate = sender();
  const uint64_t bytes = bytes_sent(&senders, 20, 300'000, 15'000'000);
  EXPECT_NEAR(double(bytes), 20.0 * kRate, 20.0 * kRate / 50);
}

TEST_F(MoveRateTest, what_was_not_used_for_long_is_not_kept) {
  const auto rate = sender();
  uint64_t now = 50 * kSecondNs;
  rate->sent(kChunkBytes, now);
  now += 10 * kSecondNs;
  uint64_t at_once = 0;
  while (rate->sent(kChunkBytes, now) == 0) at_once += kChunkBytes;
  EXPECT_LE(at_once, kRate / 40) << "a fortieth of a second's";
}

TEST_F(MoveRateTest, a_sender_that_cannot_reach_the_rate_is_not_held_up) {
  std::vector<Sender> senders(1);
  senders[0].rate = sender();
  EXPECT_NEAR(double(bytes_sent(&senders, 10, 40'000'000, 0)), 10.0 * double(kChunkBytes) * 25,
              double(2 * kChunkBytes));
}

// The file is from before the machine was started: its clock begins anew.
TEST_F(MoveRateTest, a_page_from_another_time_holds_nobody_up) {
  const auto rate = sender();
  rate->sent(kChunkBytes, 1'000'000 * kSecondNs);
  EXPECT_LE(rate->sent(kChunkBytes, 30 * kSecondNs), kSecondNs / 10);
}

TEST_F(MoveRateTest, none_is_no_limit) {
  MoveRate rate;
  ASSERT_TRUE(rate.start(0, page()).ok());
  EXPECT_EQ(rate.sent(uint64_t{1} << 40, 1), 0u);
  EXPECT_NE(access(page().c_str(), F_OK), 0);
}

TEST_F(MoveRateTest, a_page_that_cannot_be_made_is_said) {
  MoveRate rate;
  EXPECT_NE(rate.start(kRate, "/nonexistent/move-rate").message().find("/nonexistent/move-rate"), std::string::npos);
}

}  // namespace
}  // namespace tide
