#pragma once

// Jobs that shrink rather than hold others up and are suspended without losing anything, in the order of what they are
// expected to need yet: scheduler/order.h with the estimates of scheduler/estimates.h, over a trace. Not the policy of
// the running scheduler, which stops nobody for the sake of an order (elastic.h). Pure, as engine.h.

#include "scheduler/order.h"
#include "scheduler/simulate/result.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

enum class Knowledge : uint8_t {
  kLearned,  // from jobs that ended before
  kGiven,    // each job comes with an estimate of its duration: given_s()
  kOracle,   // durations
};

struct LearnedOptions {
  sched::OrderRules rules = {};
  Knowledge knowledge = Knowledge::kLearned;
  double estimate_error = 3;  // a factor between 1 / this and this, evenly drawn by its logarithm
  Costs costs = {};           // nothing is ever lost: checkpoint_s is not used
};

// A duration as its user tells it: as the trace says (estimate_s), else wrong by a factor of up to `error` either way,
// of the same job always the same.
double given_s(const Trace& trace, uint32_t job, double error);

// Requires: check_sizes() is OK.
Result run_learned(const Trace& trace, uint32_t gpus, const LearnedOptions& options);

}  // namespace tide::simulate
