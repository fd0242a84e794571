#pragma once

// Numbers of a completion page's slots. A freed slot rests in a queue until `ready` says that nothing of its last user
// can still arrive. Threads: any.

#include <cstdint>
#include <deque>
#include <mutex>

namespace tide {

class SlotPool {
 public:
  SlotPool(uint32_t count, uint32_t rest) : count_(count), rest_(rest) {}

  // ready(slot, mark): may the freed slot be used again. False: none is left now.
  template <class Ready>
  bool take(uint32_t* slot, Ready ready) {
    const std::lock_guard lock(mu_);
    const bool fresh = used_ < count_;
    if (!resting_.empty() && (!fresh || resting_.size() > rest_)) {
      for (auto it = resting_.begin(); it != resting_.end(); ++it) {
        if (!ready(it->slot, it->mark)) continue;
        *slot = it->slot;
        resting_.erase(it);
        return true;
      }
    }
    if (!fresh) return false;
    *slot = used_++;
    return true;
  }
  void give(uint32_t slot, uint64_t mark) {
    const std::lock_guard lock(mu_);
    resting_.push_back({slot, mark});
  }
  // Slots below this number have been used.
  uint32_t high() const {
    const std::lock_guard lock(mu_);
    return used_;
  }

 private:
  struct Resting {
    uint32_t slot;
    uint64_t mark;
  };
  const uint32_t count_;
  const uint32_t rest_;  // freed slots that are left alone while there are fresh ones
  mutable std::mutex mu_;
  uint32_t used_ = 0;
  std::deque<Resting> resting_;
};

}  // namespace tide
