#pragma once

// What an agent leaves to the one that is started after it in the same directory: a file that is written before
// anything is done that it must know of. No fsync: with the machine the workers end, too, and what an earlier boot left
// is not believed.

#include <cstdint>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/outcome.h"
#include "base/secrets.h"

namespace tide {

struct LeaseTerms {
  std::string job;
  uint32_t vgpu = 0;
  uint32_t gpu = 0;
  uint64_t epoch = 0;
  uint8_t token[kTokenBytes] = {};
  uint64_t memory_bytes = 0;
  uint32_t part = 0;          // of the GPU's time, in thousandths; 0: all of it
  uint32_t weight = 0;        // what that counts beside other vGPUs on the GPU; 0: 1
  bool is_latency = false;    // what it begins goes before others' there
  uint8_t gpu_uuid[16] = {};  // the agent's: numbers are of the GPUs that it was started with
  bool is_protected = false;  // checkpoints are made of it
};

// The highest epoch of a vGPU that has ended here: nothing of it, or older, is taken any more. With the job's token,
// because a scheduler that has lost its record begins with the same numbers again.
struct Fence {
  std::string job;
  uint32_t vgpu = 0;
  uint64_t epoch = 0;
  uint8_t token[kTokenBytes] = {};

  bool concerns(const LeaseTerms& terms) const {
    return job == terms.job && vgpu == terms.vgpu && same_secret(token, terms.token, kTokenBytes);
  }
};

struct AgentState {
  struct Session {
    uint8_t id[16] = {};
    uint32_t client_pid = 0;
  };
  struct Lease {
    LeaseTerms terms;
    bool committed = false;  // a move away from here was decided on: its sessions are to leave
    std::vector<Session> sessions;
  };
  std::string door;  // the TCP address
  std::vector<Lease> leases;
  std::vector<Fence> fences;  // oldest first
};

// Makes the directory, or finds that it is ours and that no other agent uses it (a moment is waited for one that ends).
// For the life of the process.
Outcome claim_directory(const std::string& directory);
// Empty where there is no file, or none of this boot and version.
AgentState read_agent_state(const std::string& path);
Outcome write_agent_state(const std::string& path, const AgentState& state);

}  // namespace tide
