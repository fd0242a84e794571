#pragma once

// Rounds of the scheduler's own reconciler in a large pool: with a store in memory, and agents that do at once what
// they are asked to.

#include <cstdint>
#include <functional>
#include <vector>

#include "scheduler/queue_config.h"
#include "scheduler/state.h"

namespace tide::sched {

struct RoundsSize {
  uint32_t servers = 1280, jobs = 100'000, events = 2'000;
  std::vector<QueueConfig> queues = {};  // JobView::queue is an index in the tree that is made of them
};

// Of all rounds that followed from the events.
struct RoundTimes {
  std::vector<double> rounds_us, busy_us;  // sorted: by the clock; of the processor's time
  double first_ms = 0;                     // until all that could start had started
  size_t running = 0;
};

// False: the store failed. Each event is an arrival or the end of a job that runs, and everything that follows.
bool measure_rounds(const RoundsSize& size, const std::function<JobView()>& next_job,
                    const std::function<uint32_t(uint32_t)>& roll, RoundTimes* times);

}  // namespace tide::sched
