// What jobs are expected to need, in a pool with agents that only pretend: told by users and learned from those that
// ended, also after a restart; who starts first by it, and who passes.

#include <gtest/gtest.h>

#include <functional>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Expecting : public PoolFixture {
 protected:
  void begin(uint32_t gpus) {
    stop();
    start();
    add_server("node0", gpus);
  }
  Submitted add(uint32_t gpus, uint64_t estimate_s) {
    Submitted job;
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(gpus);
    request.getSpec().setMinGpus(gpus);
    request.getSpec().setMinGiven(true);
    request.getSpec().setEstimateMs(estimate_s * 1000);
    auto answer = request.send().wait(io_.waitScope);
    job.id = answer.getId();
    job.token = std::string(reinterpret_cast<const char*>(answer.getToken().begin()), answer.getToken().size());
    job.handle = answer.getHandle();
    return job;
  }
  void kill(const std::string& id) {
    auto request = peer_->pool.killRequest();
    request.setJob(id);
    EXPECT_EQ(error_of(request.send().ignoreResult()), "");
  }
  // Jobs that run and end at once.
  void run_some(uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) kill(run(1).id);
  }
  std::string expected(const std::string& id) {
    auto request = peer_->pool.jobRequest();
    request.setJob(id);
    return request.send().wait(io_.waitScope).getJob().getExpected().getText().cStr();
  }
  // The reason, and the evidence.
  std::string why(const std::string& id) {
    auto request = peer_->pool.whyRequest();
    request.setJob(id);
    auto answer = request.send().wait(io_.waitScope);
    std::string text = answer.getReason().cStr();
    for (const auto line : answer.getEvidence()) text += std::string("\n") + line.cStr();
    return text;
  }
  void expect_said(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
};

TEST_F(Expecting, the_shorter_starts_first_where_the_pool_goes_by_estimates) {
  policy_.by_estimates = true;
  begin(2);
  const Submitted first = run(2, 2), slow = add(2, 3600), quick = add(2, 60);
  pause(50);
  expect_said(why(slow.id), "one job that waits in its queue is before it");
  expect_said(why(quick.id), "nobody that waits in its queue is before it");
  expect_said(expected(quick.id), "about 60 s more on all its GPUs, by its --estimate");
  kill(first.id);
  wait_for(quick.id, "running on node0/0 node0/1");
  EXPECT_EQ(describe(slow.id).rfind("queued", 0), 0u);
}

TEST_F(Expecting, the_older_starts_first_where_nothing_is_said_of_the_order) {
  begin(2);
  const Submitted first = run(2, 2), slow = add(2, 3600), quick = add(2, 60);
  kill(first.id);
  wait_for(slow.id, "running on node0/0 node0/1");
  EXPECT_EQ(describe(quick.id).rfind("queued", 0), 0u);
}

TEST_F(Expecting, what_was_learned_outlives_the_scheduler) {
  begin(2);
  Submitted stays = run(1);
  expect_said(expected(stays.id), "not known");
  run_some(2);
  const Submitted early = run(1);
  expect_said(expected(early.id), "not known");
  kill(early.id);
  Submitted next = run(1);
  pause(50);
  expect_said(expected(next.id), "learned from 3 jobs of its user in its queue with as many GPUs");
  restart({&stays, &next}, {"node0"}, 2);
  wait_for(next.id, "running on node0/1");
  expect_said(expected(next.id), "learned from 3 jobs of its user in its queue with as many GPUs");
  const Submitted wide = add(2, 0);
  pause(50);
  expect_said(expected(wide.id), "learned from all 3 jobs that ended");
}

TEST_F(Expecting, who_would_be_over_in_time_passes_the_one_for_which_the_pool_drains) {
  begin(3);
  const Submitted running = add(1, 3600);
  wait_for(running.id, "running on node0/0");
  const Submitted large = add(3, 60);
  run_some(16);
  const Submitted slow = add(1, 7200);
  pause(50);
  expect_said(describe(slow.id), "waits its turn behind job " + large.id);
  expect_said(describe(slow.id), "would not be over in time");
  const Submitted quick = add(1, 600);
  wait_for(quick.id, "running on node0/1");
  expect_said(why(quick.id), "it started before job " + large.id + ", for which the pool drains");
  pause(50);
  EXPECT_EQ(describe(large.id).rfind("queued", 0), 0u);
  kill(running.id);
  kill(quick.id);
  wait_for(large.id, "running on node0/0 node0/1 node0/2");
}

TEST_F(Expecting, who_is_not_over_in_time_gives_its_gpu_to_the_one_that_it_passed) {
  policy_.min_runtime_ms = 0;
  begin(3);
  const Submitted running = add(1, 3600);
  wait_for(running.id, "running on node0/0");
  const Submitted large = add(3, 60);
  run_some(16);
  const Submitted late = add(1, 1);
  wait_for(late.id, "running on node0/1");
  kill(running.id);
  wait_for(large.id, "running on node0/0 node0/1 node0/2");
  EXPECT_EQ(describe(late.id), "suspended on node0/parked");
}

}  // namespace
}  // namespace tide::sched
