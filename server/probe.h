#pragma once

// What GPUs this machine has: read in a process of its own, because a daemon must not hold a CUDA context.

#include <vector>

#include "api/device_info.h"
#include "base/outcome.h"

namespace tide {

// One a device, in the driver's order. Loads the driver into this process.
Outcome probe_devices(std::vector<DeviceInfo>* devices);

}  // namespace tide
