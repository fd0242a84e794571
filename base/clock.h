#pragma once

// The only place that asks what time it is.

#include <cstdint>

namespace tide {

// Nanoseconds of the monotonic clock; the origin is arbitrary but the same for all processes of a host.
uint64_t now_ns();
// The same, but it also runs while the machine is suspended.
uint64_t boot_ns();
// What the calling thread has used of processors.
uint64_t thread_cpu_ns();
// Seconds since 1970.
uint64_t wall_seconds();
void sleep_us(uint32_t us);

}  // namespace tide
