// Two sessions of one vGPU, and the agent between them played by the test.

#include "server/sharing.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>

namespace tide {
namespace {

constexpr uint64_t kOne = 111, kOther = 222;  // recorders

TEST(SharedEvent, IsDoneWhenItsRecordIs) {
  const auto event = SharedEvent::make();
  const auto seen = SharedEvent::open(dup(event->fd()));
  ASSERT_NE(seen, nullptr);
  EXPECT_EQ(seen->last(), 0u);
  const uint64_t first = event->begin(kOne);
  EXPECT_EQ(seen->last(), first);
  EXPECT_EQ(seen->recorder(first), kOne);
  EXPECT_FALSE(seen->done(first));
  const uint64_t second = seen->begin(kOther);
  seen->complete(second);
  EXPECT_TRUE(event->done(second));
  EXPECT_FALSE(event->done(first)) << "another process's later record says nothing about an earlier one";
  event->complete(first);
  EXPECT_TRUE(seen->done(first));
}

TEST(SharedEvent, ForgetsNothingWhenRecordsGoRound) {
  const auto event = SharedEvent::make();
  for (int i = 0; i < 1000; ++i) {
    const uint64_t record = event->begin(kOne);
    EXPECT_FALSE(event->done(record));
    event->complete(record);
    EXPECT_TRUE(event->done(record));
  }
}

TEST(SharedEvent, WhoEndsHasCompletedItsRecordsOnly) {
  const auto event = SharedEvent::make();
  const uint64_t ours = event->begin(kOne), theirs = event->begin(kOther), ours_again = event->begin(kOne);
  event->recorder_ended(kOther);
  EXPECT_FALSE(event->done(ours));
  EXPECT_TRUE(event->done(theirs));
  EXPECT_FALSE(event->done(ours_again));
  event->recorder_ended(kOne);
  EXPECT_TRUE(event->done(ours_again));
}

TEST(SharedEvent, OpensNothingElse) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  EXPECT_EQ(SharedEvent::open(pipe_ends[0]), nullptr);
  close(pipe_ends[1]);
  const int empty = memfd_create("empty", 0);
  EXPECT_EQ(ftruncate(empty, 4096), 0);
  EXPECT_EQ(SharedEvent::open(empty), nullptr);
}

struct Two : ::testing::Test {
  struct Sent {
    ControlType type;
    ControlShared message;
    std::vector<int> fds;
  };
  struct Side {
    Side() : memory(library, contexts), sharing(memory) {}
    DriverLibrary library;
    Contexts contexts;
    Memory memory;
    Sharing sharing;
    std::deque<Sent> sent;
  };
  void SetUp() override {
    start(owner, owner_id);
    start(asker, asker_id);
  }
  static void start(Side& side, const SessionId& id) {
    side.sharing.start(id, [&side](ControlType type, const ControlShared& message, const int* fds, int count) {
      std::vector<int> copies;
      for (int i = 0; i < count; ++i) copies.push_back(dup(fds[i]));
      side.sent.push_back({type, message, copies});
      return true;
    });
  }
  // The agent carries what has been said.
  void carry() {
    ASSERT_EQ(asker.sent.size(), 1u);
    ASSERT_EQ(asker.sent[0].type, ControlType::kAskShared);
    owner.sharing.asked(asker.sent[0].message);
    asker.sent.clear();
    for (const Sent& sent : owner.sent) {
      ControlMessage message;
      message.type = sent.type;
      message.bytes = sizeof(sent.message);
      memcpy(message.payload, &sent.message, sizeof(sent.message));
      std::fill(std::begin(message.fds), std::end(message.fds), -1);
      std::copy(sent.fds.begin(), sent.fds.end(), message.fds);
      asker.sharing.answered(&message);
    }
    owner.sent.clear();
  }
  const SessionId owner_id{1, 2}, asker_id{3, 4};
  Side owner, asker;
};

TEST_F(Two, AnEventIsFoundByItsOwnerAndName) {
  const auto event = SharedEvent::make();
  ASSERT_EQ(owner.sharing.share_event(7, event), CUDA_SUCCESS);
  EXPECT_EQ(owner.sharing.share_event(7, event), CUDA_ERROR_INVALID_VALUE);
  std::shared_ptr<SharedEvent> opened;
  EXPECT_EQ(asker.sharing.open_event({owner_id, 7}, &opened), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(asker.sharing.open_event({owner_id, 7}, &opened), CUDA_ERROR_NOT_READY);
  carry();
  EXPECT_EQ(asker.sharing.open_event({owner_id, 7}, &opened), CUDA_SUCCESS);
  ASSERT_NE(opened, nullptr);
  const uint64_t record = event->begin(kOne);
  EXPECT_EQ(opened->last(), record);
  EXPECT_NE(owner.sharing.obstacle(), nullptr);
  EXPECT_NE(asker.sharing.obstacle(), nullptr);
  opened = nullptr;
  owner.sharing.unshare(7);
  EXPECT_EQ(owner.sharing.obstacle(), nullptr);
  EXPECT_EQ(asker.sharing.obstacle(), nullptr);
}

TEST_F(Two, AnEventIsNoMemoryAndNothingIsNothing) {
  ASSERT_EQ(owner.sharing.share_event(7, SharedEvent::make()), CUDA_SUCCESS);
  std::shared_ptr<Physical> memory;
  EXPECT_EQ(asker.sharing.open_physical({owner_id, 7}, kChunkBytes, &memory), CUDA_ERROR_NOT_READY);
  carry();
  EXPECT_EQ(asker.sharing.open_physical({owner_id, 7}, kChunkBytes, &memory), CUDA_ERROR_INVALID_HANDLE);
  std::shared_ptr<SharedEvent> event;
  EXPECT_EQ(asker.sharing.open_event({owner_id, 8}, &event), CUDA_ERROR_NOT_READY);
  carry();
  EXPECT_EQ(asker.sharing.open_event({owner_id, 8}, &event), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(owner.sharing.open_event({owner_id, 8}, &event), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(owner.sharing.open_event({owner_id, 7}, &event), CUDA_SUCCESS);
}

TEST_F(Two, AnOwnerThatEndsAnswersNobody) {
  const auto event = SharedEvent::make();
  asker.sharing.watch(event);
  const uint64_t record = event->begin(owner_id.low);
  std::shared_ptr<SharedEvent> opened;
  EXPECT_EQ(asker.sharing.open_event({owner_id, 7}, &opened), CUDA_ERROR_NOT_READY);
  asker.sharing.ended(asker_id);
  EXPECT_EQ(asker.sharing.open_event({owner_id, 7}, &opened), CUDA_ERROR_NOT_READY);
  EXPECT_FALSE(event->done(record));
  asker.sharing.ended(owner_id);
  EXPECT_EQ(asker.sharing.open_event({owner_id, 7}, &opened), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_TRUE(event->done(record));
}

}  // namespace
}  // namespace tide
