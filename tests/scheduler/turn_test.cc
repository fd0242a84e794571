// Jobs that take turns on GPUs which are too few, with agents that only pretend to keep them.

#include <capnp/message.h>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Turns : public PoolFixture {
 protected:
  // A scheduler with these turns; each server has one GPU, unless it is said.
  void begin(const std::string& turns, uint32_t gpus = 1) {
    stop();
    turns_ = turns;
    start();
    add_server("node0", gpus);
  }
  Submitted add(uint32_t gpus = 1, bool no_turns = false, const char* queue = "") {
    Submitted job;
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(gpus);
    request.getSpec().setMinGpus(gpus);
    request.getSpec().setNoTurns(no_turns);
    request.getSpec().setQueue(queue);
    auto answer = request.send().wait(io_.waitScope);
    job.id = answer.getId();
    job.token = std::string(reinterpret_cast<const char*>(answer.getToken().begin()), answer.getToken().size());
    job.handle = answer.getHandle();
    return job;
  }
  std::string reason(const std::string& id) {
    auto request = peer_->pool.jobRequest();
    request.setJob(id);
    return request.send().wait(io_.waitScope).getJob().getReason();
  }
  void wait_for_reason(const std::string& id, const std::string& part) {
    for (int i = 0; i < 1000 && reason(id).find(part) == std::string::npos; ++i) pause(10);
    EXPECT_NE(reason(id).find(part), std::string::npos) << reason(id);
  }
  size_t count(const std::string& begin) const {
    return size_t(std::count_if(log_.calls.begin(), log_.calls.end(),
                                [&](const std::string& call) { return call.rfind(begin, 0) == 0; }));
  }
  // The jobs that came to GPU 0, in order.
  std::string order() const {
    std::string ids;
    for (const std::string& call : log_.calls) {
      const bool comes = call.rfind("place ", 0) == 0 || call.rfind("prepare ", 0) == 0;
      if (comes && call.find("on node0/0 ") != std::string::npos) ids += call.substr(call.find(' ') + 1, 1);
    }
    return ids;
  }
  void wait_for_order(const std::string& ids) {
    for (int i = 0; i < 1000 && order().size() < ids.size(); ++i) pause(10);
    EXPECT_EQ(order().substr(0, ids.size()), ids);
  }

  MoveTotals totals_;
  std::string queued_;
};

TEST_F(Turns, two_jobs_on_one_gpu) {
  begin("300ms");
  const Submitted first = add(), second = add();
  wait_for(second.id, "running on node0/0");
  EXPECT_EQ(describe(first.id), "suspended on node0/parked");
  EXPECT_EQ(reason(first.id).rfind("waits for its turn, ", 0), 0u) << reason(first.id);
  EXPECT_EQ(reason(second.id).rfind("has its turn for about ", 0), 0u) << reason(second.id);
  wait_for(first.id, "running on node0/0");
  EXPECT_EQ(describe(second.id), "suspended on node0/parked");
  wait_for(second.id, "running on node0/0");
  EXPECT_EQ(log_.moves_at_once_max, 1u);
}

TEST_F(Turns, without_them_nobody_leaves) {
  begin("off");
  const Submitted first = add(), second = add();
  pause(800);
  EXPECT_EQ(describe(first.id), "running on node0/0");
  EXPECT_EQ(describe(second.id), "queued: needs 1 GPU; 0 of 1 can be free while the jobs before it keep their minimum");
}

TEST_F(Turns, who_has_waited_longest_is_next) {
  begin("100ms");
  const Submitted a = add(), b = add(), c = add();
  wait_for_order("12");
  const Submitted d = add();
  wait_for_order("1231423142314");
}

TEST_F(Turns, where_nobody_waits_nobody_leaves) {
  begin("50ms", 2);
  const Submitted first = add(), second = add();
  wait_for(second.id, "running on node0/1");
  const size_t calls = log_.calls.size();
  pause(600);
  EXPECT_EQ(log_.calls.size(), calls) << log_.calls.back();
  EXPECT_EQ(reason(first.id), "");
}

TEST_F(Turns, all_gpus_of_a_job_go_together) {
  begin("300ms", 2);
  log_.move_ms = 50;
  const Submitted first = add(2), second = add(2);
  for (int round = 0; round < 2; ++round) {
    wait_for(second.id, "running on node0/0 node0/1");
    EXPECT_EQ(describe(first.id), "suspended on node0/parked node0/parked");
    wait_for(first.id, "running on node0/0 node0/1");
    EXPECT_EQ(describe(second.id), "suspended on node0/parked node0/parked");
  }
  EXPECT_GT(count("hold 1:0"), 0u) << "they may be waiting for each other";
  EXPECT_TRUE(log_.held.empty());
}

TEST_F(Turns, who_is_excluded_waits_for_its_gpu_and_keeps_it) {
  begin("100ms");
  Submitted first = add(), second = add(1, true);
  wait_for(second.id, "running on node0/0");
  pause(600);
  EXPECT_EQ(describe(second.id), "running on node0/0");
  EXPECT_EQ(describe(first.id), "suspended on node0/parked");
  EXPECT_EQ(reason(first.id),
            "waits to run again: needs 1 GPU; 0 of 1 can be free while the jobs before it keep their minimum");
  second.handle = nullptr;
  wait_for(first.id, "running on node0/0");
}

TEST_F(Turns, what_somebody_suspends_takes_none) {
  begin("200ms");
  const Submitted first = add(), second = add();
  wait_for(second.id, "running on node0/0");
  EXPECT_EQ(suspend(first.id, &totals_), "");
  pause(600);
  EXPECT_EQ(describe(first.id), "suspended on node0/parked");
  EXPECT_EQ(reason(first.id), "kept without a GPU until `tide resume 1`");
  EXPECT_EQ(describe(second.id), "running on node0/0");
  EXPECT_EQ(resume(first.id, &totals_, &queued_), "");
  wait_for(first.id, "running on node0/0");
  wait_for(second.id, "running on node0/0");
}

TEST_F(Turns, a_queue_takes_back_what_it_is_owed_and_gives_it_again) {
  queues_.resize(2);
  queues_[0].name = "owner";
  queues_[0].quota = 1;
  queues_[1].name = "other";
  begin("off");
  log_.move_ms = 200;
  const Submitted first = add(1, false, "other");
  wait_for(first.id, "running on node0/0");
  Submitted second = add(1, false, "owner");
  wait_for_reason(first.id, "gives its GPUs to job 2, whose queue is owed them: it is being suspended");
  wait_for(second.id, "running on node0/0");
  wait_for_reason(first.id, "waits to run again");
  second.handle = nullptr;
  wait_for(first.id, "running on node0/0");
  EXPECT_EQ(order(), "121");
}

TEST_F(Turns, who_suspends_or_resumes_what_leaves_is_heard) {
  begin("200ms");
  log_.move_ms = 400;
  const Submitted first = add(), second = add();
  wait_for_reason(first.id, "its turn is over: it is being suspended");
  EXPECT_EQ(resume(first.id, &totals_, &queued_), "");
  EXPECT_NE(queued_, "") << "its turn is over all the same";
  wait_for(first.id, "running on node0/0");
  wait_for_reason(first.id, "its turn is over: it is being suspended");
  EXPECT_EQ(suspend(first.id, &totals_), "");
  EXPECT_EQ(reason(first.id), "kept without a GPU until `tide resume 1`");
  pause(1200);
  EXPECT_EQ(describe(first.id), "suspended on node0/parked");
  EXPECT_EQ(describe(second.id), "running on node0/0");
}

TEST_F(Turns, where_it_cannot_be_kept_it_runs_on_and_turns_get_longer) {
  begin("100ms");
  log_.room["node0"] = 0;
  const Submitted first = add(), second = add();
  wait_for_reason(first.id, "it runs on: virtual GPU 0 could not be kept on node0: the disk of node0 is full");
  while (count("prepare 1:0 on node0/parked") < 3) pause(10);
  log_.room.clear();
  wait_for(second.id, "running on node0/0");
  wait_for(first.id, "running on node0/0");
  wait_for_reason(first.id, "times as long, because switching failed or was not worth it");
}

TEST_F(Turns, what_is_not_worth_it_ends_in_one_after_the_other) {
  begin("10ms");
  log_.move_ms = 60;
  Submitted first = add(), second = add();
  wait_for_reason(first.id, "keeps its GPUs until it ends: taking turns failed or was not worth it too often");
  wait_for_reason(second.id, "waits to run again: needs 1 GPU");
  const size_t calls = log_.calls.size();
  pause(500);
  EXPECT_EQ(log_.calls.size(), calls) << log_.calls.back();
  first.handle = nullptr;
  wait_for(second.id, "running on node0/0");
}

TEST_F(Turns, a_resume_that_fails_keeps_no_gpu_from_others) {
  begin("100ms");
  const Submitted first = add(), second = add();
  wait_for(first.id, "suspended on node0/parked");
  log_.fail["move"] = "the file is gone";
  pause(700);
  log_.fail.clear();
  wait_for(first.id, "running on node0/0");
  wait_for(second.id, "running on node0/0");
}

TEST_F(Turns, a_restarted_scheduler_goes_on) {
  begin("400ms", 2);
  log_.move_ms = 300;
  Submitted first = add(2), second = add(2), third = add(2);
  while (log_.gpus[{first.id, 0}] != kParked) pause(20);
  EXPECT_EQ(reason(first.id), "its turn is over: it is being suspended");
  restart({&first, &second, &third}, {"node0"}, 2);
  wait_for(second.id, "running on node0/0 node0/1");
  EXPECT_EQ(describe(first.id), "suspended on node0/parked node0/parked");
  wait_for_reason(first.id, "waits for its turn, ");
  restart({&first, &second, &third}, {"node0"}, 2);
  wait_for(third.id, "running on node0/0 node0/1");
  wait_for(first.id, "running on node0/0 node0/1");
  wait_for(second.id, "running on node0/0 node0/1");
}

TEST_F(Turns, the_end_of_a_job_leaves_nothing) {
  begin("100ms");
  Submitted first = add(), second = add(), third = add();
  wait_for(third.id, "running on node0/0");
  first.handle = nullptr;
  third.handle = nullptr;
  wait_for(first.id, "ended: its `tide run` is gone");
  wait_for(third.id, "ended: its `tide run` is gone");
  wait_for(second.id, "running on node0/0");
  pause(300);
  EXPECT_EQ(log_.leases.size(), 1u);
  EXPECT_EQ(reason(second.id), "");
}

}  // namespace
}  // namespace tide::sched
