#include "tools/rdma_bench/ticks.h"

#include "base/clock.h"

namespace tide::fabric {

double ns_per_tick() {
  static const double value = [] {
    const uint64_t ns = now_ns(), tick = ticks();
    sleep_us(10'000);
    const uint64_t ns_end = now_ns(), tick_end = ticks();
    return double(ns_end - ns) / double(tick_end - tick);
  }();
  return value;
}

}  // namespace tide::fabric
