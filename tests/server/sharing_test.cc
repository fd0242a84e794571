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

// Both sides go elsewhere; there the one who had opened it asks the one who had made it.
TEST_F(Two, AnEventComesToTheOtherSideOfAMoveAsItWas) {
  Contexts contexts;
  DriverLibrary library;
  const auto made = SharedEvent::make();
  owner.sharing.name_event(*made);
  for (int i = 0; i < 100; ++i) made->complete(made->begin(kOne));
  BlobWriter of_owner, of_asker;
  for (BlobWriter* state : {&of_owner, &of_asker}) {
    state->put(uint64_t{0});  // pieces
    state->put(uint64_t{2});  // the next number
    state->put(uint64_t{1});  // events
    state->put(uint32_t{4});
    state->put(made->maker());
    state->put(made->last());
    state->put(uint64_t(state == &of_owner ? 1 : 0));  // names
    if (state == &of_owner) state->put(uint64_t{77}), state->put(uint64_t{0}), state->put(uint64_t{0});
    if (state == &of_owner) state->put(uint32_t{4});
    state->put(uint64_t{0});  // memory of others
  }
  Side there_owner, there_asker;
  start(there_owner, owner_id);
  // Each answers at once, as if the agent were between them.
  there_asker.sharing.start(asker_id, [&](ControlType type, const ControlShared& question, const int*, int) {
    EXPECT_EQ(type, ControlType::kAskShared);
    there_owner.sharing.asked(question);
    Sent sent = there_owner.sent.front();
    there_owner.sent.pop_front();
    ControlMessage message;
    message.type = sent.type;
    message.bytes = sizeof(sent.message);
    memcpy(message.payload, &sent.message, sizeof(sent.message));
    std::fill(std::begin(message.fds), std::end(message.fds), -1);
    std::copy(sent.fds.begin(), sent.fds.end(), message.fds);
    there_asker.sharing.post(&message);
    return true;
  });
  BlobReader first(of_owner.bytes()), second(of_asker.bytes());
  ASSERT_TRUE(there_owner.sharing.restore(&first).ok());
  const Outcome restored = there_asker.sharing.restore(&second);
  ASSERT_TRUE(restored.ok()) << restored.message();
  const auto here = there_owner.sharing.restored_event(4), seen = there_asker.sharing.restored_event(4);
  ASSERT_TRUE(here != nullptr && seen != nullptr);
  EXPECT_EQ(seen->last(), 100u);
  for (uint64_t record = 90; record <= 100; ++record) EXPECT_TRUE(seen->done(record));
  const uint64_t next = here->begin(kOther);
  EXPECT_EQ(seen->last(), next);
  EXPECT_FALSE(seen->done(next));
  std::shared_ptr<SharedEvent> again;
  EXPECT_EQ(there_owner.sharing.open_event({owner_id, 77}, &again), CUDA_SUCCESS) << "its name means the same";
  EXPECT_EQ(there_asker.sharing.move_obstacle(), nullptr);
  there_asker.sharing.ended(owner_id);
  EXPECT_NE(there_asker.sharing.move_obstacle(), nullptr) << "nobody makes it again elsewhere";
  // Who made it has ended meanwhile: it is there no more, which is no reason to wait.
  Side late;
  late.sharing.start(asker_id, [&](ControlType, const ControlShared& question, const int*, int) {
    ControlMessage message;
    message.type = ControlType::kSessionEnded;
    message.bytes = sizeof(SessionId);
    memcpy(message.payload, &question.owner, sizeof(SessionId));
    std::fill(std::begin(message.fds), std::end(message.fds), -1);
    late.sharing.post(&message);
    return true;
  });
  BlobReader third(of_asker.bytes());
  EXPECT_FALSE(late.sharing.restore(&third).ok());
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
