#pragma once

// What is left of a GPU beside the portions that jobs have of it: the one rule of who may share one.

#include <string>

#include "scheduler/state.h"

namespace tide::sched {

// Bytes of a GPU's memory that a portion takes.
uint64_t bytes_on(const Portion& portion, uint64_t gpu_bytes);

struct Room {
  GpuId gpu;  // none: of a GPU that has not been chosen yet
  uint64_t gpu_bytes = 0;
  uint32_t part_left = kWholeGpu;
  uint64_t memory_left = 0;

  Room(GpuId id, uint64_t memory_bytes) : gpu(std::move(id)), gpu_bytes(memory_bytes), memory_left(memory_bytes) {}
  bool fits(const Portion& portion) const;
  // Also what does not fit: then nothing is left.
  void take(const Portion& portion);
};

// "0.5" of 500 thousandths.
std::string part_text(uint32_t part);

}  // namespace tide::sched
