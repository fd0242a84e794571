#pragma once

// Deadlines that were promised: pure functions of a snapshot. A job with an estimate and a deadline is taken in only if
// it can be in time beside all that was promised before; the policy is then told what is due now. Everything is counted
// in whole GPUs: of the pool, of those that meet what a job requires, of what queues may have at most. GPUs of other
// jobs count as available, since these shrink or are suspended, unless nothing may be taken from them.
//
// What is due: a promised job that runs has the fewest GPUs that will do from now on; one that waits is due when
// waiting any longer (spare_ms()) would be too long, and until then waits like others. A promise ends with its job,
// with its deadline, or when the job has run for as long as was estimated.

#include <cstdint>
#include <map>
#include <string>

#include "scheduler/state.h"

namespace tide::sched {

inline constexpr uint64_t kChangeMs = 1'000;  // a change of a job's GPUs is reckoned to take so long

// That is left over where a promise is made, for what comes in between.
uint64_t spare_ms(const JobView& job);

// Whether its deadline still counts.
bool is_promised(const JobView& job, uint64_t now_ms);
// That it has to run yet on all its GPUs.
uint64_t left_ms(const JobView& job);

struct Admission {
  bool possible = false;
  uint64_t earliest_ms = 0;  // not possible: the deadline that could be promised; 0: none could
  std::string because;       // not possible: what is in the way
};
// Whether `job`, which is not in `state`, can be promised its deadline. Requires: it has an estimate and a deadline.
Admission may_promise(const State& state, const JobView& job);

// How a promise stands.
struct PromiseView {
  bool kept = true;        // it can be; else as much is done for it as can be beside the others
  uint32_t gpus = 0;       // that it needs now; 0: it may wait
  uint64_t ends_ms = 0;    // when it is done, if it gets no more than it needs; 0: not before its deadline
  uint64_t starts_ms = 0;  // it waits: when it becomes due at the latest, about; 0: it is, or it runs
};
struct Promises {
  std::map<std::string, PromiseView> jobs;  // those with a promise that counts
  uint64_t next_ms = 0;                     // when this has to be looked at again though nothing has happened; 0: never
};
// Says of each job what promises mean for it now (JobView::due_gpus, yields_to, kept_out_for, preemptible).
Promises keep_promises(State* state);

}  // namespace tide::sched
