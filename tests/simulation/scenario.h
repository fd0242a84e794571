#pragma once

// What runs in a world: sessions between clients and workers, and a pool with its scheduler, agents and jobs.

#include "tests/simulation/world.h"

namespace tide::simulation {

struct Totals {
  uint64_t sessions = 0, failed_sessions = 0, commands = 0;
  uint64_t jobs = 0, restarts = 0, grants = 0, suspended = 0, resumed = 0, turns = 0, shared = 0;
};

inline constexpr uint64_t kFaultsLeast = 100;  // of a seed

void run_sessions(World& world, Totals* totals);
void run_pool(World& world, Totals* totals);

}  // namespace tide::simulation
