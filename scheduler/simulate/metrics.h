#pragma once

// What is told of a simulation. Definitions: docs/simulate.md.

#include <map>
#include <string>

#include "scheduler/simulate/result.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

struct Spread {
  double mean = 0, p50 = 0, p95 = 0, p99 = 0, max = 0;
};
// A quantile q of n values: the sorted one with the index int(q n), or what lies at q (n - 1) on the line between two
// of them, as most tools have it.
enum class Quantiles { kValues, kBetween };
// Of no values: zeros.
Spread spread_of(std::vector<double> values, Quantiles quantiles = Quantiles::kValues);

inline constexpr uint32_t kWideGpus = 8;

struct Metrics {
  Spread jct_s;           // end - submission
  Spread slowdown;        // jct / duration, both at least 10 s
  Spread queue_s;         // first start - submission
  Spread stopped_s;       // all the time without a GPU
  Spread wide_stopped_s;  // the same, of jobs that ask for more than kWideGpus
  double makespan_s = 0;
  double utilisation = 0;  // work of the jobs / (GPUs x makespan)
  double allocation = 0;   // GPU-seconds leased / (GPUs x makespan)
  double preemptions_per_job = 0, moves_per_job = 0;
  double leased_gpu_s = 0, useful_gpu_s = 0, pause_gpu_s = 0, lost_gpu_s = 0;
  // Fairness. rho: a job's jct / what it would have been had all jobs that were there shared the GPUs in proportion.
  Spread rho;
  double rho_above_1 = 0;  // the part of the jobs
  // Jain's index over the teams' GPU-seconds / entitled ones (max-min of what they asked for), in windows of a day.
  double jain_day_mean = 1, jain_day_least = 1;
};

// Requires: the result is that trace's.
Metrics measure(const Trace& trace, const Result& result, Quantiles quantiles = Quantiles::kValues);

// GPUs leased over time: the count from each moment on.
std::map<double, int64_t> leased_over_time(const Result& result);

}  // namespace tide::simulate
