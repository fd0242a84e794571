#pragma once

// What runs in a world: sessions between clients and workers, and a pool with its scheduler, agents and jobs.

#include <array>

#include "tests/simulation/world.h"

namespace tide::simulation {

// Where a move is, in the order of its steps.
enum class MoveStep : uint8_t {
  kNone,
  kAdmit,     // the destination is asked, and gets ready
  kCopy,      // rounds, while the job runs
  kReady,     // enough is copied; others of the vGPU are waited for
  kPause,     // told to come to rest
  kStill,     // at rest, until the others are, too
  kSend,      // what is left
  kThere,     // all of one has arrived; the decision is awaited
  kDecided,   // it is written down, and being told
  kGoesOver,  // the clients go to the destination
};
inline constexpr size_t kMoveSteps = size_t(MoveStep::kGoesOver) + 1;
const char* name_of(MoveStep step);

struct MoveTotals {
  uint64_t begun = 0, moved = 0, failed = 0, off = 0;  // off: called off by who had ordered them
  std::array<uint64_t, kMoveSteps> struck = {};        // by a fault, at that step
  std::array<uint64_t, kMoveSteps> failed_at = {};
};

struct Totals {
  uint64_t sessions = 0, failed_sessions = 0, commands = 0;
  uint64_t jobs = 0, restarts = 0, grants = 0, suspended = 0, resumed = 0, turns = 0, shared = 0;
  MoveTotals session_moves, pool_moves;
};

inline constexpr uint64_t kFaultsLeast = 100;  // of a seed

void run_sessions(World& world, Totals* totals);
void run_pool(World& world, Totals* totals);

}  // namespace tide::simulation
