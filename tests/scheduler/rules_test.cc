// The small rules: whom it costs how much to be disturbed, who is to be left alone, and how many GPUs a job may have.

#include <gtest/gtest.h>

#include "scheduler/cost.h"
#include "scheduler/disturbance.h"
#include "scheduler/explain.h"
#include "scheduler/rank.h"
#include "scheduler/turns.h"
#include "tests/scheduler/policy_text.h"

namespace tide::sched {
namespace {

constexpr uint64_t kNow = 1'700'000'000'000, kMin = 60'000, kGiB = 1ull << 30;

JobView on_gpus(uint32_t count) {
  JobView job{.id = "A", .vgpus = count, .running = true, .places = {}};
  for (uint32_t i = 0; i < count; ++i) job.places.push_back({"s0", i});
  return job;
}

TEST(Cost, is_the_pause_on_each_gpu) {
  JobView job = on_gpus(4);
  job.switch_ms = 1500;
  EXPECT_EQ(disturbance_cost(job), 6000u);
}

TEST(Cost, is_reckoned_from_the_bytes_before_it_was_measured_and_from_the_quota_before_these_are_known) {
  JobView job = on_gpus(2);
  job.memory_bytes = 8 * kGiB;
  EXPECT_EQ(pause_ms(job), 2 * 2 * 8 * 1024u);  // two vGPUs, there and back, at 1 MiB in a millisecond
  job.bytes = 3 * kGiB;
  EXPECT_EQ(pause_ms(job), 2 * 3 * 1024u);
  job.switch_ms = 70;
  EXPECT_EQ(pause_ms(job), 70u);
}

TEST(Cost, who_is_nearly_done_is_never_worth_it_and_who_is_overdue_is) {
  JobView job = on_gpus(1);
  job.switch_ms = 20'000;
  job.estimate_ms = 100'000;
  job.useful_ms = 59'000;
  EXPECT_EQ(disturbance_cost(job), 20'000u);
  job.useful_ms = 61'000;  // two pauses are left
  EXPECT_EQ(disturbance_cost(job), kNeverWorth);
  job.useful_ms = 100'000;
  EXPECT_EQ(disturbance_cost(job), 20'000u);
}

TEST(Cost, does_not_overflow) {
  JobView job = on_gpus(8);
  job.bytes = UINT64_MAX;
  EXPECT_LT(disturbance_cost(job), kNeverWorth);
  EXPECT_GT(disturbance_cost(job), 0u);
}

TEST(Disturbance, a_job_is_left_alone_until_it_has_run_its_minimum) {
  const DisturbanceRules rules;
  const std::vector<uint64_t> never;
  Disturbed job{.min_runtime_ms = 10 * kMin, .useful_ms = 4 * kMin, .when = &never};
  const Sparing sparing = sparing_of(rules, job, kNow);
  EXPECT_EQ(sparing.why, Sparing::Why::kRuntime);
  EXPECT_EQ(sparing.left_ms, 6 * kMin);
  EXPECT_EQ(sparing_text(sparing, job, kNow),
            "has run 240 s of the 600 s for which nothing is taken from it (min_runtime)");
  job.useful_ms = 10 * kMin;
  EXPECT_FALSE(sparing_of(rules, job, kNow).spared());
  job.min_runtime_ms.reset();
  job.useful_ms = 0;
  EXPECT_FALSE(sparing_of(rules, job, kNow).spared());
}

TEST(Disturbance, who_was_disturbed_too_often_is_left_alone_until_the_oldest_is_an_hour_ago) {
  DisturbanceRules rules;
  rules.per_hour = 3;
  std::vector<uint64_t> when;
  const Disturbed job{.min_runtime_ms = {}, .useful_ms = 0, .when = &when};
  note_disturbance(&when, kNow);
  note_disturbance(&when, kNow + 10 * kMin);
  EXPECT_FALSE(sparing_of(rules, job, kNow + 20 * kMin).spared());
  note_disturbance(&when, kNow + 20 * kMin);
  const Sparing sparing = sparing_of(rules, job, kNow + 30 * kMin);
  EXPECT_EQ(sparing.why, Sparing::Why::kHour);
  EXPECT_EQ(sparing.left_ms, 30 * kMin);
  EXPECT_TRUE(sparing_of(rules, job, kNow + 60 * kMin - 1).spared());
  EXPECT_FALSE(sparing_of(rules, job, kNow + 60 * kMin).spared());
  rules.per_hour = 0;
  EXPECT_FALSE(sparing_of(rules, job, kNow + 30 * kMin).spared());
}

TEST(Disturbance, what_is_an_hour_ago_is_forgotten_and_a_clock_that_went_back_spares_nobody_for_long) {
  std::vector<uint64_t> when;
  for (uint64_t i = 0; i < 5000; ++i) note_disturbance(&when, kNow + i);
  EXPECT_LE(when.size(), 1000u);
  note_disturbance(&when, kNow + 2 * kHourMs);
  EXPECT_EQ(when.size(), 1u);
  note_disturbance(&when, kNow - 24 * kHourMs);  // the one before is not in the future
  EXPECT_EQ(disturbances_in_hour(when, kNow - 24 * kHourMs), 2u);
  EXPECT_EQ(disturbances_in_hour(when, kNow - 23 * kHourMs), 0u);
}

TEST(Disturbance, a_job_says_more_than_its_queue_and_that_more_than_the_one_above_and_the_pool) {
  PolicyConfig policy;
  policy.min_runtime_ms = 1;
  QueueConfig all{.name = "all"}, team{.name = "team", .parent = "all"}, other{.name = "other"};
  all.min_runtime_ms = 2;
  all.job_class = JobClass::kInteractive;
  DisturbanceRules rules;
  rules.configure({all, team, other}, policy);
  EXPECT_EQ(rules.min_runtime(7, "team"), 7u);
  EXPECT_EQ(rules.min_runtime(0, "team"), 2u);
  EXPECT_EQ(rules.min_runtime(0, "other"), 1u);
  EXPECT_EQ(rules.min_runtime(0, "gone"), 1u);
  EXPECT_EQ(rules.class_of("team"), JobClass::kInteractive);
  EXPECT_EQ(rules.class_of("other"), JobClass::kBatch);
  rules.configure({}, PolicyConfig());
  EXPECT_FALSE(rules.min_runtime(0, "team").has_value());
}

TEST(Disturbance, turns_of_who_is_spared_and_of_inference_do_not_end) {
  for (const char* job :
       {"A n1 on 0 had9 ticket1", "A n1 on 0 had9 ticket1 spared", "A n1 inference on 0 had9 ticket1"}) {
    const TurnPlan plan = plan_turns(parse_state(std::string("1 gpus turns; ") + job + "; B n1 ticket2"));
    const bool ends = !plan.empty() && plan.front().over.count("A") != 0;
    EXPECT_EQ(ends, std::string(job) == "A n1 on 0 had9 ticket1") << job;
  }
}

TEST(Rank, powers_of_two_or_all) {
  const JobView job{.id = "A", .vgpus = 6, .places = {}, .powers_of_two = true};
  EXPECT_EQ(counts_text(job), "1, 2, 4 or 6");
  EXPECT_EQ(rounded_up(job, 3), 4u);
  EXPECT_EQ(rounded_up(job, 5), 6u);
  EXPECT_EQ(rounded_down(job, 5), 4u);
  EXPECT_EQ(next_step(job, 4, 6), 2u);
  EXPECT_EQ(next_step(job, 6, 6), 0u);
}

// Why somebody waits.
TEST(Explain, names_those_who_are_spared_and_stand_in_the_way) {
  const auto before = [](const std::string& text) { return spared_before(parse_state(text), "W"); };
  using Ids = std::set<std::string>;
  EXPECT_EQ(before("2 gpus; A n2 min2 spared on 0,1; W n2 min2 prio1"), Ids{"A"});
  EXPECT_EQ(before("4 gpus; A n4 min1 spared on 0,1,2,3; W n1"), Ids{"A"});
  EXPECT_EQ(before("1 gpus turns; A n1 on 0 had9 spared ticket1; W n1 ticket2"), Ids{"A"});
  EXPECT_EQ(before("2 gpus; A n2 min2 on 0,1; W n2 min2"), Ids{}) << "nobody is";
  EXPECT_EQ(before("2 gpus; A n2 min2 spared on 0,1; W n2 min2"), Ids{}) << "it would wait all the same";
  EXPECT_EQ(before("4 gpus; A n2 min1 spared on 0,1; B n2 min2 on 2,3; W n1"), Ids{"A"});
}

}  // namespace
}  // namespace tide::sched
