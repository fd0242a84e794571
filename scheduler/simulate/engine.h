#pragma once

// A trace replayed under a virtual clock: from one arrival, end or change of rank to the next, and at each the policy
// says who runs. Pure: no clock of the machine, no threads, no input or output; the same trace gives the same answer.

#include "scheduler/simulate/policies.h"
#include "scheduler/simulate/result.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

// Fails where a job asks for more GPUs than there are.
Outcome check_sizes(const Trace& trace, uint32_t gpus);

// Requires: check_sizes() is OK.
Result run(const Trace& trace, uint32_t gpus, const Policy& policy, const Costs& costs = {});

}  // namespace tide::simulate
