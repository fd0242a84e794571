#pragma once

// How many bytes of one's own ring reach the far side in a second. Measured only while bytes are waiting all the time:
// then as many arrive as the path takes. Between hosts (replica.h). What the far side does with them makes no
// difference: a reader that takes its time is no slow path.
//
// The machines may be busy, too. So the fastest of the last windows counts: a path is called slow only where it has not
// been faster for some MiB.

#include <atomic>
#include <cstdint>

namespace tide {

class LinkRate {
 public:
  // The far side says that it has `received` so far, which is more than before; `head`: what is published. One thread
  // at a time.
  void delivered(uint64_t now_ns, uint64_t received, uint64_t head);
  // 0: not known. Any thread.
  uint64_t bytes_per_s() const { return rate_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kWindowBytes = 1u << 20, kWindowNs = 1'000'000;
  static constexpr uint32_t kWindows = 4;

  uint64_t begin_ns_ = 0, begin_ = 0;  // of the window
  uint64_t published_ = 0;             // when the last word came; 0: none has
  uint64_t windows_[kWindows] = {};
  uint32_t next_ = 0;
  std::atomic<uint64_t> rate_{0};
};

}  // namespace tide
