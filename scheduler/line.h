#pragma once

// GPUs shared out in line (order.h) in a pool in which jobs run already: pure functions of a snapshot. Who is granted
// fewer than it has shrinks, and who is granted none is suspended, as far as that gives GPUs to somebody before it: the
// last in line first, and nobody is suspended where shrinking will do. What is granted follows from places in line and
// not from who has what; so when all of it has been done, nothing is left to do.

#include <cstdint>
#include <vector>

#include "scheduler/order.h"
#include "scheduler/state.h"

namespace tide::sched {

inline constexpr uint32_t kNobody = UINT32_MAX;

// What a job in line has, and what follows for it from what it was granted.
struct InLine {
  uint32_t held = 0;             // GPUs
  uint32_t due = 0;              // that it has now; it waits: that it starts on, as soon as there are so many
  uint32_t more = 0;             // it runs, and so many others leave for it
  uint32_t yields_to = kNobody;  // it is suspended for that one
  bool yields = false;
  bool operator==(const InLine&) const = default;
};

// What there is to be shared out, besides what those in line have.
struct Supply {
  int64_t free = 0;     // GPUs that nobody has; less than 0: so many must be given to others who are not in line
  int64_t leaving = 0;  // whose jobs are being suspended
};

// Shares out, and sets all of `jobs` that are in `lines` but `held`. Both vectors are by the lines' numbers.
void stand_in_line(const Lines& lines, const Supply& supply, const OrderRules& rules,
                   std::vector<Candidate>* candidates, std::vector<InLine>* jobs);

// Sets JobView::in_line, and of those jobs due_gpus, due_more and yields_to. Requires: keep_promises() has been asked;
// jobs are not in queues, do not take turns, and there are no reservations. Jobs that have a part of a GPU are not
// stopped, and wait in line for a GPU where no part is left for them.
void keep_line(State* state);

}  // namespace tide::sched
