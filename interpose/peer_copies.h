#pragma once

// Copies between vGPUs, from worker to worker: the destination's worker is told where to fetch, and from what. What
// cannot be done so is said once in the log, and goes through this program. The service thread's.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "api/payload.h"

namespace tide {

struct Process;
struct Task;
struct Vgpu;

// One on its way. Must outlive what is asked: answers are written into it.
struct PeerCopy {
  PeerAddressAnswer asked;
  FetchAnswer fetched;
  bool fetching = false;                // else it asks for the source's address
  bool fresh = false;                   // the address was asked for by this copy
  uint32_t tries = 0, unreachable = 0;  // with such addresses
  Vgpu* vgpu = nullptr;                 // that was asked last, on this slot
  uint32_t slot = 0;
  uint64_t sequence = 0;
};

class PeerCopies {
 public:
  explicit PeerCopies(Process& process);
  // False: this one goes through the program.
  bool begin(Task& task);
  enum class State { kWaits, kDone, kThroughProgram };
  State look(Task& task);

 private:
  struct Known {
    uint64_t epoch = 0;
    PeerAddress peer;
  };

  bool ask(Task& task);
  bool fetch(Task& task);
  bool go_on(Task& task);
  State addressed(Task& task);
  State fetched(Task& task);
  State give_up(Task& task, const std::string& why, bool for_all);

  Process& process_;
  const bool wanted_;
  std::map<Vgpu*, Known> known_;
  // Pairs (to, from) between whose workers there is no way, and the epochs for which that is so.
  std::map<std::pair<Vgpu*, Vgpu*>, std::pair<uint64_t, uint64_t>> unreachable_;
  std::map<std::pair<Vgpu*, Vgpu*>, std::string> said_;
};

}  // namespace tide
