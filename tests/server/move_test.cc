// A session moves between two worker processes; the client goes on with the same region.

#include <fstream>
#include <iterator>
#include <string>

#include "base/pack.h"
#include "tests/server/moves.h"

namespace tide {
namespace {

constexpr uint64_t kBase = kMovedBase;
constexpr uint64_t kKernel = uint64_t{1} << 32;

TEST_F(MoveTest, bytes_addresses_objects_and_sequence_survive) {
  std::vector<std::byte> found, answer;
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, 64u << 20});
  client_.load_library(1, kTestImage, &found);
  client_.send(Call::tideCreateStream, command::CreateStream{5, 0, 0, 0});
  client_.send(Call::tideCreateEvent, command::CreateEvent{3, 0});
  client_.send(Call::tideRecordEvent, command::RecordEvent{3, 0}, 5);
  client_.send_raw(uint16_t(Call::cuCtxSetLimit), bytes_of({0, 8192}), kNoStream, 0);
  std::vector<uint32_t> numbers(250'000);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = uint32_t(i * 2654435761u);
  client_.copy_in(kBase + (33u << 20), numbers.data(), numbers.size() * 4);
  ASSERT_EQ(client_.call(Call::tideGlobal, command::Global{1, 8}, &answer, "counter", 8), CUDA_SUCCESS);
  const uint64_t global = reinterpret_cast<const GlobalAnswer*>(answer.data())->address;
  client_.copy_in(global, "global!", 8);
  ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  const uint64_t acknowledged = client_.page().acknowledged.load();

  ASSERT_NO_FATAL_FAILURE(move());

  EXPECT_EQ(client_.page().epoch.load(), 2u);
  EXPECT_EQ(client_.page().acknowledged.load(), acknowledged);
  const uint64_t last = client_.launch(kKernel, {kBase + (33u << 20), 10, 1}, 5);
  ASSERT_TRUE(client_.reach(5, last));
  for (size_t i = 0; i < 10; ++i) numbers[i] += 1;
  const auto bytes = client_.copy_out(kBase + (33u << 20), numbers.size() * 4, 5);
  EXPECT_EQ(memcmp(bytes.data(), numbers.data(), bytes.size()), 0);
  EXPECT_STREQ(reinterpret_cast<const char*>(client_.copy_out(global, 8).data()), "global!");
  client_.send(Call::tideCreateEvent, command::CreateEvent{4, 0});
  const uint64_t record = client_.send(Call::tideRecordEvent, command::RecordEvent{4, 0}, 5);
  ASSERT_TRUE(client_.reach_event(4, record));
  ASSERT_EQ(client_.call(Call::tideElapsed, command::Elapsed{3, 4}, &answer), CUDA_SUCCESS);
  const float ms = reinterpret_cast<const ElapsedAnswer*>(answer.data())->milliseconds;
  EXPECT_GT(ms, 0.0f);
  EXPECT_LT(ms, 20'000.0f);
  EXPECT_EQ(client_.page().errors.load(), 0u);
}

TEST_F(MoveTest, commands_written_while_it_is_paused_run_at_the_destination_exactly_once) {
  std::vector<std::byte> found;
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.load_library(1, kTestImage, &found);
  for (int i = 0; i < 100; ++i) client_.launch(kKernel, {kBase, 16, 1});
  ControlMove request;
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(transfer(&request));
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kPaused));
  for (int i = 0; i < 100; ++i) client_.launch(kKernel, {kBase, 16, 1});
  ASSERT_NO_FATAL_FAILURE(commit_and_follow());
  const auto bytes = client_.copy_out(kBase, 4);
  EXPECT_EQ(*reinterpret_cast<const uint32_t*>(bytes.data()), 200u);
}

// A client names content that only the first worker was sent, in commands that only the second executes.
TEST_F(MoveTest, kept_contents_travel_with_the_session) {
  constexpr uint64_t kBytes = 100'000;
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  std::vector<std::byte> contents[3];
  const auto copy = [&](uint32_t n, PackForm form) {
    const command::CopyInPacked command{
        kBase + n * kBytes, kBytes, kBytes, 1, uint32_t(form), 11 * n, n, ~n, form == PackForm::kKept ? 0 : kBytes};
    client_.send(Call::tideCopyInPacked, command, kTestLegacy, contents[n].data(), command.bytes);
  };
  for (uint32_t n = 0; n < 3; ++n) {
    contents[n].resize(kBytes);
    for (size_t i = 0; i < kBytes; ++i) contents[n][i] = std::byte(i * (2 * n + 1) >> 3);
    copy(n, PackForm::kPlain);
  }
  for (int round = 0; round < 2; ++round) {
    ControlMove request;
    ControlMoved moved;
    ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
    ASSERT_NO_FATAL_FAILURE(transfer(&request));
    ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
    // What lies there is something else before they are named.
    const std::vector<std::byte> other(3 * kBytes, std::byte{0x77});
    client_.copy_in(kBase, other.data(), other.size());
    for (uint32_t n = 0; n < 3; ++n) copy(n, PackForm::kKept);
    ASSERT_NO_FATAL_FAILURE(commit_and_follow());
    source_ = std::move(destination_);
    destination_ = std::make_unique<WorkerProcess>();
    for (uint32_t n = 0; n < 3; ++n) EXPECT_EQ(client_.copy_out(kBase + n * kBytes, kBytes), contents[n]);
    EXPECT_EQ(client_.page().errors.load(), 0u);
  }
}

TEST_F(MoveTest, moves_again_and_again) {
  std::vector<std::byte> found;
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.load_library(1, kTestImage, &found);
  for (int i = 0; i < 3; ++i) {
    client_.launch(kKernel, {kBase, 1, 5});
    ASSERT_NO_FATAL_FAILURE(move());
  }
  EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{15});
}

// What another session of the vGPU does until it rests, too, this one may be asked for, and nothing of it is sent.
TEST_F(MoveTest, rests_with_others_before_it_is_sent) {
  std::vector<std::byte> found;
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.load_library(1, kTestImage, &found);
  client_.launch(kKernel, {kBase, 1, 5});
  for (const bool goes : {false, true}) {
    ControlMove request;
    ControlMoved moved;
    ControlMessage message;
    ASSERT_NO_FATAL_FAILURE(begin(&request));
    ASSERT_NO_FATAL_FAILURE(await_ready());
    send_control(source_->control(), ControlType::kPause, ControlPause{.alone = 0});
    ASSERT_TRUE(source_->await(ControlType::kStill, &message));
    EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kPaused));
    const uint64_t before = client_.page().acknowledged.load();
    client_.launch(kKernel, {kBase, 1, 1});
    const ControlShared question;
    send_control(source_->control(), ControlType::kAskShared, question);
    ASSERT_TRUE(source_->await(ControlType::kSharedAnswer, &message));
    EXPECT_EQ(message.as<ControlShared>()->result, CUDA_ERROR_INVALID_HANDLE);
    EXPECT_EQ(client_.page().acknowledged.load(), before);
    send_control(source_->control(), goes ? ControlType::kSend : ControlType::kAbort, nullptr, 0);
    if (!goes) {
      ASSERT_NO_FATAL_FAILURE(expect_move_failed("called it off"));
      EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{6});
      destination_ = std::make_unique<WorkerProcess>();
      continue;
    }
    ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
    ASSERT_NO_FATAL_FAILURE(commit_and_follow());
    EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{7});
  }
}

TEST_F(MoveTest, goes_on_at_the_source_when_the_destination_dies) {
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.copy_in(kBase, "here", 4);
  ControlMessage message;
  send_control(destination_->control(), ControlType::kReceive, test_session(0, 2));
  ASSERT_TRUE(destination_->await(ControlType::kReceiving, &message));
  ControlMove request;
  memcpy(request.stream_address, message.as<ControlText>()->text, sizeof(request.stream_address));
  memset(request.token, 0x5b, sizeof(request.token));  // a wrong token: the destination does not agree
  request.next_epoch = 2;
  send_control(source_->control(), ControlType::kMove, request);
  ASSERT_TRUE(source_->await(ControlType::kMoveFailed, &message));
  EXPECT_STRNE(message.as<ControlText>()->text, "");
  EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{'h'});
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
}

// It had everything, and the vGPU was still the source's: nothing of it is lost.
TEST_F(MoveTest, goes_on_at_the_source_when_the_destination_dies_before_the_decision) {
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.copy_in(kBase, "here", 4);
  for (const int signal : {SIGKILL, SIGTERM}) {
    ControlMove request;
    ControlMoved moved;
    ASSERT_NO_FATAL_FAILURE(transfer(&request));
    ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
    EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kPaused));
    kill(destination_->pid(), signal);
    ASSERT_NO_FATAL_FAILURE(expect_move_failed("the destination has gone"));
    send_control(source_->control(), ControlType::kAbort, nullptr, 0);
    ASSERT_NO_FATAL_FAILURE(expect_move_failed("called it off"));
    EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{'h'});
    destination_ = std::make_unique<WorkerProcess>();
  }
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{'h'});
}

// Its agent may have decided when the stream broke: then the session is the destination's, and nothing is done here.
TEST_F(MoveTest, does_not_go_on_by_itself_when_all_of_it_is_there) {
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.copy_in(kBase, "here", 4);
  ControlMove request;
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(transfer(&request));
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  const uint64_t before = client_.page().acknowledged.load();
  kill(destination_->pid(), SIGKILL);
  ASSERT_NO_FATAL_FAILURE(expect_move_failed("the destination has gone"));
  client_.copy_in(kBase, "more", 4);
  sleep_us(100'000);
  EXPECT_EQ(client_.page().acknowledged.load(), before);
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kPaused));
  send_control(source_->control(), ControlType::kCommit, nullptr, 0);
  const auto sent_on = [&] { return client_.page().state.load() == uint64_t(ChannelState::kMoved); };
  ASSERT_EQ(wait_until(client_.link(), Side::kClient, sent_on, kTestTimeoutUs), WaitResult::kReady);
  EXPECT_EQ(client_.page().acknowledged.load(), before);
}

TEST_F(MoveTest, goes_on_at_the_source_when_the_agent_calls_it_off) {
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  ControlMove request;
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(transfer(&request));
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  client_.copy_in(kBase, "here", 4);
  send_control(source_->control(), ControlType::kAbort, nullptr, 0);
  ControlMessage message;
  ASSERT_TRUE(source_->await(ControlType::kMoveFailed, &message));
  EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{'h'});
}

TEST_F(MoveTest, a_copy_out_larger_than_ring_and_staging_moves_in_its_middle) {
  constexpr uint64_t kBytes = 384u << 20, kStep = 256u << 10;
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kBytes});
  for (uint64_t at = 0; at < kBytes; at += kStep) client_.copy_in(kBase + at, &at, sizeof(at));
  ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  const uint64_t copy =
      client_.send(Call::tideCopyOut, command::CopyOut{kBase, kBytes, kBytes, 1, 0, 0, 0, 0, 0}, kTestLegacy);
  AnswerHeader header;
  std::vector<std::byte> part;
  ASSERT_TRUE(client_.receive(&header, &part));  // it has begun, and then nobody reads
  uint64_t expected = part.size();
  sleep_us(500'000);
  EXPECT_LT(client_.page().acknowledged.load(), copy);
  ASSERT_NO_FATAL_FAILURE(move());
  EXPECT_LT(client_.page().stream_progress[kTestLegacy].load(), copy);
  for (; expected < kBytes; expected += part.size()) {
    ASSERT_TRUE(client_.receive(&header, &part));
    ASSERT_EQ(header.sequence, copy);
    ASSERT_EQ(header.offset, expected) << "each byte comes once, in order";
    for (uint64_t at = (expected + kStep - 1) / kStep * kStep; at < expected + part.size(); at += kStep)
      ASSERT_EQ(memcmp(part.data() + at - expected, &at, sizeof(at)), 0) << at;
  }
  EXPECT_EQ(expected, kBytes);
  EXPECT_TRUE(client_.reach(kTestLegacy, copy));
}

TEST_F(MoveTest, a_session_whose_client_has_not_come_yet_moves_on) {
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.copy_in(kBase, "here", 4);
  ControlMove request;
  ControlMoved moved;
  ControlMessage message;
  ASSERT_NO_FATAL_FAILURE(transfer(&request));
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  send_control(source_->control(), ControlType::kCommit, nullptr, 0);
  ASSERT_TRUE(source_->await(ControlType::kLeft, &message));
  client_.disconnect();
  source_ = std::move(destination_);
  destination_ = std::make_unique<WorkerProcess>();
  ASSERT_NO_FATAL_FAILURE(transfer(&request));
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  send_control(source_->control(), ControlType::kCommit, nullptr, 0);
  ASSERT_TRUE(source_->await(ControlType::kLeft, &message));
  EXPECT_EQ(source_->exit_status(), 0);
  ASSERT_TRUE(client_.open(*destination_, test_session(0, 2)));
  EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{'h'});
}

TEST_F(MoveTest, called_off_before_its_streams_came_to_rest_it_does_not_move_later) {
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.send(Call::tideWaitSignal, command::WaitSignal{2, 0, 1}, kTestLegacy);
  client_.copy_in(kBase, "here", 4);
  ControlMove request;
  ControlMessage message;
  ASSERT_NO_FATAL_FAILURE(transfer(&request));
  sleep_us(100'000);
  send_control(source_->control(), ControlType::kAbort, nullptr, 0);
  ASSERT_TRUE(source_->await(ControlType::kMoveFailed, &message));
  client_.region().client().signals[2].store(1);
  EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{'h'});
  sleep_us(100'000);
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
}

TEST_F(MoveTest, waits_for_streams_that_wait_for_the_client) {
  client_.send(Call::tideMapMemory, command::MapMemory{kBase, kChunkBytes});
  client_.send(Call::tideWaitSignal, command::WaitSignal{2, 0, 1}, kTestLegacy);
  const uint64_t held = client_.copy_in(kBase, "held", 4);
  ControlMove request;
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(transfer(&request));
  sleep_us(800'000);  // more than one attempt
  client_.region().client().signals[2].store(1);
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  EXPECT_GE(client_.page().stream_progress[kTestLegacy].load(), held);
  ASSERT_NO_FATAL_FAILURE(commit_and_follow());
  EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{'h'});
}

TEST_F(MemoryOnItsWay, arrives_as_it_was_at_the_pause) {
  map(0, 100);
  for (uint64_t chunk = 0; chunk < 60; ++chunk) write(chunk, chunk);
  for (uint64_t chunk = 60; chunk < 100; ++chunk) expected_[chunk] = zeros_;
  settle();
  ControlMove request;
  ControlMoved moved;
  ControlProgress progress;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready(&progress));
  EXPECT_GE(progress.bytes, 60 * kChunkBytes);
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
  write(3, 1003);                       // other contents
  write(7, 7);                          // the same once more
  write(9, zeros_);                     // nothing any more
  write(70, 1070);                      // something where nothing was
  unmap(11, 1);                         // gone
  unmap(12, 1), map(12, 1);             // of a piece that stays: given away and taken back,
  write(12, 1012);                      // with other contents
  unmap(32, 32), settle(), map(32, 3);  // whole pieces that go: new memory
  for (uint64_t chunk = 32; chunk < 35; ++chunk) write(chunk, 2000 + chunk);
  unmap(80, 4), settle(), sleep_us(200'000);  // seen by a round, and then new memory
  map(80, 4), write(81, 1081);
  map(200, 2), write(201, 1201), expected_[200] = zeros_;
  settle();
  const uint64_t before = resident();
  pause();
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  EXPECT_LT(moved.pause_bytes, moved.bytes / 3);
  EXPECT_GE(moved.rounds, 2u);
  EXPECT_GT(moved.copy_ns, 0u);
  EXPECT_GT(moved.restore_ns, 0u);
  EXPECT_GE(moved.pause_ns, moved.drain_ns + moved.copy_ns + moved.restore_ns);
  ASSERT_NO_FATAL_FAILURE(commit_and_follow());
  source_ = std::move(destination_);
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  EXPECT_EQ(resident(), before);
}

TEST_F(MemoryOnItsWay, goes_through_memory_that_both_workers_map_on_one_machine) {
  if (getenv("TIDE_MOVE_OVER") != nullptr) GTEST_SKIP() << "it goes over the network";
  const auto maps_slots = [](const WorkerProcess& worker) {
    std::ifstream maps("/proc/" + std::to_string(worker.pid()) + "/maps");
    const std::string all{std::istreambuf_iterator<char>(maps), {}};
    return all.find("tide-move-slots") != std::string::npos;
  };
  map(0, 64);
  for (uint64_t chunk = 0; chunk < 64; ++chunk) write(chunk, chunk);
  settle();
  ControlMove request;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  EXPECT_TRUE(maps_slots(*source_));
  EXPECT_TRUE(maps_slots(*destination_));
  pause();
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  EXPECT_EQ(moved.bytes, 64 * kChunkBytes);
  EXPECT_EQ(moved.pause_bytes, 0u);
  ASSERT_NO_FATAL_FAILURE(commit_and_follow());
  EXPECT_FALSE(maps_slots(*destination_));
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(MemoryOnItsWay, is_written_all_the_time) {
  std::vector<std::byte> found;
  map(0, 64);
  client_.load_library(1, kTestImage, &found);
  for (int round = 0; round < 3; ++round) {
    const uint32_t before = [&] {
      const auto bytes = client_.copy_out(kBase, 4);
      return *reinterpret_cast<const uint32_t*>(bytes.data());
    }();
    ControlMove request;
    ControlMoved moved;
    uint32_t adds = 0;
    const auto add = [&](uint32_t times) {
      for (uint32_t i = 0; i < times; ++i, ++adds) client_.launch(kKernel, {kBase, 32 * kChunkBytes / 4, 1});
    };
    add(10);
    ASSERT_NO_FATAL_FAILURE(begin(&request));
    for (int i = 0; i < 20; ++i) add(1), sleep_us(5'000);
    ASSERT_NO_FATAL_FAILURE(await_ready());
    add(10);
    pause();
    add(10);
    ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
    add(10);
    ASSERT_NO_FATAL_FAILURE(commit_and_follow());
    source_ = std::move(destination_);
    destination_ = std::make_unique<WorkerProcess>();
    const auto bytes = client_.copy_out(kBase, 33 * kChunkBytes);
    const auto* words = reinterpret_cast<const uint32_t*>(bytes.data());
    for (uint64_t i = 0; i < 33 * kChunkBytes / 4; ++i) {
      ASSERT_EQ(words[i], i < 32 * kChunkBytes / 4 ? before + adds : 0) << "word " << i << " in move " << round;
    }
  }
}

TEST_F(MemoryOnItsWay, stays_whole_whenever_the_agent_calls_it_off) {
  map(0, 64);
  for (uint64_t chunk = 0; chunk < 64; ++chunk) write(chunk, chunk);
  settle();
  for (uint32_t delay_us = 0; delay_us < 60'000; delay_us += 6'000) {
    ControlMove request;
    ASSERT_NO_FATAL_FAILURE(begin(&request));
    sleep_us(delay_us);
    send_control(source_->control(), ControlType::kAbort, nullptr, 0);
    ControlMessage message;
    if (source_->await(ControlType::kReady, &message)) {
      ASSERT_TRUE(source_->await(ControlType::kMoveFailed, &message));
    } else {
      ASSERT_EQ(message.type, ControlType::kMoveFailed);
    }
    destination_ = std::make_unique<WorkerProcess>();
    write(delay_us / 6'000, 100 + delay_us);
    EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
  }
  ASSERT_NO_FATAL_FAILURE(expect_contents());
  ASSERT_NO_FATAL_FAILURE(move());
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(MemoryOnItsWay, finds_the_destination_full) {
  map(0, 80);
  write(79, 79);
  settle();
  ControlMove request;
  ControlSession small = test_session(0, 2);
  small.memory_bytes = 32u << 20;
  ASSERT_NO_FATAL_FAILURE(begin(&request, small));
  ASSERT_NO_FATAL_FAILURE(expect_move_failed("cannot be had here"));
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(MemoryOnItsWay, finds_the_destination_full_in_the_pause) {
  map(0, 8);
  write(7, 7);
  settle();
  ControlMove request;
  ControlSession small = test_session(0, 2);
  small.memory_bytes = 32u << 20;  // and some slack
  ASSERT_NO_FATAL_FAILURE(begin(&request, small));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  map(8, 80), pause();
  ASSERT_NO_FATAL_FAILURE(expect_move_failed("cannot be had here"));
  write(80, 80);
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

// As when the network between them is silent for a while.
TEST_F(MemoryOnItsWay, arrives_though_the_destination_was_stopped_for_a_while) {
  map(0, 64);
  for (uint64_t chunk = 0; chunk < 64; ++chunk) write(chunk, chunk);
  settle();
  ControlMove request;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  sleep_us(5'000);
  kill(destination_->pid(), SIGSTOP);
  sleep_us(500'000);
  write(3, 303);  // the job runs on
  kill(destination_->pid(), SIGCONT);
  ASSERT_NO_FATAL_FAILURE(await_ready());
  pause();
  ControlMoved moved;
  ASSERT_NO_FATAL_FAILURE(expect_transferred(&moved));
  EXPECT_LE(moved.bytes, (64 + 2) * kChunkBytes) << "nothing begins anew";
  ASSERT_NO_FATAL_FAILURE(commit_and_follow());
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(MemoryOnItsWay, stays_whole_when_the_destination_dies) {
  map(0, 64);
  for (uint64_t chunk = 0; chunk < 64; ++chunk) write(chunk, chunk);
  settle();
  for (uint32_t delay_us = 0; delay_us < 80'000; delay_us += 10'000) {
    ControlMove request;
    ControlMessage message;
    ASSERT_NO_FATAL_FAILURE(begin(&request));
    sleep_us(delay_us);
    kill(destination_->pid(), SIGKILL);
    const uint64_t killed_ns = now_ns();
    if (source_->await(ControlType::kReady, &message)) {
      ASSERT_TRUE(source_->await(ControlType::kMoveFailed, &message));
    } else {
      ASSERT_EQ(message.type, ControlType::kMoveFailed);
    }
    EXPECT_LT(now_ns() - killed_ns, 10'000'000'000u) << "nobody waits for one that is dead";
    destination_ = std::make_unique<WorkerProcess>();
    write(delay_us / 10'000, 200 + delay_us);
  }
  ASSERT_NO_FATAL_FAILURE(expect_contents());
}

TEST_F(MemoryOnItsWay, a_destination_ends_with_its_agent_and_with_its_source) {
  map(0, 64);
  for (uint64_t chunk = 0; chunk < 64; ++chunk) write(chunk, chunk);
  settle();
  ControlMove request;
  ControlMessage message;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  send_control(destination_->control(), ControlType::kStats, nullptr, 0);
  ASSERT_TRUE(destination_->await(ControlType::kStatsReply, &message)) << "it hears its agent";
  send_control(destination_->control(), ControlType::kExit, nullptr, 0);
  EXPECT_EQ(destination_->exit_status(), 0);
  ASSERT_NO_FATAL_FAILURE(expect_move_failed());
  destination_ = std::make_unique<WorkerProcess>();
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  kill(source_->pid(), SIGKILL);
  ASSERT_TRUE(destination_->await(ControlType::kFailed, &message));
  destination_->exit_status();
}

TEST_F(MemoryOnItsWay, a_client_that_ends_takes_its_session_along) {
  map(0, 64);
  for (uint64_t chunk = 0; chunk < 64; ++chunk) write(chunk, chunk);
  settle();
  ControlMove request;
  ASSERT_NO_FATAL_FAILURE(begin(&request));
  ASSERT_NO_FATAL_FAILURE(await_ready());
  client_.disconnect();
  EXPECT_EQ(source_->exit_status(), 0);
}

}  // namespace
}  // namespace tide
