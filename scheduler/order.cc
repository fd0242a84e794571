#include "scheduler/order.h"

#include <algorithm>

namespace tide::sched {

double place_in_line(const OrderRules& rules, double submitted_s, double expected_gpu_s) {
  return submitted_s + rules.patience * expected_gpu_s;
}

double given_left_s(double given_s, double ran_s) { return std::max(given_s - ran_s, ran_s / 2); }

uint32_t gpus_that_help(uint32_t vgpus, uint32_t free) {
  if (free == 0 || free >= vgpus) return std::min(free, vgpus);
  const uint32_t fullest = (vgpus + free - 1) / free;
  return (vgpus + fullest - 1) / fullest;
}

void share_out(const Lines& lines, uint32_t gpus, uint32_t oldest_gpus, std::vector<Candidate>* candidates) {
  for (const uint32_t each : lines.oldest) (*candidates)[each].granted = 0;
  // On top of what it has.
  const auto give = [&](uint32_t each, uint32_t most) {
    Candidate& candidate = (*candidates)[each];
    const uint32_t had = candidate.granted;
    candidate.granted = gpus_that_help(candidate.vgpus, had + most);
    return candidate.granted - had;
  };
  uint32_t left = std::min(gpus, oldest_gpus);
  gpus -= left;
  for (auto next = lines.oldest.begin(); next != lines.oldest.end() && left > 0; ++next) left -= give(*next, left);
  gpus += left;
  for (auto next = lines.by_place.begin(); next != lines.by_place.end() && gpus > 0; ++next) gpus -= give(*next, gpus);
}

}  // namespace tide::sched
