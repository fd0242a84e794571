#pragma once

// The processor's counter as a clock: a shared-memory message takes 100 ns, so reading the time must take fewer.

#include <cstdint>

namespace tide::fabric {

inline uint64_t ticks() { return __builtin_ia32_rdtsc(); }
// Of one tick; measured once against the system's clock, for 10 ms.
double ns_per_tick();

}  // namespace tide::fabric
