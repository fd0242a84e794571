#include "softgpu/exec/block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/mix.h"
#include "softgpu/exec/async.h"
#include "softgpu/exec/simt.h"

namespace softgpu {
namespace {

uint64_t rounded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

uint32_t threads_of(const Launch& launch) { return launch.block.x * launch.block.y * launch.block.z; }

void fill_constants(const Block& block, Warp* warp) {
  predicate(*warp, kTruePredicate) = ~uint32_t{0};
  for (const ConstantSlot& c : block.code->constants) {
    for (uint32_t i = 0; i < 32; ++i) std::memcpy(warp->regs + c.offset + i * c.width, &c.bits, c.width);
  }
  for (const ParamSlot& p : block.code->param_slots) {
    for (uint32_t i = 0; i < 32; ++i) {
      std::memcpy(warp->regs + p.offset + i * p.width, block.memory.params + p.from, p.width);
    }
  }
  for (const ImageSlot& s : block.code->image_slots) {
    std::fill_n(lanes<uint64_t>(*warp, s.offset), 32, block.launch->image_address + s.addend);
  }
}

uint32_t cluster_value(const Block& block, Special which) {
  const Dim3 &c = block.launch->cluster, &grid = block.launch->grid, &at = block.index;
  switch (which) {
    case Special::kClusterCtaidX:
      return at.x % c.x;
    case Special::kClusterCtaidY:
      return at.y % c.y;
    case Special::kClusterCtaidZ:
      return at.z % c.z;
    case Special::kClusterCtarank:
      return at.x % c.x + (at.y % c.y + at.z % c.z * c.y) * c.x;
    case Special::kClusterNctaidX:
      return c.x;
    case Special::kClusterNctaidY:
      return c.y;
    case Special::kClusterNctaidZ:
      return c.z;
    case Special::kClusterNctarank:
      return c.x * c.y * c.z;
    case Special::kClusterIdX:
      return at.x / c.x;
    case Special::kClusterIdY:
      return at.y / c.y;
    case Special::kClusterIdZ:
      return at.z / c.z;
    case Special::kNclusterIdX:
      return grid.x / c.x;
    case Special::kNclusterIdY:
      return grid.y / c.y;
    case Special::kNclusterIdZ:
      return grid.z / c.z;
    default:
      return c.x * c.y * c.z > 1 ? 1 : 0;
  }
}

uint32_t special_value(const Block& block, const Warp& warp, Special which, uint32_t lane) {
  const Launch& l = *block.launch;
  const uint32_t thread = warp.index * 32 + lane;
  const uint32_t bit = uint32_t{1} << lane;
  const auto workspace = static_cast<uint64_t>(kGridWindow);
  switch (which) {
    default:
      return cluster_value(block, which);
    case Special::kTidX:
      return thread % l.block.x;
    case Special::kTidY:
      return thread / l.block.x % l.block.y;
    case Special::kTidZ:
      return thread / l.block.x / l.block.y;
    case Special::kNtidX:
      return l.block.x;
    case Special::kNtidY:
      return l.block.y;
    case Special::kNtidZ:
      return l.block.z;
    case Special::kCtaidX:
      return block.index.x;
    case Special::kCtaidY:
      return block.index.y;
    case Special::kCtaidZ:
      return block.index.z;
    case Special::kNctaidX:
      return l.grid.x;
    case Special::kNctaidY:
      return l.grid.y;
    case Special::kNctaidZ:
      return l.grid.z;
    case Special::kLaneId:
      return lane;
    case Special::kWarpId:
      return warp.index;
    case Special::kNwarpId:
      return static_cast<uint32_t>(block.warps.size());
    case Special::kSmId:
      return (block.index.x + block.index.y * l.grid.x) % 4;
    case Special::kNsmId:
      return 4;
    case Special::kGridId:
      return 1;
    case Special::kLaneMaskEq:
      return bit;
    case Special::kLaneMaskLt:
      return bit - 1;
    case Special::kLaneMaskLe:
      return bit | (bit - 1);
    case Special::kLaneMaskGt:
      return ~(bit | (bit - 1));
    case Special::kLaneMaskGe:
      return ~(bit - 1);
    case Special::kDynamicShared:
      return l.dynamic_shared_bytes;
    case Special::kTotalShared:
      return static_cast<uint32_t>(block.memory.shared_bytes);
    case Special::kEnvreg1:
      return l.cooperative ? static_cast<uint32_t>(workspace >> 32) : 0;
    case Special::kEnvreg2:
      return l.cooperative ? static_cast<uint32_t>(workspace) : 0;
  }
}

void fill_specials(const Block& block, Warp* warp) {
  for (const SpecialSlot& s : block.code->specials) {
    uint32_t* to = lanes<uint32_t>(*warp, s.offset);
    for (uint32_t i = 0; i < 32; ++i) to[i] = special_value(block, *warp, s.which, i);
  }
}

bool depends_on_block(Special which) {
  if (which >= Special::kClusterCtaidX && which <= Special::kClusterCtarank) return true;
  if (which >= Special::kClusterIdX && which <= Special::kClusterIdZ) return true;
  return which == Special::kCtaidX || which == Special::kCtaidY || which == Special::kCtaidZ || which == Special::kSmId;
}

// Never 0.
uint64_t mixed(uint64_t state) { return tide::mix(state) | 1; }

unsigned drawn_quantum(Block* block, unsigned usual) {
  block->random = mixed(block->random);
  return 1 + static_cast<unsigned>((block->random >> 8) % (2 * uint64_t{usual}));
}

}  // namespace

Block::Block() = default;
Block::~Block() = default;

namespace {

std::unique_ptr<Block> make_one(const Launch& launch, const KernelCode& code, std::byte* workspace) {
  auto block = std::make_unique<Block>();
  block->code = &code;
  block->leader = block.get();
  block->launch = &launch;
  const uint32_t warps = (threads_of(launch) + 31) / 32;
  const uint64_t stack = code.stack_slot == 0 ? 0 : rounded(launch.stack_bytes);
  const uint64_t lane_bytes = code.local_bytes + stack;
  const uint64_t local = rounded(lane_bytes * 32);
  const uint64_t shared = uint64_t{code.static_shared_bytes} + launch.dynamic_shared_bytes;
  const uint64_t total = rounded(shared) + warps * (code.register_bytes + local) + 64;
  // Zero pages cost nothing until they are touched: stacks are mostly empty.
  void* memory = std::calloc(total + 64, 1);
  if (memory == nullptr) std::abort();
  if (launch.late_copies) block->late = std::make_unique<LateCopies>();
  block->storage = {static_cast<std::byte*>(memory), std::free};
  std::byte* at = block->storage.get() + (64 - reinterpret_cast<uintptr_t>(memory) % 64);
  block->memory = {launch.memory, at, shared, lane_bytes, launch.params, code.param_bytes, workspace};
  at += rounded(shared);
  block->warps.resize(warps);
  for (uint32_t i = 0; i < warps; ++i) {
    Warp& warp = block->warps[i];
    warp.block = block.get();
    warp.index = i;
    warp.regs = at;
    at += code.register_bytes;
    warp.local = at;
    at += local;
    fill_constants(*block, &warp);
    fill_specials(*block, &warp);
  }
  return block;
}

void start_one(Block* block, Dim3 index, uint64_t seed) {
  const Launch& l = *block->launch;
  block->index = index;
  block->barriers = {};
  block->barriers_used = 0;
  std::memset(block->memory.shared, 0, block->code->reserved_shared_bytes);
  block->live_threads = threads_of(l);
  block->fault = FaultKind::kNone;
  block->slices = 0;
  if (block->late != nullptr) {
    block->late->waiting.clear();
    block->late->committed.assign(threads_of(l), 0);
  }
  block->barriers_done = 0;
  block->shadow = nullptr;
  block->last_errors.clear();
  block->clock_at_start = block->clock;
  block->random = seed;
  const uint32_t entry = block->code->functions[0].entry;
  for (Warp& warp : block->warps) {
    const uint32_t left = block->live_threads - warp.index * 32;
    warp.live = left >= 32 ? ~uint32_t{0} : (uint32_t{1} << left) - 1;
    warp.turns = 0;
    warp.count = 1;
    warp.groups[0] = {};
    warp.groups[0].pc = entry;
    warp.groups[0].mask = warp.live;
    if (block->code->stack_slot != 0) {
      std::fill_n(lanes<uint32_t>(warp, block->code->stack_slot), 32, block->code->local_bytes);
      warp.stacks = nullptr;
    }
    for (const SpecialSlot& s : block->code->specials) {
      if (!depends_on_block(s.which)) continue;
      std::fill_n(lanes<uint32_t>(warp, s.offset), 32, special_value(*block, warp, s.which, 0));
    }
  }
}

}  // namespace

std::unique_ptr<Block> make_block(const Launch& launch, const KernelCode& code, std::byte* workspace) {
  std::unique_ptr<Block> leader = make_one(launch, code, workspace);
  for (uint32_t i = 1; i < launch.cluster.x * launch.cluster.y * launch.cluster.z; ++i) {
    leader->peers.push_back(make_one(launch, code, workspace));
    leader->peers.back()->leader = leader.get();
  }
  return leader;
}

Dim3 first_block(const Block& block, uint64_t index) {
  const Dim3 &grid = block.launch->grid, &c = block.launch->cluster;
  const uint64_t x = grid.x / c.x, y = grid.y / c.y;
  return {static_cast<uint32_t>(index % x) * c.x, static_cast<uint32_t>(index / x % y) * c.y,
          static_cast<uint32_t>(index / x / y) * c.z};
}

void start_block(Block* block, uint64_t index, uint64_t seed) {
  const Dim3& c = block->launch->cluster;
  const Dim3 at = first_block(*block, index);
  block->cluster_arrived = block->cluster_phase = 0;
  block->faulted = nullptr;
  start_one(block, at, seed == 0 ? 0 : mixed(seed + index));
  for (uint32_t i = 1; i <= block->peers.size(); ++i) {
    const Dim3 there{at.x + i % c.x, at.y + i / c.x % c.y, at.z + i / c.x / c.y};
    start_one(block->peers[i - 1].get(), there, seed == 0 ? 0 : mixed(seed + index + (uint64_t{i} << 48)));
  }
}

bool run_block(Block* block, unsigned quantum, uint64_t instructions) {
  return block->peers.empty() ? run_alone(block, quantum, instructions) : run_cluster(block, quantum, instructions);
}

uint64_t clock_of(const Block& block) {
  uint64_t out = block.clock;
  for (const auto& peer : block.peers) out += peer->clock;
  return out;
}

bool run_alone(Block* block, unsigned quantum, uint64_t instructions) {
  const uint64_t stop = block->clock + instructions;
  while (block->live_threads != 0 && block->fault == FaultKind::kNone) {
    const std::atomic<bool>* cancel = block->launch->cancel;
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      block->fault = FaultKind::kCancelled;
      return true;
    }
    const uint64_t before = block->clock;
    bool yielded = false;
    const size_t warps = block->warps.size();
    size_t first = 0;
    if (block->random != 0) block->random = mixed(block->random), first = block->random % warps;
    for (size_t i = 0; i < warps; ++i) {
      Warp& warp = block->warps[first + i < warps ? first + i : first + i - warps];
      if (warp.count == 0) continue;
      yielded |= run_warp(warp, block->random == 0 ? quantum : drawn_quantum(block, quantum));
      if (block->fault != FaultKind::kNone) return true;
    }
    if (block->clock == before && !unblock(block)) raise(block->warps[0], FaultKind::kTrap, 0, 0);
    if (block->leave != nullptr && block->leave->load(std::memory_order_relaxed)) break;
    if (block->clock >= stop || (yielded && block->clock - before < 4 * block->warps.size())) break;
  }
  return block->live_threads == 0 || block->fault != FaultKind::kNone;
}

std::string place_text(const Block& block, uint32_t warp, uint32_t lane, uint32_t pc) {
  const Launch& l = *block.launch;
  const KernelCode& code = *block.code;
  const uint32_t thread = warp * 32 + lane;
  const auto triple = [](uint64_t x, uint64_t y, uint64_t z) {
    return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
  };
  std::string out = "kernel " + code.name + ", block " + triple(block.index.x, block.index.y, block.index.z) +
                    ", thread " +
                    triple(thread % l.block.x, thread / l.block.x % l.block.y, thread / l.block.x / l.block.y);
  if (pc < code.lines.size()) {
    out += ", line " + std::to_string(code.lines[pc]) + ": ";
    for (const char c : code.texts[code.text_of[pc]]) {  // an instruction may go over several lines
      const bool blank = c == '\n' || c == '\t' || c == ' ';
      if (!blank || out.back() != ' ') out.push_back(blank ? ' ' : c);
    }
  }
  return out;
}

Fault fault_of(const Block& block) {
  if (block.faulted != nullptr && block.faulted != &block) return fault_of(*block.faulted);
  return {block.fault, block.fault_address, place_text(block, block.fault_warp, block.fault_lane, block.fault_pc)};
}

}  // namespace softgpu
