#pragma once

// Clusters: blocks that run together and see each other's shared memory. They are one unit for the pool: one thread
// gives each of them its turn.

#include <cstdint>

namespace softgpu {

struct Block;

// Shared memory of the block with this rank, as an address of shared memory or a generic one: the rank, plus one, lies
// above the offset. Without one, it is the block's own.
inline constexpr uint32_t kRankShift = 24;
inline uint64_t with_cluster_rank(uint64_t address, uint32_t rank) {
  return (address & ~uint64_t{0xff000000}) | static_cast<uint64_t>(rank + 1) << kRankShift;
}

// The block with this rank in the cluster of `block`, or null.
Block* block_of_cluster(const Block& block, uint32_t rank);

// Like run_block, for the leader of a cluster.
bool run_cluster(Block* leader, unsigned quantum, uint64_t instructions);

}  // namespace softgpu
