#include "scheduler/usage.h"

#include <algorithm>
#include <cmath>

namespace tide::sched {
namespace {

// One GPU that was always had weighs so many seconds.
double horizon_s(uint64_t half_life_ms) { return double(half_life_ms) / 1000 / std::log(2.0); }

}  // namespace

void account(Usage* usage, const std::map<std::string, int64_t>& allocated, double after_ms, uint64_t half_life_ms) {
  const double kept = std::exp2(-after_ms / double(half_life_ms));
  for (auto& [queue, gpu_s] : *usage) gpu_s *= kept;
  for (const auto& [queue, thousandths] : allocated) {
    if (thousandths > 0) (*usage)[queue] += double(thousandths) / 1000 * horizon_s(half_life_ms) * (1 - kept);
  }
  std::erase_if(*usage, [&](const auto& entry) {
    const auto found = allocated.find(entry.first);
    return entry.second < 1 && (found == allocated.end() || found->second <= 0);
  });
}

double part_of_past(double gpu_seconds, int64_t pool, uint64_t half_life_ms) {
  if (pool <= 0) return 0;
  return std::min(1.0, gpu_seconds / (double(pool) / 1000 * horizon_s(half_life_ms)));
}

}  // namespace tide::sched
