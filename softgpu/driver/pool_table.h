#pragma once

// The pools that a device has without being asked, and those that programs make current.

#include <memory>

#include "softgpu/driver/device.h"
#include "softgpu/driver/pool.h"

namespace softgpu {

// Made when first asked for.
std::shared_ptr<Pool> default_pool(Device& device);
std::shared_ptr<Pool> current_pool(Device& device);
// What pools keep for later goes back to the device; false when there was nothing.
bool trim_pools_of(Device& device);

}  // namespace softgpu
