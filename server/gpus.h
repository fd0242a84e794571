#pragma once

// This machine's GPUs as the agent sees them: what a probing child said, and how a worker is made to see only one.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "api/device_info.h"
#include "base/outcome.h"
#include "server/agent_options.h"

namespace tide {

using Environment = std::vector<std::pair<std::string, std::string>>;  // to be set; an empty value removes

class Gpus {
 public:
  // Starts `tide-worker --probe` and waits for it (some seconds at most).
  static Outcome find(const AgentOptions& options, Gpus* gpus);

  const std::vector<DeviceInfo>& devices() const { return devices_; }
  std::string uuid(uint32_t index) const;
  // For the worker of that GPU.
  Environment environment(uint32_t index) const;
  // For one without a GPU.
  const Environment& keeper_environment() const { return base_; }
  const std::string& worker_program() const { return program_; }

 private:
  Environment base_;
  std::vector<std::string> visible_;  // the names by which CUDA_VISIBLE_DEVICES knows them
  std::vector<DeviceInfo> devices_;
  std::string program_;
};

// Of the present process with changes, as execve wants it.
std::vector<std::string> changed_environment(const Environment& changes);

}  // namespace tide
