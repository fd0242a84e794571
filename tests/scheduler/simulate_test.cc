#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/log.h"
#include "base/mix.h"
#include "scheduler/simulate/bounds.h"
#include "scheduler/simulate/check.h"
#include "scheduler/simulate/elastic.h"
#include "scheduler/simulate/engine.h"
#include "scheduler/simulate/metrics.h"
#include "scheduler/simulate/muri.h"
#include "scheduler/simulate/packing.h"
#include "scheduler/simulate/pollux.h"
#include "tests/scheduler/simulate_text.h"

namespace tide::simulate {
namespace {

struct Row {
  const char* policy;
  const char* what;
  const char* answer;
};

// Four GPUs. A leaves one free; B, which needs all four, waits; the others could use the free one.
constexpr const char* kJobs = "A 0 10 3; B 1 10 4; C 2 4 1; D 3 20 1; E 5 1 1";
constexpr Row kRows[] = {
    // B starts when A has ended, all others when B has.
    {"fifo", "nobody passes B", "A 0-10; B 10-20; C 20-24; D 20-40; E 20-21"},
    // C takes the free one at once, D after it, and so B must wait for D. E fits when A has ended.
    {"fifo-skip", "small jobs pass B for ever", "A 0-10; B 26-36; C 2-6; D 6-26; E 10-11"},
    // B is sure to start at 10, when A ends: C (until 6) and E (6 to 7) are over before, D would not be.
    {"easy", "who is over in time passes B", "A 0-10; B 10-20; C 2-6; D 20-40; E 6-7"},
    // At 6 E is shorter than D, and D than none: B does not fit until D has ended.
    {"sjf", "the shortest that fits", "A 0-10; B 27-37; C 2-6; D 7-27; E 6-7"},
    // At 5: C has 1 left and runs, E has 1, A has 5 and does not fit any more, D takes the fourth. At 6 A goes on, D
    // stays; at 11 B (10) comes before D (14 left), needs all, and D goes on at 21.
    {"srtf", "who has the least left stops others", "A 0-11 stopped 1; B 11-21; C 2-6; D 5-35 stopped 1; E 5-6"},
    // At 3 A has 21 GPU-seconds left and D 20, so D takes the GPU beside C, and A does not fit; at 6 D has 17, and both
    // fit. B (40) comes last.
    {"srsf", "the least GPU-seconds left", "A 0-13 stopped 1; B 23-33; C 2-6; D 3-23; E 5-6"},
    // None has 3250 GPU-seconds, so as fifo-skip.
    {"tiresias-l", "a young job is not stopped", "A 0-10; B 26-36; C 2-6; D 6-26; E 10-11"},
};

TEST(Simulate, policies_on_a_trace_that_was_worked_out_by_hand) {
  const Trace trace = parse_jobs(kJobs);
  for (const Row& row : kRows) {
    EXPECT_EQ(to_text(trace, run(trace, 4, *find_policy(row.policy))), row.answer) << row.policy << ": " << row.what;
  }
  EXPECT_EQ(find_policy("lottery"), nullptr);
}

TEST(Simulate, easy_lets_a_long_job_pass_where_the_first_leaves_room) {
  // B (3 of 4 GPUs) will start at 10 and leave one free: D may keep it for ever. C, as long, needs two.
  const Trace trace = parse_jobs("A 0 10 2; B 1 10 3; C 2 100 2; D 3 100 1");
  EXPECT_EQ(to_text(trace, run(trace, 4, *find_policy("easy"))), "A 0-10; B 10-20; C 20-120; D 3-103");
}

TEST(Simulate, tiresias_stops_who_has_had_its_share_of_the_first_queue) {
  // A falls into the second queue at 3250; B runs its 100 s, and A what it has left, 750 s.
  const Trace trace = parse_jobs("A 0 4000 1; B 1000 100 1");
  EXPECT_EQ(to_text(trace, run(trace, 1, *find_policy("tiresias-l"))), "A 0-4100 stopped 1; B 3250-3350");
  // On two GPUs it falls at 1625, and again when it has had 7200, at 3700: C comes before that, and stops it all the
  // same, because C is in the first queue.
  const Trace wide = parse_jobs("A 0 4000 2; B 1700 100 2; C 3500 100 2");
  EXPECT_EQ(to_text(wide, run(wide, 2, *find_policy("tiresias-l"))), "A 0-4200 stopped 2; B 1700-1800; C 3500-3600");
}

TEST(Simulate, stopping_costs_what_it_is_said_to_cost) {
  const Trace trace = parse_jobs("A 0 10 2; B 3 2 2");
  const Policy& srtf = *find_policy("srtf");
  EXPECT_EQ(to_text(trace, run(trace, 2, srtf)), "A 0-12 stopped 1; B 3-5");
  const Result resumed = run(trace, 2, srtf, {.resume_s = 1});
  EXPECT_EQ(to_text(trace, resumed), "A 0-13 stopped 1; B 3-5");
  EXPECT_DOUBLE_EQ(resumed.jobs[0].pause_gpu_s, 2);
  // Its last checkpoint was at 2 of 10 s, so it has 8 left.
  const Result killed = run(trace, 2, srtf, {.checkpoint_s = 2});
  EXPECT_EQ(to_text(trace, killed), "A 0-13 stopped 1; B 3-5");
  EXPECT_DOUBLE_EQ(killed.jobs[0].lost_gpu_s, 2);
  EXPECT_DOUBLE_EQ(killed.jobs[0].leased_gpu_s, 22);
}

TEST(Simulate, refuses_a_job_that_is_larger_than_the_pool) {
  Trace trace = parse_jobs("A 0 10 3; B 1 10 5");
  trace.jobs[1].line = 3;
  EXPECT_EQ(check_sizes(trace, 4).message(), "line 3: job B asks for 5 GPUs, the pool has 4");
  EXPECT_TRUE(check_sizes(trace, 5).ok());
}

TEST(Simulate, a_replay_that_cannot_be_is_found_out) {
  const Trace trace = parse_jobs("A 0 10 2; B 5 10 2");
  Result result;
  ASSERT_TRUE(run_pool(trace, {.gpus = 2}, {.check = true}, &result).ok());
  EXPECT_EQ(what_is_wrong(trace, result), "");
  Result broken = result;
  broken.gpus = 1;
  EXPECT_EQ(what_is_wrong(trace, broken), "at 0.000 s jobs have 2 GPUs, and there are 1");
  broken = result;
  broken.turns.push_back({.job = 1, .gpus = 1, .from_s = 0, .to_s = 20});
  broken.gpus = 8;
  EXPECT_EQ(what_is_wrong(trace, broken), "at 5.000 s job B has two turns at once");
  broken = result;
  broken.jobs[1].start_s = 4;
  EXPECT_EQ(what_is_wrong(trace, broken), "job B starts before it is submitted");
  broken = result;
  broken.jobs[0].end_s = 9;
  EXPECT_EQ(what_is_wrong(trace, broken), "job A ends 9.000 s after it has started, and lasts 10.000 s");
}

TEST(Simulate, the_pools_own_policy_shares_and_grows_again) {
  // Alone until 5; then each has one GPU and half its speed. A has 5 of 10 s left, so until 15; B has done 5 then.
  const Trace trace = parse_jobs("A 0 10 2; B 5 10 2");
  Result result;
  ASSERT_TRUE(run_pool(trace, {.gpus = 2}, {}, &result).ok());
  EXPECT_EQ(to_text(trace, result), "A 0-15 moved 1; B 5-20 moved 1");
  EXPECT_DOUBLE_EQ(result.jobs[0].leased_gpu_s, 2 * 5 + 10);
  // A stands from 5 to 6, B from 16 to 17, with 4.5 s left.
  ASSERT_TRUE(run_pool(trace, {.gpus = 2}, {.costs = {.move_s = 1}}, &result).ok());
  EXPECT_EQ(to_text(trace, result), "A 0-16 moved 1; B 5-21.5 moved 1");
  // With all GPUs as their minimum B waits.
  ASSERT_TRUE(run_pool(trace, {.gpus = 2}, {.min_gpus = 0}, &result).ok());
  EXPECT_EQ(to_text(trace, result), "A 0-10; B 10-20");
}

TEST(Simulate, the_pools_own_policy_goes_by_estimates_where_it_is_asked_to) {
  Trace trace = parse_jobs("X 0 100 2; A 1 1000 2; B 2 10 2");
  trace.jobs[1].estimate_s = 1000;
  trace.jobs[2].estimate_s = 10;
  Pool pool{.gpus = 2};
  const ElasticOptions options{.min_gpus = 0, .check = true};
  Result result;
  ASSERT_TRUE(run_pool(trace, pool, options, &result).ok());
  EXPECT_EQ(to_text(trace, result), "X 0-100; A 100-1100; B 1100-1110");
  pool.policy.by_estimates = true;
  ASSERT_TRUE(run_pool(trace, pool, options, &result).ok());
  EXPECT_EQ(to_text(trace, result), "X 0-100; A 110-1110; B 100-110");
  // Of one user's jobs those that ended tell how long the next one will run.
  std::string jobs;
  for (int i = 0; i < 5; ++i) jobs += format("L%d %d 1000 2; ", i, i * 2000);
  trace = parse_jobs(jobs + "X 20000 100 2; L 20001 1000 2; S 20002 10 1; T 20002 10 1");
  for (size_t i = 0; i < trace.jobs.size(); ++i) trace.jobs[i].team = trace.jobs[i].id[0] == 'L' ? "ann" : "bob";
  ASSERT_TRUE(run_pool(trace, pool, options, &result).ok());
  EXPECT_LT(result.jobs[7].start_s, result.jobs[6].start_s);
  pool.policy.by_estimates = false;
  ASSERT_TRUE(run_pool(trace, pool, options, &result).ok());
  EXPECT_GT(result.jobs[7].start_s, result.jobs[6].start_s);
}

TEST(Simulate, who_would_be_over_in_time_passes_while_the_pool_drains) {
  // L waits for all four GPUs and is passed 16 times, by jobs that end at once; then only who ends before R does.
  std::string jobs = "R 0 10000 2; L 1 100 4; ";
  for (int i = 0; i < 16; ++i) jobs += format("P%d %d 10 2; ", i, 10 + 20 * i);
  Trace trace = parse_jobs(jobs + "S 1000 9500 2; Q 1001 8000 2");
  for (Job& job : trace.jobs) job.estimate_s = job.duration_s;
  const ElasticOptions options{.min_gpus = 0, .check = true};
  Result result;
  ASSERT_TRUE(run_pool(trace, {.gpus = 4}, options, &result).ok());
  EXPECT_DOUBLE_EQ(result.jobs[1].start_s, 10000) << "nothing put it off";
  EXPECT_DOUBLE_EQ(result.jobs[18].start_s, 10100) << "it would not have been over";
  EXPECT_DOUBLE_EQ(result.jobs[19].start_s, 1001);
  // One whose user thought that it would be over stops for it.
  trace.jobs[19].duration_s = 20000;
  ASSERT_TRUE(run_pool(trace, {.gpus = 4}, options, &result).ok());
  EXPECT_DOUBLE_EQ(result.jobs[1].start_s, 10000);
  EXPECT_EQ(result.jobs[19].preemptions, 1u);
  ASSERT_TRUE(run_pool(trace, {.gpus = 4}, {.min_gpus = 0, .told = Told::kNothing, .check = true}, &result).ok());
  EXPECT_DOUBLE_EQ(result.jobs[19].start_s, 10100) << "of nobody anything is known";
}

TEST(Simulate, three_vgpus_on_two_gpus_are_as_slow_as_the_fuller_one) {
  const Trace trace = parse_jobs("A 0 10 3");
  Result result;
  ASSERT_TRUE(run_pool(trace, {.gpus = 2}, {}, &result).ok());
  EXPECT_EQ(to_text(trace, result), "A 0-20");
  ASSERT_TRUE(run_pool(trace, {.gpus = 2}, {.scaling = Scaling::kLinear}, &result).ok());
  EXPECT_EQ(to_text(trace, result), "A 0-15");
  EXPECT_FALSE(run_pool(trace, {.gpus = 2}, {.min_gpus = 3}, &result).ok());
}

TEST(Simulate, muri_takes_a_restart_from_everybody_at_every_event) {
  // Iterations take 1.015 s. At 100, when B comes, A has done 95 of 1015 s (a restart of dqn is 5 s); at 201.5, when B
  // ends, 96.5 more: 823.5 are left.
  Trace trace = parse_jobs("A 0 1 1; B 100 1 1");
  for (Job& job : trace.jobs) {
    job.model = "dqn";
    job.iteration_ms = 1000;
  }
  trace.jobs[0].iterations = 1000;
  EXPECT_FALSE(use_iterations(&trace).ok());
  trace.jobs[1].iterations = 100;
  ASSERT_TRUE(use_iterations(&trace).ok());
  for (const MuriPolicy policy : {MuriPolicy::kSrtf, MuriPolicy::kSrsf, MuriPolicy::kTiresiasL}) {
    Result result;
    ASSERT_TRUE(run_muri(trace, 1, policy, &result).ok());
    EXPECT_NEAR(result.jobs[1].end_s, 201.5, 1e-9);
    EXPECT_NEAR(result.jobs[0].end_s, 1025, 1e-9);
  }
  trace.jobs[0].gpus = 16;
  Result result;
  EXPECT_FALSE(run_muri(trace, 1, MuriPolicy::kSrtf, &result).ok());
  EXPECT_TRUE(run_muri(trace, 2, MuriPolicy::kSrtf, &result).ok());
}

class Pollux : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / "tide-steps-XXXXXX").string();
    ASSERT_GE(descriptor_ = mkstemp(path_.data()), 0);
  }
  void TearDown() override {
    close(descriptor_);
    unlink(path_.c_str());
  }
  // On GPUs of one node a step of 8 samples takes 1 s, on two nodes 2 s; a GPU holds 4 samples.
  Outcome read(const std::string& more = "") {
    std::ofstream(path_) << "application,table,placement,num_nodes,num_replicas,local_bsz,step_time_s,sync_time_s\n"
                            "net,placement,1,1,1,4,1,0\nnet,placement,2,1,2,4,1,0\nnet,placement,11,2,2,4,2,0.5\n"
                            "net,placement,3,1,3,4,1,0\n"
                         << more;
    return times_.read(path_);
  }
  std::string path_;
  int descriptor_ = -1;
  StepTimes times_;
};

Trace training_jobs(const std::string& text) {
  Trace trace = parse_jobs(text);
  for (Job& job : trace.jobs) {
    job.model = "net";
    job.batch_size = 4 * job.gpus;
  }
  return trace;
}

TEST_F(Pollux, a_job_is_as_fast_as_its_placement) {
  ASSERT_TRUE(read().ok());
  EXPECT_DOUBLE_EQ(times_.step_s("net", {2}, 8), 1);
  EXPECT_DOUBLE_EQ(times_.step_s("net", {1, 1}, 8), 2);
  // Two turns of four samples for each GPU, the first without waiting for the other.
  EXPECT_DOUBLE_EQ(times_.step_s("net", {1, 1}, 16), 3.5);
  // Two nodes of four. A and B take three GPUs of one each, from the minute after their submission on, and begin 30 s
  // later. C finds one GPU on each: half as fast.
  std::vector<Trace> parts = {training_jobs("A 0 600 3; B 0 600 3; C 60 100 2")};
  ASSERT_TRUE(use_step_times(&parts, times_).ok());
  EXPECT_EQ(to_text(parts[0], run_pollux(parts[0], times_, 2)), "A 60-690; B 60-690; C 60-290");
}

TEST_F(Pollux, who_has_had_16_gpu_hours_stops_for_the_young) {
  // A has had them at 28860; then B, which needs the GPUs, runs 30 + 600 s, until 29490, and A goes on at 29520, with
  // 30 s for its restart and 40000 - 28770 s left.
  ASSERT_TRUE(read().ok());
  const Trace trace = training_jobs("A 0 40000 2; B 100 600 3");
  EXPECT_EQ(to_text(trace, run_pollux(trace, times_, 1)), "A 60-40780 stopped 1; B 28860-29490");
}

TEST_F(Pollux, wrong_step_times_are_told_with_their_line) {
  EXPECT_EQ(read("net,placement,4,1,4,4,-1,0\n").message(), path_ + ":6: is no measured step: its numbers are wrong");
  EXPECT_EQ(read("net\n").message(), path_ + ":6: 1 fields, not 8");
  std::vector<Trace> parts = {parse_jobs("A 0 600 3")};
  parts[0].jobs[0].line = 2;
  EXPECT_EQ(use_step_times(&parts, times_).message(),
            "line 2: job A has no application whose steps were measured, or no batch_size");
}

PackingResult pack_once(const std::vector<Node>& nodes, const std::vector<Pod>& pods, Packing packing) {
  return pack(nodes, pods, {.packing = packing, .arrivals = 1, .seed = 1});
}

TEST(Packing, a_node_needs_the_cpu_beside_its_gpus_unless_gpus_are_remote) {
  // Two GPUs with CPU for one job: the other GPU is of no use to anybody there.
  const std::vector<Node> nodes = {{"T4", 4000, 100, {1000, 1000}}};
  const std::vector<Pod> pods(2, Pod{.cpu_milli = 4000, .memory_mib = 1, .gpus = 1, .gpu_milli = 1000, .models = ""});
  for (const Packing packing : {Packing::kRandom, Packing::kBestFit, Packing::kFgd}) {
    const PackingResult result = pack_once(nodes, pods, packing);
    EXPECT_DOUBLE_EQ(result.allocated, 0.5);
    EXPECT_DOUBLE_EQ(result.fragmented, 0.5);
  }
  for (const Packing packing : {Packing::kPooled, Packing::kTide}) {
    EXPECT_DOUBLE_EQ(pack_once(nodes, pods, packing).allocated, 1);
    EXPECT_DOUBLE_EQ(pack_once(nodes, pods, packing).fragmented, 0);
  }
}

TEST(Packing, models_and_memory_are_kept) {
  const std::vector<Node> nodes = {{"T4", 4000, 100, {1000}}, {"A10", 4000, 100, {1000}}};
  const std::vector<Pod> picky(2, Pod{.cpu_milli = 1, .gpus = 1, .gpu_milli = 1000, .models = "V100|A10"});
  const std::vector<Pod> large(2, Pod{.cpu_milli = 1, .memory_mib = 101, .gpus = 1, .gpu_milli = 1000, .models = ""});
  for (const PackingName& each : kPackings)
    EXPECT_EQ(pack_once(nodes, picky, each.packing).allocated, 0.5) << each.name;
  EXPECT_EQ(pack_once(nodes, large, Packing::kFgd).allocated, 0);
  EXPECT_EQ(pack_once(nodes, large, Packing::kTide).allocated, 1);
}

TEST(Packing, fgd_leaves_whole_gpus_to_those_who_need_them) {
  // One GPU of two is half taken. Half the usual jobs want halves, half want wholes: a half goes to the half.
  const std::vector<Node> nodes = {{"T4", 99000, 9900, {500, 1000}}};
  const std::vector<Pod> pods = {{.cpu_milli = 1, .gpus = 1, .gpu_milli = 500, .models = "", .kind = 0},
                                 {.cpu_milli = 1, .gpus = 1, .gpu_milli = 1000, .models = "", .kind = 1}};
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    EXPECT_DOUBLE_EQ(pack(nodes, pods, {.packing = Packing::kFgd, .arrivals = 1, .seed = seed}).allocated, 1);
  }
}

TEST(Simulate, bounds) {
  // One GPU. The least left first: A 0-1, B 1-2, A 2-5, so 5 and 1. A's mean busy time is (1 * 0.5 + 3 * 3.5) / 4 =
  // 2.75, B's 1.5, less 1; with half of each duration the mean is (4.75 + 1) / 2.
  const Bounds bounds = bounds_of(parse_jobs("A 0 4 1; B 1 1 1"), 1);
  EXPECT_DOUBLE_EQ(bounds.no_wait_s, 2.5);
  EXPECT_DOUBLE_EQ(bounds.one_machine_s, 3);
  EXPECT_DOUBLE_EQ(bounds.mean_busy_s, 2.875);
  EXPECT_DOUBLE_EQ(bounds.mean_jct_s, 3);
  EXPECT_DOUBLE_EQ(bounds.makespan_s, 5);
  EXPECT_DOUBLE_EQ(bounds.utilisation, 1);
  // Two GPUs: nobody waits, and A alone decides the makespan.
  EXPECT_DOUBLE_EQ(bounds_of(parse_jobs("A 10 4 1; B 11 1 1"), 2).makespan_s, 4);
}

TEST(Simulate, metrics) {
  // One GPU: A 0-10, B 10-20. While A was there two jobs were; while B was there one and a half on the average.
  const Trace trace = parse_jobs("A 0 10 1 x; B 0 10 1 y");
  const Metrics metrics = measure(trace, run(trace, 1, *find_policy("fifo")));
  EXPECT_DOUBLE_EQ(metrics.jct_s.mean, 15);
  EXPECT_DOUBLE_EQ(metrics.queue_s.max, 10);
  EXPECT_DOUBLE_EQ(metrics.slowdown.mean, 1.5);
  EXPECT_DOUBLE_EQ(metrics.makespan_s, 20);
  EXPECT_DOUBLE_EQ(metrics.utilisation, 1);
  EXPECT_DOUBLE_EQ(metrics.allocation, 1);
  EXPECT_DOUBLE_EQ(metrics.rho.max, 20 / 15.0);
  EXPECT_DOUBLE_EQ(metrics.rho_above_1, 0.5);
  // x had the 10 GPU-seconds that it asked for, y half of its 20: (1 + 0.5)^2 / (2 * (1 + 0.25)).
  EXPECT_DOUBLE_EQ(metrics.jain_day_mean, 0.9);
  // A job of nine GPUs waits for ten seconds; one of eight is not wide.
  const Trace wide = parse_jobs("A 0 10 8; B 0 10 9");
  const Spread waited = measure(wide, run(wide, 9, *find_policy("fifo"))).wide_stopped_s;
  EXPECT_DOUBLE_EQ(waited.max, 10);
  EXPECT_DOUBLE_EQ(waited.mean, 10);
  const Spread spread = spread_of({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(spread.p50, 3);
  EXPECT_DOUBLE_EQ(spread.p99, 4);
}

Trace random_trace(uint64_t seed, uint32_t gpus) {
  const auto roll = [&seed](uint32_t sides) { return uint32_t((seed = mix(seed)) % sides); };
  Trace trace;
  double at = 0;
  for (uint32_t i = 0; i < 300; ++i) {
    Job job;
    job.id = "j" + std::to_string(i);
    job.team = "t" + std::to_string(roll(3));
    job.submit_s = at += roll(3) * roll(40);
    job.duration_s = 1 + roll(400) * (roll(5) == 0 ? 20 : 1);
    job.gpus = roll(4) == 0 ? 1 + roll(gpus) : 1 + roll(2);
    trace.jobs.push_back(job);
  }
  return trace;
}

// Never more GPUs than there are, a job once at a time, and exactly its work.
void expect_sound(const Trace& trace, const Result& result, const Costs& costs) {
  for (const auto& [time, gpus] : leased_over_time(result)) ASSERT_LE(gpus, int64_t(result.gpus)) << "at " << time;
  std::vector<double> worked(trace.jobs.size()), last(trace.jobs.size());
  for (const Turn& turn : result.turns) {
    ASSERT_GE(turn.from_s, std::max(trace.jobs[turn.job].submit_s, last[turn.job]));
    last[turn.job] = turn.to_s;
    worked[turn.job] += turn.to_s - turn.from_s;
  }
  for (size_t i = 0; i < trace.jobs.size(); ++i) {
    const JobResult& job = result.jobs[i];
    const double extra_s = (job.pause_gpu_s + job.lost_gpu_s) / trace.jobs[i].gpus;
    ASSERT_NEAR(worked[i], trace.jobs[i].duration_s + extra_s, 1e-6) << trace.jobs[i].id;
    ASSERT_LE(job.pause_gpu_s, costs.resume_s * job.preemptions * trace.jobs[i].gpus + 1e-6);
    ASSERT_EQ(last[i], job.end_s);
  }
}

// Nobody waits who would fit (of `fifo` and `easy`: the first in line does not).
void expect_no_idle_gpus(const Trace& trace, const Result& result, const Policy& policy) {
  std::map<double, int64_t> free = leased_over_time(result);
  std::map<uint32_t, std::vector<std::pair<double, double>>> runs;
  for (const Turn& turn : result.turns) runs[turn.job].push_back({turn.from_s, turn.to_s});
  for (const Job& job : trace.jobs) free.insert({job.submit_s, -1});
  int64_t leased = 0;
  for (const auto& [time, gpus] : free) {
    leased = gpus < 0 ? leased : gpus;
    for (uint32_t i = 0; i < trace.jobs.size(); ++i) {
      if (trace.jobs[i].submit_s > time || result.jobs[i].end_s <= time) continue;
      const bool runs_now = std::any_of(runs[i].begin(), runs[i].end(),
                                        [t = time](const auto& turn) { return turn.first <= t && t < turn.second; });
      if (runs_now) continue;
      ASSERT_GT(leased + trace.jobs[i].gpus, result.gpus) << policy.name << ": " << trace.jobs[i].id << " at " << time;
      if (policy.passing != Passing::kFits) break;
    }
  }
}

TEST(Simulate, properties_of_every_policy_on_random_traces) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const Trace trace = random_trace(seed, 16);
    const Bounds bounds = bounds_of(trace, 16);
    for (const char* name : {"fifo", "fifo-skip", "easy", "sjf", "srtf", "srsf", "tiresias-l"}) {
      SCOPED_TRACE(std::string(name) + ", seed " + std::to_string(seed));
      const Policy& policy = *find_policy(name);
      const Costs costs{.resume_s = double(seed % 3), .checkpoint_s = seed % 2 == 0 ? 25.0 : 0.0};
      const Result result = run(trace, 16, policy, costs);
      expect_sound(trace, result, costs);
      expect_no_idle_gpus(trace, result, policy);
      EXPECT_EQ(to_text(trace, result), to_text(trace, run(trace, 16, policy, costs)));
      const Metrics metrics = measure(trace, result);
      EXPECT_GE(metrics.jct_s.mean, bounds.mean_jct_s * (1 - 1e-12));
      EXPECT_GE(metrics.makespan_s, bounds.makespan_s * (1 - 1e-12));
      EXPECT_LE(metrics.utilisation, bounds.utilisation * (1 + 1e-12));
    }
  }
}

TEST(Simulate, properties_of_the_pools_own_policy) {
  Trace trace = random_trace(7, 16);
  trace.jobs.resize(120);
  Result result, again;
  const ElasticOptions options{.costs = {.move_s = 2}};
  ASSERT_TRUE(run_pool(trace, {.gpus = 16}, options, &result).ok());
  ASSERT_TRUE(run_pool(trace, {.gpus = 16}, options, &again).ok());
  EXPECT_EQ(to_text(trace, result), to_text(trace, again));
  for (const auto& [time, gpus] : leased_over_time(result)) ASSERT_LE(gpus, 16) << "at " << time;
  EXPECT_GE(measure(trace, result).jct_s.mean, bounds_of(trace, 16).mean_jct_s);
}

}  // namespace
}  // namespace tide::simulate
