#include "transport/link_rate.h"

#include <algorithm>

namespace tide {

void LinkRate::tail_moved(uint64_t now_ns, uint64_t tail, uint64_t head) {
  const bool waited =
      tail <= published_ && published_ != 0;  // all that was consumed was there when the tail moved last
  published_ = head;
  const uint64_t bytes = tail - begin_, ns = now_ns - begin_ns_;
  if (waited && (bytes < kWindowBytes || ns < kWindowNs)) return;
  if (waited) {
    windows_[next_++ % kWindows] = uint64_t(double(bytes) * 1e9 / double(ns));
    rate_.store(*std::max_element(windows_, windows_ + kWindows), std::memory_order_relaxed);
  }
  begin_ = tail;
  begin_ns_ = now_ns;
}

}  // namespace tide
