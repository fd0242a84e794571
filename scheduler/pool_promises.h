#pragma once

// What a job asks for with --estimate and --deadline, and what is said about it.

#include <string>

#include "base/outcome.h"
#include "scheduler/control.capnp.h"
#include "scheduler/explain.h"
#include "scheduler/ledger.h"

namespace tide::sched {

// Takes them from what was submitted. Fails where they make no sense.
Outcome read_promise(control::JobSpec::Reader spec, uint64_t now_ms, JobRecord* record);

// Fails, with the reason and the earliest deadline that could be promised, where this one cannot be. `record` has its
// queue.
Outcome promise_deadline(const Ledger& ledger, State state, JobView job, const JobRecord& record);

void fill_promise(control::PromiseInfo::Builder info, const Job& job);

// Of a job with a deadline: what has to be said about that before all else. Empty: nothing.
Explanation why_promise(const Job& job);
// What was promised, what is left and what it gets; one line each.
std::vector<std::string> promise_evidence(const Job& job);

}  // namespace tide::sched
