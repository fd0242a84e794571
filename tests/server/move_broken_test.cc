// A move whose stream between the two workers breaks (docs/decisions/0044-*.md).

#include <cstring>
#include <memory>
#include <string>

#include "server/transfer.h"
#include "server/verdict.h"
#include "tests/server/moves.h"
#include "transport/stream.h"

namespace tide {
namespace {

// Between machines, where the network breaks connections.
class OverABrokenNetwork : public MemoryOnItsWay {
 protected:
  static constexpr uint64_t kChunks = 64;

  // The first round takes longer than until progress is told.
  static void SetUpTestSuite() {
    setenv("TIDE_MOVE_OVER", "ucx", 1);
    page_ = "/tmp/tide-move-test-" + std::to_string(getpid());
    setenv("TIDE_MOVE_PAGE", page_.c_str(), 1);
    setenv("TIDE_MOVE_RATE", std::to_string(80u << 20).c_str(), 1);
  }
  static void TearDownTestSuite() {
    unsetenv("TIDE_MOVE_RATE");
    unsetenv("TIDE_MOVE_PAGE");
    unsetenv("TIDE_MOVE_OVER");
    unlink(page_.c_str());
  }
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(MoveTest::SetUp());
    map(0, kChunks);
    for (uint64_t chunk = 0; chunk < kChunks; ++chunk) write(chunk, chunk);
  }
  void break_connections(const WorkerProcess& of) {
    const int broken = of.break_connections();
    if (broken < 0) GTEST_SKIP() << "this system does not let a process have another one's sockets";
    ASSERT_GT(broken, 0);
  }
  // In the middle of the first.
  void await_copying() {
    ControlMessage message;
    ASSERT_TRUE(source_->await(ControlType::kProgress, &message));
    EXPECT_EQ(message.as<ControlProgress>()->rounds, 0u);
  }
  // One that began after this.
  void await_round() {
    ControlMessage message;
    while (receive_control(source_->control(), &message) == ControlState::kMessage) {
      ASSERT_EQ(message.type, ControlType::kProgress) << message.as<ControlText>()->text;
    }
    uint64_t first = 0, now = 0;
    do {
      ASSERT_TRUE(source_->await(ControlType::kProgress, &message));
      now = message.as<ControlProgress>()->rounds;
      if (first == 0) first = now;
    } while (now < first + 2);
  }
  void arrive(ControlMoved* moved) {
    pause();
    ASSERT_NO_FATAL_FAILURE(expect_transferred(moved));
    ASSERT_NO_FATAL_FAILURE(commit_and_follow());
    ASSERT_NO_FATAL_FAILURE(expect_contents());
  }

  static inline std::string page_;
};

TEST_F(OverABrokenNetwork, arrives_though_its_stream_broke_in_the_first_round) {
  for (const bool at_the_source : {true, false}) {
    ControlMove request;
    ControlMoved moved;
    ASSERT_NO_FATAL_FAILURE(begin(&request));
    ASSERT_NO_FATAL_FAILURE(await_copying());
    ASSERT_NO_FATAL_FAILURE(break_connections(at_the_source ? *source_ : *destination_));
    if (IsSkipped()) return;
    write(3, 303);  // the job runs on
    EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
    ASSERT_NO_FATAL_FAILURE(await_ready());
    ASSERT_NO_FATAL_FAILURE(arrive(&moved));
    EXPECT_GE(moved.bytes, kChunks * kChunkBytes);
    EXPECT_LE(moved.bytes, (kChunks + 12) * kChunkBytes) << "what was on its way, and no more, goes twice";
    source_ = std::move(destination_);
    destination_ = std::make_unique<WorkerProcess>();
  }
}

TEST_F(OverABrokenNetwork, arrives_though_its_stream_broke_again_and_again_while_memory_came_and_went) {
  ControlMove request;
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  for (uint64_t turn = 0; turn < 4; ++turn) {
    const uint64_t at = turn * 10;
    unmap(at, 2), write(at + 2, 1000 + at), map(at + 1, 1), write(at + 1, 2000 + at);
    map(100 + at, 4), write(100 + at, 3000 + at), write(102 + at, 4000 + at), expected_[103 + at] = zeros_;
    ASSERT_NO_FATAL_FAILURE(break_connections(turn % 2 == 0 ? *source_ : *destination_));
    if (IsSkipped()) return;
    write(at + 3, zeros_), write(at + 4, 5000 + at), unmap(102 + at, 1);
    settle();
    if (turn % 2 == 1) unmap(93 + at, 1), unmap(90 + at, 1), map(90 + at, 1), write(90 + at, 6000 + at);
    ASSERT_NO_FATAL_FAILURE(await_round());
  }
  ASSERT_NO_FATAL_FAILURE(arrive(&moved));
  EXPECT_LT(moved.bytes, 2 * kChunks * kChunkBytes);
}

// What broke is mended when the pause is asked for, and not in it.
TEST_F(OverABrokenNetwork, arrives_though_its_stream_broke_before_the_pause_and_the_destination_was_stopped) {
  ControlMove request;
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  write(5, 505);
  kill(destination_->pid(), SIGSTOP);
  ASSERT_NO_FATAL_FAILURE(break_connections(*source_));
  pause();
  sleep_us(1'000'000);
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
  write(6, 606);
  kill(destination_->pid(), SIGCONT);
  if (IsSkipped()) return;
  ASSERT_NO_FATAL_FAILURE(arrive(&moved));
  EXPECT_LT(moved.bytes, 2 * kChunks * kChunkBytes);
}

TEST_F(OverABrokenNetwork, fails_at_once_when_the_stream_breaks_in_the_pause) {
  ControlMove request;
  ControlMessage message;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  send_control(source_->control(), ControlType::kPause, ControlPause{.alone = 0});
  ASSERT_TRUE(source_->await(ControlType::kStill, &message));
  ASSERT_NO_FATAL_FAILURE(break_connections(*source_));
  if (IsSkipped()) return;
  const uint64_t begin_ns = now_ns();
  send_control(source_->control(), ControlType::kSend, nullptr, 0);
  ASSERT_NO_FATAL_FAILURE(expect_move_failed());
  EXPECT_LT(now_ns() - begin_ns, 5'000'000'000u);
  write(8, 808);
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  send_control(destination_->control(), ControlType::kExit, nullptr, 0);
  EXPECT_EQ(destination_->exit_status(), 0) << "it hears its agent while it waits for the source";
}

TEST_F(OverABrokenNetwork, is_called_off_while_it_tries_to_come_back) {
  ControlMove request;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_copying());
  kill(destination_->pid(), SIGSTOP);
  ASSERT_NO_FATAL_FAILURE(break_connections(*source_));
  sleep_us(500'000);
  const uint64_t begin_ns = now_ns();
  send_control(source_->control(), ControlType::kAbort, nullptr, 0);
  if (!IsSkipped()) expect_move_failed("called it off");
  EXPECT_LT(now_ns() - begin_ns, 5'000'000'000u);
  kill(destination_->pid(), SIGKILL);
  if (IsSkipped()) return;
  destination_ = std::make_unique<WorkerProcess>();
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  ASSERT_NO_FATAL_FAILURE(arrive(&moved));
}

// The test is the source, to a destination that has not noticed a break, and then to one that has.
class ItsOwnSource : public OverABrokenNetwork {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(OverABrokenNetwork::SetUp());
    ControlMessage message;
    send_control(destination_->control(), ControlType::kReceive, test_session(0, 2));
    ASSERT_TRUE(destination_->await(ControlType::kReceiving, &message));
    address_ = message.as<ControlText>()->text;
  }
  // *done: what the destination says that it has done.
  Outcome come(uint8_t token, std::unique_ptr<ByteStream>* stream, uint64_t* done) {
    uint8_t tokens[kTokenBytes];
    memset(tokens, token, sizeof(tokens));
    std::string words;
    Outcome outcome = connect_stream(address_, 5'000, stream);
    if (outcome.ok()) outcome = greet_receiver(**stream, hello_of(test_session(0, 1), tokens, 2), &words);
    if (outcome.ok() && !read_returns(words, done)) return Outcome::fail("it does not say how far it came");
    return outcome;
  }
  void come_back(std::unique_ptr<ByteStream>* stream, uint64_t done) {
    uint64_t said = 0;
    const Outcome outcome = come(0x5a, stream, &said);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    EXPECT_EQ(said, done);
  }
  void expect_stranger_refused() {
    std::unique_ptr<ByteStream> stream;
    uint64_t done = 0;
    const Outcome outcome = come(0x5b, &stream, &done);
    EXPECT_NE(outcome.message().find("waits for another vGPU"), std::string::npos) << outcome.message();
  }
  static void say(ByteStream& to, ChunkFrameKind kind, uint64_t chunk = 0, uint64_t chunks = 0) {
    const ChunkFrame frame{.kind = kind, .address = kMovedBase + chunk * kChunkBytes, .bytes = chunks * kChunkBytes};
    EXPECT_TRUE(to.send(&frame, sizeof(frame)).ok());
  }
  void say_data(ByteStream& to, uint64_t chunk) {
    say(to, ChunkFrameKind::kData, chunk, 1);
    EXPECT_TRUE(to.send(pattern(chunk).data(), kChunkBytes).ok());
  }
  static void confirm(ByteStream& to) {
    say(to, ChunkFrameKind::kPass);
    const Outcome outcome = await_verdict(to, 20'000);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
  }

  std::string address_;
};

TEST_F(ItsOwnSource, arrives_over_another_stream_and_nobody_else_does) {
  std::unique_ptr<ByteStream> first, second, third, fourth;
  std::byte nothing;
  ASSERT_NO_FATAL_FAILURE(come_back(&first, 0));
  say(*first, ChunkFrameKind::kReturns), say(*first, ChunkFrameKind::kMap, 0, 3);
  say_data(*first, 0), confirm(*first);
  expect_stranger_refused();
  say(*first, ChunkFrameKind::kZero, 1, 1), confirm(*first);
  // It has not noticed anything: the newer one counts.
  ASSERT_NO_FATAL_FAILURE(come_back(&second, 6));
  EXPECT_FALSE(first->receive(&nothing, 1, 10'000).ok());
  say(*second, ChunkFrameKind::kData, 1, 1);
  EXPECT_TRUE(second->send(pattern(1).data(), kChunkBytes / 2).ok());
  second->close();
  expect_stranger_refused();
  ASSERT_NO_FATAL_FAILURE(come_back(&third, 6)) << "half a chunk is none";
  say_data(*third, 1), confirm(*third);
  say(*third, ChunkFrameKind::kEnd);
  sleep_us(500'000);
  uint64_t done = 0;
  EXPECT_FALSE(come(0x5a, &fourth, &done).ok()) << "there are no more chunks";
  third->close();
  ControlMessage message;
  ASSERT_TRUE(destination_->await(ControlType::kFailed, &message));
}

}  // namespace
}  // namespace tide
