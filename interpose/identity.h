#pragma once

// What the program is told of its GPUs, beside what the GPU servers said of theirs.

#include <cstdint>
#include <vector>

#include "interpose/distinct.h"
#include "interpose/pool.h"

namespace tide {

// What CUDA_VISIBLE_DEVICES (null: not set) leaves, in its order: numbers of vGPUs.
std::vector<uint32_t> visible_devices(const char* variable, const std::vector<VgpuPlace>& places);
// Sets the attributes of features that this library does not serve, so that nobody tries.
// `one_memory`: the worker maps the program's host memory (host_memory.h).
void hide_what_is_not_served(DeviceInfo* info, bool one_memory);
// Whether processes can have memory of each other there.
bool shares_memory(const DeviceInfo& info);
// Tells api/handshake about this library.
void install_hooks();

}  // namespace tide
