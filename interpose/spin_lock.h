#pragma once

// A lock for a few nanoseconds' work. Yields after a while: the holder may have lost its core.

#include <sched.h>

#include <atomic>

namespace tide {

class SpinLock {
 public:
  void lock() {
    int spins = 0;
    while (taken_.exchange(true, std::memory_order_acquire)) {
      while (taken_.load(std::memory_order_relaxed)) {
        if (++spins < 200)
          __builtin_ia32_pause();
        else
          sched_yield();
      }
    }
  }
  void unlock() { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
};

}  // namespace tide
