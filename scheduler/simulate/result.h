#pragma once

// What a simulation gives: when each job began and ended, and each of its turns on GPUs.

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::simulate {

// What it costs to stop and to move, as measured (docs/results/moves.md) or supposed.
struct Costs {
  double resume_s = 0;      // a job that was stopped holds its GPUs so long before it goes on
  double move_s = 0;        // a running job whose vGPUs move stands so long
  double checkpoint_s = 0;  // what it did since the last such mark is lost when it is stopped; 0: nothing is lost
};

struct JobResult {
  double start_s = 0, end_s = 0;
  double running_s = 0;  // on GPUs
  double leased_gpu_s = 0, pause_gpu_s = 0, lost_gpu_s = 0;
  uint32_t preemptions = 0;
  uint32_t moves = 0;  // vGPUs that went to another GPU
};

// A job on GPUs without a break, and without a change of their count.
struct Turn {
  uint32_t job = 0;  // index in the trace
  uint32_t gpus = 0;
  double from_s = 0, to_s = 0;
};

// How a queue of pool.toml fared. GPU-seconds.
struct QueueResult {
  std::string name;
  double quota = 0, limit = 0;  // GPUs; no limit: all
  double had_gpu_s = 0;
  double wanted_gpu_s = 0;      // by jobs that ran or waited
  double lack_gpu_s = 0;        // of its quota, while its jobs wanted it
  double lack_longest_s = 0;    // without a break
  double over_limit_gpu_s = 0;  // more than it may have
};

struct Result {
  std::vector<JobResult> jobs;  // as in the trace
  std::vector<Turn> turns;      // in the order of their ends
  uint32_t gpus = 0;
  uint64_t decisions = 0;                // how often the policy was asked
  std::vector<QueueResult> queues = {};  // in the order of pool.toml; none: there were none
};

}  // namespace tide::simulate
