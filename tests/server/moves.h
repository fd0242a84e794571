#pragma once

// What the tests of moves have in common: a client, the worker that has its session, and the one that is to have it.

#include <map>
#include <memory>
#include <vector>

#include "tests/server/client.h"

namespace tide {

inline constexpr uint64_t kMovedBase = vgpu_range_base(0);

class MoveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(client_.open(*source_, test_session(0, 1)));
    client_.make_context();
    ControlMessage message;
    ASSERT_TRUE(source_->await(ControlType::kServing, &message));
  }

  // The request goes to the source, which begins to copy.
  void begin(ControlMove* move, const ControlSession& session = test_session(0, 2)) {
    ControlMessage message;
    send_control(destination_->control(), ControlType::kReceive, session);
    ASSERT_TRUE(destination_->await(ControlType::kReceiving, &message));
    memcpy(move->stream_address, message.as<ControlText>()->text, sizeof(move->stream_address));
    move->next_epoch = 2;
    memset(move->token, 0x5a, sizeof(move->token));
    strcpy(move->endpoint, "unix=/elsewhere");
    send_control(source_->control(), ControlType::kMove, *move);
  }
  void await_ready(ControlProgress* progress = nullptr) {
    ControlMessage message;
    ASSERT_TRUE(source_->await(ControlType::kReady, &message));
    ASSERT_NE(message.as<ControlProgress>(), nullptr);
    if (progress != nullptr) *progress = *message.as<ControlProgress>();
  }
  void pause() { send_control(source_->control(), ControlType::kPause, ControlPause{.alone = 1}); }
  void expect_move_failed(const char* why = "") {
    ControlMessage message;
    ASSERT_TRUE(source_->await(ControlType::kMoveFailed, &message));
    EXPECT_NE(strstr(message.as<ControlText>()->text, why), nullptr) << message.as<ControlText>()->text;
  }
  // Both workers up to the decision.
  void transfer(ControlMove* move) {
    ASSERT_NO_FATAL_FAILURE(begin(move));
    ASSERT_NO_FATAL_FAILURE(await_ready());
    pause();
  }
  void expect_transferred(ControlMoved* moved) {
    ControlMessage message;
    ASSERT_TRUE(source_->await(ControlType::kTransferred, &message));
    *moved = *message.as<ControlMoved>();
    ASSERT_TRUE(destination_->await(ControlType::kRestored, &message));
  }
  void commit_and_follow() {
    send_control(source_->control(), ControlType::kCommit, nullptr, 0);
    const auto moved = [&] { return client_.page().state.load() == uint64_t(ChannelState::kMoved); };
    ASSERT_EQ(wait_until(client_.link(), Side::kClient, moved, kTestTimeoutUs), WaitResult::kReady);
    EXPECT_STREQ(client_.page().next_endpoint, "unix=/elsewhere");
    EXPECT_EQ(client_.page().next_epoch.load(), 2u);
    client_.disconnect();
    ASSERT_TRUE(client_.open(*destination_, test_session(0, 2)));
    ControlMessage message;
    ASSERT_TRUE(destination_->await(ControlType::kServing, &message));
    ASSERT_TRUE(source_->await(ControlType::kLeft, &message));
    EXPECT_EQ(source_->exit_status(), 0);
  }
  void move() {
    ControlMove request;
    ControlMoved moved;
    ASSERT_NO_FATAL_FAILURE(transfer(&request));
    ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
    ASSERT_NO_FATAL_FAILURE(commit_and_follow());
    source_ = std::move(destination_);
    destination_ = std::make_unique<WorkerProcess>();
  }

  std::unique_ptr<WorkerProcess> source_ = std::make_unique<WorkerProcess>();
  std::unique_ptr<WorkerProcess> destination_ = std::make_unique<WorkerProcess>();
  TestClient client_;
};

// What the rounds have seen, and what became of it before the pause.
class MemoryOnItsWay : public MoveTest {
 protected:
  static std::vector<std::byte> pattern(uint64_t seed) {
    std::vector<std::byte> bytes(kChunkBytes);
    for (size_t i = 0; i < bytes.size(); i += 8) {
      const uint64_t word = (seed * 1'000'003 + i) * 0x9e3779b97f4a7c15u;
      memcpy(bytes.data() + i, &word, 8);
    }
    return bytes;
  }
  void write(uint64_t chunk, const std::vector<std::byte>& bytes) {
    constexpr size_t kPart = kChunkBytes / 4;
    for (size_t at = 0; at < bytes.size(); at += kPart) {
      client_.copy_in(kMovedBase + chunk * kChunkBytes + at, bytes.data() + at, kPart);
    }
    settle();  // the ring has not room for more
    expected_[chunk] = bytes;
  }
  void write(uint64_t chunk, uint64_t seed) { write(chunk, pattern(seed)); }
  void map(uint64_t chunk, uint64_t chunks) {
    client_.send(Call::tideMapMemory, command::MapMemory{kMovedBase + chunk * kChunkBytes, chunks * kChunkBytes});
  }
  void unmap(uint64_t chunk, uint64_t chunks) {
    client_.send(Call::tideUnmapMemory, command::UnmapMemory{kMovedBase + chunk * kChunkBytes, chunks * kChunkBytes});
    for (uint64_t i = 0; i < chunks; ++i) expected_.erase(chunk + i);
  }
  void settle() { ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS); }
  void expect_contents() {
    for (const auto& [chunk, bytes] : expected_) {
      ASSERT_TRUE(client_.copy_out(kMovedBase + chunk * kChunkBytes, kChunkBytes) == bytes) << "chunk " << chunk;
    }
    EXPECT_EQ(client_.page().errors.load(), 0u);
  }
  uint64_t resident() {
    ControlMessage message;
    send_control(source_->control(), ControlType::kStats, nullptr, 0);
    EXPECT_TRUE(source_->await(ControlType::kStatsReply, &message));
    return message.as<ControlStats>()->resident_bytes;
  }

  std::map<uint64_t, std::vector<std::byte>> expected_;
  const std::vector<std::byte> zeros_ = std::vector<std::byte>(kChunkBytes);
};

}  // namespace tide
