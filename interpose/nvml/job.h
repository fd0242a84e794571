#pragma once

// The job as NVML shows it: its vGPUs, learned at the first init, and what the pool counts of them. One for the
// process, because the C interface knows no object. Safe in any thread; a forked child goes on with a line of its own.

#include <vector>

#include "api/device_info.h"
#include "interpose/nvml/types.h"
#include "interpose/pool.h"

namespace tide::nvml {

// A vGPU; never freed, so that an old handle is never a wild pointer.
struct Vgpu {
  DeviceInfo info;
  uint64_t memory_bytes = 0;  // the quota
};

nvmlReturn_t join();
nvmlReturn_t leave();
bool joined();

uint32_t vgpu_count();
// Null where the handle is none of ours.
const Vgpu* find_vgpu(nvmlDevice_t device);
nvmlDevice_t handle_of(uint32_t index);
uint32_t index_of(const Vgpu* vgpu);
// Of the CUDA driver that the job sees, like 13000.
int cuda_version();

struct Usage {
  DoorVgpuUsage total;
  std::vector<DoorClientUsage> clients;
};
// As it was at most a moment ago: who asks for everything of all vGPUs asks the pool once.
nvmlReturn_t measure(const Vgpu* vgpu, Usage* usage);

}  // namespace tide::nvml
