#include "scheduler/cost.h"

#include <algorithm>
#include <vector>

#include "scheduler/turns.h"

namespace tide::sched {
namespace {

constexpr uint64_t kMsMost = 24ull * 3600 * 1000;  // of a pause, so that sums cannot overflow
constexpr uint64_t kNearlyMs = 10'000;             // who is done so soon is left alone, however short its pause
constexpr uint64_t kNearlyPauses = 2;              // or in so many of them

uint64_t gpus_of(const JobView& job) {
  if (job.keeps.empty() && job.places.size() == 1) return job.places[0].on_gpu() ? 1 : 0;
  std::vector<const GpuId*> on;
  for (const GpuId& gpu : job.keeps) on.push_back(&gpu);
  for (const GpuId& place : job.places) {
    if (place.on_gpu()) on.push_back(&place);
  }
  const auto less = [](const GpuId* a, const GpuId* b) { return *a < *b; };
  const auto same = [](const GpuId* a, const GpuId* b) { return *a == *b; };
  if (!std::is_sorted(on.begin(), on.end(), less)) std::sort(on.begin(), on.end(), less);
  return size_t(std::unique(on.begin(), on.end(), same) - on.begin());
}

}  // namespace

uint64_t bytes_to_move(const JobView& job) { return job.bytes != 0 ? job.bytes : job.memory_bytes * job.vgpus; }

uint64_t pause_ms(const JobView& job) {
  const uint64_t reckoned = 2 * (bytes_to_move(job) / kFirstBytesPerMs);
  return std::min(job.switch_ms != 0 ? job.switch_ms : reckoned, kMsMost);
}

bool is_nearly_done(const JobView& job) {
  if (job.estimate_ms == 0 || job.useful_ms >= job.estimate_ms) return false;
  return job.estimate_ms - job.useful_ms <= std::max(kNearlyMs, kNearlyPauses * pause_ms(job));
}

uint64_t disturbance_cost(const JobView& job) {
  if (is_nearly_done(job)) return kNeverWorth;
  const uint64_t pause = pause_ms(job);
  return pause == 0 ? 0 : pause * std::max<uint64_t>(gpus_of(job), 1);
}

}  // namespace tide::sched
