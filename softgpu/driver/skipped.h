#pragma once

// Kernels that exist only as machine code. SOFTGPU_SASS=skip makes launching one do nothing, which is counted and said
// when the process ends: for tests of everything around kernels. Results are garbage then.

#include <string>

#include "softgpu/driver/cuda_api.h"

namespace softgpu {

// Whether SOFTGPU_SASS=skip is set.
bool skips_machine_code();

// What launching such a kernel comes to: success when it is skipped, else CUDA_ERROR_NO_BINARY_FOR_GPU with a line in
// the log.
CUresult launch_machine_code(const std::string& kernel);

}  // namespace softgpu
