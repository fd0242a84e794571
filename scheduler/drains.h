#pragma once

// What is left on a server that is being drained: whose it is, whether it leaves, and if not, why, and what helps.
// Pure.

#include <string>
#include <vector>

#include "scheduler/ledger.h"

namespace tide::sched {

enum class LeftKind { kGpu, kParked, kGuard };  // as in control.capnp
enum class LeftDoing { kLeaves, kRetries, kStays };

struct Left {
  std::string job;
  LeftKind kind = LeftKind::kGpu;
  std::vector<uint32_t> vgpus;
  LeftDoing doing = LeftDoing::kLeaves;
  std::string reason = {}, next = {};
};

// `wanted`: what the policy says of `state`, which is the ledger's. Of each job at most one of each kind.
std::vector<Left> left_on(const Ledger& ledger, const State& state, const Assignment& wanted,
                          const std::string& server);

}  // namespace tide::sched
