#pragma once

// How much of the last second a worker had work under way. Time is given in; one thread.

#include <algorithm>
#include <cstdint>

namespace tide {

class BusyMeter {
 public:
  // Time has come to `now`; `worked`: whether work was under way since the last call.
  void at(uint64_t now, bool worked) {
    const uint64_t since = last_ns_;
    last_ns_ = std::max(now, since);
    if (since != 0) move_on(since, last_ns_, worked);
  }
  // Of the second before the last at().
  uint32_t permille() const {
    uint64_t busy = 0;
    for (const uint64_t each : busy_ns_) busy += each;
    return uint32_t(std::min<uint64_t>(1000, busy / (kWindowNs / 1000)));
  }

 private:
  static constexpr uint64_t kSlots = 8;
  static constexpr uint64_t kWindowNs = 1'000'000'000;
  static constexpr uint64_t kSlotNs = kWindowNs / kSlots;

  // Slot by slot: what a slot held a second ago goes when time enters it again.
  void move_on(uint64_t from, uint64_t to, bool worked) {
    from = std::max(from, to > kWindowNs ? to - kWindowNs : 0);  // older time would be overwritten anyway
    while (from < to) {
      const uint64_t slot = from / kSlotNs;
      if (slot != slot_) {
        for (uint64_t s = std::max(slot_ + 1, slot - std::min(slot, kSlots - 1)); s <= slot; ++s)
          busy_ns_[s % kSlots] = 0;
        slot_ = slot;
      }
      const uint64_t end = std::min(to, (slot + 1) * kSlotNs);
      if (worked) busy_ns_[slot % kSlots] += end - from;
      from = end;
    }
  }

  uint64_t busy_ns_[kSlots] = {};
  uint64_t slot_ = 0;
  uint64_t last_ns_ = 0;
};

}  // namespace tide
