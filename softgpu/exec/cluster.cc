#include "softgpu/exec/cluster.h"

#include <bit>
#include <cstring>

#include "softgpu/exec/async.h"
#include "softgpu/exec/block.h"
#include "softgpu/exec/handlers.h"

namespace softgpu {

Block* block_of_cluster(const Block& block, uint32_t rank) {
  Block* leader = block.leader;
  if (rank == 0) return leader;
  return rank <= leader->peers.size() ? leader->peers[rank - 1].get() : nullptr;
}

namespace {

constexpr uint64_t kTurn = 2'000;  // instructions of a block before the next one of its cluster runs

uint32_t live_threads(const Block& leader) {
  uint32_t out = leader.live_threads;
  for (const auto& peer : leader.peers) out += peer->live_threads;
  return out;
}

// Threads that have ended are not waited for.
void check_cluster(Block* leader) {
  if (leader->cluster_arrived == 0 || leader->cluster_arrived < live_threads(*leader)) return;
  leader->cluster_arrived = 0;
  ++leader->cluster_phase;
}

// dst: the phase in which these lanes have arrived.
void arrive(const MicroOp& op, Warp& w, uint32_t mask) {
  Block* leader = w.block->leader;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    lanes<uint32_t>(w, op.dst)[std::countr_zero(m)] = leader->cluster_phase;
  }
  leader->cluster_arrived += static_cast<uint32_t>(std::popcount(mask));
  check_cluster(leader);
}

// e: the lanes whose phase, in a, is not over.
void wait(const MicroOp& op, Warp& w, uint32_t mask) {
  Block* leader = w.block->leader;
  check_cluster(leader);
  uint32_t waiting = 0;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    if (lanes<uint32_t>(w, op.a)[std::countr_zero(m)] == leader->cluster_phase) waiting |= m & -m;
  }
  set_predicate(w, op.e, mask, waiting);
}

template <class T>
void map_address(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    lanes<T>(w, op.dst)[lane] =
        static_cast<T>(with_cluster_rank(lanes<T>(w, op.a)[lane], lanes<uint32_t>(w, op.b)[lane]));
  }
}

// b: the block's own rank.
template <class T>
void rank_of_address(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    const auto rank = static_cast<uint32_t>(lanes<T>(w, op.a)[lane] >> kRankShift & 0xff);
    lanes<uint32_t>(w, op.dst)[lane] = rank == 0 ? lanes<uint32_t>(w, op.b)[lane] : rank - 1;
  }
}

// The answer of a cancelled launch: the place of its first block, and that there is one.
struct Answer {
  uint32_t place[3] = {};
  uint32_t cancelled = 0;
};

Answer cancel_next(const Block& leader) {
  Answer out;
  uint64_t index = 0;
  if (leader.queue == nullptr || !leader.queue->take(&index)) return out;
  const Dim3 at = first_block(leader, index);
  return {{at.x, at.y, at.z}, 1};
}

void try_cancel(const MicroOp& op, Warp& w, uint32_t mask) {
  const BulkCopy& x = w.block->code->bulk_copies[op.target];
  const Block* leader = w.block->leader;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const Answer answer = cancel_next(*leader);
    const uint64_t to = value_of(x.to, w, lane), barrier = value_of(x.barrier, w, lane);
    for (uint32_t rank = 0; rank <= (x.multicast ? leader->peers.size() : 0); ++rank) {
      std::byte* p = memory_at(w, lane, x.multicast ? with_cluster_rank(to, rank) : to, sizeof(answer), sizeof(answer));
      if (p == nullptr) return;
      std::memcpy(p, &answer, sizeof(answer));
      arrive_bytes(w, lane, x.multicast ? with_cluster_rank(barrier, rank) : barrier, sizeof(answer));
    }
  }
}

// x: which word of the answer in a.
void answer_word(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    lanes<uint32_t>(w, op.dst)[lane] = lanes<uint32_t>(w, op.a)[4 * lane + op.x];
  }
}

void answer_cancelled(const MicroOp& op, Warp& w, uint32_t mask) {
  uint32_t out = 0;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    out |= (lanes<uint32_t>(w, op.a)[4 * lane + 3] & 1) << lane;
  }
  set_predicate(w, op.dst, mask, out);
}

constexpr HandlerRow kRows[] = {
    {"cluster.try_cancel", try_cancel},
    {"cluster.word", answer_word},
    {"cluster.cancelled", answer_cancelled},
    {"cluster.arrive", arrive},
    {"cluster.wait", wait},
    {"mapa.32", map_address<uint32_t>},
    {"mapa.64", map_address<uint64_t>},
    {"getctarank.32", rank_of_address<uint32_t>},
    {"getctarank.64", rank_of_address<uint64_t>},
};

}  // namespace

bool run_cluster(Block* leader, unsigned quantum, uint64_t instructions) {
  uint64_t spent = 0;
  while (spent < instructions) {
    bool ended = true;
    for (uint32_t rank = 0; rank <= leader->peers.size(); ++rank) {
      Block* block = block_of_cluster(*leader, rank);
      if (block->live_threads == 0) continue;
      const uint64_t before = block->clock;
      ended = run_alone(block, quantum, kTurn) && ended;
      spent += block->clock - before;
      if (block->fault != FaultKind::kNone) {
        leader->fault = block->fault;
        leader->faulted = block;
        return true;
      }
    }
    if (ended) return true;
    if (leader->leave != nullptr && leader->leave->load(std::memory_order_relaxed)) break;
  }
  return false;
}

HandlerRows cluster_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
