#pragma once

// What tide-agent is told on its command line and in pool.toml.

#include <cstdint>
#include <optional>
#include <string>

#include "base/outcome.h"

namespace tide {

struct AgentOptions {
  std::string scheduler;                    // ADDRESS:PORT or unix:PATH
  std::string name;                         // unique in the pool; the host's name by default
  std::string directory;                    // holds the door's unix socket; made when missing, mode 0700
  std::string listen = "127.0.0.1:0";       // the door's TCP address
  std::string ready_file;                   // written when the scheduler has taken us
  uint32_t softgpu_devices = 0;             // not 0: software GPUs, that many
  uint64_t image_cache_mib = 4096;          // of programs' images, in `directory`; 0: none
  std::string park_directory;               // of vGPUs of suspended jobs; else TIDE_PARK_DIR, else in `directory`
  std::optional<uint64_t> park_memory_mib;  // of host memory for them; else TIDE_PARK_MEMORY_MIB, else what is free
  uint64_t move_rate = 0;                   // bytes a second of all moves and checkpoints together; 0: no limit
  uint32_t hold_s = 60;                     // a session is kept so long for a client whose connection broke
  std::string softgpu_memory;               // of each, e.g. "2GiB"
  bool help = false;
};

// The command line wins over the file. Says what is wrong with which option.
Outcome read_agent_options(int argc, char** argv, AgentOptions* options);
const char* agent_usage();

}  // namespace tide
