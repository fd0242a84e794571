#pragma once

// The difference between what is and what the policy wants, as actions in the order in which they may happen. Pure, and
// worked out anew after every event: whoever carries actions out starts those that are `ready` and asks again.
//   - a vGPU takes part in one action at a time;
//   - of one job one vGPU moves at a time: its streams may wait for each other across vGPUs, and two that are paused at
//     once could wait for ever; different jobs move side by side;
//   - a GPU takes a job's vGPU only when no other job's vGPU is left on it, or when the portions of all who are on it,
//   come or go have room beside each other; where vGPUs are parked there is always room.

#include <functional>
#include <string>
#include <vector>

#include "scheduler/state.h"

namespace tide::sched {

enum class Doing { kNothing, kPlacing, kMoving, kReleasing };

// A vGPU as it is. While it moves, `at` is the source and `to` the destination; while it is placed, only `to` is set.
struct Present {
  std::string job;
  uint32_t vgpu = 0;
  GpuId at, to;
  Doing doing = Doing::kNothing;
  Portion portion = {};    // of its job, on each GPU
  bool leaving = false;    // its job has ended: it wants to be nowhere
  bool held_back = false;  // a failed action is waiting before it is tried again
};

struct Action {
  enum class Kind { kPlace, kRelease, kMove };
  Kind kind = Kind::kPlace;
  std::string job;
  uint32_t vgpu = 0;
  GpuId from, to;      // place: to; release: from; move: both
  bool ready = false;  // nothing has to happen before
  bool operator==(const Action&) const = default;
};
std::string to_text(const Action& action);

// `memory_of`: of a GPU that is shared, in bytes; without it only the parts are looked at.
using MemoryOf = std::function<uint64_t(const GpuId&)>;
std::vector<Action> plan(const std::vector<Present>& present, const Assignment& wanted, const MemoryOf& memory_of = {});

}  // namespace tide::sched
