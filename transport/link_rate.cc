#include "transport/link_rate.h"

#include <algorithm>

namespace tide {
namespace {

// Known for many times as long as it takes to measure it again.
constexpr uint64_t kTimesAsLong = 64, kKnownLeastNs = 1'000'000'000, kKnownMostNs = 10'000'000'000;

}  // namespace

uint64_t LinkRate::bytes_per_s(uint64_t now_ns) const {
  const uint64_t rate = last();
  return rate != 0 && now_ns <= known_until_ns_.load(std::memory_order_relaxed) ? rate : 0;
}

void LinkRate::look_for_quick(uint64_t now_ns, uint64_t received) {
  if (now_ns - quick_begin_ns_ > kQuickNs) {
    quick_begin_ns_ = now_ns;
    quick_begin_ = received;
  } else if (received - quick_begin_ > quick_bytes()) {
    quick_bytes_.store(received - quick_begin_, std::memory_order_relaxed);
  }
}

void LinkRate::delivered(uint64_t now_ns, uint64_t received, uint64_t head) {
  look_for_quick(now_ns, received);
  // All that has come was published when the last word came.
  const bool waited = received <= published_ && published_ != 0;
  published_ = head;
  const uint64_t bytes = received - begin_, ns = now_ns - begin_ns_;
  const bool is_whole = (bytes >= kWindowBytes && ns >= kWindowNs) || ns >= kWindowMostNs;
  if (waited && !is_whole) return;
  if (waited) add(now_ns, bytes, ns);
  begin_ = received;
  begin_ns_ = now_ns;
}

void LinkRate::add(uint64_t now_ns, uint64_t bytes, uint64_t ns) {
  if (next_ >= kWindows && now_ns > known_until_ns_.load(std::memory_order_relaxed)) next_ = 0;
  windows_[next_++ % kWindows] = uint64_t(double(bytes) * 1e9 / double(ns));
  if (next_ < kWindows) return;
  rate_.store(*std::max_element(windows_, windows_ + kWindows), std::memory_order_relaxed);
  const uint64_t known_ns = std::clamp(kTimesAsLong * kWindows * ns, kKnownLeastNs, kKnownMostNs);
  known_until_ns_.store(now_ns + known_ns, std::memory_order_relaxed);
}

}  // namespace tide
