#pragma once

// What a PTX instruction becomes: a function over the 32 lanes of a warp, with its operands as byte offsets into the
// warp's registers. A register is 32 values side by side (2, 4 or 8 bytes each); a predicate is one 32-bit mask.

#include <cstddef>
#include <cstdint>

namespace softgpu {

struct Warp;
struct MicroOp;

// Runs the lanes in `mask`, never zero.
using Handler = void (*)(const MicroOp& op, Warp& warp, uint32_t mask);

// How an operation moves the program counter. kPlain falls through to the next one.
enum class Flow : uint8_t {
  kPlain,
  kWarpSync,     // d holds the membermask; fn runs when those lanes have met
  kBranch,       // lanes in mask go to target; x: behind some plain operations that nothing else is among
  kBranchTable,  // brx.idx: a holds the index, target the first row of KernelCode::tables, imm the count
  kExit,
  kCall,          // target is an index of KernelCode::functions
  kCallIndirect,  // a holds the function's address
  kReturn,        // dst holds the lanes' return addresses
  kBarrier,       // x: BarrierKind
  kYield,         // nanosleep: lets other warps and blocks run
  kTrap,
};

enum class BarrierKind : uint8_t { kSync, kArrive, kRedPopc, kRedAnd, kRedOr };

// One cache line.
struct alignas(64) MicroOp {
  Handler fn = nullptr;
  uint32_t dst = 0, a = 0, b = 0, c = 0, d = 0, e = 0;
  int64_t imm = 0;
  uint32_t target = 0;
  uint32_t guard = 0;  // predicate; lanes run where guard ^ guard_xor is set
  uint32_t guard_xor = 0;
  Flow flow = Flow::kPlain;
  uint8_t vec = 1;  // elements of a vector access
  uint8_t x = 0;    // a small choice of the handler
  uint8_t y = 0;
  // Runs this operation and those that follow it, `target` together, where all 32 lanes are there. It leaves the
  // registers that are read later as the operations one by one do.
  Handler fused = nullptr;
};
static_assert(sizeof(MicroOp) == 64);

// Offset of the predicate that is always true.
inline constexpr uint32_t kTruePredicate = 0;
// Offset of a predicate that nothing reads.
inline constexpr uint32_t kSinkPredicate = 4;
// Where registers begin: behind the fixed predicates.
inline constexpr uint32_t kFirstRegister = 64;

}  // namespace softgpu
