#pragma once

// What users say to CUDA by environment variables. Read at cuInit.

#include <cstdint>
#include <span>
#include <vector>

namespace tide::composed {

// What CUDA_VISIBLE_DEVICES (null: not set) leaves of devices with these UUIDs, in its order: their numbers.
std::vector<uint32_t> visible_devices(const char* variable, std::span<const uint8_t* const> uuids);

// CUDA_LAUNCH_BLOCKING: a launch returns when its kernel has ended, with what became of it.
bool launch_blocking();

}  // namespace tide::composed
