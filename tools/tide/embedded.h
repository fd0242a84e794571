#pragma once

// Starting and stopping the machine's embedded pool: a scheduler and some agents, as daemons.

#include <string>

#include "base/outcome.h"

namespace tide::cli {

struct EmbeddedOptions {
  std::string home;
  uint32_t gpus = 0;  // 0: all real ones, or kSoftwareGpus
  uint32_t servers = 1;
  std::string gpu_memory;     // as typed; empty: the agent's default
  std::string config;         // pool.toml; may be empty
  bool ends_with_us = false;  // also when we are killed; else it is there until stop_pool()
};

struct EmbeddedPool {
  std::string address;
  uint32_t gpus = 0;
  bool software = false;
};

inline constexpr uint32_t kSoftwareGpus = 4;

// Returns when all agents have registered. On failure nothing is left running.
Outcome start_pool(const EmbeddedOptions& options, EmbeddedPool* pool);

// Ends the jobs, then the daemons. `*was_running` says whether there was anything.
Outcome stop_pool(const std::string& home, bool* was_running);

}  // namespace tide::cli
