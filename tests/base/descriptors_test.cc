// Whole reads and writes, through a pipe that takes little at once and amid signals.

#include "base/descriptors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/secrets.h"

namespace tide {
namespace {

struct Pipe {
  int ends[2] = {-1, -1};
  Pipe() { EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0); }
  ~Pipe() {
    close(ends[0]);
    close_writer();
  }
  int reader() const { return ends[0]; }
  int writer() const { return ends[1]; }
  void close_writer() {
    if (ends[1] >= 0) close(ends[1]);
    ends[1] = -1;
  }
};

std::string pattern(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = char(i * 31 + i / 4096);
  return text;
}

// Interrupts the calls of the thread that makes it, every 50 us.
class Interruptions {
 public:
  Interruptions() : thread_(pthread_self()) {
    struct sigaction action = {};
    action.sa_handler = [](int) { count.fetch_add(1); };  // without SA_RESTART: calls end with EINTR
    sigaction(SIGUSR1, &action, &before_);
    count = 0;
    sender_ = std::thread([this] {
      while (!stop_) {
        pthread_kill(thread_, SIGUSR1);
        sleep_us(50);
      }
    });
  }
  ~Interruptions() {
    stop_ = true;
    sender_.join();
    sigaction(SIGUSR1, &before_, nullptr);
  }
  inline static std::atomic<int> count{0};

 private:
  const pthread_t thread_;
  struct sigaction before_;
  std::atomic<bool> stop_{false};
  std::thread sender_;
};

TEST(Descriptors, what_is_written_amid_signals_arrives_whole) {
  Pipe pipe;
  const std::string sent = pattern(3'000'001);  // a pipe takes 64 KiB at once
  std::string came(sent.size(), '\0');
  Outcome read;
  std::thread reader([&] {
    for (size_t at = 0, n; at < came.size() && read.ok(); at += n) {
      n = std::min<size_t>(came.size() - at, 100'000);
      read = read_all(pipe.reader(), came.data() + at, n);
      sleep_us(1'000);
    }
  });
  {
    const Interruptions interruptions;
    const Outcome written = write_all(pipe.writer(), sent.data(), sent.size());
    EXPECT_TRUE(written.ok()) << written.message();
  }
  pipe.close_writer();
  reader.join();
  EXPECT_TRUE(read.ok()) << read.message();
  EXPECT_TRUE(came == sent);
  EXPECT_GT(Interruptions::count, 3);
}

TEST(Descriptors, what_is_read_amid_signals_is_whole) {
  Pipe pipe;
  const std::string sent = pattern(300'000);
  std::thread writer([&] {
    for (size_t at = 0; at < sent.size(); at += 10'000) {
      EXPECT_EQ(write(pipe.writer(), sent.data() + at, 10'000), 10'000);
      sleep_us(500);
    }
  });
  std::string came(sent.size(), '\0');
  {
    const Interruptions interruptions;
    const Outcome read = read_all(pipe.reader(), came.data(), came.size());
    EXPECT_TRUE(read.ok()) << read.message();
  }
  writer.join();
  EXPECT_TRUE(came == sent);
}

TEST(Descriptors, what_ends_too_early_is_an_error) {
  Pipe pipe;
  ASSERT_TRUE(write_all(pipe.writer(), "1234", 4).ok());
  pipe.close_writer();
  char bytes[5];
  EXPECT_EQ(read_all(pipe.reader(), bytes, 5).message(), "it ends too early");
  EXPECT_FALSE(write_all(-1, "x", 1).ok());
}

TEST(Descriptors, what_comes_until_the_end_has_limits) {
  const std::string sent = pattern(50'000);
  for (const size_t most : {SIZE_MAX, sent.size(), sent.size() - 1}) {
    Pipe pipe;
    std::string came;
    ASSERT_TRUE(write_all(pipe.writer(), sent.data(), sent.size()).ok());
    pipe.close_writer();
    EXPECT_EQ(read_to_end(pipe.reader(), {.bytes_max = most}, &came).ok(), most >= sent.size());
    EXPECT_TRUE(most < sent.size() || came == sent);
  }
}

TEST(Descriptors, who_says_nothing_is_not_waited_for_for_ever) {
  Pipe pipe;
  std::string came;
  const Interruptions interruptions;
  const uint64_t begin = now_ns();
  EXPECT_FALSE(read_to_end(pipe.reader(), {.timeout_ns = 20'000'000}, &came).ok());
  EXPECT_GE(now_ns() - begin, 20'000'000u);
  EXPECT_LT(now_ns() - begin, 5'000'000'000u);
}

TEST(Secrets, differ_at_any_byte) {
  uint8_t a[16] = {}, b[16] = {};
  EXPECT_TRUE(same_secret(a, b, sizeof a));
  for (uint8_t& byte : b) {
    byte = 0x80;
    EXPECT_FALSE(same_secret(a, b, sizeof a));
    byte = 0;
  }
}

}  // namespace
}  // namespace tide
