#pragma once

// Tiresias as the simulator of Pollux's artifact (OSDI '21) has it: decisions once a minute, two queues by the GPU time
// that a job had, GPUs taken from the emptiest nodes, 30 s for each restart, and a job as fast as its placement was
// measured to be.

#include "scheduler/simulate/result.h"
#include "scheduler/simulate/step_times.h"
#include "scheduler/simulate/trace.h"

namespace tide::simulate {

inline constexpr uint32_t kPolluxNodeGpus = 4;

// Fails where jobs have no application or batch size, or one that was not measured. Jobs of one application and batch
// size do the same work, so the duration on more nodes than were measured follows from one that was.
Outcome use_step_times(std::vector<Trace>* parts, const StepTimes& times);

// Requires: use_step_times() and check_sizes() were OK.
Result run_pollux(const Trace& trace, const StepTimes& times, uint32_t nodes);

}  // namespace tide::simulate
