// What the simulator has beyond the policies of others: learned estimates and the order by them, deadlines that are
// promised, parts of GPUs that move.

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/mix.h"
#include "scheduler/estimates.h"
#include "scheduler/order.h"
#include "scheduler/simulate/bounds.h"
#include "scheduler/simulate/deadlines.h"
#include "scheduler/simulate/learned.h"
#include "scheduler/simulate/metrics.h"
#include "scheduler/simulate/repack.h"
#include "tests/scheduler/simulate_text.h"

namespace tide::simulate {
namespace {

TEST(Estimates, steps_of_running_time) {
  EXPECT_EQ(sched::run_step_of(0), 0u);
  EXPECT_EQ(sched::run_step_of(9.9), 0u);
  EXPECT_EQ(sched::run_step_of(10), 1u);
  EXPECT_EQ(sched::run_step_of(1e12), sched::kRunSteps - 1);
  for (uint32_t step = 0; step < sched::kRunSteps; ++step) {
    EXPECT_EQ(sched::run_step_of(sched::run_step_begins_s(step)), step);
  }
}

// `count` jobs of one team and size that run for so long, one after the other.
void teach(sched::Estimates* estimates, const std::string& team, double duration_s, int count) {
  for (int i = 0; i < count; ++i) {
    const auto kind = estimates->submitted(team, 1, i * 1e5);
    const uint32_t last = sched::run_step_of(duration_s);
    for (uint32_t step = 1; step <= last; ++step) estimates->reached(kind, step);
    estimates->ended(kind, last);
  }
}

TEST(Estimates, a_team_is_expected_to_do_as_it_did) {
  sched::Estimates estimates;
  teach(&estimates, "quick", 30, 100);
  teach(&estimates, "slow", 50'000, 100);
  const auto quick = estimates.submitted("quick", 1, 2e7), slow = estimates.submitted("slow", 1, 2e7);
  EXPECT_LT(estimates.left_s(quick, 0), 60);
  EXPECT_NEAR(estimates.left_s(slow, 0), 50'000, 20'000);
  // One that has outlived what is usual for its team is like those of others that got so far.
  EXPECT_GT(estimates.left_s(quick, sched::run_step_of(1000)), 1000);
}

TEST(Estimates, a_batch_tells_most) {
  sched::Estimates estimates;
  teach(&estimates, "a", 50'000, 100);
  // 40 of a batch have ended after 20 s: the 41st is expected to.
  std::vector<sched::Estimates::Kind> batch;
  for (int i = 0; i < 41; ++i) batch.push_back(estimates.submitted("a", 1, 2e7 + i));
  const double before_s = estimates.left_s(batch[40], 0);
  for (int i = 0; i < 40; ++i) {
    for (const uint32_t step : {1, 2}) estimates.reached(batch[i], step);
    estimates.ended(batch[i], 2);
  }
  EXPECT_LT(estimates.left_s(batch[40], 0), before_s / 100);
}

TEST(Estimates, memory_is_bounded_by_kinds) {
  sched::Estimates estimates;
  for (int i = 0; i < 100'000; ++i) {
    estimates.ended(estimates.submitted("t" + std::to_string(i), 1 + uint32_t(i) % 7, i * 1e4), 0);
  }
  EXPECT_LE(estimates.kinds(), 2 * 16384u + 1);
}

TEST(Order, who_is_passed_by_whom) {
  const sched::OrderRules rules{.patience = 2};
  // A job of 100 GPU-seconds is passed by one of 10 that came 100 s later, not by one that came 200 s later.
  EXPECT_LT(sched::place_in_line(rules, 100, 10), sched::place_in_line(rules, 0, 100));
  EXPECT_GT(sched::place_in_line(rules, 200, 10), sched::place_in_line(rules, 0, 100));
  EXPECT_EQ(sched::given_left_s(100, 40), 60);
  EXPECT_EQ(sched::given_left_s(100, 400), 200);
}

TEST(Order, gpus_that_help) {
  // Five for eight: two on three of them, as slow as four.
  for (const auto& [vgpus, free, helps] : std::initializer_list<std::array<uint32_t, 3>>{
           {8, 8, 8}, {8, 100, 8}, {8, 7, 4}, {8, 5, 4}, {8, 3, 3}, {8, 1, 1}, {8, 0, 0}, {6, 5, 3}, {1, 1, 1}}) {
    EXPECT_EQ(sched::gpus_that_help(vgpus, free), helps) << vgpus << " on " << free;
  }
}

TEST(Order, the_oldest_have_their_part_and_nobody_holds_others_up) {
  // 0 is the oldest and last in line; 4 GPUs, one of which is the oldest's.
  std::vector<sched::Candidate> jobs = {{.vgpus = 8}, {.vgpus = 2}, {.vgpus = 4}};
  const std::vector<uint32_t> oldest = {0, 1, 2}, line = {1, 2, 0};
  sched::share_out({oldest, line}, 4, 1, &jobs);
  EXPECT_EQ(jobs[0].granted, 1u);
  EXPECT_EQ(jobs[1].granted, 2u);
  EXPECT_EQ(jobs[2].granted, 1u);
  // Nobody else: it has them all, of both parts.
  sched::share_out({{0}, {0}}, 8, 1, &jobs);
  EXPECT_EQ(jobs[0].granted, 8u);
}

TEST(Learned, a_large_job_shrinks_and_a_short_one_goes_first) {
  // Both are known. A has the two GPUs until B (1 s) comes, then one for 1 s: half a second lost.
  const Trace trace = parse_jobs("A 0 100 2; B 50 1 1");
  const LearnedOptions options{.rules = {.oldest_part = 0}, .knowledge = Knowledge::kOracle};
  EXPECT_EQ(to_text(trace, run_learned(trace, 2, options)), "A 0-100.5 moved 2; B 50-51");
  // On one GPU it is stopped, and loses nothing; going on takes 3 s.
  const Trace narrow = parse_jobs("A 0 100 1; B 50 1 1");
  LearnedOptions costs = options;
  costs.costs.resume_s = 3;
  const Result stopped = run_learned(narrow, 1, costs);
  EXPECT_EQ(to_text(narrow, stopped), "A 0-104 stopped 1; B 50-51");
  EXPECT_DOUBLE_EQ(stopped.jobs[0].pause_gpu_s, 3);
}

Trace random_trace(uint64_t seed) {
  const auto roll = [&seed](uint32_t sides) { return uint32_t((seed = mix(seed)) % sides); };
  Trace trace;
  double at = 0;
  for (uint32_t i = 0; i < 400; ++i) {
    Job job;
    job.id = "j" + std::to_string(i);
    job.team = "t" + std::to_string(roll(3));
    job.submit_s = at += roll(3) * roll(40);
    job.duration_s = 1 + roll(400) * (roll(5) == 0 ? 20 : 1);
    job.gpus = roll(4) == 0 ? 1 + roll(16) : 1 + roll(2);
    trace.jobs.push_back(job);
  }
  return trace;
}

// Never more GPUs than there are, no work lost, none done twice, and the GPUs full while anybody waits.
TEST(Learned, properties_on_random_traces) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Trace trace = random_trace(seed);
    const LearnedOptions options{
        .rules = {.patience = seed % 2 == 0 ? 4.0 : 0.5, .oldest_part = 0.1 * double(seed % 3)},
        .knowledge = Knowledge(seed % 3),
        .costs = {.resume_s = 1, .move_s = double(seed % 2)}};
    const Result result = run_learned(trace, 16, options);
    EXPECT_EQ(to_text(trace, result), to_text(trace, run_learned(trace, 16, options)));
    for (const auto& [time, gpus] : leased_over_time(result)) ASSERT_LE(gpus, 16) << "at " << time;
    std::vector<double> done(trace.jobs.size()), last(trace.jobs.size());
    for (const Turn& turn : result.turns) {
      ASSERT_GE(turn.from_s, std::max(trace.jobs[turn.job].submit_s, last[turn.job]));
      last[turn.job] = turn.to_s;
      done[turn.job] += (turn.to_s - turn.from_s) / std::ceil(double(trace.jobs[turn.job].gpus) / turn.gpus);
    }
    for (size_t i = 0; i < trace.jobs.size(); ++i) {
      ASSERT_GE(done[i], trace.jobs[i].duration_s - 1e-3);
      ASSERT_LE(done[i], trace.jobs[i].duration_s + result.jobs[i].pause_gpu_s + 1e-3);
      ASSERT_EQ(result.jobs[i].lost_gpu_s, 0);
      ASSERT_EQ(last[i], result.jobs[i].end_s);
    }
    EXPECT_GE(measure(trace, result).jct_s.mean, bounds_of(trace, 16).mean_jct_s);
  }
}

class Deadlines : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / "tide-rates-XXXXXX").string();
    ASSERT_GE(descriptor_ = mkstemp(path_.data()), 0);
  }
  void TearDown() override {
    close(descriptor_);
    unlink(path_.c_str());
  }
  // net does 1, 1.5 and 2 steps a second on 1, 2 and 4 GPUs, and is no faster on 8.
  Outcome read(const std::string& more = "") {
    std::ofstream(path_) << "table,file,c0,c1,c2,c3,c4\nA,net.csv,global_batch_size,1,2,4,8\nA,net.csv,64,1,1.5,2,1.9\n"
                         << more;
    return rates_.read(path_);
  }
  static Job job(double submit_s, uint64_t steps, double deadline_s) {
    Job job;
    job.id = "j";
    job.submit_s = submit_s;
    job.duration_s = 1;
    job.iterations = steps;
    job.model = "net";
    job.batch_size = 64;
    job.deadline_s = deadline_s;
    return job;
  }
  DeadlineResult run(const std::vector<Job>& jobs, uint32_t gpus, double change_s = 0) {
    Trace trace;
    trace.jobs = jobs;
    DeadlineResult result;
    EXPECT_TRUE(run_deadlines(trace, rates_, {gpus, change_s}, &result).ok());
    EXPECT_EQ(result.kept, result.promised);
    EXPECT_LE(result.promised, result.possible);
    return result;
  }
  Throughputs rates_;
  std::string path_;
  int descriptor_ = -1;
};

TEST_F(Deadlines, are_promised_only_if_they_can_be_kept) {
  ASSERT_TRUE(read().ok());
  EXPECT_EQ(run({job(0, 100, 50)}, 4).promised, 1u);  // on four GPUs it takes just that
  EXPECT_EQ(run({job(0, 100, 49)}, 4).possible, 0u);
  EXPECT_EQ(run({job(0, 100, 50)}, 4, 1).promised, 0u);  // it begins a second later
  EXPECT_EQ(run({job(0, 100, 51)}, 4, 1).promised, 1u);
  // Two that need four GPUs at once: the second is told no, though alone it could be.
  const DeadlineResult two = run({job(0, 100, 50), job(1, 100, 51)}, 4);
  EXPECT_EQ(two.possible, 2u);
  EXPECT_EQ(two.promised, 1u);
  // The first has time: it shrinks for the second.
  EXPECT_EQ(run({job(0, 100, 200), job(1, 100, 51)}, 4).promised, 2u);
}

TEST_F(Deadlines, promises_are_kept_whatever_comes) {
  ASSERT_TRUE(read().ok());
  uint64_t seed = 5;
  const auto roll = [&seed](uint32_t sides) { return uint32_t((seed = mix(seed)) % sides); };
  for (const double change_s : {0.0, 2.0}) {
    for (int round = 0; round < 20; ++round) {
      std::vector<Job> jobs;
      double at = 0;
      for (int i = 0; i < 60; ++i) {
        at += roll(60);
        const uint32_t steps = 10 + roll(500);
        jobs.push_back(job(at, steps, at + 1 + steps * (0.5 + roll(100) / 100.0)));
      }
      const DeadlineResult result = run(jobs, 8, change_s);
      EXPECT_GT(result.promised, 10u);
      EXPECT_LT(result.promised, 60u);
      EXPECT_LE(result.late_most_s, 1e-6);
    }
  }
}

TEST_F(Deadlines, wrong_rates_and_jobs_without_are_told_with_their_line) {
  EXPECT_EQ(read("A,net.csv,128,1,2,x,3\n").message(), path_ + ":4: 'x' is no rate");
  EXPECT_EQ(read("A,other.csv,128,1,2,3,4\n").message(), path_ + ":4: is no row of a batch of the file above it");
  ASSERT_TRUE(read("B,net.csv,64,9,9,9,9\n").ok());
  EXPECT_EQ(rates_.find("net", 64)->front().per_s, 1);
  Trace trace;
  trace.jobs = {job(0, 1, 0)};
  trace.jobs[0].line = 2;
  DeadlineResult result;
  EXPECT_EQ(run_deadlines(trace, rates_, {}, &result).message(), "line 2: job j has no deadline_s");
}

TEST(Repack, parts_move_to_make_room) {
  // Two GPUs with 0.6 and 0.5, 0.4 goes to the first; 0.3 to the second. Nobody moves until a whole one is wanted.
  SharedGpus gpus(3);
  for (const int32_t part : {600, 500, 400, 300}) EXPECT_TRUE(gpus.place_part(part));
  EXPECT_TRUE(gpus.place_whole(1));
  EXPECT_EQ(gpus.moves(), 0u);
  EXPECT_FALSE(gpus.place_whole(1));
  // 0.5 and 0.3 lie on one, 0.4 on the other: the 0.3 makes room for the 0.4 and lies with the 0.7 that comes.
  SharedGpus two(2);
  for (const int32_t part : {500, 300, 400}) EXPECT_TRUE(two.place_part(part));
  EXPECT_TRUE(two.place_part(700));
  EXPECT_LE(two.moves(), 2u);
  EXPECT_GE(two.moves(), 1u);
  EXPECT_FALSE(two.place_part(200));
}

TEST(Repack, bound) {
  // Gaps of 0.2 that nothing fits: of 10 GPUs' worth 0.8 x 2.5 is lost at least.
  EXPECT_EQ(packing_bound_milli(10, {{800, 10}, {500, 4}}), 10'000 - 1600);
  // Enough that is small.
  EXPECT_EQ(packing_bound_milli(10, {{800, 10}, {200, 10}}), 10'000);
  EXPECT_EQ(packing_bound_milli(10, {{1000, 10}}), 10'000);
}

}  // namespace
}  // namespace tide::simulate
