// Jobs that are taken off all GPUs and come back, with agents that only pretend to keep them.

#include <capnp/message.h>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Suspends : public PoolFixture {
 protected:
  // Rounds without an event: a decision that is not stable would do something.
  void expect_idle() {
    const size_t before = log_.calls.size();
    pause(3 * kTickMs);
    EXPECT_EQ(log_.calls.size(), before) << log_.calls.back();
  }
  std::string reason(const std::string& id) {
    auto request = peer_->pool.jobRequest();
    request.setJob(id);
    return request.send().wait(io_.waitScope).getJob().getReason();
  }
  size_t count(const std::string& begin) const {
    return size_t(std::count_if(log_.calls.begin(), log_.calls.end(),
                                [&](const std::string& call) { return call.rfind(begin, 0) == 0; }));
  }

  MoveTotals totals_;
  std::string queued_;
};

TEST_F(Suspends, a_suspended_job_is_on_no_gpu_and_others_get_them) {
  add_server("node0", 2);
  const Submitted first = run(2, 2);
  Submitted second;
  EXPECT_EQ(submit(2, 2, &second), "");
  EXPECT_EQ(suspend(first.id, &totals_), "");
  EXPECT_EQ(totals_.vgpus, 2u);
  EXPECT_EQ(totals_.bytes, 2000u);
  EXPECT_EQ(describe(first.id), "suspended on node0/parked node0/parked");
  EXPECT_EQ(reason(first.id), "kept without a GPU until `tide resume 1`");
  EXPECT_TRUE(called("prepare 1:0 on node0/parked epoch 2"));
  EXPECT_EQ(log_.moves_at_once_max, 1u);
  EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(second.handle).runningRequest().send().ignoreResult()), "");
  EXPECT_EQ(describe(second.id), "running on node0/0 node0/1");
  expect_idle();

  EXPECT_EQ(resume(first.id, &totals_, &queued_), "");
  EXPECT_EQ(queued_, "needs 2 GPUs; 0 of 2 can be free while the jobs before it keep their minimum");
  EXPECT_EQ(describe(first.id), "suspended on node0/parked node0/parked");
  EXPECT_EQ(reason(first.id), "waits to run again: " + queued_);
  expect_idle();
  second.handle = nullptr;
  wait_for(first.id, "running on node0/0 node0/1");
  expect_idle();
  EXPECT_EQ(resume(first.id, &totals_, &queued_), "") << "it runs";
  EXPECT_EQ(queued_, "");
  EXPECT_EQ(totals_.vgpus, 0u);
}

TEST_F(Suspends, resume_returns_when_it_runs_again) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run(1), wide = run(2);
  EXPECT_EQ(suspend(job.id, &totals_), "");
  wait_for(wide.id, "running on node1/0 node0/0");
  EXPECT_EQ(count("hold"), 0u) << "one vGPU alone waits for none";
  EXPECT_EQ(resume(job.id, &totals_, &queued_), "");
  EXPECT_EQ(queued_, "");
  EXPECT_EQ(totals_.vgpus, 1u);
  EXPECT_EQ(totals_.bytes, 1000u);
  EXPECT_EQ(describe(job.id).rfind("running on ", 0), 0u) << describe(job.id);
  EXPECT_EQ(suspend(job.id, &totals_), "") << "and once more";
  EXPECT_EQ(suspend(job.id, &totals_), "") << "it is suspended";
  EXPECT_EQ(totals_.vgpus, 0u);
  wait_for(wide.id, "running on node0/0 node1/0");
  expect_idle();
}

TEST_F(Suspends, programs_of_several_vgpus_are_held_until_all_is_at_rest) {
  add_server("node0", 2);
  const Submitted job = run(2);
  log_.restless = true;
  auto suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  pause(400);
  EXPECT_TRUE(called("hold 1:0 on node0 epoch 1") && called("hold 1:1 on node0 epoch 1"));
  EXPECT_EQ(count("prepare"), 0u) << "it moved while commands came";
  EXPECT_EQ(reason(job.id), "is being suspended");
  log_.restless = false;
  EXPECT_EQ(error_of(kj::mv(suspended)), "");
  EXPECT_EQ(count("let go"), 0u) << "who moves is let go by that";
  EXPECT_EQ(resume(job.id, &totals_, &queued_), "");
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  expect_idle();
}

TEST_F(Suspends, who_is_not_parked_yet_is_held_on) {
  add_server("node0", 2);
  const Submitted job = run(2);
  log_.move_ms = 2600;
  EXPECT_EQ(suspend(job.id, &totals_), "");
  const auto moved = std::find(log_.calls.begin(), log_.calls.end(), "prepare 1:1 on node0/parked epoch 2");
  EXPECT_EQ(std::count(log_.calls.begin(), moved, "hold 1:1 on node0 epoch 1"), 2);
}

TEST_F(Suspends, what_fails_half_way_comes_back_to_its_gpus) {
  add_server("node0", 2);
  const Submitted job = run(2);
  Submitted other;
  log_.room["node0"] = 1;
  log_.move_ms = 30;
  auto suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  pause(20);
  EXPECT_EQ(submit(1, 1, &other), "");
  EXPECT_EQ(error_of(kj::mv(suspended)),
            "job 1 was not suspended, it runs on: virtual GPU 1 could not be kept on node0: the disk of node0 is full");
  EXPECT_TRUE(called("prepare 1:0 on node0/parked epoch 2"));
  // Only when it is back the other one gets what is beyond its minimum.
  EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(other.handle).runningRequest().send().ignoreResult()), "");
  EXPECT_TRUE(called("prepare 1:0 on node0/0 epoch 3")) << "it did not come back";
  const auto back = std::find(log_.calls.begin(), log_.calls.end(), "prepare 1:0 on node0/0 epoch 3");
  const auto placed = std::find_if(log_.calls.begin(), log_.calls.end(),
                                   [](const std::string& call) { return call.rfind("place 2:0", 0) == 0; });
  EXPECT_LT(back, placed);
  wait_for(job.id, "running on node0/0 node0/0");
  pause(100);
  EXPECT_GE(count("let go 1:1 on node0"), 1u);
  EXPECT_TRUE(log_.held.empty());
  expect_idle();
}

TEST_F(Suspends, another_server_keeps_what_its_own_cannot) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run(1);
  log_.room["node0"] = 0;
  EXPECT_EQ(suspend(job.id, &totals_), "");
  EXPECT_EQ(describe(job.id), "suspended on node1/parked");
  EXPECT_EQ(resume(job.id, &totals_, &queued_), "");
  EXPECT_EQ(describe(job.id), "running on node1/0");
  log_.room["node1"] = 0;
  EXPECT_EQ(suspend(job.id, &totals_),
            "job 1 was not suspended, it runs on: virtual GPU 0 could not be kept on node1: the disk of node1 is full; "
            "virtual GPU 0 could not be kept on node0: the disk of node0 is full");
  EXPECT_EQ(describe(job.id), "running on node1/0");
  EXPECT_EQ(reason(job.id), "");
  expect_idle();
}

TEST_F(Suspends, a_server_that_comes_back_has_refused_nothing) {
  add_server("node0", 1);
  const Submitted job = run(1);
  log_.move_ms = 5000;
  auto suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  while (log_.moves_at_once == 0) pause(20);
  lose_server(0);
  pause(100);
  log_.move_ms = 1;
  add_again("node0", 1);
  EXPECT_EQ(error_of(kj::mv(suspended)), "");
  EXPECT_EQ(describe(job.id), "suspended on node0/parked");
  EXPECT_TRUE(called("prepare 1:0 on node0/parked epoch 3"));
  expect_idle();
}

TEST_F(Suspends, a_move_that_goes_on_is_waited_for_but_not_for_ever) {
  add_server("node0", 1);
  const Submitted job = run(1);
  log_.fail["move"] = "the vGPU is being moved already";
  auto suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  pause(400);
  EXPECT_EQ(count("prepare 1:0 on node0/parked"), 1u);
  log_.fail.clear();
  EXPECT_EQ(error_of(kj::mv(suspended)), "");
  EXPECT_EQ(describe(job.id), "suspended on node0/parked");
  EXPECT_EQ(resume(job.id, &totals_, &queued_), "");
  log_.calls.clear();
  log_.fail["move"] = "the vGPU is being moved already";
  suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  for (const uint64_t end = now_ns() + 25'000'000'000; count("prepare") < 5 && now_ns() < end; pause(100)) {
    EXPECT_EQ(error_of(registrations_[0].heartbeatRequest().send().ignoreResult()), "");
  }
  EXPECT_EQ(error_of(kj::mv(suspended)),
            "job 1 was not suspended, it runs on: virtual GPU 0 could not be kept on node0: the vGPU is being moved "
            "already");
  EXPECT_EQ(count("prepare 1:0 on node0/parked"), 5u);
  EXPECT_EQ(describe(job.id), "running on node0/0");
}

TEST_F(Suspends, an_agent_that_knows_no_parking_is_named_with_its_version) {
  add_server("node0", 1);
  const Submitted job = run(1);
  log_.fail["move"] = "this server has no GPU 4294967295";
  EXPECT_EQ(suspend(job.id, &totals_),
            "job 1 was not suspended, it runs on: virtual GPU 0 could not be kept on node0: its tide-agent (version "
            "fake) cannot suspend jobs; update it");
}

TEST_F(Suspends, an_agent_that_cannot_hold_is_named_with_its_version) {
  add_server("node0", 2);
  const Submitted job = run(2);
  log_.old = true;
  EXPECT_EQ(suspend(job.id, &totals_),
            "job 1 was not suspended, it runs on: virtual GPU 0 on server node0 could not be held: its tide-agent "
            "(version fake) cannot suspend jobs with several virtual GPUs; update it");
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  EXPECT_EQ(count("prepare"), 0u);
  expect_idle();
}

TEST_F(Suspends, a_program_stays_held_no_longer_than_it_takes_to_tell_the_agent) {
  add_server("node0", 2);
  const Submitted job = run(2);
  log_.room["node0"] = 0;
  log_.restless = true;
  auto suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  pause(100);
  EXPECT_EQ(log_.held.size(), 2u);
  log_.fail["hold"] = "not now";
  log_.restless = false;
  EXPECT_NE(error_of(kj::mv(suspended)), "");
  pause(50);
  EXPECT_EQ(log_.held.size(), 2u);
  log_.fail.clear();
  pause(1500);
  EXPECT_TRUE(log_.held.empty());
  expect_idle();
}

TEST_F(Suspends, what_makes_no_sense_is_refused_with_the_next_step) {
  add_server("node0", 2);
  const Submitted first = run(2, 2);
  Submitted waiting;
  EXPECT_EQ(submit(2, 2, &waiting), "");
  pause(20);
  EXPECT_EQ(suspend(waiting.id, &totals_), "job 2 has not started, so it holds no GPU; `tide kill 2` ends it");
  EXPECT_EQ(resume(waiting.id, &totals_, &queued_), "job 2 does not run yet; `tide why 2` says why");
  EXPECT_EQ(suspend("9", &totals_), "there is no running job 9; `tide jobs --ended` lists those that ended");
  EXPECT_EQ(suspend(first.id, &totals_), "");
  EXPECT_EQ(resize(first.id, 2, &totals_), "job 1 is suspended; `tide resume 1` gives it GPUs again");
  auto migrate = peer_->pool.migrateRequest();
  migrate.setJob(first.id);
  migrate.setVgpu(-1);
  migrate.setServer("node0");
  EXPECT_EQ(error_of(migrate.send().ignoreResult()), "job 1 is suspended; `tide resume 1` gives it GPUs again");
  wait_for(waiting.id, "running on node0/0 node0/1");
  EXPECT_EQ(resume(first.id, &totals_, &queued_), "");
  EXPECT_NE(queued_, "");
  EXPECT_EQ(resize(first.id, 2, &totals_),
            "job 1 is suspended: after `tide resume` it waits for GPUs; `tide why 1` says why");
  EXPECT_EQ(suspend(first.id, &totals_), "") << "who waits to run again need not";
  EXPECT_EQ(reason(first.id), "kept without a GPU until `tide resume 1`");
}

TEST_F(Suspends, who_is_resumed_on_the_way_comes_back) {
  add_server("node0", 2);
  const Submitted job = run(2, 2);
  log_.move_ms = 200;
  auto suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  pause(350);
  EXPECT_EQ(resume(job.id, &totals_, &queued_), "");
  EXPECT_EQ(queued_, "");
  EXPECT_EQ(error_of(kj::mv(suspended)), "job 1 was resumed before it was suspended");
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  pause(100);
  EXPECT_TRUE(log_.held.empty());
  expect_idle();
}

TEST_F(Suspends, a_resume_that_fails_says_why_and_is_tried_again) {
  add_server("node0", 1);
  const Submitted job = run(1);
  EXPECT_EQ(suspend(job.id, &totals_), "");
  log_.fail["move"] = "the file is gone";
  const std::string error = resume(job.id, &totals_, &queued_);
  EXPECT_NE(error.find("could not move from node0/parked to node0/0: the file is gone"), std::string::npos) << error;
  EXPECT_EQ(describe(job.id), "suspended on node0/parked");
  EXPECT_NE(reason(job.id).find("the file is gone"), std::string::npos) << reason(job.id);
  EXPECT_EQ(resize(job.id, 1, &totals_),
            "job 1 is suspended: after `tide resume` it waits for GPUs; `tide why 1` says why");
  log_.fail.clear();
  wait_for(job.id, "running on node0/0");
  expect_idle();
}

TEST_F(Suspends, a_resume_that_cannot_succeed_keeps_no_gpu_from_others) {
  add_server("node0", 1);
  add_server("node1", 1);
  const Submitted job = run(1);
  EXPECT_EQ(describe(job.id), "running on node0/0");
  EXPECT_EQ(suspend(job.id, &totals_), "");
  Submitted first = run(1), second = run(1), third;
  ASSERT_EQ(describe(first.id), "running on node0/0");
  second.handle = nullptr;
  wait_for(second.id, "ended: its `tide run` is gone");
  log_.unreachable["node1"] = "another machine cannot reach its host memory";
  const std::string error = resume(job.id, &totals_, &queued_);
  EXPECT_NE(error.find("could not move from node0/parked to node1/0: another machine"), std::string::npos) << error;
  EXPECT_EQ(describe(job.id), "suspended on node0/parked");
  EXPECT_NE(reason(job.id).find("another machine"), std::string::npos) << reason(job.id);
  EXPECT_EQ(submit(1, 1, &third), "");
  EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(third.handle).runningRequest().send().ignoreResult()), "");
  EXPECT_EQ(describe(third.id), "running on node1/0") << "it was kept for who cannot come there";
  pause(1500);
  EXPECT_EQ(reason(job.id),
            "waits to run again: needs 1 GPU; 0 of 2 can be free while the jobs before it keep their "
            "minimum");
  third.handle = nullptr;
  wait_for(third.id, "ended: its `tide run` is gone");
  pause(500);
  EXPECT_EQ(count("prepare 1:0 on node1/0"), 2u) << "it is tried there again, but not at once";
  first.handle = nullptr;
  wait_for(job.id, "running on node0/0");
  expect_idle();
}

TEST_F(Suspends, kill_and_the_end_of_the_program_leave_nothing) {
  add_server("node0", 1);
  Submitted killed = run(1);
  EXPECT_EQ(suspend(killed.id, &totals_), "");
  Submitted ended = run(1);
  EXPECT_EQ(suspend(ended.id, &totals_), "");
  auto request = peer_->pool.killRequest();
  request.setJob(killed.id);
  EXPECT_EQ(error_of(request.send().ignoreResult()), "");
  EXPECT_EQ(describe(killed.id), "ended: killed by `tide kill`");
  ended.handle = nullptr;
  wait_for(ended.id, "ended: its `tide run` is gone");
  pause(50);
  EXPECT_TRUE(called("release 1:0 from node0 epoch 2"));
  EXPECT_TRUE(called("release 2:0 from node0 epoch 2"));
  EXPECT_TRUE(log_.leases.empty());
}

TEST_F(Suspends, a_lost_server_ends_who_is_parked_there) {
  add_server("node0", 1);
  const Submitted job = run(1);
  EXPECT_EQ(suspend(job.id, &totals_), "");
  lose_server(0);
  wait_for(job.id, "ended: its GPU server node0 was lost (no sign of life from its agent)");
}

TEST_F(Suspends, a_restarted_scheduler_leaves_a_suspended_job_so) {
  add_server("node0", 2);
  Submitted job = run(2);
  EXPECT_EQ(suspend(job.id, &totals_), "");
  log_.calls.clear();
  restart({&job}, {"node0"}, 2);
  pause(100);
  EXPECT_EQ(describe(job.id), "suspended on node0/parked node0/parked");
  EXPECT_TRUE(log_.calls.empty()) << log_.calls[0];
  EXPECT_EQ(resume(job.id, &totals_, &queued_), "");
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  restart({&job}, {"node0"}, 2);
  pause(100);
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
  expect_idle();
}

TEST_F(Suspends, a_restarted_scheduler_goes_on_with_what_was_half_parked) {
  add_server("node0", 2);
  Submitted job = run(2, 2);
  log_.move_ms = 300;
  auto suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  while (log_.gpus[{job.id, 0}] != kParked) pause(20);
  Submitted other;
  EXPECT_EQ(submit(1, 1, &other), "");
  pause(50);
  EXPECT_EQ(describe(other.id).rfind("queued", 0), 0u) << "it got a GPU that is kept";
  auto kill = peer_->pool.killRequest();
  kill.setJob(other.id);
  EXPECT_EQ(error_of(kill.send().ignoreResult()), "");
  restart({&job}, {"node0"}, 2);
  EXPECT_NE(error_of(kj::mv(suspended)), "");
  wait_for(job.id, "suspended on node0/parked node0/parked");
  expect_idle();
  EXPECT_EQ(resume(job.id, &totals_, &queued_), "");
  EXPECT_EQ(describe(job.id), "running on node0/0 node0/1");
}

TEST_F(Suspends, a_restarted_scheduler_brings_back_what_it_cannot_park) {
  add_server("node0", 2);
  Submitted job = run(2, 2);
  log_.move_ms = 300;
  auto suspended = suspending(job.id, &totals_).eagerlyEvaluate(nullptr);
  while (log_.gpus[{job.id, 0}] != kParked) pause(20);
  log_.room["node0"] = 1;
  log_.move_ms = 1;
  restart({&job}, {"node0"}, 2);
  EXPECT_NE(error_of(kj::mv(suspended)), "");
  wait_for(job.id, "running on node0/0 node0/1");
  pause(100);
  EXPECT_TRUE(log_.held.empty());
  expect_idle();
}

}  // namespace
}  // namespace tide::sched
