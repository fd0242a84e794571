#pragma once

// How often something happened in the last second, from a counter that is read now and then. Time is given in; one
// thread.

#include <algorithm>
#include <cstdint>

namespace tide {

class RateMeter {
 public:
  // Whether the counter should be read: reading it more often costs whoever writes it.
  bool due(uint64_t now) const { return taken_ == 0 || now - last().ns >= kStepNs; }
  void take(uint64_t now, uint64_t count) {
    samples_[taken_ % kSamples] = {now, count};
    ++taken_;
  }
  // Since the sample that is a second old, or a little more; since the first where none is as old.
  double per_second(uint64_t now, uint64_t count) const {
    if (taken_ == 0) return 0;
    uint64_t at = taken_ - 1;
    while (at != 0 && taken_ - at < kSamples && now - samples_[at % kSamples].ns < kSecondNs) --at;
    const Sample& from = samples_[at % kSamples];
    if (now <= from.ns || count < from.count) return 0;
    return double(count - from.count) * 1e9 / double(now - from.ns);
  }

 private:
  static constexpr uint64_t kSecondNs = 1'000'000'000, kStepNs = 125'000'000;
  static constexpr uint64_t kSamples = kSecondNs / kStepNs + 1;

  struct Sample {
    uint64_t ns = 0, count = 0;
  };
  const Sample& last() const { return samples_[(taken_ - 1) % kSamples]; }

  Sample samples_[kSamples];
  uint64_t taken_ = 0;
};

}  // namespace tide
