// Frames made from the rows, then cut, flipped and grown: the worker refuses them and serves on.

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "api/bundle.h"
#include "tests/server/client.h"

namespace tide {
namespace {

constexpr int kFrames = 20'000;
constexpr uint64_t kBudgetNs = 20'000'000'000;

// The same frames in every run.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t limit) { return next() % limit; }

 private:
  uint64_t state_;
};

// Values that are near the edges of something.
uint64_t interesting(Numbers& numbers) {
  static const uint64_t kValues[] = {0,
                                     1,
                                     2,
                                     7,
                                     64,
                                     4095,
                                     4096,
                                     kStreamSlots,
                                     kEventSlots,
                                     kChunkBytes,
                                     0xffffffff,
                                     uint64_t{1} << 32,
                                     (uint64_t{1} << 32) + 1,
                                     vgpu_range_base(0),
                                     vgpu_range_base(0) + kChunkBytes,
                                     vgpu_range_base(1) - 1,
                                     ~uint64_t{0},
                                     uint64_t{1} << 63};
  return numbers.below(3) == 0 ? numbers.next() : kValues[numbers.below(std::size(kValues))];
}

std::vector<std::byte> make_payload(const CallRow& row, Numbers& numbers) {
  std::vector<uint64_t> words;
  for (int i = 0; i < row.param_count; ++i) {
    words.push_back(interesting(numbers));
    if (row.params[i].kind == ParamKind::kDevice) words.push_back(interesting(numbers));
  }
  std::vector<std::byte> payload = bytes_of(words);
  const uint32_t kind = numbers.below(4);
  if (kind == 0 && !payload.empty()) payload.resize(numbers.below(payload.size()));
  if (kind == 1) payload.resize(payload.size() + numbers.below(5000), std::byte(numbers.next()));
  if (kind == 2 && !payload.empty()) payload[numbers.below(payload.size())] ^= std::byte(1u << numbers.below(8));
  return payload;
}

// The agent of a job with one process: whoever asks for another one's memory gets none.
class LonelyAgent {
 public:
  explicit LonelyAgent(int control) : thread_([this, control] { serve(control); }) {}
  ~LonelyAgent() {
    stop_ = true;
    thread_.join();
  }

 private:
  void serve(int control) {
    while (!stop_) {
      pollfd wait = {control, POLLIN, 0};
      ControlMessage message;
      if (poll(&wait, 1, 20) <= 0 || receive_control(control, &message) != ControlState::kMessage) continue;
      auto* question = message.as<ControlShared>();
      if (message.type != ControlType::kAskShared || question == nullptr) continue;
      question->result = CUDA_ERROR_INVALID_HANDLE;
      question->last = 1;
      send_control(control, ControlType::kSharedAnswer, *question);
    }
  }
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST(FuzzTest, random_frames_do_not_end_the_session) {
  WorkerProcess worker;
  TestClient client;
  ASSERT_TRUE(client.open(worker, test_session(0, 1)));
  const LonelyAgent agent(worker.control());
  client.make_context();
  client.send(Call::tideMapMemory, command::MapMemory{vgpu_range_base(0), kChunkBytes});
  std::vector<std::byte> found;
  client.load_library(1, "kernel nothing 8\nglobal g 64\n", &found);
  std::vector<const CallRow*> rows;
  for (const CallRow& row : kCallRows) {
    if (row.travel == Travel::kAsync || row.travel == Travel::kSync || row.travel == Travel::kInternal)
      rows.push_back(&row);
  }
  Numbers numbers(20240229);
  const uint64_t end = now_ns() + kBudgetNs;
  int sent = 0;
  for (; sent < kFrames && now_ns() < end; ++sent) {
    const CallRow& row = *rows[numbers.below(rows.size())];
    // A context that does not exist any more would make the rest of the frames dull, and tideEnd is the last one.
    const auto call = Call(row.number);
    if (call == Call::tideDestroyContext || call == Call::tideWaitSignal || call == Call::tideEnd) continue;
    const uint16_t number = numbers.below(50) == 0 ? uint16_t(numbers.next()) : row.number;
    const uint32_t stream = numbers.below(4) == 0 ? uint32_t(interesting(numbers)) : kTestLegacy;
    const uint32_t context = numbers.below(8) == 0 ? uint32_t(interesting(numbers)) : kTestContext;
    client.send_raw(number, make_payload(row, numbers), stream, 0, context);
    ASSERT_FALSE(::testing::Test::HasFailure()) << "frame " << sent;
  }
  EXPECT_GT(sent, 1000);
  EXPECT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(client.page().state.load(), uint64_t(ChannelState::kLive));
}

// Found by reading beside tests/fuzz: what is left of such a bundle was a number below zero.
TEST(FuzzTest, a_bundle_that_is_shorter_than_its_header_is_refused) {
  WorkerProcess worker;
  TestClient client;
  ASSERT_TRUE(client.open(worker, test_session(0, 1)));
  client.make_context();
  struct {
    BundleHeader header;
    BundleEntry entry;
  } image;
  image.header = {kBundleMagic, uint32_t(BundleKind::kFatbins), 1, 8};
  image.entry = {1, 1u << 31, 0};
  client.send(Call::tideStage, command::Stage{1, sizeof image, 0, sizeof image}, kNoStream, &image, sizeof image);
  client.send(Call::tideLoadLibrary, command::LoadLibrary{1, 1});
  AnswerHeader header;
  std::vector<std::byte> payload;
  ASSERT_TRUE(client.receive(&header, &payload));
  LibraryHeader found;
  ASSERT_GE(payload.size(), sizeof found);
  memcpy(&found, payload.data(), sizeof found);
  EXPECT_EQ(found.result, CUDA_ERROR_INVALID_IMAGE);
}

TEST(FuzzTest, a_broken_ring_ends_the_session_and_says_so) {
  WorkerProcess worker;
  TestClient client;
  ASSERT_TRUE(client.open(worker, test_session(0, 1)));
  ASSERT_EQ(client.call(uint16_t(Call::tideNull), {}, nullptr, 0), CUDA_SUCCESS);
  Region region = client.region();
  const uint64_t head = region.client().command_head.load();
  memset(region.commands() + head, 0xff, 4096);
  region.client().command_head.store(head + 4096);
  notify(client.link(), Side::kClient);
  const auto failed = [&] { return client.page().state.load() == uint64_t(ChannelState::kFailed); };
  EXPECT_EQ(wait_until(client.link(), Side::kClient, failed, kTestTimeoutUs), WaitResult::kReady);
  EXPECT_EQ(worker.exit_status(), 1);
}

}  // namespace
}  // namespace tide
