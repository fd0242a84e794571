#include "base/histogram.h"

#include <algorithm>
#include <bit>

namespace tide {

// Below kSteps a slot is one ns wide; then each power of two has kSteps of them.
uint32_t Histogram::slot_of(uint64_t ns) {
  if (ns < kSteps) return uint32_t(ns);
  const uint32_t power = uint32_t(std::bit_width(ns) - std::bit_width(kSteps - 1));
  const uint32_t slot = power * kSteps + uint32_t(ns >> (power - 1)) - kSteps;
  return std::min(slot, kPowers * kSteps - 1);
}

double Histogram::middle_of(uint32_t slot) {
  if (slot < kSteps) return slot;
  const double width = double(1ull << (slot / kSteps - 1));
  return (double(slot % kSteps) + kSteps + 0.5) * width;
}

void Histogram::add(uint64_t ns) {
  ++counts_[slot_of(ns)];
  ++count_;
  min_ = std::min(min_, ns);
  max_ = std::max(max_, ns);
}

double Histogram::quantile(double part) const {
  uint64_t rank = uint64_t(part * double(count_)), seen = 0;
  for (uint32_t slot = 0; slot < counts_.size(); ++slot) {
    seen += counts_[slot];
    if (seen > rank) return std::clamp(middle_of(slot), double(min_), double(max_));
  }
  return double(max_);
}

uint64_t Histogram::between(double from_ns, double to_ns) const {
  uint64_t sum = 0;
  for (uint32_t slot = 0; slot < counts_.size(); ++slot) {
    const double middle = middle_of(slot);
    if (middle >= from_ns && middle < to_ns) sum += counts_[slot];
  }
  return sum;
}

}  // namespace tide
