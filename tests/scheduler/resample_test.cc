#include "scheduler/simulate/resample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/mix.h"
#include "tests/scheduler/simulate_text.h"

namespace tide::simulate {
namespace {

// Jobs that come by chance and are 100 s long on the average.
Trace recorded(uint64_t seed, size_t jobs) {
  Trace trace;
  double at_s = 50;
  const auto die = [&] { return double(mix(seed++) >> 11) * 0x1p-53; };
  for (size_t i = 0; i < jobs; ++i) {
    at_s += -std::log(1 - die()) * 10;
    Job job;
    job.id = std::to_string(i);
    job.submit_s = at_s;
    job.duration_s = -std::log(1 - die()) * 100;
    trace.jobs.push_back(job);
  }
  return trace;
}

double mean_duration(const Trace& trace) {
  double sum = 0;
  for (const Job& job : trace.jobs) sum += job.duration_s;
  return sum / double(trace.jobs.size());
}

TEST(Resample, makes_traces_of_the_same_time_and_kind) {
  const Trace trace = recorded(1, 400);
  const double span_s = trace.jobs.back().submit_s - trace.jobs.front().submit_s;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Trace other = resample(trace, seed);
    const auto& jobs = other.jobs;
    EXPECT_TRUE(
        std::is_sorted(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.submit_s < b.submit_s; }));
    EXPECT_GE(jobs.front().submit_s, trace.jobs.front().submit_s);
    EXPECT_LE(jobs.back().submit_s, trace.jobs.front().submit_s + span_s * (1 + 1e-9));
    EXPECT_NEAR(double(jobs.size()), 400, 120);
    std::set<std::string> ids;
    for (const Job& job : jobs) ids.insert(job.id);
    EXPECT_EQ(ids.size(), jobs.size()) << "each once";
    EXPECT_EQ(resample(trace, seed).jobs.back().id, jobs.back().id) << "the same seed, the same trace";
    EXPECT_NE(resample(trace, seed + 100).jobs.back().submit_s, jobs.back().submit_s);
  }
}

TEST(Resample, one_moment_is_left_alone) {
  EXPECT_EQ(resample(parse_jobs("A 5 10 1; B 5 20 2"), 7).jobs.size(), 2u);
  EXPECT_EQ(resample(parse_jobs("A 5 10 1"), 7).jobs.size(), 1u);
}

// What an interval promises: of so many recordings of one world it holds the truth in about 95 %.
TEST(Resample, intervals_hold_the_truth_about_as_often_as_they_say) {
  uint32_t held = 0;
  constexpr uint32_t kRecordings = 200;
  for (uint32_t i = 0; i < kRecordings; ++i) {
    const Trace trace = recorded(uint64_t(i + 1) * 1'000'000, 300);
    std::vector<double> means;
    for (uint64_t seed = 1; seed <= 20; ++seed) means.push_back(mean_duration(resample(trace, seed)));
    held += std::abs(mean_duration(trace) - 100) <= half_width_95(means) ? 1 : 0;
  }
  EXPECT_GE(held, kRecordings * 88 / 100);
  EXPECT_LE(held, kRecordings * 99 / 100);
}

TEST(Resample, half_widths_are_students) {
  EXPECT_NEAR(half_width_95({1, 3}), 12.706 * std::sqrt(2.0), 1e-3);
  EXPECT_NEAR(half_width_95({5, 5, 5}), 0, 1e-12);
  EXPECT_NEAR(half_width_95(std::vector<double>(1000, 2)), 0, 1e-12);
}

}  // namespace
}  // namespace tide::simulate
