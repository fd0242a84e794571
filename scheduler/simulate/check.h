#pragma once

// What must hold of any replay, whatever the policy: never more GPUs in use than there are, no job in two turns at once
// or before it was submitted, and each ends when it has had what it needs. Pure.

#include <string>

#include "scheduler/simulate/result.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

// Empty, or what is wrong: one sentence, about the first of it.
std::string what_is_wrong(const Trace& trace, const Result& result);

}  // namespace tide::simulate
