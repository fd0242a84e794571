#include "transport/lifeline.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/transport/loopback.h"

namespace tide {
namespace {

constexpr uint32_t kPatienceMs = 60;

// Two ends of one connection on this machine.
class LifelineTest : public testing::Test {
 protected:
  void SetUp() override {
    const Loopback listener(1);
    near_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(near_, reinterpret_cast<const sockaddr*>(&listener.address()), sizeof(sockaddr_in)), 0);
    far_ = accept(listener.fd(), nullptr, nullptr);
    ASSERT_GE(far_, 0);
  }
  void TearDown() override { close(far_); }

  void cut() { set_cut_off(far_, true); }
  void heal() { set_cut_off(far_, false); }
  int unread() const {
    int bytes = 0;
    ioctl(far_, FIONREAD, &bytes);
    return bytes;
  }

  // Asks as one who waits does. Whether the answer was `wanted` within `ms`.
  static bool becomes(Lifeline& lifeline, bool wanted, uint64_t ms, uint64_t heard_ns = now_ns()) {
    const uint64_t end = now_ns() + ms * 1'000'000;
    while (now_ns() < end) {
      if (lifeline.answers(now_ns(), heard_ns, kPatienceMs) == wanted) return true;
      sleep_us(5'000);
    }
    return false;
  }

  int near_ = -1, far_ = -1;
};

TEST_F(LifelineTest, a_far_side_that_does_nothing_answers) {
  Lifeline lifeline(near_);
  EXPECT_FALSE(becomes(lifeline, false, 500));
  EXPECT_GE(unread(), 2);
  EXPECT_LE(unread(), 6);
}

TEST_F(LifelineTest, who_was_not_heard_for_long_is_asked_less_often) {
  Lifeline lifeline(near_);
  EXPECT_FALSE(becomes(lifeline, false, 500, now_ns() - 10'000'000'000));
  EXPECT_EQ(unread(), 1);
}

TEST_F(LifelineTest, silence_is_noticed_and_so_is_its_end) {
  Lifeline lifeline(near_);
  EXPECT_FALSE(becomes(lifeline, false, 200));
  cut();
  EXPECT_TRUE(becomes(lifeline, false, 5'000));
  heal();
  EXPECT_TRUE(becomes(lifeline, true, 10'000));
}

TEST_F(LifelineTest, who_does_not_wait_says_a_word_each_second) {
  Lifeline lifeline(near_);
  for (const uint64_t end = now_ns() + 2'000'000'000; now_ns() < end; sleep_us(20'000)) lifeline.keep(now_ns());
  EXPECT_GE(unread(), 2);
  EXPECT_LE(unread(), 3);
  EXPECT_GT(lifeline.round_trip_us(), 0u);
  EXPECT_LT(lifeline.round_trip_us(), 100'000u);
  EXPECT_EQ(lifeline.peer_timeout_ns(), 1'900'000'000u) << "the network is near";
}

TEST_F(LifelineTest, words_that_mean_nothing_are_read_and_an_end_is_an_end) {
  Lifeline worker(far_);
  far_ = -1;
  {
    Lifeline client(near_);
    client.keep(now_ns());
    sleep_us(20'000);
    EXPECT_EQ(worker.read_on(), LifelineState::kAlive);
    int bytes = 0;
    ioctl(worker.fd(), FIONREAD, &bytes);
    EXPECT_EQ(bytes, 0);
  }
  sleep_us(20'000);
  EXPECT_EQ(worker.read_on(), LifelineState::kClosed);
  EXPECT_EQ(worker.read_on(), LifelineState::kClosed) << "asked again";
}

TEST_F(LifelineTest, a_reset_stays_one) {
  Lifeline worker(far_);
  far_ = -1;
  const linger at_once = {1, 0};
  setsockopt(near_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(near_);
  sleep_us(20'000);
  EXPECT_EQ(worker.read_on(), LifelineState::kBroken);
  EXPECT_EQ(worker.read_on(), LifelineState::kBroken);
  EXPECT_EQ(worker.state(), LifelineState::kBroken);
}

TEST(PathTime, near_peers_are_given_up_as_soon_as_ever) {
  const PathTime near{.rtt_us = 100, .deviation_us = 50};
  EXPECT_EQ(near.peer_timeout_ms(), 1'900u);
  EXPECT_EQ(near.silence_us(400), 400'000u);
  EXPECT_EQ(PathTime({.rtt_us = 10'000, .deviation_us = 500}).silence_us(400), 400'000u);
}

TEST(PathTime, far_peers_may_lose_a_word_or_three) {
  const PathTime far{.rtt_us = 200'000, .deviation_us = 10'000};
  EXPECT_EQ(far.resend_us(), 400'000u);
  EXPECT_GT(far.silence_us(400), 2 * far.resend_us());
  EXPECT_GE(far.peer_timeout_ms(), 3'000u);  // sent again after 0.4, 1.2 and 2.8 s
  EXPECT_LE(PathTime({.rtt_us = 100'000'000}).peer_timeout_ms(), 30'000u);
}

TEST_F(LifelineTest, on_one_machine_nothing_is_asked) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  {
    Lifeline lifeline(pair[0]);
    EXPECT_FALSE(becomes(lifeline, false, 300));
    int bytes = 0;
    ioctl(pair[1], FIONREAD, &bytes);
    EXPECT_EQ(bytes, 0);
  }
  close(pair[1]);
  close(near_);
}

}  // namespace
}  // namespace tide
