#pragma once

// What runs on a pool, for people who look, and how to stop it for a while. A grid belongs to an owner (Launch::owner:
// the device that runs it). Threads: any.

#include <cstdint>
#include <string>
#include <vector>

#include "softgpu/exec/program.h"

namespace softgpu {

// Lanes of one warp that stand at one instruction.
struct GroupView {
  uint32_t warp = 0;
  uint32_t pc = 0;         // operation in the lowered kernel
  uint32_t line = 0;       // in the PTX
  uint32_t mask = 0;       // lanes
  const char* state = "";  // "ready", "barrier", "warp": waits for other lanes of the warp
  std::string text;        // the PTX instruction
};

struct BlockView {
  Dim3 index;
  uint64_t instructions = 0;  // so far
  std::vector<GroupView> groups;
};

struct GridView {
  std::string kernel;
  uint32_t owner = 0;
  bool paused = false;
  uint64_t blocks = 0, blocks_started = 0, blocks_ended = 0;
  uint64_t instructions = 0;  // by all blocks so far
  std::vector<BlockView> running;
};

// Every grid that has not ended, its blocks at the instruction where they stand: all of them stop for a moment. At most
// `blocks_max` blocks of each.
std::vector<GridView> running_grids(BlockPool& pool, size_t blocks_max);

// Grids of the owner stand still when this returns, also those that begin later, until it is undone. A cancelled grid
// ends nevertheless.
void pause_grids(BlockPool& pool, uint32_t owner, bool paused);

// Lets grids go that were launched with Launch::hold.
void release_held_grids(BlockPool& pool, uint32_t owner);

}  // namespace softgpu
