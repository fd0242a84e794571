#pragma once

// How many bytes of one's own ring reach the far side in a second. Measured only while bytes are waiting all the time:
// then as many arrive as the path takes. Between hosts (replica.h). What the far side does with them makes no
// difference: a reader that takes its time is no slow path.
//
// The machines may be busy, too, and a connection begins slowly. So the fastest of the last windows counts, and nothing
// is known before there are as many: a path is called slow only where it has not been faster for some MiB, or seconds.
// And it is forgotten after a while without a new window: who sends less, because the path is slow, would never learn
// that it is not.

#include <atomic>
#include <cstdint>

namespace tide {

class LinkRate {
 public:
  // The far side says that it has `received` so far, which is more than before; `head`: what is published. One thread
  // at a time.
  void delivered(uint64_t now_ns, uint64_t received, uint64_t head);
  // As measured last, however long ago. 0: never. Any thread.
  uint64_t last() const { return rate_.load(std::memory_order_relaxed); }
  // 0: not known. Any thread.
  uint64_t bytes_per_s(uint64_t now_ns) const;
  // So many bytes have come over this path within kQuickNs. Any thread.
  uint64_t quick_bytes() const { return quick_bytes_.load(std::memory_order_relaxed); }

  static constexpr uint64_t kQuickNs = 200'000'000;

 private:
  static constexpr uint64_t kWindowBytes = 1u << 20, kWindowNs = 1'000'000;
  static constexpr uint64_t kWindowMostNs = 250'000'000;  // else a path of 1 Mb/s would be known after minutes
  static constexpr uint32_t kWindows = 8;

  void add(uint64_t now_ns, uint64_t bytes, uint64_t ns);
  void look_for_quick(uint64_t now_ns, uint64_t received);

  uint64_t begin_ns_ = 0, begin_ = 0;  // of the window
  uint64_t published_ = 0;             // when the last word came; 0: none has
  uint64_t windows_[kWindows] = {};
  uint32_t next_ = 0;
  uint64_t quick_begin_ns_ = 0, quick_begin_ = 0;
  std::atomic<uint64_t> rate_{0}, known_until_ns_{0}, quick_bytes_{0};
};

}  // namespace tide
