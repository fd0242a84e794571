#include "transport/lifeline.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

namespace tide {
namespace {

constexpr uint32_t kPatienceMs = 60;

// Two ends of one connection on this machine.
class LifelineTest : public testing::Test {
 protected:
  void SetUp() override {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof address;
    ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), bytes), 0);
    ASSERT_EQ(listen(listener, 1), 0);
    ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &bytes), 0);
    near_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(near_, reinterpret_cast<sockaddr*>(&address), bytes), 0);
    far_ = accept(listener, nullptr, nullptr);
    ASSERT_GE(far_, 0);
    close(listener);
  }
  void TearDown() override { close(far_); }

  // What reaches it is dropped before its system looks at it, as if it came to no machine.
  void cut() {
    sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
    const sock_fprog program = {1, &nothing};
    ASSERT_EQ(setsockopt(far_, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program), 0);
  }
  void heal() {
    const int unused = 0;
    ASSERT_EQ(setsockopt(far_, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused), 0);
  }
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
