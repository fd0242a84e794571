#pragma once

// How a warp runs: groups of lanes that stand at one instruction, the lowest first, merged where they meet.

#include "softgpu/exec/warp.h"

namespace softgpu {

// Runs up to `quantum` instructions of the warp. True when a lane asked to let others run.
bool run_warp(Warp& warp, unsigned quantum);

// Called when no warp of the block can move: lets lanes pass that wait for others of their warp which will not come.
// False when there are none: the block waits at barriers that cannot complete.
bool unblock(Block* block);

}  // namespace softgpu
