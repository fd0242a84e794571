#include "scheduler/expect.h"

#include <gtest/gtest.h>

namespace tide::sched {
namespace {

constexpr uint64_t kMinute = 60'000, kHour = 60 * kMinute;

TEST(Expect, what_the_user_says_is_believed_until_it_is_over) {
  const Estimates nothing;
  EXPECT_EQ(expected_of(nothing, {}, kHour, 0).left_ms, kHour);
  EXPECT_EQ(expected_of(nothing, {}, kHour, 59 * kMinute).left_ms, kMinute);
  EXPECT_EQ(expected_of(nothing, {}, kHour, 2 * kHour).left_ms, kHour);
  EXPECT_EQ(to_text(expected_of(nothing, {}, kHour, 0)), "about 60 min more on all its GPUs, by its --estimate");
}

TEST(Expect, nothing_is_known_before_some_have_ended) {
  Estimates estimates;
  for (uint32_t ended = 0; ended <= 3; ++ended) {
    const auto kind = estimates.submitted("ann", 2, 10);
    const Expected expected = expected_of(estimates, kind, 0, 0);
    EXPECT_EQ(expected.word, ended < 3 ? Word::kNone : Word::kLearned);
    EXPECT_GT(expected.left_ms, 0u) << "good for an order";
    estimates.ended(kind, 0);
  }
}

TEST(Expect, the_narrowest_kind_of_which_enough_have_ended_is_what_it_is_learned_from) {
  Estimates estimates;
  const auto end = [&](const char* team, uint32_t gpus, uint32_t count) {
    for (; count > 0; --count) estimates.ended(estimates.submitted(team, gpus, 10), 0);
  };
  end("ann", 2, 2);
  end("bob", 2, 3);
  end("bob", 4, 2);
  const auto text = [&](const char* team, uint32_t gpus) {
    const auto kind = estimates.came(team, gpus, 10);
    const std::string all = to_text(expected_of(estimates, kind, 0, 0));
    estimates.left(kind);
    return all.substr(all.find("learned"));
  };
  EXPECT_EQ(text("bob", 2), "learned from 3 jobs of its user in its queue with as many GPUs");
  EXPECT_EQ(text("ann", 2), "learned from 5 jobs with as many GPUs");
  EXPECT_EQ(text("ann", 4), "learned from all 7 jobs that ended");
}

TEST(Expect, who_waits_and_never_runs_teaches_nothing) {
  Estimates estimates;
  for (int i = 0; i < 5; ++i) estimates.ended(estimates.submitted("ann", 1, 10), 8);
  const auto kind = estimates.came("ann", 1, 10);
  const double before = estimates.left_s(kind, 0);
  for (int i = 0; i < 1000; ++i) estimates.left(estimates.came("ann", 1, 10));
  EXPECT_EQ(estimates.left_s(kind, 0), before);
  EXPECT_EQ(estimates.basis(kind).jobs, 5u);
}

TEST(Expect, who_runs_on_fewer_gpus_ends_later) {
  JobView job{.id = "1", .vgpus = 4, .min_gpus = 2, .places = {}};
  EXPECT_EQ(end_if_started(job, 1000), 0u) << "nothing is known";
  job.left_ms = 500;
  EXPECT_EQ(end_if_started(job, 1000), 2000u);
  job.min_gpus = 4;
  EXPECT_EQ(end_if_started(job, 1000), 1500u);
}

TEST(Expect, nobody_is_passed_by_who_came_later_than_patience_times_its_need) {
  const OrderRules rules{.patience = 4};
  EXPECT_EQ(place_of(rules, 0, 1000, 2), 8000);
  EXPECT_GT(place_of(rules, 8001, 1, 1), place_of(rules, 0, 1000, 2));
}

}  // namespace
}  // namespace tide::sched
