#pragma once

// The pool's own policy (scheduler/policy.h) over a trace: the code that the scheduler runs, told of every arrival and
// every end. Its jobs are elastic: between their minimum and all of their GPUs. Nothing is ever lost: a job whose GPUs
// are taken for another queue waits from then on.

#include <utility>
#include <vector>

#include "scheduler/config.h"
#include "scheduler/simulate/result.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

struct Pool {
  uint32_t gpus = 0;
  uint32_t server_gpus = 8;                     // the last server may have fewer
  std::vector<sched::QueueConfig> queues = {};  // of pool.toml: a job's team is its queue; none: one without limit
  sched::PolicyConfig policy = {};
};

// How fast a job is whose vGPUs share fewer physical GPUs.
enum class Scaling : uint8_t {
  kSlowest,  // as its fullest GPU: a step waits for all (3 vGPUs on 2 GPUs: 1/2)
  kLinear,   // as its part of the GPUs (2/3)
  kCurve,    // as was measured
};

// Speed of a job, as a part of its full one, on a part of the GPUs that it asked for; on the line between its points,
// and from nothing on none.
class ScalingCurve {
 public:
  // A CSV with the columns gpus_part, speed_part, both above 0 and at most 1, the first ascending, the last row 1, 1.
  // Fails with file and line.
  Outcome read(const std::string& path);
  double speed(double part) const;

 private:
  std::vector<std::pair<double, double>> points_;
};

// What is told of how long jobs will run.
enum class Told : uint8_t {
  kNothing,
  kLearned,  // what a job's user says (the trace's estimate_s), else what jobs that ended have taught
  kGiven,    // each user says something: given_s()
};

struct ElasticOptions {
  uint32_t min_gpus = 1;  // of a job of which the trace says nothing; 0: all of them
  Scaling scaling = Scaling::kSlowest;
  ScalingCurve curve = {};  // of kCurve
  Costs costs = {};
  Told told = Told::kLearned;
  double estimate_error = 3;  // of kGiven
  bool check = false;         // each decision, with scheduler/invariants.h
};

// Fails where a job can never start, no queue takes it, or a decision that was to be checked is wrong.
Outcome run_pool(const Trace& trace, const Pool& pool, const ElasticOptions& options, Result* result);

}  // namespace tide::simulate
