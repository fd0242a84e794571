#pragma once

// What the doors of the scheduler and of an agent answer, checked: nothing of it is believed before.

#include <cstdint>
#include <string>
#include <vector>

#include "api/device_info.h"
#include "base/outcome.h"
#include "transport/door.h"

namespace tide {

struct VgpuPlace {
  uint64_t epoch = 0;
  uint64_t memory_bytes = 0;
  std::string endpoint;
  bool coming = false;  // kPlaceComing
  DeviceInfo info;
};

// What the pool counts of a job's vGPUs, as of now.
struct PoolUsage {
  std::vector<DoorVgpuUsage> vgpus;
  std::vector<DoorClientUsage> clients;
};

// The sentence of a kRefused, as a failure.
// Always an error; `code` is as the door gave it, 0 where it gave none.
Outcome parse_refusal(const std::string& payload, int32_t* code = nullptr);
Outcome parse_job(const std::string& payload, std::vector<VgpuPlace>* places);
Outcome parse_place(const std::string& payload, DoorPlace* place);
Outcome parse_usage(const std::string& payload, PoolUsage* usage);
// Of an agent, or the worker behind it. *refusal: the CUresult of a kRefused.
Outcome parse_opened(DoorType type, const std::string& payload, DoorOpened* opened, int* refusal);

}  // namespace tide
