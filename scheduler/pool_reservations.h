#pragma once

// Reservations towards people: who may use which, and how they stand.

#include "base/outcome.h"
#include "scheduler/control.capnp.h"
#include "scheduler/ledger.h"

namespace tide::sched {

// Of a job that is being submitted: whether there is the reservation that it names, it is not over, the job may use it,
// and could ever run on it. A job that names none may do so.
Outcome may_use_reservation(const Ledger& ledger, const State& state, const JobView& view, const JobRecord& job,
                            uint64_t now_ms);

}  // namespace tide::sched
