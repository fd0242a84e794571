// A real worker process on the fake driver, driven through the rings.

#include <fstream>
#include <map>
#include <numeric>

#include "base/pack.h"
#include "base/words.h"
#include "tests/server/client.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(3);

class WorkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(client_.open(worker_, test_session(3, 7)));
    client_.make_context();
  }
  void map(uint64_t bytes = kChunkBytes, uint64_t at = kBase) {
    client_.send(Call::tideMapMemory, command::MapMemory{at, bytes});
  }
  void expect_no_error() { EXPECT_EQ(client_.page().errors.load(), 0u) << client_.page().error.load(); }

  WorkerProcess worker_;
  TestClient client_;
};

TEST_F(WorkerTest, acknowledges_and_answers_a_null_call) {
  EXPECT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(client_.page().acknowledged.load(), 2u);
  EXPECT_EQ(client_.page().epoch.load(), 7u);
  EXPECT_EQ(client_.page().state.load(), uint64_t(ChannelState::kLive));
}

TEST_F(WorkerTest, maps_at_the_clients_address_and_zeroes) {
  map(3 * kChunkBytes, kBase + 6 * kChunkBytes);
  const auto bytes = client_.copy_out(kBase + 6 * kChunkBytes, 3 * kChunkBytes);
  ASSERT_EQ(bytes.size(), 3 * kChunkBytes);
  EXPECT_EQ(std::count(bytes.begin(), bytes.end(), std::byte{0xee}), 0);  // the fake driver's memory is dirty
  expect_no_error();
}

TEST_F(WorkerTest, copies_launches_and_reports_progress_in_order) {
  map();
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  ASSERT_GE(found.size(), sizeof(LibraryHeader));
  EXPECT_EQ(reinterpret_cast<const LibraryHeader*>(found.data())->kernel_count, 3u);
  std::vector<uint32_t> numbers(200'000);
  std::iota(numbers.begin(), numbers.end(), 0);
  client_.copy_in(kBase, numbers.data(), numbers.size() * 4);
  uint64_t last = 0;
  for (int i = 0; i < 1000; ++i) last = client_.launch(uint64_t{1} << 32, {kBase, 1000, 1});
  ASSERT_TRUE(client_.reach(kTestLegacy, last));
  const auto bytes = client_.copy_out(kBase, numbers.size() * 4);
  for (size_t i = 0; i < 1000; ++i) numbers[i] += 1000;
  EXPECT_EQ(memcmp(bytes.data(), numbers.data(), bytes.size()), 0);
  expect_no_error();
}

TEST_F(WorkerTest, copies_rectangles_with_packed_rows) {
  map();
  constexpr uint64_t kPitch = 1000, kWidth = 300, kHeight = 1700;
  std::vector<std::byte> packed(kWidth * kHeight);
  for (size_t i = 0; i < packed.size(); ++i) packed[i] = std::byte(i * 7 + i / 300);
  client_.send(Call::tideCopyIn, command::CopyIn{kBase, kPitch, kWidth, kHeight}, kTestLegacy, packed.data(),
               packed.size());
  const uint64_t sequence =
      client_.send(Call::tideCopyOut, command::CopyOut{kBase, kPitch, kWidth, kHeight, 0, 0, 0, 0, 0}, kTestLegacy);
  std::vector<std::byte> got(packed.size()), part;
  for (size_t n = 0; n < got.size(); n += part.size()) {
    AnswerHeader header;
    ASSERT_TRUE(client_.receive(&header, &part));
    ASSERT_EQ(header.sequence, sequence);
    ASSERT_LE(header.offset + part.size(), got.size());
    memcpy(got.data() + header.offset, part.data(), part.size());
  }
  EXPECT_EQ(got, packed);
  const auto flat = client_.copy_out(kBase + kPitch, kPitch);
  EXPECT_EQ(memcmp(flat.data(), packed.data() + kWidth, kWidth), 0);
  EXPECT_EQ(flat[kWidth], std::byte{0});
}

// Shrinks to a few percent.
std::vector<std::byte> packable(size_t bytes, int seed) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = std::byte(i / 100 * 7 + seed);
  return out;
}

TEST_F(WorkerTest, copies_in_come_plain_packed_and_by_name) {
  map();
  const auto bytes = packable(kPackedPieceMax, 1);
  const ContentKey key{11, 12};  // the worker only compares it
  Packer packer;
  const auto packed = packer.pack(bytes.data(), kPackedPieceMax);
  ASSERT_FALSE(packed.empty());
  const auto copy = [&](uint64_t to, PackForm form, uint32_t slot, std::span<const std::byte> data) {
    const command::CopyInPacked command{to,   bytes.size(), bytes.size(), 1,          uint32_t(form),
                                        slot, key.low,      key.high,     data.size()};
    return client_.send(Call::tideCopyInPacked, command, kTestLegacy, data.data(), data.size());
  };
  copy(kBase, PackForm::kPlain, kNoContent, bytes);
  EXPECT_EQ(client_.copy_out(kBase, bytes.size()), bytes);
  EXPECT_EQ(client_.page().content_slots.load(), kContentSlots) << "known once the worker has begun";
  copy(kBase + kPackedPieceMax, PackForm::kPacked, 5, packed);
  EXPECT_EQ(client_.copy_out(kBase + kPackedPieceMax, bytes.size()), bytes);
  copy(kBase + 2 * kPackedPieceMax, PackForm::kKept, 5, {});
  EXPECT_EQ(client_.copy_out(kBase + 2 * kPackedPieceMax, bytes.size()), bytes);
  expect_no_error();
  uint64_t errors = 0;
  const auto refused = [&](uint64_t sequence) {
    EXPECT_TRUE(client_.reach(kTestLegacy, sequence));
    EXPECT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
    return client_.page().errors.load() == ++errors;
  };
  EXPECT_TRUE(refused(copy(kBase, PackForm::kKept, 6, {}))) << "a slot that keeps nothing";
  EXPECT_TRUE(refused(copy(kBase, PackForm::kPacked, kNoContent, packed.first(packed.size() / 2))));
  EXPECT_TRUE(refused(copy(kBase, PackForm::kPlain, kContentSlots, bytes))) << "there is no such slot";
  // To nowhere: the copy fails, and the content is kept all the same.
  EXPECT_TRUE(refused(copy(kBase - kPackedPieceMax, PackForm::kPacked, 7, packed)));
  copy(kBase + 3 * kPackedPieceMax, PackForm::kKept, 7, {});
  EXPECT_EQ(client_.copy_out(kBase + 3 * kPackedPieceMax, bytes.size()), bytes);
  EXPECT_EQ(client_.page().errors.load(), errors);
}

TEST_F(WorkerTest, content_for_a_stream_that_does_not_exist_is_kept) {
  map();
  const auto bytes = packable(100'000, 2);
  const auto copy = [&](PackForm form, uint32_t stream, std::span<const std::byte> data) {
    const command::CopyInPacked command{kBase, bytes.size(), bytes.size(), 1, uint32_t(form), 0, 1, 2, data.size()};
    return client_.send(Call::tideCopyInPacked, command, stream, data.data(), data.size());
  };
  copy(PackForm::kPlain, 77, bytes);
  copy(PackForm::kKept, kTestLegacy, {});
  EXPECT_EQ(client_.copy_out(kBase, bytes.size()), bytes);
}

TEST_F(WorkerTest, copies_out_are_packed_where_the_client_wants_it_and_it_pays) {
  map();
  auto bytes = packable(3 * kPackedPieceMax, 3);
  for (size_t i = 0, n = 1; i < kPackedPieceMax; ++i) bytes[i] = std::byte((n = n * 6364136223846793005 + 99) >> 56);
  for (int i = 0; i < 3; ++i) {
    client_.copy_in(kBase + i * kPackedPieceMax, bytes.data() + i * kPackedPieceMax, kPackedPieceMax);
  }
  const command::CopyOut command{kBase, bytes.size(), bytes.size(), 1, uint32_t(PackMode::kOn), 0, 0, 0, 0};
  const uint64_t sequence = client_.send(Call::tideCopyOut, command, kTestLegacy);
  Unpacker unpacker;
  std::vector<std::byte> got(bytes.size()), part;
  for (int i = 0; i < 3; ++i) {
    AnswerHeader header;
    ASSERT_TRUE(client_.receive(&header, &part));
    ASSERT_EQ(header.sequence, sequence);
    ASSERT_EQ(header.offset, uint64_t(i) * kPackedPieceMax);
    // Noise does not shrink, and what comes behind it is not tried at once.
    EXPECT_EQ(header.kind, uint16_t(i == 2 ? AnswerKind::kPackedData : AnswerKind::kData)) << i;
    if (header.kind != uint16_t(AnswerKind::kPackedData)) {
      ASSERT_EQ(part.size(), kPackedPieceMax);
      memcpy(got.data() + header.offset, part.data(), part.size());
      continue;
    }
    EXPECT_LT(part.size(), kPackedPieceMax / 8);
    ASSERT_EQ(header.result, int32_t(kPackedPieceMax));
    EXPECT_TRUE(unpacker.unpack(part, got.data() + header.offset, kPackedPieceMax));
  }
  EXPECT_EQ(got, bytes);
  EXPECT_EQ(client_.copy_out(kBase, bytes.size()), bytes) << "and plain, where it does not";
  expect_no_error();
}

TEST_F(WorkerTest, a_large_copy_out_passes_through_a_small_ring) {
  constexpr uint64_t kBytes = 384u << 20;  // above ring and staging together
  map(kBytes);
  std::vector<uint32_t> stamp(1024, 0xabcd1234);
  for (uint64_t at = 0; at < kBytes; at += 64u << 20) client_.copy_in(kBase + at, stamp.data(), 4096);
  const auto bytes = client_.copy_out(kBase, kBytes);
  for (uint64_t at = 0; at < kBytes; at += 64u << 20) {
    EXPECT_EQ(memcmp(bytes.data() + at, stamp.data(), 4096), 0) << at;
    EXPECT_EQ(bytes[at + 4096], std::byte{0});
  }
  expect_no_error();
}

TEST_F(WorkerTest, after_a_flood_of_small_copies_a_large_one_still_finds_room) {
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  map();
  client_.launch((uint64_t{1} << 32) + 1, {500});
  uint64_t last = 0;
  for (uint32_t i = 0; i < 80'000; ++i) last = client_.copy_in(kBase + 1024, &i, sizeof(i));
  const std::vector<std::byte> large(512u << 10, std::byte{7});
  last = client_.copy_in(kBase + 4096, large.data(), large.size());
  ASSERT_TRUE(client_.reach(kTestLegacy, last));
  const auto bytes = client_.copy_out(kBase, 1u << 20);
  EXPECT_EQ(*reinterpret_cast<const uint32_t*>(bytes.data() + 1024), 79'999u);
  EXPECT_EQ(memcmp(bytes.data() + 4096, large.data(), large.size()), 0);
  expect_no_error();
}

TEST_F(WorkerTest, a_slow_stream_does_not_hold_up_the_others) {
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  client_.send(Call::tideCreateStream, command::CreateStream{5, CU_STREAM_NON_BLOCKING, 0, 0});
  const uint64_t slow = client_.launch((uint64_t{1} << 32) + 1, {300}, 5);
  map();
  const uint64_t fast = client_.copy_in(kBase, "abcd", 4);
  ASSERT_TRUE(client_.reach(kTestLegacy, fast));
  EXPECT_LT(client_.page().stream_progress[5].load(), slow);
  EXPECT_TRUE(client_.reach(5, slow));
}

TEST_F(WorkerTest, events_complete_order_streams_and_measure_time) {
  std::vector<std::byte> found, answer;
  client_.load_library(1, kTestImage, &found);
  map();
  client_.send(Call::tideCreateStream, command::CreateStream{5, 0, 0, 0});
  client_.send(Call::tideCreateEvent, command::CreateEvent{1, 0});
  client_.send(Call::tideCreateEvent, command::CreateEvent{2, 0});
  client_.send(Call::tideRecordEvent, command::RecordEvent{1, 0}, 5);
  client_.launch((uint64_t{1} << 32) + 1, {50}, 5);
  const uint64_t record = client_.send(Call::tideRecordEvent, command::RecordEvent{2, 0}, 5);
  client_.send(Call::tideWaitEvent, command::WaitEvent{2, 0}, kTestLegacy);
  const uint64_t after = client_.copy_in(kBase, "abcd", 4);
  ASSERT_TRUE(client_.reach(kTestLegacy, after));
  EXPECT_EQ(client_.page().event_done[2].load(), record);
  EXPECT_EQ(client_.call(Call::tideElapsed, command::Elapsed{1, 2}, &answer), CUDA_SUCCESS);
  ASSERT_EQ(answer.size(), sizeof(ElapsedAnswer));
  const float ms = reinterpret_cast<const ElapsedAnswer*>(answer.data())->milliseconds;
  EXPECT_GE(ms, 49.0f);
  EXPECT_LT(ms, 5000.0f);
}

TEST_F(WorkerTest, an_earlier_record_that_completes_late_takes_nothing_back) {
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  client_.send(Call::tideCreateStream, command::CreateStream{5, CU_STREAM_NON_BLOCKING, 0, 0});
  client_.send(Call::tideCreateStream, command::CreateStream{6, CU_STREAM_NON_BLOCKING, 0, 0});
  client_.send(Call::tideCreateEvent, command::CreateEvent{1, 0});
  client_.launch((uint64_t{1} << 32) + 1, {100}, 5);
  const uint64_t early = client_.send(Call::tideRecordEvent, command::RecordEvent{1, 0}, 5);
  const uint64_t late = client_.send(Call::tideRecordEvent, command::RecordEvent{1, 0}, 6);
  ASSERT_TRUE(client_.reach_event(1, late));
  ASSERT_TRUE(client_.reach(5, early));
  EXPECT_EQ(client_.page().event_done[1].load(), late);
}

TEST_F(WorkerTest, a_stream_waits_for_the_clients_signal) {
  map();
  client_.send(Call::tideCreateStream, command::CreateStream{5, 0, 0, 0});
  client_.send(Call::tideWaitSignal, command::WaitSignal{9, 0, 42}, 5);
  const uint64_t held = client_.copy_in(kBase, "abcd", 4, 5);
  const uint64_t free = client_.copy_in(kBase + 4096, "abcd", 4);
  ASSERT_TRUE(client_.reach(kTestLegacy, free));
  sleep_us(20'000);
  EXPECT_LT(client_.page().stream_progress[5].load(), held);
  client_.region().client().signals[9].store(42);
  EXPECT_TRUE(client_.reach(5, held));
}

TEST_F(WorkerTest, ends_with_its_client_even_when_a_stream_waits_for_it) {
  client_.send(Call::tideWaitSignal, command::WaitSignal{9, 0, 42}, kTestLegacy);
  ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  client_.disconnect();
  EXPECT_EQ(worker_.exit_status(), 0);
}

TEST_F(WorkerTest, unmapped_memory_is_kept_while_work_may_use_it_and_can_be_mapped_again) {
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  map(40u << 20);  // more than one piece
  client_.launch((uint64_t{1} << 32) + 1, {100});
  const uint64_t used = client_.launch(uint64_t{1} << 32, {kBase, 1000, 3});
  client_.send(Call::tideUnmapMemory, command::UnmapMemory{kBase, 40u << 20});
  map(2u << 20);
  EXPECT_TRUE(client_.reach(kTestLegacy, used));
  EXPECT_EQ(client_.copy_out(kBase, 4)[0], std::byte{3});
  client_.send(Call::tideUnmapMemory, command::UnmapMemory{kBase, 2u << 20});
  expect_no_error();
  client_.copy_in(kBase, "abcd", 4);  // not mapped: an error, not a crash
  EXPECT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
}

TEST_F(WorkerTest, globals_have_an_address_in_the_image_zone) {
  std::vector<std::byte> found, answer;
  client_.load_library(1, kTestImage, &found);
  EXPECT_EQ(client_.call(Call::tideGlobal, command::Global{1, 8}, &answer, "counter", 8), CUDA_SUCCESS);
  ASSERT_EQ(answer.size(), sizeof(GlobalAnswer));
  const auto* global = reinterpret_cast<const GlobalAnswer*>(answer.data());
  EXPECT_EQ(global->address, kBase + kVgpuRangeBytes - kImageZoneBytes);
  EXPECT_EQ(global->bytes, 4096u);
  EXPECT_EQ(client_.copy_out(global->address, 16)[3], std::byte{0x11});
  EXPECT_EQ(client_.call(Call::tideGlobal, command::Global{1, 5}, &answer, "none", 5), CUDA_ERROR_NOT_FOUND);
}

TEST_F(WorkerTest, a_bad_image_says_why) {
  std::vector<std::byte> found;
  client_.load_library(1, "nonsense", &found);
  ASSERT_GE(found.size(), sizeof(LibraryHeader));
  const auto* header = reinterpret_cast<const LibraryHeader*>(found.data());
  EXPECT_EQ(header->result, CUDA_ERROR_INVALID_IMAGE);
  EXPECT_GT(header->message_bytes, 0u);
  EXPECT_EQ(found.size(), sizeof(LibraryHeader) + header->message_bytes);
}

TEST_F(WorkerTest, a_failed_command_is_told_once_and_its_waiters_go_on) {
  const uint64_t bad = client_.launch(uint64_t{77} << 32, {});
  EXPECT_TRUE(client_.reach(kTestLegacy, bad));
  EXPECT_EQ(client_.page().errors.load(), 1u);
  EXPECT_EQ(client_.page().error.load(), uint64_t(CUDA_ERROR_INVALID_HANDLE));
  EXPECT_EQ(client_.page().error_sequence.load(), bad);
  EXPECT_EQ(client_.page().sticky.load(), 0u);
  const uint64_t event = client_.send(Call::tideRecordEvent, command::RecordEvent{99, 0}, kTestLegacy);
  EXPECT_TRUE(client_.reach_event(99, event));
}

TEST_F(WorkerTest, after_a_sticky_error_nobody_waits_for_ever) {
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  map();
  client_.launch((uint64_t{1} << 32) + 2, {});
  const uint64_t copy = client_.send(Call::tideCopyOut, command::CopyOut{kBase, 64, 64, 1, 0, 0, 0, 0, 0}, kTestLegacy);
  EXPECT_TRUE(client_.reach(kTestLegacy, copy));
  EXPECT_EQ(client_.page().sticky.load(), 1u);
  EXPECT_EQ(client_.page().error.load(), uint64_t(CUDA_ERROR_ILLEGAL_ADDRESS));
  const uint64_t later = client_.launch(uint64_t{1} << 32, {kBase, 1, 1});
  EXPECT_TRUE(client_.reach(kTestLegacy, later));
}

TEST_F(WorkerTest, generated_calls_are_unpacked_by_their_rows) {
  map();
  // cuMemsetD32_v2(address dev[n * 4], value, n): runs on the stream that the header names.
  const auto payload = bytes_of({kBase, 400, 0x01020304, 100});
  const uint64_t set = client_.send_raw(uint16_t(Call::cuMemsetD32_v2), payload, kTestLegacy, 0);
  ASSERT_TRUE(client_.reach(kTestLegacy, set));
  EXPECT_EQ(client_.copy_out(kBase, 401)[399], std::byte{1});
  std::vector<std::byte> answer;
  EXPECT_EQ(client_.call(uint16_t(Call::cuCtxGetLimit), bytes_of({0}), &answer), CUDA_SUCCESS);
  ASSERT_EQ(answer.size(), 8u);
  EXPECT_EQ(*reinterpret_cast<const uint64_t*>(answer.data()), 4096u);
  expect_no_error();
}

// The fake driver has no conditional nodes.
TEST_F(WorkerTest, of_a_graph_that_cannot_be_made_nothing_runs) {
  map();
  const std::vector<uint32_t> before(16, 1), after(16, 2);
  client_.copy_in(kBase, before.data(), 64);
  const uint32_t hidden = 5;
  client_.send(Call::tideCreateStream, command::CreateStream{hidden, CU_STREAM_NON_BLOCKING, 0, 0});
  client_.send(Call::tideBeginGraph, command::BeginGraph{hidden, 0});
  client_.send(Call::tideConditionalHandle, command::ConditionalHandle{5, 1, 0});
  client_.send(Call::tideBeginConditional, command::BeginConditional{5, 0, 1});
  client_.send(Call::tideBeginBody, command::BeginBody{0, 0});
  client_.copy_in(kBase, after.data(), 64, hidden);
  client_.send(Call::tideEndConditional, command::EndConditional{0});
  client_.send(Call::tideLaunchGraph, command::LaunchGraph{0}, kTestLegacy);
  auto bytes = client_.copy_out(kBase, 64);
  ASSERT_EQ(bytes.size(), 64u);
  EXPECT_EQ(memcmp(bytes.data(), before.data(), 64), 0);
  EXPECT_NE(client_.page().errors.load(), 0u);
  client_.copy_in(kBase, after.data(), 64, hidden);  // the stream is its own again
  bytes = client_.copy_out(kBase, 64, hidden);
  ASSERT_EQ(bytes.size(), 64u);
  EXPECT_EQ(memcmp(bytes.data(), after.data(), 64), 0);
}

TEST_F(WorkerTest, memory_outside_of_the_vgpu_is_refused) {
  const std::pair<uint64_t, uint64_t> outside[] = {{kBase - kChunkBytes, kChunkBytes},
                                                   {kBase + 1, kChunkBytes},
                                                   {kBase, 0},
                                                   {kBase, ~uint64_t{0}},
                                                   {kBase + kVgpuRangeBytes, kChunkBytes},
                                                   {0, kChunkBytes},
                                                   {kBase + kVgpuRangeBytes - kImageZoneBytes, kChunkBytes}};
  for (const auto& [address, bytes] : outside) {
    std::vector<std::byte> answer;
    EXPECT_EQ(client_.call(Call::tideMapMemory, command::MapMemory{address, bytes}, &answer), CUDA_ERROR_INVALID_VALUE);
  }
  std::vector<std::byte> answer;
  EXPECT_EQ(client_.call(Call::tideMapMemory, command::MapMemory{kBase, uint64_t{8} << 30}, &answer),
            CUDA_ERROR_OUT_OF_MEMORY);
  const uint64_t stack = reinterpret_cast<uint64_t>(&answer);
  EXPECT_EQ(client_.call(Call::tideCopyOut, command::CopyOut{stack, 8, 8, 1, 0, 0, 0, 0, 0}, &answer),
            CUDA_ERROR_INVALID_VALUE);
}

constexpr uint64_t kHost = kHostZoneBase + (64u << 10), kHostPage = 4096;

// Numbers of the pages that the worker says have changed, and the last one's first word.
std::vector<uint32_t> changed(TestClient& client, uint64_t pages, uint32_t* word = nullptr) {
  std::vector<std::byte> answer;
  EXPECT_EQ(client.call(Call::tideChangedHost, command::ChangedHost{kHost, pages * kHostPage}, &answer), CUDA_SUCCESS);
  ChangedHostAnswer about;
  memcpy(&about, answer.data(), sizeof about);
  const uint64_t count = about.pages, data = sizeof about + align_up(count * 4, 8);
  EXPECT_EQ(answer.size(), data + count * kHostPage);
  std::vector<uint32_t> numbers(count);
  if (count != 0) memcpy(numbers.data(), answer.data() + sizeof about, count * 4);
  if (count != 0 && word != nullptr) memcpy(word, answer.data() + data + (count - 1) * kHostPage, sizeof *word);
  return numbers;
}

TEST_F(WorkerTest, of_host_memory_only_pages_travel_that_the_client_does_not_know) {
  std::vector<std::byte> found;
  client_.load_library(1, kTestImage, &found);
  client_.send(Call::tideMapHost, command::MapHost{kHost, 8 * kHostPage, 0, 0});
  EXPECT_TRUE(changed(client_, 8).empty()) << "both sides begin with zeros";
  const auto add = [&](uint64_t address, uint64_t value) {
    ASSERT_TRUE(client_.reach(kTestLegacy, client_.launch(uint64_t{1} << 32, {address, 1, value})));
  };
  add(kHost + 2 * kHostPage, 7);
  add(kHost + 5 * kHostPage, 9);
  uint32_t word = 0;
  EXPECT_EQ(changed(client_, 8, &word), (std::vector<uint32_t>{2, 5}));
  EXPECT_EQ(word, 9u);
  EXPECT_TRUE(changed(client_, 8).empty()) << "told once";
  // Of the first word the mask names the second byte: the others stay what the kernel made them.
  const uint64_t mask_bytes = mask_words(kHostPage) * 8;
  std::vector<std::byte> page(mask_bytes + kHostPage);
  page[0] = std::byte{2};
  memset(page.data() + mask_bytes, 100, 4);
  const command::WriteHost write{kHost + 5 * kHostPage, kHostPage, mask_bytes, 0, 0};
  client_.send(Call::tideWriteHost, write, kNoStream, page.data(), page.size());
  EXPECT_EQ(changed(client_, 8, &word), (std::vector<uint32_t>{5})) << "the client believes that it has 100 everywhere";
  EXPECT_EQ(word, 9u + (100u << 8));
  expect_no_error();
}

TEST_F(WorkerTest, an_answer_about_host_memory_is_as_long_as_a_record_can_be) {
  constexpr uint64_t kPages = 300;
  std::vector<std::byte> found, answer;
  client_.load_library(1, kTestImage, &found);
  client_.send(Call::tideMapHost, command::MapHost{kHost, kPages * kHostPage, 0, 0});
  const uint64_t words = kPages * kHostPage / 4;
  ASSERT_TRUE(client_.reach(kTestLegacy, client_.launch(uint64_t{1} << 32, {kHost, words, 1})));
  uint64_t pages = 0;
  for (uint64_t at = 0; at < kPages * kHostPage;) {
    const command::ChangedHost question{kHost + at, kPages * kHostPage - at};
    ASSERT_EQ(client_.call(Call::tideChangedHost, question, &answer), CUDA_SUCCESS);
    ChangedHostAnswer about;
    memcpy(&about, answer.data(), sizeof about);
    ASSERT_GT(about.bytes, 0u);
    EXPECT_LE(about.pages * kHostPage, kHostPieceBytes);
    pages += about.pages;
    at += about.bytes;
  }
  EXPECT_EQ(pages, kPages);
  EXPECT_TRUE(changed(client_, kPages).empty());
}

TEST_F(WorkerTest, questions_about_host_memory_are_checked) {
  client_.send(Call::tideMapHost, command::MapHost{kHost, 8 * kHostPage, 0, 0});
  std::vector<std::byte> answer;
  const std::pair<uint64_t, uint64_t> wrong[] = {{kHost - kHostPage, kHostPage},
                                                 {kHost + 8, kHostPage},
                                                 {kHost, 9 * kHostPage},
                                                 {kHost, 100},
                                                 {kHost, ~uint64_t{0} / kHostPage * kHostPage},
                                                 {0, kHostPage}};
  for (const auto& [address, bytes] : wrong) {
    EXPECT_EQ(client_.call(Call::tideChangedHost, command::ChangedHost{address, bytes}, &answer),
              CUDA_ERROR_INVALID_VALUE)
        << address << " " << bytes;
  }
  const std::vector<std::byte> data(16);
  EXPECT_EQ(client_.call(Call::tideWriteHost, command::WriteHost{kHost, 8, 0, 0, 0}, &answer, data.data(), 8),
            CUDA_ERROR_INVALID_VALUE)
      << "without a mask";
  const std::vector<std::byte> two_pages(2 * kHostPage + mask_words(2 * kHostPage) * 8);
  EXPECT_EQ(client_.call(Call::tideWriteHost, command::WriteHost{kHost, 2 * kHostPage, 1024, 5, 0}, &answer,
                         two_pages.data(), two_pages.size()),
            CUDA_ERROR_INVALID_VALUE)
      << "one digest for two pages";
  EXPECT_EQ(client_.call(Call::tideWriteHost, command::WriteHost{kHost, 0, 0, 0, 0}, &answer),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(client_.call(Call::tideWriteHost, command::WriteHost{kHost + 8 * kHostPage, 8, 8, 0, 0}, &answer,
                         data.data(), data.size()),
            CUDA_ERROR_INVALID_VALUE);
}

// A client that does not wait for an answer goes on writing; that the memory is not there it is told once.
TEST_F(WorkerTest, host_memory_that_was_refused_is_one_error) {
  const uint64_t refused = kHost + 4 * kHostPage, mask_bytes = mask_words(8) * 8;
  std::vector<std::byte> data(mask_bytes + 8, std::byte{1}), answer;
  const auto write = [&] {
    return client_.call(Call::tideWriteHost, command::WriteHost{refused + 5 * kHostPage, 8, mask_bytes, 0, 0}, &answer,
                        data.data(), data.size());
  };
  client_.send(Call::tideMapHost, command::MapHost{kHost, 8 * kHostPage, 0, 0});
  client_.send(Call::tideMapHost, command::MapHost{refused, 8 * kHostPage, 0, 0});  // a part of it is taken
  EXPECT_EQ(write(), CUDA_SUCCESS);
  EXPECT_EQ(client_.page().errors.load(), 1u);
  EXPECT_EQ(client_.call(Call::tideChangedHost, command::ChangedHost{refused, 8 * kHostPage}, &answer), CUDA_SUCCESS);
  ASSERT_EQ(answer.size(), sizeof(ChangedHostAnswer));
  EXPECT_EQ(reinterpret_cast<const ChangedHostAnswer*>(answer.data())->bytes, 8 * kHostPage);
  EXPECT_EQ(client_.call(Call::tideUnmapHost, command::UnmapHost{refused, 8 * kHostPage}, &answer), CUDA_SUCCESS);
  EXPECT_EQ(write(), CUDA_ERROR_INVALID_VALUE) << "there it is nobody's";
  EXPECT_TRUE(changed(client_, 8).empty());
  EXPECT_EQ(client_.page().errors.load(), 1u);
}

// Host memory that the worker tells unasked.
class ToldMemory : public WorkerTest {
 protected:
  void SetUp() override {
    WorkerTest::SetUp();
    std::vector<std::byte> found;
    client_.load_library(1, "kernel add 24\nkernel tick 24\n", &found);
  }
  CUresult map_told(uint64_t pages, uint64_t at = kHost) {
    std::vector<std::byte> answer;
    return client_.call(Call::tideMapHost, command::MapHost{at, pages * kHostPage, 0, 1}, &answer);
  }
  uint64_t add(uint64_t words, uint64_t value) { return client_.launch(uint64_t{1} << 32, {kHost, words, value}); }
  uint64_t tick(uint64_t times) { return client_.launch((uint64_t{1} << 32) + 1, {kHost, times, 1}); }
  uint64_t unread_bytes() { return client_.page().answer_head.load() - client_.region().client().answer_tail.load(); }
  void await_page() {
    const uint64_t end = now_ns() + kTestTimeoutUs * 1000;
    while (unread_bytes() == 0 && now_ns() < end) sleep_us(100);
    EXPECT_NE(unread_bytes(), 0u);
  }
  // The first word of each page that is in the ring, the last of each.
  std::map<uint64_t, uint32_t> read_all(size_t* count = nullptr) {
    std::map<uint64_t, uint32_t> words;
    for (size_t n = 0; unread_bytes() != 0; ++n) {
      AnswerHeader header;
      std::vector<std::byte> page;
      EXPECT_TRUE(client_.receive(&header, &page));
      EXPECT_EQ(header.kind, uint16_t(AnswerKind::kPage));
      EXPECT_EQ(page.size(), kHostPage);
      memcpy(&words[(header.offset - kHost) / kHostPage], page.data(), 4);
      if (count != nullptr) *count = n + 1;
    }
    return words;
  }
};

TEST_F(ToldMemory, is_little) {
  constexpr uint64_t kBlock = kToldBlockBytes, kPages = kBlock / kHostPage;
  EXPECT_EQ(map_told(kPages + 1), CUDA_ERROR_INVALID_VALUE);
  for (uint64_t i = 0; i < kToldBytes / kBlock; ++i) EXPECT_EQ(map_told(kPages, kHost + i * kBlock), CUDA_SUCCESS);
  EXPECT_EQ(map_told(1, kHost + kToldBytes), CUDA_ERROR_INVALID_VALUE);
  std::vector<std::byte> answer;
  EXPECT_EQ(client_.call(Call::tideUnmapHost, command::UnmapHost{kHost, kBlock}, &answer), CUDA_SUCCESS);
  EXPECT_EQ(map_told(1, kHost + kToldBytes), CUDA_SUCCESS);
}

TEST_F(ToldMemory, comes_ahead_of_the_word_that_says_what_work_changed_it) {
  ASSERT_EQ(map_told(4), CUDA_SUCCESS);
  for (uint32_t i = 1; i <= 100; ++i) {
    ASSERT_TRUE(client_.reach(kTestLegacy, add(1, 1)));
    ASSERT_EQ(read_all(), (std::map<uint64_t, uint32_t>{{0, i}})) << "only the page that has changed";
  }
  ASSERT_TRUE(client_.reach(kTestLegacy, add(1, 0)));
  EXPECT_EQ(unread_bytes(), 0u) << "nothing has changed";
  expect_no_error();
}

TEST_F(ToldMemory, is_told_while_work_changes_it_as_fast_as_the_client_reads) {
  ASSERT_EQ(map_told(1), CUDA_SUCCESS);
  const uint64_t last = tick(300);
  for (uint32_t before = 0, round = 0; round < 3; ++round) {
    await_page();
    sleep_us(20'000);
    size_t records = 0;
    const uint32_t word = read_all(&records)[0];
    EXPECT_EQ(records, 1u) << "the rest waits until this is read";
    EXPECT_GT(word, before);
    before = word;
  }
  ASSERT_TRUE(client_.reach(kTestLegacy, last));
  EXPECT_EQ(read_all()[0], 300u);
}

TEST_F(ToldMemory, a_client_that_does_not_read_makes_no_queue) {
  constexpr uint64_t kPages = kToldBlockBytes / kHostPage;
  ASSERT_EQ(map_told(kPages), CUDA_SUCCESS);
  const auto resident = [&] {
    std::ifstream file("/proc/" + std::to_string(worker_.pid()) + "/statm");
    uint64_t all = 0, here = 0, shared = 0;
    file >> all >> here >> shared;
    return (here - shared) * kHostPage;
  };
  uint64_t last = 0;
  uint32_t sum = 0;
  const auto go_on = [&] {
    last = add(kToldBlockBytes / 4, 1);
    ++sum;
    sleep_us(300);
  };
  while (unread_bytes() < kAnswerRingBytes - 2 * kToldBlockBytes && sum < 50'000) go_on();
  for (int i = 0; i < 100; ++i) go_on();
  const uint64_t before = resident();
  for (int i = 0; i < 400; ++i) go_on();
  EXPECT_LT(client_.page().stream_progress[kTestLegacy].load(), last) << "the ring has room for everything";
  EXPECT_LT(resident(), before + (4u << 20)) << "it would be 26 MB";
  while (client_.page().stream_progress[kTestLegacy].load() < last) read_all();
  std::map<uint64_t, uint32_t> words = read_all();
  ASSERT_TRUE(client_.reach(kTestLegacy, add(kToldBlockBytes / 4, 1)));
  words = read_all();
  ASSERT_EQ(words.size(), kPages);
  for (const auto& [page, word] : words) EXPECT_EQ(word, sum + 1) << page;
  expect_no_error();
}

TEST_F(WorkerTest, holds_its_client_until_told_and_says_when_all_is_done) {
  const auto quiet = [&] {
    ControlMessage message;
    send_control(worker_.control(), ControlType::kStats, nullptr, 0);
    EXPECT_TRUE(worker_.await(ControlType::kStatsReply, &message));
    const auto* stats = message.as<ControlStats>();
    return stats != nullptr && stats->quiet == 1;
  };
  const auto becomes = [](auto&& true_now) {
    for (int i = 0; i < 2'000 && !true_now(); ++i) sleep_us(1'000);
    return true_now();
  };
  const Word& held = client_.page().held;
  ControlMessage message;
  ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  ASSERT_TRUE(worker_.await(ControlType::kServing, &message));
  EXPECT_TRUE(becomes(quiet));
  send_control(worker_.control(), ControlType::kHold, ControlHold{.on = 1});
  EXPECT_TRUE(becomes([&] { return held.load() == 1; }));
  client_.send(Call::tideWaitSignal, command::WaitSignal{9, 0, 42}, kTestLegacy);
  ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS) << "what comes is executed all the same";
  EXPECT_FALSE(quiet()) << "a stream waits for what another vGPU may have to do";
  client_.region().client().signals[9].store(42);
  EXPECT_TRUE(becomes(quiet));
  send_control(worker_.control(), ControlType::kHold, ControlHold{.on = 0});
  EXPECT_TRUE(becomes([&] { return held.load() == 0; }));
}

TEST_F(WorkerTest, tells_its_agent_what_it_holds) {
  map(6u << 20);
  ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  client_.region().client().counters.commands.store(17);
  ControlMessage message;
  ASSERT_TRUE(worker_.await(ControlType::kServing, &message));
  send_control(worker_.control(), ControlType::kStats, nullptr, 0);
  ASSERT_TRUE(worker_.await(ControlType::kStatsReply, &message));
  const auto* stats = message.as<ControlStats>();
  ASSERT_NE(stats, nullptr);
  EXPECT_EQ(stats->resident_bytes, 6u << 20);
  EXPECT_EQ(stats->commands, 17u);
  EXPECT_STREQ(stats->transport, "shm");
}

// A second message that comes while the worker is about to nap again must not wait for the nap's end.
TEST_F(WorkerTest, whatever_the_moment_a_message_ends_a_nap) {
  constexpr uint64_t kStillUs = 1'500'000;  // after that naps take almost 200 ms
  ControlMessage message;
  ASSERT_EQ(client_.call(uint16_t(Call::tideNull), {}, nullptr), CUDA_SUCCESS);
  ASSERT_TRUE(worker_.await(ControlType::kServing, &message));
  sleep_us(kStillUs);
  int late = 0, stalled = 0;  // the second: of this thread, which nobody has to wake
  for (int i = 0; i < 4'000; ++i) {
    send_control(worker_.control(), ControlType::kStats, nullptr, 0);
    ASSERT_TRUE(worker_.await(ControlType::kStatsReply, &message));
    const uint64_t then = now_ns() + uint64_t(i % 80) * 500;
    while (now_ns() < then) continue;
    stalled += now_ns() > then + 20'000'000;
    const uint64_t begin = now_ns();
    send_control(worker_.control(), ControlType::kStats, nullptr, 0);
    ASSERT_TRUE(worker_.await(ControlType::kStatsReply, &message));
    late += now_ns() - begin > 100'000'000;
  }
  EXPECT_LE(late, 1 + 2 * stalled);
}

}  // namespace
}  // namespace tide
