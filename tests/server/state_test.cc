// The state of a session, written and made again: the object table must come out the same.

#include "server/state.h"

#include <gtest/gtest.h>

#include "calls.h"
#include "commands.h"
#include "tests/server/client.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(5);

class StateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Outcome opened = open_driver(&library_);
    ASSERT_TRUE(opened.ok()) << opened.message();
    begin();
  }
  void TearDown() override { end(); }
  void begin() {
    session_ = std::make_unique<Session>(library_);
    const Outcome started = session_->start(5, 1u << 30);
    ASSERT_TRUE(started.ok()) << started.message();
  }
  // Both lives use the same addresses of this process, so the first must be gone before the second.
  void end() {
    if (session_ == nullptr) return;
    std::vector<uint64_t> numbers;
    for (const auto& [number, library] : session_->libraries().all()) numbers.push_back(number);
    for (const uint64_t number : numbers) session_->libraries().unload(number);
    session_.reset();
  }
  template <class C>
  void run(Call call, const C& command, const std::string& data = "", uint32_t context = kTestContext) {
    std::vector<std::byte> payload((sizeof(C) + 15) / 16 * 16 + data.size());
    memcpy(payload.data(), &command, sizeof(C));
    if (!data.empty()) memcpy(payload.data() + payload.size() - data.size(), data.data(), data.size());
    run_raw(call, payload, context);
  }
  void run_raw(Call call, const std::vector<std::byte>& payload, uint32_t context = kTestContext) {
    CommandHeader header;
    header.call = uint16_t(call);
    header.sequence = session_->sequence() + 1;
    header.context = context;
    header.stream = kNoStream;
    header.payload_bytes = uint32_t(payload.size());
    ASSERT_TRUE(session_->execute(header, payload.data()));
    ASSERT_EQ(session_->error_count(), 0u) << call_name(header.call);
  }
  // One of everything, and some things that have ended.
  void fill() {
    run(Call::tideCreateContext, command::CreateContext{kTestContext, kTestLegacy, 0, 1});
    run(Call::tideCreateContext, command::CreateContext{2, 1, 0, 0});
    for (uint32_t slot = 10; slot < 20; ++slot) run(Call::tideCreateStream, command::CreateStream{slot, 0, 0, 0});
    for (uint32_t slot = 10; slot < 20; slot += 3) run(Call::tideDestroyStream, command::DestroyStream{slot, 0});
    for (uint32_t slot = 0; slot < 5; ++slot) run(Call::tideCreateEvent, command::CreateEvent{slot, 0}, "", 2);
    for (uint64_t number = 1; number <= 3; ++number) {
      const std::string image = kTestImage;
      run(Call::tideStage, command::Stage{number, image.size(), 0, image.size()}, image);
      run(Call::tideLoadLibrary, command::LoadLibrary{number, number});
    }
    run(Call::tideUnloadLibrary, command::UnloadLibrary{2});
    run(Call::tideGlobal, command::Global{3, 7}, "counter");
    run_raw(Call::cuCtxSetLimit, bytes_of({0, 1024}));
    run_raw(Call::cuCtxSetLimit, bytes_of({0, 2048}));
    run_raw(Call::cuCtxSetLimit, bytes_of({0, 1024}));
    run_raw(Call::cuKernelSetAttribute, bytes_of({8, 4096, uint64_t{3} << 32, 0}));
    run(Call::tideMapMemory, command::MapMemory{kBase, 100u << 20});
    run(Call::tideUnmapMemory, command::UnmapMemory{kBase + (10u << 20), 4u << 20});
    run(Call::tideStage, command::Stage{77, 1000, 0, 4}, "half");
  }
  using Row = std::tuple<ObjectKind, uint16_t, uint32_t, uint32_t, uint64_t, uint64_t, std::vector<std::byte>>;
  std::vector<Row> rows() {
    std::vector<Row> all;
    for (const auto& [id, o] : session_->objects().all()) {
      all.emplace_back(o.kind, o.call, o.context, o.stream, o.key, o.library, o.payload);
    }
    return all;
  }

  DriverLibrary library_;
  std::unique_ptr<Session> session_;
};

TEST_F(StateTest, the_object_table_holds_what_exists_in_order) {
  fill();
  std::vector<std::pair<ObjectKind, uint64_t>> kinds;
  for (const auto& [id, o] : session_->objects().all()) kinds.emplace_back(o.kind, o.key);
  using K = ObjectKind;
  const std::vector<std::pair<K, uint64_t>> expected = {
      {K::kContext, 1}, {K::kContext, 2}, {K::kStream, 11}, {K::kStream, 12}, {K::kStream, 14}, {K::kStream, 15},
      {K::kStream, 17}, {K::kStream, 18}, {K::kEvent, 0},   {K::kEvent, 1},   {K::kEvent, 2},   {K::kEvent, 3},
      {K::kEvent, 4},   {K::kLibrary, 1}, {K::kLibrary, 3}, {K::kState, 0},   {K::kState, 0},   {K::kState, 0}};
  EXPECT_EQ(kinds, expected);  // the first of the equal limits was replaced by the last
}

TEST_F(StateTest, a_session_made_again_is_equal) {
  fill();
  const std::vector<std::byte> state = write_state(*session_);
  const std::vector<ImageBytes> images = images_of(*session_);
  const auto before = rows();
  const auto ranges = session_->memory().ranges();
  const uint64_t image = session_->libraries().find(3)->image_base;
  end();
  ASSERT_NO_FATAL_FAILURE(begin());
  const Outcome restored = restore_state(*session_, state, images);
  ASSERT_TRUE(restored.ok()) << restored.message();
  EXPECT_EQ(rows(), before);
  ASSERT_EQ(session_->memory().ranges().size(), ranges.size());
  EXPECT_EQ(session_->memory().mapped_bytes(), 96u << 20);
  EXPECT_EQ(session_->libraries().find(3)->image_base, image);
  EXPECT_EQ(session_->libraries().stages().at(77).received, 4u);
  // And once more the same, but for the time of day in it.
  EXPECT_EQ(write_state(*session_).size(), state.size());
}

TEST_F(StateTest, a_state_that_is_cut_short_is_refused) {
  fill();
  const std::vector<std::byte> state = write_state(*session_);
  const std::vector<ImageBytes> images = images_of(*session_);
  for (size_t bytes = 0; bytes < state.size(); bytes += 1 + state.size() / 40) {
    end();
    ASSERT_NO_FATAL_FAILURE(begin());
    EXPECT_FALSE(restore_state(*session_, std::span(state).first(bytes), images).ok()) << bytes;
  }
}

}  // namespace
}  // namespace tide
