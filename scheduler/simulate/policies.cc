#include "scheduler/simulate/policies.h"

#include <algorithm>

namespace tide::simulate {
namespace {

// Tiresias' queues, by GPU-seconds that a job has had: the limits of Muri's artifact (its Tiresias-L).
constexpr double kQueueLimits_gpu_s[] = {3250, 7200};
// Sums of times are off by less.
constexpr double kSlack_gpu_s = 1e-3;

Rank in_order(const JobView&) { return {}; }
Rank by_duration(const JobView& job) { return {job.duration_s}; }
Rank by_time_left(const JobView& job) { return {job.left_s}; }
Rank by_service_left(const JobView& job) { return {job.left_s * job.gpus}; }

int queue_of(const JobView& job) {
  return int(std::count_if(std::begin(kQueueLimits_gpu_s), std::end(kQueueLimits_gpu_s),
                           [&](double limit) { return job.attained_gpu_s + kSlack_gpu_s >= limit; }));
}

Rank by_attained_queue(const JobView& job) { return {double(queue_of(job)), job.first_start_s}; }

double until_next_queue_s(const JobView& job) {
  const size_t queue = size_t(queue_of(job));
  if (queue == std::size(kQueueLimits_gpu_s)) return kNever;
  return (kQueueLimits_gpu_s[queue] - job.attained_gpu_s) / job.gpus;
}

constexpr Policy kPolicies[] = {
    {"fifo", "in the order of submission, nobody passes", in_order, Passing::kNone},
    {"fifo-skip", "in the order of submission, who does not fit is passed", in_order, Passing::kFits},
    {"easy", "as fifo, and who does not delay the first in line passes (EASY backfill, durations known)", in_order,
     Passing::kReserved},
    {"sjf", "the shortest first, never stopped", by_duration, Passing::kFits},
    {"srtf", "the shortest time left first, others are suspended for it", by_time_left, Passing::kFits, true},
    {"srsf", "the fewest GPU-seconds left first, others are suspended for it", by_service_left, Passing::kFits, true},
    {"tiresias-l", "the least GPU-seconds had first, in three queues, others are suspended for it", by_attained_queue,
     Passing::kFits, true, until_next_queue_s},
};

}  // namespace

const Policy* find_policy(const std::string& name) {
  const auto* const found =
      std::find_if(std::begin(kPolicies), std::end(kPolicies), [&](const Policy& p) { return name == p.name; });
  return found == std::end(kPolicies) ? nullptr : found;
}

std::string policy_names() {
  std::string names;
  for (const Policy& policy : kPolicies) names += (names.empty() ? "" : ", ") + std::string(policy.name);
  return names;
}

}  // namespace tide::simulate
