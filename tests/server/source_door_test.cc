// The destination of a move whose source comes back: what it says that it has done, and whom it waits for.

#include "server/source_door.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "server/chunk_carrier.h"
#include "server/verdict.h"

namespace tide {
namespace {

// All that a source says over one connection, which then breaks.
class Line final : public ByteStream {
 public:
  struct Heard {
    std::string bytes;
    uint32_t sends_most = ~0u;  // then it breaks
    bool closes = false;        // where all is said it stays silent, or breaks
    std::function<bool()> may_come = [] { return true; };
    std::string answers;
    std::atomic<bool> cancelled{false};
  };
  explicit Line(Heard& heard) : heard_(heard) {}

  Outcome send(const void* data, size_t bytes, uint32_t) override {
    if (heard_.cancelled || heard_.sends_most-- == 0) return Outcome::fail("the far side is gone");
    return heard_.answers.append(static_cast<const char*>(data), bytes), Outcome();
  }
  Outcome receive(void* data, size_t bytes, uint32_t) override {
    while (heard_.bytes.size() - read_ < bytes) {
      if (heard_.closes || heard_.cancelled) return Outcome::fail("the far side is gone");
      sleep_us(1000);
    }
    memcpy(data, heard_.bytes.data() + read_, bytes);
    read_ += bytes;
    return {};
  }
  Outcome flush(uint32_t) override { return {}; }
  void cancel() override { heard_.cancelled = true; }
  void close() override {}

 private:
  Heard& heard_;
  size_t read_ = 0;
};

// Who comes, one after the other.
class Callers final : public StreamListener {
 public:
  explicit Callers(std::deque<Line::Heard*> callers) : callers_(std::move(callers)) {}
  Outcome accept(uint32_t timeout_ms, std::unique_ptr<ByteStream>* stream) override {
    sleep_us(timeout_ms * 1000);
    if (callers_.empty() || !callers_.front()->may_come()) return Outcome::fail("nobody connected in time");
    *stream = std::make_unique<Line>(*callers_.front());
    callers_.pop_front();
    return {};
  }

 private:
  std::deque<Line::Heard*> callers_;
};

class Taker final : public ChunkTaker {
 public:
  bool owns(uint64_t, uint64_t) const override { return true; }
  Outcome map(uint64_t, uint64_t) override { return ++maps, Outcome(); }
  Outcome unmap(uint64_t, uint64_t) override { return {}; }
  Outcome clear(uint64_t, uint64_t) override { return ++zeros, Outcome(); }
  Outcome take(uint64_t, ByteStream&) override { return {}; }
  Outcome take_slot(uint64_t, ChunkSlots&, uint32_t) override { return {}; }
  Outcome take_known(uint64_t, const ChunkHash&, bool*) override { return {}; }
  Outcome rest() override { return {}; }

  std::atomic<uint32_t> maps{0}, zeros{0};
};

class SourceDoorTest : public ::testing::Test {
 protected:
  static void say(Line::Heard* line, ChunkFrameKind kind) {
    const ChunkFrame frame{.kind = kind, .address = 0, .bytes = kChunkBytes};
    line->bytes.append(reinterpret_cast<const char*>(&frame), sizeof frame);
  }
  static void say_hello(Line::Heard* line, const TransferHello& hello) {
    line->bytes.append(reinterpret_cast<const char*>(&hello), sizeof hello);
  }
  // What the first of its answers says.
  static std::string answer(const Line::Heard& line) {
    return line.answers.size() < 8 ? "" : line.answers.substr(4).c_str();
  }
  // It comes by the first, and the others after it.
  void come(Line::Heard* first, std::deque<Line::Heard*> others) {
    stream_ = std::make_unique<LastingStream>(std::make_unique<Line>(*first));
    door_ = std::make_unique<SourceDoor>(std::make_unique<Callers>(std::move(others)), ours_, *stream_);
  }
  Outcome receive() { return receive_chunks(*stream_, {.slots = nullptr, .door = door_.get()}, taker_); }
  Outcome receive(Line::Heard* first, std::deque<Line::Heard*> others) {
    come(first, std::move(others));
    return receive();
  }
  void SetUp() override { ours_.vgpu = 3; }

  Line::Heard& line() { return lines_.emplace_back(); }

  TransferHello ours_;
  Taker taker_;
  std::deque<Line::Heard> lines_;  // the door may look at them until it ends
  std::unique_ptr<LastingStream> stream_;
  std::unique_ptr<SourceDoor> door_;
};

TEST_F(SourceDoorTest, what_was_done_counts_though_its_answer_was_lost) {
  Line::Heard &first = line(), &again = line();
  for (const auto kind : {ChunkFrameKind::kReturns, ChunkFrameKind::kMap, ChunkFrameKind::kPass}) say(&first, kind);
  first.sends_most = 0;
  say_hello(&again, ours_);
  say(&again, ChunkFrameKind::kZero), say(&again, ChunkFrameKind::kEnd);
  const Outcome outcome = receive(&first, {&again});
  EXPECT_TRUE(outcome.ok()) << outcome.message();
  EXPECT_EQ(answer(again), " returns 3");
  EXPECT_EQ(taker_.maps, 1u);
  EXPECT_EQ(taker_.zeros, 1u);
}

TEST_F(SourceDoorTest, the_last_who_shows_who_it_is_counts_and_nobody_else) {
  Line::Heard &first = line(), &stranger = line(), &second = line(), &third = line();
  TransferHello other = ours_;
  other.token[5] = 1;
  say(&first, ChunkFrameKind::kReturns), say(&first, ChunkFrameKind::kMap);  // and stays silent
  say_hello(&stranger, other), say(&stranger, ChunkFrameKind::kUnmap);
  say_hello(&second, ours_), say(&second, ChunkFrameKind::kZero);  // this too
  say_hello(&third, ours_), say(&third, ChunkFrameKind::kEnd);
  second.may_come = [this] { return taker_.maps == 1; };
  third.may_come = [this] { return taker_.zeros == 1; };
  const Outcome outcome = receive(&first, {&stranger, &second, &third});
  EXPECT_TRUE(outcome.ok()) << outcome.message();
  EXPECT_EQ(answer(stranger), "this receiver waits for another vGPU");
  EXPECT_EQ(answer(second), " returns 2");
  EXPECT_EQ(answer(third), " returns 3");
  EXPECT_TRUE(first.cancelled && second.cancelled);
}

TEST_F(SourceDoorTest, who_has_not_said_that_it_returns_is_not_waited_for) {
  Line::Heard &first = line(), &again = line();
  say(&first, ChunkFrameKind::kMap);
  first.closes = true;
  say_hello(&again, ours_), say(&again, ChunkFrameKind::kEnd);
  const uint64_t begin = now_ns();
  EXPECT_EQ(receive(&first, {&again}).message(), "the far side is gone");
  EXPECT_LT(now_ns() - begin, 5'000'000'000u);
  EXPECT_EQ(answer(again), "");
}

TEST_F(SourceDoorTest, who_sends_what_cannot_be_is_not_waited_for) {
  Line::Heard &first = line(), &again = line();
  say(&first, ChunkFrameKind::kReturns), say(&first, ChunkFrameKind::kAsk);
  say_hello(&again, ours_), say(&again, ChunkFrameKind::kEnd);
  EXPECT_EQ(receive(&first, {&again}).message(), "the source asks for what cannot be");
}

TEST_F(SourceDoorTest, the_wait_ends_when_the_move_is_given_up) {
  Line::Heard& first = line();
  say(&first, ChunkFrameKind::kReturns);
  first.closes = true;
  Outcome outcome;
  Thread receiver;
  come(&first, {});
  ASSERT_TRUE(receiver.start([&] { outcome = receive(); }).ok());
  sleep_us(500'000);
  const uint64_t begin = now_ns();
  stream_->cancel();
  receiver.join();
  EXPECT_FALSE(outcome.ok());
  EXPECT_LT(now_ns() - begin, 5'000'000'000u);
}

}  // namespace
}  // namespace tide
