#pragma once

// The pool's own policy (scheduler/policy.h) over a trace: the code that the scheduler runs, asked at every arrival and
// every end. Its jobs are elastic: between their minimum and all of their GPUs.

#include "scheduler/simulate/result.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

struct Pool {
  uint32_t gpus = 0;
  uint32_t server_gpus = 8;  // the last server may have fewer
};

// How fast a job is whose vGPUs share fewer physical GPUs.
enum class Scaling : uint8_t {
  kSlowest,  // as its fullest GPU: a step waits for all (3 vGPUs on 2 GPUs: 1/2)
  kLinear,   // as its part of the GPUs (2/3)
};

struct ElasticOptions {
  uint32_t min_gpus = 1;  // of a job of which the trace says nothing; 0: all of them
  Scaling scaling = Scaling::kSlowest;
  Costs costs = {};
};

// Fails where a job can never start.
Outcome run_pool(const Trace& trace, const Pool& pool, const ElasticOptions& options, Result* result);

}  // namespace tide::simulate
