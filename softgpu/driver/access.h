#pragma once

// Which devices a program allows to touch memory.

#include <cstddef>

#include "softgpu/driver/cuda_api.h"
#include "softgpu/driver/views.h"

namespace softgpu {

// Devices to grant to and to take from. Only all or nothing: read-only access is CUDA_ERROR_NOT_SUPPORTED, as are
// places that are not devices.
CUresult read_access(const CUmemAccessDesc* descriptions, size_t count, DeviceSet* grant, DeviceSet* take);

}  // namespace softgpu
