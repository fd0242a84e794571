// Byte streams between servers, each end in a process of its own.

#include "transport/stream.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/threads.h"
#include "tests/transport/peer.h"

namespace tide {
namespace {

// Runs `body` as another process; UCX must not be used on both sides of a fork, so the parent forks before it loads it.
template <class Body>
class OtherProcess {
 public:
  explicit OtherProcess(Body body) {
    if (pipe(to_) != 0) abort();
    pid_ = fork();
    if (pid_ != 0) return;
    char address[256] = {};
    size_t n = 0;
    while (n < sizeof address - 1 && read(to_[0], address + n, 1) == 1 && address[n] != '\n') ++n;
    address[n] = '\0';
    _exit(body(std::string(address)));
  }
  void tell(const std::string& address) {
    const std::string line = address + "\n";
    EXPECT_EQ(write(to_[1], line.data(), line.size()), ssize_t(line.size()));
  }
  void kill_it() { kill(pid_, SIGKILL); }
  int status() {
    int status = 0;
    waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  int to_[2];
  pid_t pid_;
};

// Each test runs in a child of its own, so that every parent of an OtherProcess is still without UCX.
template <class Test>
void in_fresh_process(Test test) {
  const pid_t pid = fork();
  if (pid == 0) {
    test();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "see the failures above";
}

std::unique_ptr<ByteStream> accept_from(StreamListener& listener) {
  std::unique_ptr<ByteStream> stream;
  const Outcome outcome = listener.accept(10'000, &stream);
  EXPECT_TRUE(outcome.ok()) << outcome.message();
  return stream;
}

std::unique_ptr<StreamListener> listen_at(std::string* address) {
  std::unique_ptr<StreamListener> listener;
  const Outcome outcome = listen_stream(address, &listener);
  EXPECT_TRUE(outcome.ok()) << outcome.message();
  return listener;
}

TEST(Stream, carries_exact_bytes_both_ways_in_pieces_of_any_size) {
  in_fresh_process([] {
    OtherProcess echo([](const std::string& address) {
      std::unique_ptr<ByteStream> stream;
      if (!connect_stream(address, 10'000, &stream).ok()) return 1;
      std::vector<unsigned char> bytes;
      for (uint64_t n = 0; stream->receive(&n, sizeof n).ok();) {
        bytes.resize(n);
        if (!stream->receive(bytes.data(), n).ok() || !stream->send(bytes.data(), n).ok()) return 2;
      }
      return 0;
    });
    std::string address;
    auto listener = listen_at(&address);
    ASSERT_NE(listener, nullptr);
    echo.tell(address);
    auto stream = accept_from(*listener);
    ASSERT_NE(stream, nullptr);
    for (const uint64_t n : {0u, 1u, 4095u, 262'144u, 262'145u, 3'000'001u}) {
      std::vector<unsigned char> sent(n), back(n);
      peer::fill(peer::Numbers{n}, sent.data(), n);
      ASSERT_TRUE(stream->send(&n, sizeof n).ok());
      const Outcome outcome = stream->send(sent.data(), n);
      ASSERT_TRUE(outcome.ok()) << outcome.message();
      const size_t half = n / 3;  // the reader's pieces need not be the writer's
      ASSERT_TRUE(stream->receive(back.data(), half).ok());
      ASSERT_TRUE(stream->receive(back.data() + half, n - half).ok());
      ASSERT_TRUE(sent == back) << n;
    }
    stream->close();
    stream.reset();
    EXPECT_EQ(echo.status(), 0);
  });
}

TEST(Stream, a_slow_reader_holds_the_writer_back_and_loses_nothing) {
  in_fresh_process([] {
    constexpr uint64_t kBytes = 64u << 20;
    OtherProcess reader([](const std::string& address) {
      std::unique_ptr<ByteStream> stream;
      if (!connect_stream(address, 10'000, &stream).ok()) return 1;
      sleep_us(300'000);
      std::vector<unsigned char> bytes(1u << 20), expected(1u << 20);
      for (uint64_t done = 0; done < kBytes; done += bytes.size()) {
        if (!stream->receive(bytes.data(), bytes.size()).ok()) return 2;
        peer::fill(peer::Numbers{done}, expected.data(), expected.size());
        if (bytes != expected) return 3;
      }
      char more;
      // Closed, or gone where the notice of it was overtaken; never a time-out or a malformed piece.
      const std::string end = stream->receive(&more, 1, 5000).message();
      return end == "the far side closed the stream" || end.rfind("the far side is gone", 0) == 0 ? 0 : 4;
    });
    std::string address;
    auto listener = listen_at(&address);
    reader.tell(address);
    auto stream = accept_from(*listener);
    ASSERT_NE(stream, nullptr);
    std::vector<unsigned char> bytes(1u << 20);
    for (uint64_t done = 0; done < kBytes; done += bytes.size()) {
      peer::fill(peer::Numbers{done}, bytes.data(), bytes.size());
      const Outcome outcome = stream->send(bytes.data(), bytes.size());
      ASSERT_TRUE(outcome.ok()) << outcome.message();
    }
    const Outcome outcome = stream->flush();
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    stream.reset();
    EXPECT_EQ(reader.status(), 0);
  });
}

TEST(Stream, a_killed_far_side_is_noticed) {
  in_fresh_process([] {
    OtherProcess victim([](const std::string& address) {
      std::unique_ptr<ByteStream> stream;
      if (!connect_stream(address, 10'000, &stream).ok()) return 1;
      if (!stream->send("x", 1).ok()) return 2;
      while (true) sleep_us(1'000'000);
    });
    std::string address;
    auto listener = listen_at(&address);
    victim.tell(address);
    auto stream = accept_from(*listener);
    ASSERT_NE(stream, nullptr);
    char x;
    ASSERT_TRUE(stream->receive(&x, 1).ok());
    victim.kill_it();
    const uint64_t begin = now_ns();
    EXPECT_FALSE(stream->receive(&x, 1, 20'000).ok());
    EXPECT_LT(now_ns() - begin, 5'000'000'000u);
    EXPECT_FALSE(stream->send("y", 1).ok());
    victim.status();
  });
}

// What is half sent then must not be the end of who sent it.
TEST(Stream, may_be_given_up_in_its_middle_while_the_far_side_ends) {
  for (uint32_t round = 0; round < 24; ++round) {
    in_fresh_process([round] {
      OtherProcess other([](const std::string& address) {
        std::unique_ptr<ByteStream> stream;
        if (!connect_stream(address, 10'000, &stream).ok()) return 1;
        std::vector<char> bytes(2u << 20);
        while (stream->receive(bytes.data(), bytes.size()).ok()) {
        }
        return 0;
      });
      std::unique_ptr<StreamListener> listener;
      std::string address;
      ASSERT_TRUE(listen_stream(&address, &listener).ok());
      other.tell(address);
      std::unique_ptr<ByteStream> stream = accept_from(*listener);
      ASSERT_NE(stream, nullptr);
      const std::vector<char> bytes(2u << 20, 'b');
      Thread sender, killer;
      ASSERT_TRUE(sender
                      .start([&] {
                        while (stream->send(bytes.data(), bytes.size()).ok()) {
                        }
                      })
                      .ok());
      sleep_us(20'000 + round * 300);
      ASSERT_TRUE(killer.start([&] { sleep_us(round / 4 * 200), other.kill_it(); }).ok());
      sleep_us(round % 4 * 400);
      stream->cancel();
      sender.join();
      const uint64_t begin = now_ns();
      stream.reset();
      EXPECT_LT(now_ns() - begin, 5'000'000'000u);
      killer.join();
      other.status();
    });
  }
}

TEST(Stream, waiting_ends_when_the_time_is_over) {
  in_fresh_process([] {
    std::string address;
    auto listener = listen_at(&address);
    ASSERT_NE(listener, nullptr);
    EXPECT_EQ(address.rfind("127.0.0.1:", 0), 0u) << address;
    std::unique_ptr<ByteStream> stream;
    const uint64_t begin = now_ns();
    EXPECT_EQ(listener->accept(50, &stream).message(), "nobody connected in time");
    EXPECT_LT(now_ns() - begin, 3'000'000'000u);
  });
}

TEST(Stream, a_bad_address_is_an_error_that_names_it) {
  in_fresh_process([] {
    std::unique_ptr<ByteStream> stream;
    const Outcome text = connect_stream("nonsense", 500, &stream);
    EXPECT_NE(text.message().find("'nonsense' is not ADDRESS:PORT"), std::string::npos) << text.message();
    bool refused = false;
    const Outcome nobody = connect_stream("127.0.0.1:1", 2000, &stream, &refused);
    EXPECT_NE(nobody.message().find("127.0.0.1:1"), std::string::npos) << nobody.message();
    EXPECT_TRUE(refused) << nobody.message();
    EXPECT_EQ(stream, nullptr);
  });
}

}  // namespace
}  // namespace tide
