#pragma once

// GPUs that are kept for named jobs from one moment to another, as the policy sees them. Plain data.

#include <cstdint>
#include <string>

#include "scheduler/require.h"

namespace tide::sched {

struct Reservation {
  std::string name;
  uint32_t gpus = 0;
  Requirements require = {};           // model and labels of these; never Together
  uint64_t from_ms = 0, until_ms = 0;  // since 1970, on the clock of State::now_ms
  bool exclusive = false;              // also while nobody uses them

  bool operator==(const Reservation&) const = default;
  bool begun(uint64_t now_ms) const { return now_ms >= from_ms; }
  bool over(uint64_t now_ms) const { return now_ms >= until_ms; }
  bool lasts(uint64_t now_ms) const { return begun(now_ms) && !over(now_ms); }
};

}  // namespace tide::sched
