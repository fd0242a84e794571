#pragma once

// A grid as the driver runs it: with the context's heap and printf behind it, and followed by the grids that it
// launches.

#include "softgpu/driver/kernel_work.h"

namespace softgpu {

// Runs the launch, then what its kernels have launched; returns when all of that has ended. `launch` has all but the
// services.
CUresult run_grid(Context& context, const Launchable& kernel, Launch launch);

CUresult result_of(FaultKind kind);

}  // namespace softgpu
