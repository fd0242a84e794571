// The journal of decisions of a scheduler that runs.

#include <filesystem>
#include <fstream>

#include "scheduler/policy.h"
#include "scheduler/replay.h"
#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Decisions : public PoolFixture {
 protected:
  std::string fetch(const Which& which, bool now, Snapshot* snapshot) {
    auto request = peer_->pool.snapshotRequest();
    request.setNumber(which.number);
    request.setAtMs(which.at_ms);
    request.setNow(now);
    std::string bytes, error;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                   auto pieces = request.send().wait(io_.waitScope).getPieces();
                   for (;;) {
                     const auto answer = pieces.nextRequest().send().wait(io_.waitScope);
                     if (answer.getPiece().size() == 0) break;
                     bytes.append(reinterpret_cast<const char*>(answer.getPiece().begin()), answer.getPiece().size());
                   }
                 })) {
      return exception->getDescription().cStr();
    }
    return from_bytes(bytes, snapshot).message();
  }
  std::string history(const std::string& job) {
    auto request = peer_->pool.decisionsRequest();
    request.setJob(job);
    const auto answer = request.send().wait(io_.waitScope);
    std::string text;
    for (const auto each : answer.getDecisions())
      text += (text.empty() ? "" : "; ") + std::to_string(each.getNumber()) + " " + each.getWhat().cStr();
    return text;
  }
  uint64_t last() { return peer_->pool.decisionsRequest().send().wait(io_.waitScope).getJournal().getLast(); }
  static uint32_t different(const Snapshot& snapshot) {
    uint32_t count = 0;
    for (const Replayed& each : replay(snapshot, assign(snapshot.state))) count += each.same ? 0 : 1;
    return count;
  }
};

TEST_F(Decisions, are_recorded_and_come_out_equal_when_they_are_replayed) {
  add_server("node0", 4);
  const Submitted wide = run(4);
  Submitted narrow = run(2), waiting;
  EXPECT_EQ(submit(4, 4, &waiting), "");
  wait_for(waiting.id, describe(waiting.id));
  narrow.handle = nullptr;
  wait_for(wide.id, "running on node0/0 node0/1 node0/2 node0/3");
  Snapshot snapshot;
  ASSERT_EQ(fetch({}, false, &snapshot), "");
  const uint64_t count = snapshot.number;
  EXPECT_GE(count, 4u);
  for (uint64_t number = 1; number <= count; ++number) {
    ASSERT_EQ(fetch({.number = number}, false, &snapshot), "");
    EXPECT_EQ(snapshot.number, number);
    EXPECT_EQ(different(snapshot), 0u) << number;
    EXPECT_FALSE(snapshot.answer.empty()) << number;
  }
  EXPECT_EQ(history(wide.id).rfind("1 starts on node0/0, node0/1, node0/2, node0/3; 2 shrinks from 4 to 2 GPUs: ", 0),
            0u)
      << history(wide.id);
  EXPECT_EQ(history(waiting.id).find_first_not_of("0123456789 waits;"), std::string::npos) << history(waiting.id);
  ASSERT_EQ(fetch({}, true, &snapshot), "");
  EXPECT_EQ(snapshot.number, 0u);
  EXPECT_EQ(snapshot.state.jobs.size(), 2u);
  EXPECT_NE(fetch({.number = count + 5}, false, &snapshot), "");
}

TEST_F(Decisions, rounds_that_decide_nothing_are_not_recorded) {
  add_server("node0", 2);
  const Submitted job = run(2);
  Submitted waiting;
  EXPECT_EQ(submit(2, 2, &waiting), "");
  pause(50);
  const uint64_t before = last();
  for (int i = 0; i < 5; ++i) {
    daemon_->core().reconciler.poke();
    pause(10);
  }
  EXPECT_EQ(last(), before);
}

TEST_F(Decisions, numbers_go_on_after_a_restart) {
  add_server("node0", 2);
  Submitted job = run(1);
  pause(50);
  const uint64_t before = last();
  restart({&job}, {"node0"}, 2);
  const Submitted other = run(1);
  pause(50);
  EXPECT_GT(last(), before);
  EXPECT_EQ(history(job.id).rfind("1 starts on node0/0", 0), 0u);
}

TEST_F(Decisions, a_journal_that_cannot_be_written_stops_nobody_and_is_said) {
  add_server("node0", 4);
  (void)run(1);
  const std::string directory = directory_ + "/state/decisions";
  std::filesystem::remove_all(directory);
  std::ofstream(directory) << "in the way";
  // The file that it writes to is gone, but still open to be made again: not where a file is in the way.
  const Submitted second = run(1);
  EXPECT_EQ(describe(second.id), "running on node0/1");
  pause(50);
  const auto journal = peer_->pool.decisionsRequest().send().wait(io_.waitScope);
  EXPECT_NE(std::string(journal.getJournal().getProblem()), "");
  EXPECT_EQ(journal.getJournal().getLeftOut(), 1u);
  std::filesystem::remove(directory);
  (void)run(1);
  pause(50);
  EXPECT_EQ(std::string(peer_->pool.decisionsRequest().send().wait(io_.waitScope).getJournal().getProblem()), "");
}

}  // namespace
}  // namespace tide::sched
