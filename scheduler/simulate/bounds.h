#pragma once

// What no schedule of a trace on so many GPUs can better, whatever it knows. Jobs may shrink (to fewer GPUs, at a speed
// of at most their share) and stop at no cost; they may not grow beyond what they ask for.

#include "scheduler/simulate/trace.h"

namespace tide::simulate {

struct Bounds {
  double mean_jct_s = 0;  // the largest of the three
  // Nobody is faster than alone.
  double no_wait_s = 0;
  // One machine as fast as all GPUs together, the least work left first: optimal there, and any schedule here is one
  // there.
  double one_machine_s = 0;
  // Mean busy times on that machine, the least work first (Goemans): no job ends before the middle of its work plus
  // half of its duration.
  double mean_busy_s = 0;
  double makespan_s = 0;   // from the first submission
  double utilisation = 0;  // of all GPUs, over a makespan as short as that
};

// Requires: the trace has jobs.
Bounds bounds_of(const Trace& trace, uint32_t gpus);

}  // namespace tide::simulate
