#pragma once

// Who comes first in a queue, and how many GPUs a job may have: the small rules that starting and sharing go by. Pure.

#include <algorithm>
#include <cstdint>
#include <string>

#include "scheduler/policy.h"
#include "scheduler/state.h"

namespace tide::sched {

// Who is first in line where GPUs are shared out in line (line.h), before its place there.
inline int64_t line_rank(const JobView& job) {
  return -2 * int64_t(job.priority) - (comes_before_batch(job.job_class) ? 1 : 0);
}

// Who starts first: the smallest; among equals the oldest. A higher priority before a lower one, of the same priority
// interactive and inference jobs before batches; but before all of them whoever has been passed too often.
inline int64_t start_rank(const JobView& job) { return job.skipped >= kSkipsMax ? INT64_MIN : line_rank(job); }

// Whose share grows first beyond the minima: a higher priority before a lower one, whatever these have.
inline int64_t growth_rank(const JobView& job) { return -int64_t(job.priority); }

// Whether it may have so many physical GPUs at all, fewer than its minimum aside.
inline bool may_have(const JobView& job, uint32_t count) {
  return !job.powers_of_two || count == job.vgpus || (count & (count - 1)) == 0;
}

// The nearest that it may have, of which it has some. Requires: 1 <= count <= job.vgpus.
inline uint32_t rounded_up(const JobView& job, uint32_t count) {
  while (!may_have(job, count)) ++count;
  return count;
}
inline uint32_t rounded_down(const JobView& job, uint32_t count) {
  while (!may_have(job, count)) --count;
  return count;
}

// The fewest that it may have now, and the most that it wants. `by_memory`: that its vGPUs need; `held`: that it has.
struct Counts {
  uint32_t least = 1, most = 1;
};
inline Counts counts_of(const JobView& job, uint32_t by_memory, uint32_t held) {
  Counts counts;
  counts.least = rounded_up(job, std::clamp(std::max(job.min_gpus, by_memory), 1u, job.vgpus));
  // Nothing is taken from it now; fewer than it has are its user's wish.
  const uint32_t keeps = job.spared && job.running ? std::min(held, job.want()) : 0;
  if (keeps > counts.least) counts.least = std::max(counts.least, rounded_down(job, keeps));
  counts.most = std::max(counts.least, rounded_down(job, job.want()));
  return counts;
}

// How many more it needs to have more at all; 0: it has all that it wants. Others grow by one.
inline uint32_t next_step(const JobView& job, uint32_t count, uint32_t most) {
  return count >= most ? 0 : rounded_up(job, count + 1) - count;
}

// "1, 2, 4 or 6".
std::string counts_text(const JobView& job);

}  // namespace tide::sched
