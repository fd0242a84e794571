#include "transport/link_rate.h"

#include <algorithm>

namespace tide {

void LinkRate::delivered(uint64_t now_ns, uint64_t received, uint64_t head) {
  // All that has come was published when the last word came.
  const bool waited = received <= published_ && published_ != 0;
  published_ = head;
  const uint64_t bytes = received - begin_, ns = now_ns - begin_ns_;
  if (waited && (bytes < kWindowBytes || ns < kWindowNs)) return;
  if (waited) {
    windows_[next_++ % kWindows] = uint64_t(double(bytes) * 1e9 / double(ns));
    rate_.store(*std::max_element(windows_, windows_ + kWindows), std::memory_order_relaxed);
  }
  begin_ = received;
  begin_ns_ = now_ns;
}

}  // namespace tide
