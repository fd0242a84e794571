#pragma once

// What one move, or several of a job, carried and how long a vGPU stood still for it (MoveReport in control.capnp).

#include <algorithm>
#include <cstdint>

namespace tide::sched {

struct MoveTotals {
  uint64_t bytes = 0;
  double pause_ms = 0;  // longest
  uint32_t rounds = 0;  // most
  uint32_t vgpus = 0;
  double total_ms = 0;
  uint64_t pause_bytes = 0;
  double drain_ms = 0, copy_ms = 0, restore_ms = 0;  // of the longest pause

  // One more vGPU's move.
  void add(const MoveTotals& other) {
    if (other.pause_ms >= pause_ms) {
      pause_ms = other.pause_ms;
      drain_ms = other.drain_ms, copy_ms = other.copy_ms, restore_ms = other.restore_ms;
    }
    bytes += other.bytes;
    pause_bytes += other.pause_bytes;
    rounds = std::max(rounds, other.rounds);
    vgpus += 1;
    total_ms += other.total_ms;
  }
};

}  // namespace tide::sched
