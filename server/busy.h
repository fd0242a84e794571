#pragma once

// How much of the last second, and of all time, a worker had work under way. Time is given in; one thread.

#include <algorithm>
#include <cstdint>

namespace tide {

class BusyMeter {
 public:
  // Time has come to `now`; `worked`: whether work was under way since the last call.
  void at(uint64_t now, bool worked) {
    const uint64_t since = last_ns_;
    last_ns_ = std::max(now, since);
    if (since != 0 && worked) total_ns_ += last_ns_ - since;
    if (since != 0) move_on(since, worked);
  }
  // Since the first at().
  uint64_t total_ns() const { return total_ns_; }
  // Of the second, or a little more, before the last at().
  uint32_t permille() const {
    uint64_t busy = 0;
    for (const uint64_t each : busy_ns_) busy += each;
    const uint64_t window = (kSlots - 1) * kSlotNs + last_ns_ % kSlotNs;
    return uint32_t(std::min<uint64_t>(1000, busy * 1000 / window));
  }

 private:
  static constexpr uint64_t kSlotNs = 125'000'000;
  static constexpr uint64_t kSlots = 9;  // a second, and the slot that is being filled

  // Slot by slot: what one held before goes when time enters it again.
  void move_on(uint64_t from, bool worked) {
    while (from < last_ns_) {
      const uint64_t slot = from / kSlotNs;
      if (slot != slot_) forget_until(slot);
      const uint64_t end = std::min(last_ns_, (slot + 1) * kSlotNs);
      if (worked) busy_ns_[slot % kSlots] += end - from;
      from = end;
      if (last_ns_ - from > kSlots * kSlotNs) from = last_ns_ - kSlots * kSlotNs;  // the rest would be overwritten
    }
  }
  void forget_until(uint64_t slot) {
    const uint64_t steps = std::min(slot - slot_, kSlots);
    for (uint64_t i = 0; i < steps; ++i) busy_ns_[(slot - i) % kSlots] = 0;
    slot_ = slot;
  }

  uint64_t busy_ns_[kSlots] = {};
  uint64_t slot_ = 0;
  uint64_t last_ns_ = 0;
  uint64_t total_ns_ = 0;
};

}  // namespace tide
