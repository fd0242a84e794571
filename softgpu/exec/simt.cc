#include "softgpu/exec/simt.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace softgpu {
namespace {

using State = Group::State;

constexpr uint32_t kNoLimit = ~uint32_t{0};
// One quantum in so many goes to another group than the lowest, so that lanes that spin do not starve those they wait
// for.
constexpr uint32_t kRotation = 8;
// A divergent warp gets no longer quantum than this, for the same reason.
constexpr uint32_t kDivergentQuantum = 32;

void remove_group(Warp& w, uint32_t index) {
  if (index != --w.count) w.groups[index] = w.groups[w.count];
}

void add_group(Warp& w, uint32_t pc, uint32_t mask) {
  Group g;
  g.pc = pc;
  g.mask = mask;
  w.groups[w.count++] = g;
}

void merge_groups(Warp& w) {
  for (uint32_t i = 0; i < w.count; ++i) {
    for (uint32_t j = i + 1; j < w.count;) {
      Group& a = w.groups[i];
      const Group& b = w.groups[j];
      if (a.pc == b.pc && a.state != State::kBarrier && b.state != State::kBarrier) {
        a.mask |= b.mask;
        a.state = State::kReady;
        remove_group(w, j);
      } else {
        ++j;
      }
    }
  }
}

uint32_t lowest(const Warp& w, State state) {
  uint32_t best = w.count;
  for (uint32_t i = 0; i < w.count; ++i) {
    if (w.groups[i].state == state && (best == w.count || w.groups[i].pc < w.groups[best].pc)) best = i;
  }
  return best;
}

// The group to run, or w.count when all wait.
uint32_t pick_group(Warp& w, bool rotate) {
  if (w.count == 1) return w.groups[0].state == State::kBarrier ? 1 : 0;
  merge_groups(w);
  if (rotate) {
    for (uint32_t i = 0; i < w.count; ++i) {
      const uint32_t g = (w.turns / kRotation + i) % w.count;
      if (w.groups[g].state == State::kReady) return g;
    }
  }
  return lowest(w, State::kReady);
}

void release_barrier(Block* block, uint32_t id) {
  Barrier& barrier = block->barriers[id];
  const uint32_t votes = barrier.votes, arrived = barrier.arrived;
  barrier = {};
  block->barriers_used &= ~(uint32_t{1} << id);
  ++block->barriers_done;
  for (Warp& w : block->warps) {
    for (uint32_t i = 0; i < w.count; ++i) {
      Group& g = w.groups[i];
      if (g.state != State::kBarrier || g.barrier != id) continue;
      g.state = State::kReady;
      if (g.kind == BarrierKind::kRedAnd) set_predicate(w, g.result, g.mask, votes == arrived ? ~0u : 0);
      if (g.kind == BarrierKind::kRedOr) set_predicate(w, g.result, g.mask, votes != 0 ? ~0u : 0);
      if (g.kind != BarrierKind::kRedPopc) continue;
      for (uint32_t m = g.mask; m != 0; m &= m - 1) lanes<uint32_t>(w, g.result)[std::countr_zero(m)] = votes;
    }
  }
}

void check_barrier(Block* block, uint32_t id) {
  const Barrier& barrier = block->barriers[id];
  if (barrier.arrived == 0) return;
  const uint32_t expected =
      barrier.expected != 0 && barrier.expected < block->live_threads ? barrier.expected : block->live_threads;
  if (barrier.arrived >= expected) release_barrier(block, id);
}

void exit_lanes(Warp& w, uint32_t mask) {
  w.live &= ~mask;
  w.block->live_threads -= static_cast<uint32_t>(std::popcount(mask));
  for (uint32_t m = w.block->barriers_used; m != 0; m &= m - 1) {
    check_barrier(w.block, static_cast<uint32_t>(std::countr_zero(m)));
  }
}

// Runs operations from `op` to `end` as long as they only fall through; returns the first that was not run or failed.
// A function of its own, so that all it needs stays in registers.
__attribute__((noinline)) const MicroOp* run_plain(Warp& w, Block* block, uint32_t mask, const MicroOp* op,
                                                   const MicroOp* end) {
  for (; op != end && op->flow == Flow::kPlain; ++op) {
    ++block->clock;
    const uint32_t active = mask & (predicate(w, op->guard) ^ op->guard_xor);
    if (active == 0) continue;
    op->fn(*op, w, active);
    if (block->fault != FaultKind::kNone) [[unlikely]]
      break;
  }
  return op;
}

// Some lanes of `mask` skip the plain operations behind the branch at `op`: the others run them, and all go on at its
// target. Returns that, or the operation that failed.
const MicroOp* run_skipped(Warp& w, Block* block, uint32_t mask, const MicroOp* op) {
  return run_plain(w, block, mask, op + 1, block->code->ops.data() + op->target);
}

// The same where these lanes are all of the warp: meets nobody, and takes branches on which all agree, too. *left is
// how many operations it may run, and then how many of them are left.
__attribute__((noinline)) const MicroOp* run_alone(Warp& w, Block* block, uint32_t mask, const MicroOp* op,
                                                   unsigned* left) {
  unsigned n = *left;
  for (; n != 0; --n) {
    if (op->fused != nullptr && mask == ~uint32_t{0} && op->target <= n) {
      op->fused(*op, w, mask);
      block->clock += op->target;
      n -= op->target - 1;
      op += op->target;
      continue;
    }
    const uint32_t active = mask & (predicate(w, op->guard) ^ op->guard_xor);
    if (op->flow <= Flow::kWarpSync) {
      ++block->clock;
      if (active != 0) {
        op->fn(*op, w, active);
        if (block->fault != FaultKind::kNone) [[unlikely]]
          break;
      }
      ++op;
    } else if (op->flow == Flow::kBranch && (active == mask || active == 0)) {
      ++block->clock;
      const MicroOp* const to = active == 0 ? op + 1 : block->code->ops.data() + op->target;
      if (to <= op) {
        const std::atomic<bool>* cancel = block->launch->cancel;
        if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) [[unlikely]] {
          block->fault = FaultKind::kCancelled;
          break;
        }
      }
      op = to;
    } else if (op->flow == Flow::kBranch && op->x != 0) {
      // The operations up to the target are run by the lanes that do not jump, if the turn is long enough for them.
      const MicroOp* const to = block->code->ops.data() + op->target;
      const auto inside = static_cast<unsigned>(to - op - 1);
      if (inside >= n) break;
      ++block->clock;
      n -= inside;
      op = run_skipped(w, block, mask & ~active, op);
      if (block->fault != FaultKind::kNone) [[unlikely]]
        break;
    } else {
      break;
    }
  }
  *left = n;
  return op;
}

// Runs one group until the warp has to choose again. Members mirror the group while it runs.
class Runner {
 public:
  Runner(Warp& w, unsigned budget) : w_(w), block_(*w.block), ops_(w.block->code->ops.data()), left_(budget) {}

  bool run() {
    const bool rotate = w_.count > 1 && ++w_.turns % kRotation == 0;
    if (w_.count > 1) left_ = std::min(left_, kDivergentQuantum);
    while (left_ > 0 && w_.count > 0) {
      group_ = pick_group(w_, rotate);
      if (group_ == w_.count && !force()) break;
      run_group();
      if (block_.fault != FaultKind::kNone) break;
    }
    return yielded_;
  }

 private:
  // Only lanes that wait for others of this warp are left: those will not come, the lowest pass.
  bool force() {
    if (lowest(w_, State::kBarrier) != w_.count) return false;
    group_ = lowest(w_, State::kWarpSync);
    if (group_ == w_.count) return false;
    w_.groups[group_].state = State::kReady;
    forced_ = true;
    return true;
  }

  uint32_t limit() const {
    uint32_t out = kNoLimit;
    for (uint32_t i = 0; i < w_.count; ++i) {
      const Group& g = w_.groups[i];
      if (i != group_ && g.state != State::kBarrier && g.pc > pc_ && g.pc < out) out = g.pc;
    }
    return out;
  }

  void run_group() {
    pc_ = w_.groups[group_].pc;
    mask_ = w_.groups[group_].mask;
    w_.groups[group_].state = State::kReady;
    const bool alone = w_.count == 1;
    const uint32_t stop = alone ? kNoLimit : limit();
    while (left_ > 0 && pc_ < stop) {
      const MicroOp* const begin = ops_ + pc_;
      if (alone) {
        pc_ = static_cast<uint32_t>(run_alone(w_, &block_, mask_, begin, &left_) - ops_);
      } else {
        const uint32_t most = std::min(left_, stop - pc_);
        const auto steps = static_cast<uint32_t>(run_plain(w_, &block_, mask_, begin, begin + most) - begin);
        left_ -= steps;
        pc_ += steps;
      }
      if (block_.fault != FaultKind::kNone) return fault_here();
      if (left_ == 0 || pc_ >= stop) break;
      const MicroOp& op = ops_[pc_];
      const uint32_t active = mask_ & (predicate(w_, op.guard) ^ op.guard_xor);
      --left_;
      ++block_.clock;
      if (active == 0) {
        ++pc_;
        continue;
      }
      const bool more = flow(op, active);
      if (block_.fault != FaultKind::kNone) return fault_here();
      if (!more) return;
    }
    save();
  }

  void save() {
    w_.groups[group_].pc = pc_;
    w_.groups[group_].mask = mask_;
  }

  void fault_here() {
    block_.fault_pc = pc_;
    block_.fault_warp = w_.index;
  }

  // The lanes of `active` leave for pc; false when the group has been saved and the choice is open again.
  bool jump(uint32_t active, uint32_t pc) {
    if (active == mask_) {
      const bool back = pc <= pc_;
      pc_ = pc;
      if (!back) return true;
      const std::atomic<bool>* cancel = block_.launch->cancel;
      if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) block_.fault = FaultKind::kCancelled;
      if (w_.count == 1) return true;
      save();
      return false;
    }
    mask_ &= ~active;
    ++pc_;
    save();
    add_group(w_, pc, active);
    return false;
  }

  bool flow(const MicroOp& op, uint32_t active) {
    switch (op.flow) {
      case Flow::kPlain:
        break;
      case Flow::kBranch:
        return jump(active, op.target);
      case Flow::kBranchTable:
        return branch_table(op, active);
      case Flow::kExit:
        return leave(active);
      case Flow::kCall:
        return call(op, active, op.target);
      case Flow::kCallIndirect:
        return call_indirect(op, active);
      case Flow::kReturn:
        return scatter(active, lanes<uint32_t>(w_, op.dst));
      case Flow::kBarrier:
        return barrier(op, active);
      case Flow::kWarpSync:
        return warp_sync(op, active);
      case Flow::kYield:
        yielded_ = true;
        left_ = 0;
        ++pc_;
        return true;
      case Flow::kTrap:
        raise(w_, FaultKind::kTrap, 0, static_cast<uint32_t>(std::countr_zero(active)));
        return false;
    }
    return true;
  }

  bool leave(uint32_t active) {
    mask_ &= ~active;
    ++pc_;
    save();
    if (mask_ == 0) remove_group(w_, group_);
    exit_lanes(w_, active);
    return false;
  }

  // Each lane goes to its own place; lanes with the same one stay together.
  bool scatter(uint32_t active, const uint32_t* targets) {
    const uint32_t first = targets[std::countr_zero(active)];
    uint32_t same = 0;
    for (uint32_t m = active; m != 0; m &= m - 1) {
      const int lane = std::countr_zero(m);
      if (targets[lane] == first) same |= uint32_t{1} << lane;
    }
    if (same == mask_) return jump(same, first);
    mask_ &= ~active;
    ++pc_;
    save();
    while (active != 0) {
      const uint32_t target = targets[std::countr_zero(active)];
      uint32_t together = 0;
      for (uint32_t m = active; m != 0; m &= m - 1) {
        const int lane = std::countr_zero(m);
        if (targets[lane] == target) together |= uint32_t{1} << lane;
      }
      add_group(w_, target, together);
      active &= ~together;
    }
    if (mask_ == 0) remove_group(w_, group_);
    return false;
  }

  bool branch_table(const MicroOp& op, uint32_t active) {
    uint32_t targets[32] = {};
    for (uint32_t m = active; m != 0; m &= m - 1) {
      const auto lane = static_cast<uint32_t>(std::countr_zero(m));
      const uint32_t index = lanes<uint32_t>(w_, op.a)[lane];
      if (index >= static_cast<uint64_t>(op.imm)) {
        raise(w_, FaultKind::kInvalidPc, index, lane);
        return false;
      }
      targets[lane] = block_.code->tables[op.target + index];
    }
    return scatter(active, targets);
  }

  // Copies the arguments and remembers who was called and where to return.
  bool call(const MicroOp& op, uint32_t active, uint32_t callee) {
    if (!enter_function(w_, op, active, callee, pc_ + 1)) return false;
    return jump(active, block_.code->functions[callee].entry);
  }

  bool call_indirect(const MicroOp& op, uint32_t active) {
    // One callee at a time; the other lanes come back to this instruction.
    const auto first = static_cast<uint32_t>(std::countr_zero(active));
    const uint64_t address = lanes<uint64_t>(w_, op.a)[first];
    const uint64_t number = (address - kCodeWindow) / 16;
    const std::vector<int32_t>& known = block_.code->function_of;
    if (address < kCodeWindow || address % 16 != 0 || number >= known.size() || known[number] < 0) {
      raise(w_, FaultKind::kInvalidPc, address, first);
      return false;
    }
    uint32_t same = 0;
    for (uint32_t m = active; m != 0; m &= m - 1) {
      const int lane = std::countr_zero(m);
      if (lanes<uint64_t>(w_, op.a)[lane] == address) same |= uint32_t{1} << lane;
    }
    if (same != active) {
      mask_ &= ~(active & ~same);
      add_group(w_, pc_, active & ~same);
    }
    return call(op, same, static_cast<uint32_t>(known[number]));
  }

  bool barrier(const MicroOp& op, uint32_t active) {
    const auto first = static_cast<uint32_t>(std::countr_zero(active));
    const uint32_t id = lanes<uint32_t>(w_, op.a)[first];
    if (id >= block_.barriers.size()) {
      raise(w_, FaultKind::kIllegalInstruction, id, first);
      return false;
    }
    Barrier& barrier = block_.barriers[id];
    block_.barriers_used |= uint32_t{1} << id;
    barrier.arrived += static_cast<uint32_t>(std::popcount(active));
    barrier.votes += static_cast<uint32_t>(std::popcount(active & predicate(w_, op.c)));
    if (op.b != 0) barrier.expected = lanes<uint32_t>(w_, op.b)[first];
    const auto kind = static_cast<BarrierKind>(op.x);
    ++pc_;
    if (kind == BarrierKind::kArrive) {
      check_barrier(&block_, id);
      return true;
    }
    const uint32_t pc = pc_;
    mask_ &= ~active;
    save();
    Group& waiting = w_.groups[mask_ == 0 ? group_ : w_.count++];
    waiting.pc = pc;
    waiting.mask = active;
    waiting.state = State::kBarrier;
    waiting.barrier = static_cast<uint8_t>(id);
    waiting.result = op.dst;
    waiting.kind = kind;
    check_barrier(&block_, id);
    return false;
  }

  bool warp_sync(const MicroOp& op, uint32_t active) {
    const uint32_t* members = lanes<uint32_t>(w_, op.d);
    uint32_t wanted = 0;
    for (uint32_t m = active; m != 0; m &= m - 1) wanted |= members[std::countr_zero(m)];
    if ((wanted & w_.live & ~mask_) != 0 && !forced_ && w_.count > 1) {
      save();
      w_.groups[group_].state = State::kWarpSync;
      return false;
    }
    forced_ = false;
    op.fn(op, w_, active);
    ++pc_;
    return true;
  }

  Warp& w_;
  Block& block_;
  const MicroOp* ops_;
  unsigned left_;
  uint32_t group_ = 0;
  uint32_t pc_ = 0;
  uint32_t mask_ = 0;
  bool forced_ = false;
  bool yielded_ = false;
};

}  // namespace

bool run_warp(Warp& warp, unsigned quantum) { return Runner(warp, quantum).run(); }

bool unblock(Block* block) {
  for (Warp& w : block->warps) {
    for (uint32_t i = 0; i < w.count; ++i) {
      if (w.groups[i].state != State::kWarpSync) continue;
      w.groups[i].state = State::kReady;
      // Its mask alone now decides: without the lanes that wait elsewhere it passes as if they had exited.
      const MicroOp& op = block->code->ops[w.groups[i].pc];
      op.fn(op, w, w.groups[i].mask & (predicate(w, op.guard) ^ op.guard_xor));
      ++w.groups[i].pc;
      return true;
    }
  }
  return false;
}

}  // namespace softgpu
