// Traces and numbers that others published (muri_expected.csv: from the artifact of Muri, github.com/Rivendile/Muri at
// 4e69a78; pollux_expected.csv: from that of Pollux, github.com/petuum/adaptdl, branch osdi21-artifact at c793c70; both
// Apache-2.0). The traces are not part of the repository: their folder is $TIDE_TRACES, else
// ../shared/data/traces beside the checkout; without it the test is skipped.

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/log.h"
#include "scheduler/simulate/bounds.h"
#include "scheduler/simulate/csv.h"
#include "scheduler/simulate/deadlines.h"
#include "scheduler/simulate/elastic.h"
#include "scheduler/simulate/engine.h"
#include "scheduler/simulate/learned.h"
#include "scheduler/simulate/metrics.h"
#include "scheduler/simulate/muri.h"
#include "scheduler/simulate/packing.h"
#include "scheduler/simulate/pollux.h"

namespace tide::simulate {
namespace {

std::string folder() {
  const char* const given = getenv("TIDE_TRACES");
  return given != nullptr ? given : TIDE_SOURCE_ROOT "/../shared/data/traces";
}

TraceFile read(const char* name) {
  TraceFile file = read_trace(folder() + "/" + name, {});
  for (const TraceError& error : file.errors) ADD_FAILURE() << error.text();
  return file;
}

const Trace& part(const TraceFile& file, const std::string& name) {
  for (const Trace& trace : file.parts) {
    if (trace.name == name) return trace;
  }
  throw std::runtime_error("no part " + name);
}

// "12.50" for 12.4999 and "12.50": with as many digits as the other has.
std::string with_digits_of(const std::string& printed, double value) {
  const size_t point = printed.find('.');
  return format("%.*f", point == std::string::npos ? 0 : int(printed.size() - point - 1), value);
}

// The rows behind the first.
std::vector<std::vector<std::string>> rows_of(const std::string& name) {
  std::vector<std::vector<std::string>> rows;
  std::ifstream file(TIDE_SOURCE_ROOT "/tests/scheduler/" + name);
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) split_row(line, &rows.emplace_back());
  return rows;
}

MuriPolicy policy_of(const std::string& name) {
  return name == "SRTF" ? MuriPolicy::kSrtf : name == "SRSF" ? MuriPolicy::kSrsf : MuriPolicy::kTiresiasL;
}

TEST(Published, muri_to_every_printed_digit) {
  const TraceFile file = read("muri_philly_traces.csv.gz");
  const auto rows = rows_of("muri_expected.csv");
  ASSERT_EQ(rows.size(), 24u);
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 5u);
    Trace trace = part(file, row[0]);
    Result result;
    ASSERT_TRUE(use_iterations(&trace).ok());
    ASSERT_TRUE(run_muri(trace, 8, policy_of(row[1]), &result).ok());
    const Metrics metrics = measure(trace, result);
    const std::string what = row[0] + " " + row[1];
    EXPECT_EQ(with_digits_of(row[2], metrics.jct_s.mean), row[2]) << what;
    EXPECT_EQ(with_digits_of(row[3], metrics.jct_s.p99), row[3]) << what;
    EXPECT_EQ(with_digits_of(row[4], metrics.makespan_s), row[4]) << what;
  }
}

// Another implementation of the bounds gave these, on 64 GPUs, of the durations as they are in the file.
TEST(Published, bounds_of_muris_traces) {
  const TraceFile file = read("muri_philly_traces.csv.gz");
  for (const auto& [name, bound] : std::initializer_list<std::pair<const char*, double>>{{"trace1", 789240},
                                                                                         {"trace1_pr", 1751270},
                                                                                         {"trace3", 126934},
                                                                                         {"trace3_pr", 770878},
                                                                                         {"trace4", 435731},
                                                                                         {"trace4_pr", 1181672}}) {
    EXPECT_NEAR(bounds_of(part(file, name), 64).mean_jct_s, bound, 1) << name;
  }
}

// What is published of a load, means of its eight workloads, within 2 %. Of single workloads the mean time, 30 of 32.
TEST(Published, tiresias_as_pollux_has_it) {
  TraceFile file = read("pollux_osdi21_workloads.csv.gz");
  StepTimes times;
  ASSERT_TRUE(times.read(folder() + "/pollux_t4_step_times.csv.gz").ok());
  ASSERT_TRUE(use_step_times(&file.parts, times).ok());
  struct Sums {
    double ours[3] = {}, theirs[3] = {};  // mean, p99, makespan
  };
  std::map<std::string, Sums> sums;
  int close = 0;
  const auto rows = rows_of("pollux_expected.csv");
  ASSERT_EQ(rows.size(), 32u);
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 5u);
    const Trace& trace = part(file, "load" + row[0] + "-w" + row[1].substr(row[1].size() - 1));
    const Metrics metrics = measure(trace, run_pollux(trace, times, 16), Quantiles::kBetween);
    const double ours[] = {metrics.jct_s.mean, metrics.jct_s.p99, metrics.makespan_s};
    for (size_t i = 0; i < 3; ++i) {
      sums[row[0]].ours[i] += ours[i];
      sums[row[0]].theirs[i] += std::stod(row[2 + i]);
    }
    const double mean = std::stod(row[2]);
    EXPECT_NEAR(ours[0], mean, 0.06 * mean) << trace.name;
    close += std::abs(ours[0] - mean) <= 0.02 * mean;
  }
  EXPECT_GE(close, 30);
  ASSERT_EQ(sums.size(), 4u);
  for (const auto& [load, sum] : sums) {
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(sum.ours[i], sum.theirs[i], 0.02 * sum.theirs[i]) << "load " << load << ", figure " << i;
    }
  }
}

// The means of ten orders of arrival, in percent of all GPUs; other orders than theirs.
TEST(Published, openb_as_fgd_packs_it) {
  std::vector<Node> nodes;
  std::vector<Pod> pods;
  ASSERT_TRUE(read_nodes(folder() + "/alibaba_openb2023_gpu_nodes.csv", &nodes).ok());
  ASSERT_TRUE(read_pods(folder() + "/alibaba_openb2023_pods_default.csv.gz", &pods).ok());
  ASSERT_EQ(nodes.size(), 1213u);
  struct Row {
    Packing packing;
    double allocated_pct, fragmented_pct;
  };
  for (const Row& row : {Row{Packing::kRandom, 86.303, 13.486}, Row{Packing::kBestFit, 92.862, 7.055},
                         Row{Packing::kFgd, 95.227, 4.729}}) {
    double allocated = 0, fragmented = 0;
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      const PackingResult result = pack(nodes, pods, {.packing = row.packing, .seed = seed});
      allocated += 10 * result.allocated;
      fragmented += 10 * result.fragmented;
    }
    EXPECT_NEAR(allocated, row.allocated_pct, 0.5);
    EXPECT_NEAR(fragmented, row.fragmented_pct, 0.5);
  }
}

// In turns as good as all, in parts what moving gives over FGD's 95.2 %, and never more than the bound.
TEST(Published, openb_with_moves) {
  std::vector<Node> nodes;
  std::vector<Pod> pods;
  ASSERT_TRUE(read_nodes(folder() + "/alibaba_openb2023_gpu_nodes.csv", &nodes).ok());
  ASSERT_TRUE(read_pods(folder() + "/alibaba_openb2023_pods_default.csv.gz", &pods).ok());
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const PackingResult moves = pack(nodes, pods, {.packing = Packing::kMoves, .seed = seed});
    EXPECT_GT(moves.allocated, 0.955);
    EXPECT_LE(moves.allocated, moves.bound);
    EXPECT_LT(moves.moves_per_job, 0.5);
    EXPECT_GE(pack(nodes, pods, {.packing = Packing::kTurns, .seed = seed}).allocated, 0.99);
  }
}

// More are in time than under ElasticFlow (figure 8b), all that were promised are, also on a quarter of the GPUs.
TEST(Published, deadlines_of_elasticflows_clusters) {
  const TraceFile file = read_trace(folder() + "/msitp_deadlines_c01_c03.csv.gz", {.by_team = true});
  Throughputs throughputs;
  ASSERT_TRUE(throughputs.read(folder() + "/elasticflow_throughputs.csv.gz").ok());
  for (const auto& [name, theirs] : std::initializer_list<std::pair<const char*, double>>{
           {"cluster01", 0.788}, {"cluster02", 0.822}, {"cluster03", 0.455}}) {
    for (const uint32_t gpus : {512u, 128u}) {
      DeadlineResult result;
      ASSERT_TRUE(run_deadlines(part(file, name), throughputs, {gpus, 4}, &result).ok());
      EXPECT_GT(double(result.kept) / result.jobs, theirs) << name << " on " << gpus;
      EXPECT_EQ(result.kept, result.promised) << name << " on " << gpus;
    }
  }
}

struct Reference {
  uint32_t gpus;
  const char* policy;
  double avg_jct_s, within;
};

// Of another simulator of these policies (GPUs alike, no places). Its ties are broken otherwise.
constexpr Reference kPhilly[] = {
    {400, "fifo", 1476061.7, 1e-6},     {400, "fifo-skip", 498386.1, 1e-6}, {400, "sjf", 51135.0, 1e-3},
    {400, "srtf", 28315.2, 1e-3},       {400, "srsf", 21836.6, 1e-3},       {448, "fifo", 977157.1, 1e-6},
    {448, "fifo-skip", 311132.8, 1e-6}, {448, "sjf", 31102.6, 1e-3},        {448, "srtf", 22404.2, 1e-3},
    {448, "srsf", 18213.0, 1e-3},       {512, "fifo", 488906.4, 1e-6},      {512, "fifo-skip", 131175.6, 1e-6},
    {512, "sjf", 25284.3, 1e-3},        {512, "srtf", 17375.4, 1e-3},       {512, "easy", 437383.9, 1e-3},
};

TEST(Published, philly_as_another_simulator_has_it) {
  const TraceFile file = read("philly_82k.csv.gz");
  ASSERT_EQ(file.parts.size(), 1u);
  const Trace& trace = file.parts[0];
  ASSERT_EQ(trace.jobs.size(), 82247u);
  for (const Reference& row : kPhilly) {
    const Result result = run(trace, row.gpus, *find_policy(row.policy));
    EXPECT_NEAR(measure(trace, result).jct_s.mean, row.avg_jct_s, row.avg_jct_s * row.within)
        << row.policy << " on " << row.gpus;
  }
  EXPECT_NEAR(bounds_of(trace, 400).mean_jct_s, 13699.2, 0.1);
  EXPECT_NEAR(bounds_of(trace, 448).mean_jct_s, 13135.9, 0.1);
}

// docs/scheduling.md says which goals are met, and which are not.
TEST(Published, philly_by_estimates) {
  const TraceFile file = read("philly_82k.csv.gz");
  const Trace& trace = file.parts[0];
  constexpr double kSrtfMean_s = 17375.4, kFifoSkipP99_s = 707930;
  const double makespan_s = bounds_of(trace, 512).makespan_s;
  for (const Knowledge knowledge : {Knowledge::kLearned, Knowledge::kGiven}) {
    const Metrics metrics = measure(trace, run_learned(trace, 512, {.knowledge = knowledge}));
    EXPECT_LT(metrics.jct_s.mean, kSrtfMean_s * (knowledge == Knowledge::kGiven ? 1 : 1.1));
    EXPECT_LT(metrics.jct_s.p99, kFifoSkipP99_s);
    EXPECT_LE(metrics.makespan_s, 1.02 * makespan_s);
    EXPECT_EQ(metrics.lost_gpu_s, 0);
  }
}

// The running scheduler's policy, told roughly: all aims are met.
TEST(Published, philly_by_the_running_scheduler) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "minutes with a sanitizer; the planner's tests run the same code";
#endif
  const TraceFile file = read("philly_82k.csv.gz");
  const Trace& trace = file.parts[0];
  constexpr double kSrtfMean_s = 17375.4, kFifoSkipP99_s = 707930;
  const double makespan_s = bounds_of(trace, 512).makespan_s;
  Pool pool{.gpus = 512};
  pool.policy.by_estimates = pool.policy.preempts = true;
  Result result;
  ASSERT_TRUE(run_pool(trace, pool, {.told = Told::kGiven}, &result).ok());
  const Metrics metrics = measure(trace, result);
  EXPECT_LT(metrics.jct_s.mean, kSrtfMean_s);
  EXPECT_LT(metrics.jct_s.p99, kFifoSkipP99_s);
  EXPECT_LE(metrics.makespan_s, 1.02 * makespan_s);
  EXPECT_EQ(metrics.lost_gpu_s, 0);
}

}  // namespace
}  // namespace tide::simulate

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!std::filesystem::is_directory(tide::simulate::folder())) {
    fprintf(stderr, "skipped: no traces at %s; TIDE_TRACES says where they are\n", tide::simulate::folder().c_str());
    return 77;
  }
  return RUN_ALL_TESTS();
}
