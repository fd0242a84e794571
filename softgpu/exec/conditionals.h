#pragma once

// Values that kernels set for conditional nodes of graphs. A handle is never used twice.
//
// Threads: any.

#include <cstdint>

namespace softgpu {

uint64_t make_conditional(uint32_t value);
// False when there is no such value.
bool set_conditional(uint64_t handle, uint32_t value);
bool get_conditional(uint64_t handle, uint32_t* value);

}  // namespace softgpu
