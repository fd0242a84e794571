#include "base/clock.h"

#include <time.h>

namespace tide {

namespace {

uint64_t ns_of(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + uint64_t(t.tv_nsec);
}

}  // namespace

uint64_t now_ns() { return ns_of(CLOCK_MONOTONIC); }

uint64_t boot_ns() { return ns_of(CLOCK_BOOTTIME); }

uint64_t thread_cpu_ns() { return ns_of(CLOCK_THREAD_CPUTIME_ID); }

uint64_t wall_seconds() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return uint64_t(t.tv_sec);
}

void sleep_us(uint32_t us) {
  timespec t{.tv_sec = us / 1'000'000, .tv_nsec = long(us % 1'000'000) * 1000};
  while (nanosleep(&t, &t) != 0) {
  }
}

}  // namespace tide
