#pragma once

// Waits for and writes of values in batches: the client checks what the driver would refuse at once.

#include <cuda.h>

#include <cstddef>

#include "interpose/process.h"

namespace tide {

constexpr size_t kValueStepsMax = 256;  // as CUDA's documentation says

// Replaces each address by the one at which the context's vGPU finds it. `steps`: a copy of the caller's.
CUresult resolve_values(const Entered& entered, Context& context, CUstreamBatchMemOpParams* steps, size_t count);

}  // namespace tide
