#pragma once

// The state of a running block in plain structs: it can be left at any instruction and taken up by another thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "softgpu/exec/bulk.h"
#include "softgpu/exec/cluster.h"
#include "softgpu/exec/micro_op.h"
#include "softgpu/exec/program.h"
#include "softgpu/exec/tensor.h"

namespace softgpu {

// Generic addresses of what is private to a launch, a block or a thread. They lie outside the device window and
// outside of what Linux gives to a process by default.
inline constexpr uint64_t kSharedWindow = 0x4100'0000'0000;
inline constexpr uint64_t kLocalWindow = 0x4200'0000'0000;
inline constexpr uint64_t kParamWindow = 0x4300'0000'0000;
inline constexpr uint64_t kGridWindow = 0x4400'0000'0000;  // workspace of grid synchronisation
inline constexpr uint64_t kCodeWindow = 0x4500'0000'0000;  // functions: their number in the module, times 16
inline constexpr uint64_t kPrivateWindowBytes = uint64_t{1} << 32;
inline constexpr uint64_t kPrivateWindowsBytes = 0x0500'0000'0000;  // all of them together, from kSharedWindow on
inline constexpr uint64_t kGridWorkspaceBytes = 64;
// The system's part of shared memory, at its start, in kernels that ask for it; zero when a block starts. Cooperative
// groups of several warps keep their barriers there.
inline constexpr uint32_t kReservedSharedBytes = 4096;
inline constexpr uint32_t kReservedSharedUser = 1024;  // %reserved_smem_offset_1

struct FunctionCode {
  uint32_t entry = 0;            // first micro-op
  uint32_t return_slot = 0;      // register with the return address of each lane
  std::vector<uint32_t> params;  // offsets in local memory
  std::vector<uint32_t> param_bytes;
  std::vector<uint32_t> returns;
  std::vector<uint32_t> return_bytes;
};

// What is copied before or after a call, a thread: bytes of its local memory.
struct CallCopy {
  uint32_t from, to, bytes;
};

enum class Special : uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kNwarpId,
  kSmId,
  kNsmId,
  kGridId,
  kLaneMaskEq,
  kLaneMaskLt,
  kLaneMaskLe,
  kLaneMaskGt,
  kLaneMaskGe,
  kDynamicShared,
  kTotalShared,
  kEnvreg1,
  kEnvreg2,
  kClusterCtaidX,
  kClusterCtaidY,
  kClusterCtaidZ,
  kClusterCtarank,
  kClusterNctaidX,
  kClusterNctaidY,
  kClusterNctaidZ,
  kClusterNctarank,
  kClusterIdX,
  kClusterIdY,
  kClusterIdZ,
  kNclusterIdX,
  kNclusterIdY,
  kNclusterIdZ,
  kExplicitCluster,
};

struct SpecialSlot {
  Special which;
  uint32_t offset;  // 32 values of 4 bytes
};

// A constant: 32 equal values of `width` bytes.
struct ConstantSlot {
  uint32_t offset;
  uint32_t width;
  uint64_t bits;
};

// An address of the module's image that the code holds as a constant: 32 values of 8 bytes.
struct ImageSlot {
  uint32_t offset;
  uint64_t addend;
};

struct KernelCode {
  std::string name;
  std::vector<MicroOp> ops;
  std::vector<uint32_t> lines;     // of each op
  std::vector<std::string> texts;  // of each PTX instruction
  std::vector<uint32_t> text_of;   // op -> texts
  std::vector<ConstantSlot> constants;
  std::vector<SpecialSlot> specials;
  std::vector<ImageSlot> image_slots;
  std::vector<FunctionCode> functions;
  std::vector<std::vector<CallCopy>> copies;
  std::vector<uint32_t> tables;      // branch targets
  std::vector<int32_t> function_of;  // function of the module -> functions, or -1
  TensorCode tensor;
  std::vector<BulkCopy> bulk_copies;
  uint32_t register_bytes = 0;       // of a warp
  uint32_t local_bytes = 0;          // of a thread
  uint32_t static_shared_bytes = 0;  // with the reserved part
  uint32_t reserved_shared_bytes = 0;
  uint32_t param_bytes = 0;
};

// Lanes of a warp that stand at the same place.
struct Group {
  enum class State : uint8_t { kReady, kBarrier, kWarpSync };
  uint32_t pc = 0;
  uint32_t mask = 0;
  State state = State::kReady;
  uint8_t barrier = 0;
  uint32_t result = 0;  // bar.red: destination
  BarrierKind kind = BarrierKind::kSync;
};

struct Block;

struct Warp {
  std::byte* regs = nullptr;
  std::byte* local = nullptr;  // 32 times local_bytes
  Block* block = nullptr;
  uint32_t index = 0;
  uint32_t live = 0;             // lanes that have not exited
  uint32_t turns = 0;            // quanta run while divergent
  uint32_t count = 0;            // groups in use
  std::array<Group, 34> groups;  // disjoint lanes, and the one being split
};

struct Barrier {
  uint32_t arrived = 0;
  uint32_t expected = 0;  // 0: all live threads
  uint32_t votes = 0;     // threads with a true predicate
};

struct BlockMemory {
  const AddressSpace* space = nullptr;
  std::byte* shared = nullptr;
  uint64_t shared_bytes = 0;
  uint64_t local_bytes = 0;
  const std::byte* params = nullptr;
  uint64_t param_bytes = 0;
  std::byte* workspace = nullptr;  // kGridWorkspaceBytes
};

struct LateCopies;

struct Block {
  Block();
  ~Block();
  const KernelCode* code = nullptr;
  const Launch* launch = nullptr;
  BlockMemory memory;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  uint32_t live_threads = 0;
  uint32_t live_warps = 0;
  uint64_t clock = 0;  // instructions run so far, by all blocks that used this room
  uint64_t clock_at_start = 0;
  uint64_t bytes = 0;                        // of device memory, where they are counted
  uint64_t random = 0;                       // not 0: order and length of turns are drawn from it
  const std::atomic<bool>* leave = nullptr;  // stops at the next turn; may be null
  Dim3 index;
  FaultKind fault = FaultKind::kNone;
  uint64_t fault_address = 0;
  uint32_t fault_lane = 0;
  uint32_t fault_warp = 0;
  uint32_t fault_pc = 0;
  // Of a cluster: its first block, which has the others. A block alone leads itself.
  Block* leader = nullptr;
  std::vector<std::unique_ptr<Block>> peers;
  uint32_t cluster_arrived = 0, cluster_phase = 0;  // of the leader: barrier.cluster
  const Block* faulted = nullptr;                   // of the leader: who has the fault
  std::unique_ptr<LateCopies> late;                 // where copies arrive as late as possible, see async.h
  uint32_t slices = 0;                              // turns that a thread of the pool has given it

  std::unique_ptr<std::byte, void (*)(void*)> storage{nullptr, nullptr};  // registers, local and shared memory
};

// Stops the block; the first call wins.
void raise(Warp& warp, FaultKind kind, uint64_t address, uint32_t lane);

// Host memory behind a generic address as `lane` sees it, or null.
std::byte* translate_generic(const Warp& warp, uint32_t lane, uint64_t address, uint64_t bytes);

template <class T>
T* lanes(Warp& warp, uint32_t offset) {
  return reinterpret_cast<T*>(warp.regs + offset);
}

inline uint32_t& predicate(Warp& warp, uint32_t offset) { return *reinterpret_cast<uint32_t*>(warp.regs + offset); }

inline void set_predicate(Warp& warp, uint32_t offset, uint32_t mask, uint32_t value) {
  uint32_t& p = predicate(warp, offset);
  p = (p & ~mask) | (value & mask);
}

}  // namespace softgpu
