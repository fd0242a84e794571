#pragma once

// Another pool.toml for a pool that runs: what of it counts at once, what wants a restart, and what it does to jobs.
// Pure.

#include <string>
#include <vector>

#include "scheduler/config.h"
#include "scheduler/ledger.h"

namespace tide::sched {

// What of the configuration a running scheduler goes by.
void configure(Ledger* ledger, const PoolConfig& config);

struct ConfigChange {
  std::vector<std::string> now;      // "turns: off -> 30s"
  std::vector<std::string> restart;  // "listen: 127.0.0.1:1 -> 127.0.0.1:2; needs a restart of the scheduler"
};
ConfigChange compare(const PoolConfig& before, const PoolConfig& after);

// What is known of how long a move lets a vGPU stand still.
struct Moved {
  std::string job;
  uint32_t vgpu = 0;
  uint64_t bytes = 0;
  double pause_ms = 0;
};
struct PauseGuess {
  double ms = -1;      // less than 0: not known
  std::string source;  // from where
};
// From its own last move, else from one of about the same size. `bytes`: that it has in use; 0: not known.
PauseGuess guess_pause(const std::string& job, uint32_t vgpu, uint64_t bytes, const std::vector<Moved>& moved);

// A job to which the change does something.
struct Touch {
  std::string job, what;
  std::vector<uint32_t> moves;  // vGPUs that go to another GPU
  bool switches = false;        // it is suspended for another one's turn
};
// With what the policy is asked before and after it.
std::vector<Touch> touched(const State& before, State after);

}  // namespace tide::sched
