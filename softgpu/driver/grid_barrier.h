#pragma once

// The barrier of a cooperative grid as NVIDIA's device runtime (libcudadevrt) asks the driver for it.

#include "softgpu/exec/program.h"

namespace softgpu {

// A unit that defines `__cuda_syscall_CGS_...`, for links that need them. (What nvcc makes of cooperative groups has
// its own barrier in the same workspace, in other words of it.)
PtxUnit grid_barrier_unit();

}  // namespace softgpu
