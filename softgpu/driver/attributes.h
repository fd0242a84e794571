#pragma once

// Attributes of functions and kernels, which are the same numbers under two kinds of handle.

#include "softgpu/driver/cuda_api.h"

namespace softgpu {

CUresult get_function_attribute(CUfunction function, CUfunction_attribute attribute, int* value);
CUresult set_function_attribute(CUfunction function, CUfunction_attribute attribute, int value);

}  // namespace softgpu
