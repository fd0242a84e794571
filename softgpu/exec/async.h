#pragma once

// Asynchronous copies and the barriers (mbarrier) that say when they are done. Copies are made at once, unless the
// launch wants them late: then their bytes arrive when somebody waits for them, which shows where nobody does.

#include <bit>
#include <cstdint>
#include <vector>

#include "softgpu/exec/warp.h"

namespace softgpu {

// A copy whose bytes have not arrived.
struct LateCopy {
  uint32_t thread = 0;
  uint32_t group = 0;           // of this thread
  uint64_t* barrier = nullptr;  // of a bulk copy: who waits there waits for it
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  uint32_t bytes = 0, copied = 0;  // the rest is zero
};

struct LateCopies {
  std::vector<LateCopy> waiting;
  std::vector<uint32_t> committed;  // groups, of each thread
};

// An mbarrier object is 64 bits: arrivals that are pending and that each phase expects, the bytes that are awaited, and
// the parity of the phase.
struct PhaseBarrier {
  static constexpr uint32_t kMost = (1 << 20) - 1;

  static uint64_t make(uint32_t count) { return uint64_t{count} << 20 | count; }
  static uint32_t pending(uint64_t b) { return b & kMost; }
  static uint32_t expected(uint64_t b) { return b >> 20 & kMost; }
  static int32_t awaited(uint64_t b) { return static_cast<int32_t>(static_cast<uint32_t>(b >> 40) << 11) >> 11; }
  static bool parity(uint64_t b) { return b >> 63 != 0; }

  // What is left of the barrier after so many arrivals and bytes; it enters its next phase when nothing is left.
  static uint64_t after(uint64_t b, uint32_t arrivals, uint32_t leaving, int32_t bytes, bool may_complete);
};

inline uint64_t memory_address(const MicroOp& op, Warp& w, uint32_t lane) {
  const auto offset = static_cast<uint64_t>(op.imm);
  return offset + (op.y == 2 ? lanes<uint64_t>(w, op.a)[lane] : op.y == 1 ? lanes<uint32_t>(w, op.a)[lane] : 0);
}

// Host memory behind the address, or null with the fault raised.
std::byte* memory_at(Warp& w, uint32_t lane, uint64_t address, uint64_t bytes, uint64_t align);

// `bytes` bytes of a bulk copy have arrived at the barrier.
void arrive_bytes(Warp& w, uint32_t lane, uint64_t barrier, uint32_t bytes);

// Makes the copies that wait at this barrier.
void finish_copies(Block* block, const uint64_t* barrier);

}  // namespace softgpu
