#pragma once

// Other traces of the same kind, for confidence intervals: a circular block bootstrap over time. The recorded time is
// cut into blocks; as many are drawn with replacement, each beginning anywhere, and laid one after the other. Within a
// block jobs keep their gaps, sizes and durations, so what depends on neighbours (bursts, sweeps of one user) stays. A
// block that would go beyond the end goes on from the beginning. Pure.

#include <cstdint>
#include <vector>

#include "scheduler/simulate/trace.h"

namespace tide::simulate {

inline constexpr uint32_t kBlocks = 20;  // that the time is cut into

// Never empty; the same seed gives the same trace. Jobs that are drawn again get ids of their own. Requires: `trace`
// has jobs.
Trace resample(const Trace& trace, uint64_t seed);

// Half the width of the 95 % interval around the figure of the recorded trace: Student's t times the standard deviation
// of what the resampled traces gave. Requires: two at least.
double half_width_95(const std::vector<double>& resampled);

}  // namespace tide::simulate
