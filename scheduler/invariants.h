#pragma once

// What must hold of every decision, whatever the policy is and whoever asked for what: no GPU is given twice or has
// more parts or memory on it than there is of it, what a job requires holds, no queue gets more than it may have. Pure,
// and written without any of the policy's own code, so that tests and `tide simulate --check` can hold it to account.

#include <string>

#include "scheduler/state.h"

namespace tide::sched {

// Empty, or what is wrong: one sentence, about the first of it. What was so before and is not changed is nobody's
// fault: a job that lies where it should not any more, and a queue with more than it may have since its limit fell.
std::string what_is_wrong(const State& state, const Assignment& assignment);

}  // namespace tide::sched
