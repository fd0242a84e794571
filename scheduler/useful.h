#pragma once

// What running on fewer physical GPUs than virtual ones is worth.

#include <cstdint>

namespace tide::sched {

// Of its speed on all its GPUs: what the fullest one has to do decides, since a step waits for all virtual GPUs.
inline double useful_part(uint32_t vgpus, uint32_t gpus) {
  if (vgpus == 0 || gpus == 0) return 0;
  return gpus >= vgpus ? 1 : 1.0 / ((vgpus + gpus - 1) / gpus);
}

}  // namespace tide::sched
