#include "scheduler/simulate/standing.h"

#include <algorithm>

namespace tide::simulate {

Standing::Standing(const Trace& trace, uint32_t gpus)
    : places_(trace.jobs.size()),
      candidates_(trace.jobs.size()),
      jobs_(trace.jobs.size()),
      told_(trace.jobs.size()),
      free_(gpus) {}

std::vector<uint32_t>::iterator Standing::find(uint32_t job) {
  return std::lower_bound(line_.begin(), line_.end(), job, [this](uint32_t a, uint32_t b) {
    return places_[a] != places_[b] ? places_[a] < places_[b] : a < b;
  });
}

void Standing::join(uint32_t job, const sched::JobView& view) {
  candidates_[job] = {.vgpus = view.vgpus, .least = view.min_gpus};
  places_[job] = view.place;
  there_.push_back(job);
  line_.insert(find(job), job);
  dirty_ = true;
}

void Standing::leave(uint32_t job) {
  has(job, 0);
  line_.erase(find(job));
  there_.erase(std::lower_bound(there_.begin(), there_.end(), job));
  dirty_ = true;
}

void Standing::step(uint32_t job, int64_t place) {
  const auto from = find(job);
  const auto before = from - line_.begin();
  line_.erase(from);
  places_[job] = place;
  const auto to = line_.insert(find(job), job);
  dirty_ |= to - line_.begin() != before;
}

void Standing::has(uint32_t job, uint32_t gpus) {
  free_ += int64_t(jobs_[job].held) - gpus;
  dirty_ |= jobs_[job].held != gpus;
  jobs_[job].held = gpus;
}

const std::vector<uint32_t>& Standing::settle() {
  changed_.clear();
  if (!std::exchange(dirty_, false)) return changed_;
  sched::stand_in_line({there_, line_}, {.free = free_}, {}, &candidates_, &jobs_);
  for (const uint32_t job : there_) {
    if (jobs_[job] == told_[job]) continue;
    told_[job] = jobs_[job];
    changed_.push_back(job);
  }
  return changed_;
}

}  // namespace tide::simulate
