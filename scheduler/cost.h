#pragma once

// What it costs to disturb a job for others' sake, in milliseconds of GPU time that do nothing: so that of those who
// may be disturbed (JobView::spared, JobView::preemptible) the ones are chosen whom it costs least. Pure arithmetic.

#include <cstdint>

#include "scheduler/state.h"

namespace tide::sched {

inline constexpr uint64_t kNeverWorth = UINT64_MAX;  // it is nearly done: waiting for it is cheaper

// GPU memory that would be copied: as last heard; where nothing was heard, the quotas of its vGPUs.
uint64_t bytes_to_move(const JobView& job);
// That it stands still when it is suspended and resumed: as measured the last time, else by its bytes.
uint64_t pause_ms(const JobView& job);
// Whether what it still has to do, where that is known, takes no longer than disturbing it is worth. Who has run longer
// than it was expected to is not nearly done: nothing is known of it then.
bool is_nearly_done(const JobView& job);
// Of suspending and resuming it: its pause on each GPU that it has; kNeverWorth where it is nearly done. Moving one
// vGPU of it costs no more than this divided by its vGPUs.
uint64_t disturbance_cost(const JobView& job);

}  // namespace tide::sched
