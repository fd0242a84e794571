#include "scheduler/order.h"

#include <algorithm>
#include <bit>

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

namespace {

// Of `free` GPUs, as many as are of use to it and as it may have.
uint32_t gpus_for(const Candidate& candidate, uint32_t free) {
  uint32_t gpus = gpus_that_help(candidate.vgpus, std::min(free, candidate.most));
  if (candidate.powers_of_two && gpus != candidate.vgpus) gpus = std::bit_floor(gpus);
  if (gpus < candidate.least) gpus = std::min(free, candidate.most) < candidate.least ? 0 : candidate.least;
  return std::max(gpus, candidate.keeps);
}

}  // namespace

void share_out(const Lines& lines, uint32_t gpus, uint32_t oldest_gpus, std::vector<Candidate>* candidates) {
  for (const uint32_t each : lines.oldest) {
    Candidate& candidate = (*candidates)[each];
    candidate.granted = candidate.keeps;
    gpus -= std::min(gpus, candidate.keeps);
  }
  // On top of what it has.
  const auto give = [&](uint32_t each, uint32_t most) {
    Candidate& candidate = (*candidates)[each];
    const uint32_t had = candidate.granted;
    candidate.granted = std::max(gpus_for(candidate, had + most), had);
    return candidate.granted - had;
  };
  uint32_t left = std::min(gpus, oldest_gpus);
  gpus -= left;
  for (auto next = lines.oldest.begin(); next != lines.oldest.end() && left > 0; ++next) left -= give(*next, left);
  gpus += left;
  for (auto next = lines.by_place.begin(); next != lines.by_place.end() && gpus > 0; ++next) gpus -= give(*next, gpus);
}

}  // namespace tide::sched
