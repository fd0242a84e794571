// When a job is disturbed for others' sake, and when it is left alone, with agents that only pretend.

#include <gtest/gtest.h>

#include <functional>

#include "tests/scheduler/pool_fixture.h"

namespace tide::sched {
namespace {

class Disturbing : public PoolFixture {
 protected:
  void begin(uint32_t gpus) {
    stop();
    start();
    add_server("node0", gpus);
  }
  Submitted add(const std::function<void(control::JobSpec::Builder)>& fill) {
    Submitted job;
    auto request = peer_->pool.submitRequest();
    request.getSpec().setGpus(2);
    request.getSpec().setMinGpus(2);
    request.getSpec().setMinGiven(true);
    fill(request.getSpec());
    auto answer = request.send().wait(io_.waitScope);
    job.id = answer.getId();
    job.token = std::string(reinterpret_cast<const char*>(answer.getToken().begin()), answer.getToken().size());
    job.handle = answer.getHandle();
    return job;
  }
  static void higher(control::JobSpec::Builder spec) { spec.setPriority(1); }
  template <typename Get>
  auto of(const std::string& id, const Get& get) {
    auto request = peer_->pool.jobRequest();
    request.setJob(id);
    auto answer = request.send().wait(io_.waitScope);
    return get(answer.getJob());
  }
  uint32_t disturbed(const std::string& id) {
    return of(id, [](control::JobInfo::Reader job) { return job.getDisturbed(); });
  }
  uint64_t useful_ms(const std::string& id) {
    return of(id, [](control::JobInfo::Reader job) { return job.getUsefulMs(); });
  }
  std::string spared(const std::string& id) {
    return of(id, [](control::JobInfo::Reader job) { return std::string(job.getSpared().cStr()); });
  }
  std::string why(const std::string& id) {
    auto request = peer_->pool.whyRequest();
    request.setJob(id);
    return request.send().wait(io_.waitScope).getReason().cStr();
  }
};

TEST_F(Disturbing, a_higher_priority_waits_until_the_other_has_had_its_minimum) {
  policy_.min_runtime_ms = 1500;
  begin(2);
  const Submitted low = run(2, 2);
  const Submitted high = add(higher);
  pause(400);
  EXPECT_EQ(describe(low.id), "running on node0/0 node0/1");
  EXPECT_NE(spared(low.id).find("(min_runtime)"), std::string::npos) << spared(low.id);
  EXPECT_NE(why(high.id).find("not to be disturbed now: job 1 has run"), std::string::npos) << why(high.id);
  wait_for(high.id, "running on node0/0 node0/1");
  EXPECT_EQ(describe(low.id), "suspended on node0/parked node0/parked");
  EXPECT_GE(useful_ms(low.id), 1500u);
  EXPECT_EQ(disturbed(low.id), 1u);
  EXPECT_EQ(disturbed(high.id), 0u);
}

TEST_F(Disturbing, what_a_job_says_counts_more_than_the_pool) {
  policy_.min_runtime_ms = 3'600'000;
  begin(2);
  const Submitted low = add([](control::JobSpec::Builder spec) { spec.setMinRuntimeMs(1); });
  wait_for(low.id, "running on node0/0 node0/1");
  const Submitted high = add(higher);
  wait_for(high.id, "running on node0/0 node0/1");
}

TEST_F(Disturbing, who_was_disturbed_too_often_is_left_alone_but_by_its_user) {
  policy_.disturbances_per_hour = 1;
  begin(4);
  const Submitted wide = run(4, 1);
  const Submitted first = run(2, 2);  // for it the wide one shrinks
  EXPECT_EQ(disturbed(wide.id), 1u);
  EXPECT_NE(spared(wide.id).find("1 times in the last hour"), std::string::npos) << spared(wide.id);
  Submitted second;
  ASSERT_EQ(submit(1, 1, &second), "");
  pause(300);
  EXPECT_EQ(describe(second.id).rfind("queued", 0), 0u) << describe(second.id);
  EXPECT_NE(why(second.id).find("disturbances_per_hour"), std::string::npos) << why(second.id);
  MoveTotals totals;
  EXPECT_EQ(resize(wide.id, 1, &totals), "");
  EXPECT_EQ(error_of(KJ_ASSERT_NONNULL(second.handle).runningRequest().send().ignoreResult()), "");
  EXPECT_EQ(disturbed(wide.id), 1u) << "what its user does does not count";
}

TEST_F(Disturbing, what_a_job_has_run_and_how_often_it_was_disturbed_outlives_the_scheduler) {
  begin(4);
  Submitted wide = run(4, 1);
  Submitted other = run(2, 2);
  pause(700);
  const uint64_t before = useful_ms(wide.id);
  EXPECT_GE(before, 100u);  // on two of its four GPUs it does half of what it could
  restart({&wide, &other}, {"node0"}, 4);
  EXPECT_GE(useful_ms(wide.id), before);
  EXPECT_EQ(disturbed(wide.id), 1u);
  pause(700);
  EXPECT_GE(useful_ms(wide.id), before + 100);
}

TEST_F(Disturbing, the_class_of_the_queue_counts_where_a_job_says_none) {
  queues_ = {{.name = "people"}, {.name = "default"}};
  queues_[0].job_class = JobClass::kInteractive;
  begin(4);
  const auto class_of = [&](const Submitted& job) {
    return of(job.id, [](control::JobInfo::Reader info) { return info.getSpec().getJobClass(); });
  };
  const auto idle_of = [&](const Submitted& job) {
    return of(job.id, [](control::JobInfo::Reader info) { return info.getSpec().getIdleMs(); });
  };
  const auto says = control::JobClass::AS_QUEUE_SAYS;
  const Submitted typed = add([&](control::JobSpec::Builder spec) { spec.setQueue("people"), spec.setJobClass(says); });
  EXPECT_EQ(class_of(typed), control::JobClass::INTERACTIVE);
  EXPECT_EQ(idle_of(typed), 600'000u);
  const Submitted always = add([&](control::JobSpec::Builder spec) {
    spec.setQueue("people");
    spec.setJobClass(says);
    spec.setIdleMs(UINT64_MAX);
  });
  EXPECT_EQ(idle_of(always), 0u);
  const Submitted batch = add([&](control::JobSpec::Builder spec) { spec.setQueue("people"); });
  EXPECT_EQ(class_of(batch), control::JobClass::BATCH);
  const Submitted usual = add([&](control::JobSpec::Builder spec) { spec.setJobClass(says); });
  EXPECT_EQ(class_of(usual), control::JobClass::BATCH);
  EXPECT_EQ(idle_of(usual), 0u);
}

TEST_F(Disturbing, powers_of_two_are_kept_to) {
  begin(4);
  const Submitted even = add([](control::JobSpec::Builder spec) {
    spec.setGpus(4);
    spec.setMinGpus(1);
    spec.setPowersOfTwo(true);
  });
  wait_for(even.id, "running on node0/0 node0/1 node0/2 node0/3");
  MoveTotals totals;
  EXPECT_EQ(resize(even.id, 3, &totals),
            "job 1 was started with --powers-of-two: it can have 1, 2 or 4 physical GPUs, not 3");
  EXPECT_EQ(resize(even.id, 2, &totals), "");
  auto wrong = peer_->pool.submitRequest();
  wrong.getSpec().setGpus(6);
  wrong.getSpec().setMinGpus(3);
  wrong.getSpec().setMinGiven(true);
  wrong.getSpec().setPowersOfTwo(true);
  EXPECT_EQ(error_of(wrong.send().ignoreResult()),
            "with --powers-of-two a job has 1, 2, 4 or 6 GPUs; --min 3 is none of that");
}

}  // namespace
}  // namespace tide::sched
