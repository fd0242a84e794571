#pragma once

// A block of threads: made, run for a while, left and taken up again.

#include "softgpu/exec/warp.h"

namespace softgpu {

// Room for a block of this launch; may be used for one block after another.
std::unique_ptr<Block> make_block(const Launch& launch, const KernelCode& code, std::byte* workspace);

// Puts every thread of the block with this index at the start of the kernel. `seed` 0: warps take their turns in order.
// The place of the first block of the index-th cluster.
Dim3 first_block(const Block& block, uint64_t index);
void start_block(Block* block, uint64_t index, uint64_t seed);

// Gives each warp in turn `quantum` instructions, until about `instructions` are run or it is asked to leave. True when
// the block has ended, by itself or by a fault.
bool run_block(Block* block, unsigned quantum, uint64_t instructions);

// "kernel saxpy, block (1,0,0), thread (3,0,0), line 41: ld.global.f32 ..."
std::string place_text(const Block& block, uint32_t warp, uint32_t lane, uint32_t pc);
// The same for one block of a cluster by itself.
bool run_alone(Block* block, unsigned quantum, uint64_t instructions);

// Instructions run so far, by the whole cluster.
uint64_t clock_of(const Block& block);

// The fault of a block that ended by one, in words.
Fault fault_of(const Block& block);

}  // namespace softgpu
