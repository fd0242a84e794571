#include "scheduler/simulate/waiting.h"

#include <algorithm>

namespace tide::simulate {

Waiting::Waiting(std::vector<uint32_t> sizes) : lines_(sizes.size()) {
  for (size_t i = 0; i < sizes.size(); ++i) lines_[i].gpus = sizes[i];
}

Waiting::Line& Waiting::line(uint32_t gpus) {
  return *std::lower_bound(lines_.begin(), lines_.end(), gpus,
                           [](const Line& line, uint32_t wanted) { return line.gpus < wanted; });
}

void Waiting::add(uint32_t gpus, const Waiter& waiter) {
  line(gpus).waiters.insert(waiter);
  ++count_;
  known_ = false;
}

void Waiting::remove(uint32_t gpus, const Waiter& waiter) {
  count_ -= line(gpus).waiters.erase(waiter);
  known_ = false;
}

const Waiter* Waiting::first(uint32_t free) {
  if (known_ && free <= asked_ && (best_ == nullptr || best_gpus_ <= free)) return best_;
  best_ = nullptr;
  for (const Line& line : lines_) {
    if (line.gpus > free) break;
    if (line.waiters.empty() || (best_ != nullptr && !(*line.waiters.begin() < *best_))) continue;
    best_ = &*line.waiters.begin();
    best_gpus_ = line.gpus;
  }
  known_ = true;
  asked_ = free;
  return best_;
}

FirstAtMost::FirstAtMost(size_t places) : places_(places) {
  while (leaves_ < places) leaves_ *= 2;
  least_.assign(2 * leaves_, kNever);
}

void FirstAtMost::set(size_t place, double value) {
  size_t node = leaves_ + place;
  least_[node] = value;
  for (node /= 2; node > 0; node /= 2) least_[node] = std::min(least_[2 * node], least_[2 * node + 1]);
}

size_t FirstAtMost::find(double limit) const {
  if (places_ == 0 || least_[1] > limit) return places_;
  size_t node = 1;
  while (node < leaves_) node = least_[2 * node] <= limit ? 2 * node : 2 * node + 1;
  return node - leaves_;
}

}  // namespace tide::simulate
