// Jobs that give their GPUs back when they do nothing, and get some again with their next call.

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class IdleReturn : public PoolFixture {
 protected:
  static constexpr uint32_t kIdleMs = 600;

  Submitted run_idle(uint32_t gpus, uint64_t idle_ms = kIdleMs) {
    Submitted job;
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(gpus);
    request.getSpec().setMinGpus(gpus);
    request.getSpec().setIdleMs(idle_ms);
    auto answer = request.send().wait(io_.waitScope);
    job.id = answer.getId();
    job.handle = answer.getHandle();
    EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(job.handle).runningRequest().send().ignoreResult()), "");
    return job;
  }
  std::string reason(const std::string& id) {
    auto request = peer_->pool.jobRequest();
    request.setJob(id);
    return request.send().wait(io_.waitScope).getJob().getReason();
  }

  MoveTotals totals_;
  std::string queued_;
};

TEST_F(IdleReturn, a_job_without_work_gives_its_gpu_back_until_its_next_call) {
  add_server("node0", 1);
  const Submitted sleeper = run_idle(1);
  log_.at_rest = true;
  wait_for(sleeper.id, "suspended on node0/parked");
  EXPECT_EQ(reason(sleeper.id), "gave its GPUs back, because it did nothing; its next call brings it back");
  const Submitted other = run(1);
  EXPECT_EQ(describe(other.id), "running on node0/0");
  log_.waits = true;
  for (int i = 0; i < 100 && reason(sleeper.id).rfind("waits to run again", 0) != 0; ++i) pause(20);
  EXPECT_EQ(reason(sleeper.id),
            "waits to run again: needs 1 GPU; 0 of 1 can be free while the jobs before it keep their minimum");
  const_cast<Submitted&>(other).handle = nullptr;
  log_.at_rest = false;
  wait_for(sleeper.id, "running on node0/0");
}

TEST_F(IdleReturn, several_gpus_come_back_together) {
  add_server("node0", 2);
  const Submitted sleeper = run_idle(2);
  log_.at_rest = true;
  wait_for(sleeper.id, "suspended on node0/parked node0/parked");
  log_.at_rest = false;
  log_.waits = true;
  wait_for(sleeper.id, "running on node0/0 node0/1");
}

TEST_F(IdleReturn, who_works_or_does_not_say_so_keeps_its_gpu) {
  add_server("node0", 3);
  const Submitted never = run_idle(1, 0);
  const Submitted busy = run_idle(1);
  pause(3 * kIdleMs);
  EXPECT_EQ(describe(busy.id), "running on node0/1") << "work is under way all the time";
  log_.at_rest = log_.restless = true;
  pause(3 * kIdleMs);
  EXPECT_EQ(describe(busy.id), "running on node0/1") << "commands come all the time";
  log_.restless = false;
  wait_for(busy.id, "suspended on node0/parked");
  EXPECT_EQ(describe(never.id), "running on node0/0");
}

TEST_F(IdleReturn, what_somebody_suspends_stays_so_and_what_somebody_resumes_runs) {
  add_server("node0", 1);
  const Submitted sleeper = run_idle(1);
  log_.at_rest = true;
  wait_for(sleeper.id, "suspended on node0/parked");
  EXPECT_EQ(suspend(sleeper.id, &totals_), "");
  log_.waits = true;
  pause(3 * kTickMs);
  EXPECT_EQ(describe(sleeper.id), "suspended on node0/parked");
  log_.at_rest = false;
  EXPECT_EQ(resume(sleeper.id, &totals_, &queued_), "");
  EXPECT_EQ(describe(sleeper.id), "running on node0/0");
  log_.at_rest = true;
  wait_for(sleeper.id, "suspended on node0/parked");
}

TEST_F(IdleReturn, where_it_cannot_be_kept_it_runs_on) {
  add_server("node0", 1);
  const Submitted sleeper = run_idle(1);
  log_.room["node0"] = 0;
  log_.at_rest = true;
  for (int i = 0; i < 200 && reason(sleeper.id).empty(); ++i) pause(20);
  EXPECT_NE(reason(sleeper.id).find("it runs on: "), std::string::npos) << reason(sleeper.id);
  EXPECT_EQ(describe(sleeper.id), "running on node0/0");
  log_.room.clear();
  wait_for(sleeper.id, "suspended on node0/parked");
}

}  // namespace
}  // namespace tide::sched
