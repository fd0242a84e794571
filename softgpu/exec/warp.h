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
#include "softgpu/exec/multimem.h"
#include "softgpu/exec/program.h"
#include "softgpu/exec/tensor.h"
#include "softgpu/exec/texture_ops.h"

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
  // Of a function that may be active more than once in a lane; the places above are within its frame then.
  uint32_t frame_slot = 0;   // register with the frame's place in local memory of each lane; 0: no frame
  uint32_t frame_bytes = 0;  // with what a call itself takes
  struct Saved {
    uint32_t offset;
    uint32_t width;  // 0: a predicate
  };
  std::vector<Saved> saved;  // registers that an activation must find again
};

// Arguments or results of one call: bytes of local memory of a thread, within the caller's frame where that has one.
struct CallCopy {
  uint32_t from, bytes;
};
struct CallSite {
  std::vector<CallCopy> copies;
  uint32_t frame_slot = 0;
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

// A parameter of the kernel that a register holds all the time: 32 values of `width` bytes.
struct ParamSlot {
  uint32_t offset;
  uint32_t width;
  uint32_t from;  // in the parameters
};

// What an operation does to memory, for those that look at accesses (check.h).
struct Access {
  enum class Kind : uint8_t {
    kLoad,
    kStore,
    kAtomic,
    kCopy,  // cp.async: from a to shared memory at dst
    kFence,
  };
  uint32_t op = 0;
  Kind kind = Kind::kLoad;
  bool shared = false;         // addresses are offsets in shared memory
  bool strong = false;         // volatile, relaxed or stronger
  uint8_t bytes = 0;           // of a lane
  uint8_t register_bytes = 0;  // of each data register
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
  std::vector<ParamSlot> param_slots;
  std::vector<FunctionCode> functions;
  std::vector<CallSite> sites;
  std::vector<uint32_t> tables;  // branch targets
  std::vector<TextureOp> texture_ops;
  std::vector<SurfaceOp> surface_ops;
  std::vector<int32_t> function_of;  // function of the module -> functions, or -1
  TensorCode tensor;
  std::vector<BulkCopy> bulk_copies;
  std::vector<MultimemOp> multimem_ops;
  uint32_t register_bytes = 0;       // of a warp
  uint32_t local_bytes = 0;          // of a thread, without the stack
  uint32_t stack_slot = 0;           // register with the end of the stack in local memory of each lane; 0: no stack
  uint32_t returned_slot = 0;        // register with the function that has just returned
  uint32_t static_shared_bytes = 0;  // with the reserved part
  uint32_t reserved_shared_bytes = 0;
  uint32_t param_bytes = 0;

  std::vector<Access> accesses;  // in order
  // A kernel with checks: what it was made from, and the access of each op. The original owns it.
  const KernelCode* original = nullptr;
  std::vector<uint32_t> access_of;
  mutable std::shared_ptr<const KernelCode> checked;  // made when wanted, see check.cc
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

// Registers of the activations below the running ones.
struct LaneStacks {
  std::array<std::vector<std::byte>, 32> saved;
};

struct Warp {
  std::byte* regs = nullptr;
  std::byte* local = nullptr;  // 32 times local_bytes
  Block* block = nullptr;
  uint32_t index = 0;
  uint32_t live = 0;             // lanes that have not exited
  uint32_t turns = 0;            // quanta run while divergent
  uint32_t count = 0;            // groups in use
  std::array<Group, 34> groups;  // disjoint lanes, and the one being split
  std::unique_ptr<LaneStacks> stacks;
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

// What is left of a grid: for a block that takes the next cluster's work over (clusterlaunchcontrol).
class BlockQueue {
 public:
  virtual ~BlockQueue() = default;
  virtual bool take(uint64_t* index) = 0;
};

struct Block {
  Block();
  ~Block();
  const KernelCode* code = nullptr;
  const Launch* launch = nullptr;
  BlockMemory memory;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  uint32_t live_threads = 0;
  uint32_t barriers_used = 0;  // at which somebody waits or has arrived, one bit each
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
  BlockQueue* queue = nullptr;  // of a cluster's first block; null: nothing is left
  std::vector<std::unique_ptr<Block>> peers;
  uint32_t cluster_arrived = 0, cluster_phase = 0;  // of the leader: barrier.cluster
  const Block* faulted = nullptr;                   // of the leader: who has the fault
  std::unique_ptr<LateCopies> late;                 // where copies arrive as late as possible, see async.h
  uint32_t barriers_done = 0;
  struct LaunchChecks* checks = nullptr;  // of the launch; null: nobody looks at accesses
  std::shared_ptr<void> shadow;           // what checks know of the block
  uint32_t slices = 0;                    // turns that a thread of the pool has given it

  std::vector<uint32_t> last_errors;  // of each thread, from the device runtime; empty until one is set

  std::unique_ptr<std::byte, void (*)(void*)> storage{nullptr, nullptr};  // registers, local and shared memory
};

// Copies the arguments of a call and makes the callee's frame in the lanes of `mask`, which come back to `back`. False
// after a fault.
bool enter_function(Warp& warp, const MicroOp& op, uint32_t mask, uint32_t callee, uint32_t back);

uint64_t warp_local_bytes(const Warp& warp);

// Where the bytes of a call site lie.
inline std::byte* call_place(const Warp& warp, uint32_t lane, const CallSite& site, uint32_t at) {
  const uint32_t frame =
      site.frame_slot == 0 ? 0 : reinterpret_cast<const uint32_t*>(warp.regs + site.frame_slot)[lane];
  return warp.local + lane * warp_local_bytes(warp) + frame + at;
}

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
