// cp.async and cp.async.bulk.

#include "softgpu/exec/async.h"

#include <algorithm>
#include <cstring>

#include "softgpu/exec/handlers.h"

namespace softgpu {
namespace {

void copy_now(const LateCopy& c) {
  std::memmove(c.to, c.from, c.copied);
  std::memset(c.to + c.copied, 0, c.bytes - c.copied);
  if (c.barrier != nullptr) *c.barrier = PhaseBarrier::after(*c.barrier, 0, 0, -static_cast<int32_t>(c.bytes), true);
}

// Makes the copies of which `which` says so, in the order in which they were asked for.
template <class F>
void finish(LateCopies* late, F which) {
  for (const LateCopy& c : late->waiting) {
    if (which(c)) copy_now(c);
  }
  std::erase_if(late->waiting, which);
}

uint32_t thread_of(const Warp& w, uint32_t lane) { return w.index * 32 + lane; }

uint64_t address_in(const MicroOp& op, Warp& w, uint32_t lane, uint32_t reg, uint8_t form) {
  (void)op;
  return form == 2 ? lanes<uint64_t>(w, reg)[lane] : form == 1 ? lanes<uint32_t>(w, reg)[lane] : 0;
}

// vec bytes, of which b says how many are read; none where the predicate d is set. The rest is zero.
void cp_async(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint32_t ignored = op.d != 0 ? predicate(w, op.d) : 0;
  LateCopies* late = w.block->late.get();
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t to = kSharedWindow + ((address_in(op, w, lane, op.dst, op.x) + op.target) & 0xffffffff);
    const uint64_t from = address_in(op, w, lane, op.a, op.y) + static_cast<uint64_t>(op.imm);
    const bool none = (ignored >> lane & 1) != 0;
    LateCopy copy;
    copy.thread = thread_of(w, lane);
    copy.bytes = op.vec;
    copy.copied = none ? 0 : std::min<uint32_t>(lanes<uint32_t>(w, op.b)[lane], op.vec);
    copy.to = memory_at(w, lane, to, op.vec, op.vec);
    if (copy.to == nullptr) return;
    copy.from = copy.copied == 0 ? copy.to : memory_at(w, lane, from, copy.copied, op.vec);
    if (copy.from == nullptr) return;
    if (late == nullptr) {
      copy_now(copy);
    } else {
      copy.group = late->committed[copy.thread];
      late->waiting.push_back(copy);
    }
  }
}

void commit_group(const MicroOp&, Warp& w, uint32_t mask) {
  LateCopies* late = w.block->late.get();
  if (late == nullptr) return;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    ++late->committed[thread_of(w, static_cast<uint32_t>(std::countr_zero(m)))];
  }
}

bool in_mask(const Warp& w, uint32_t mask, uint32_t thread) {
  return thread / 32 == w.index && (mask >> (thread % 32) & 1) != 0;
}

// All but the newest imm groups; imm -1: all there is.
void wait_group(const MicroOp& op, Warp& w, uint32_t mask) {
  LateCopies* late = w.block->late.get();
  if (late == nullptr) return;
  finish(late, [&](const LateCopy& c) {
    if (c.barrier != nullptr || !in_mask(w, mask, c.thread)) return false;
    return op.imm < 0 || c.group + static_cast<uint64_t>(op.imm) < late->committed[c.thread];
  });
}

// The copies of these threads are made; x: and count as an arrival that the barrier expects.
void cp_async_arrive(const MicroOp& op, Warp& w, uint32_t mask) {
  if (LateCopies* late = w.block->late.get(); late != nullptr) {
    finish(late, [&](const LateCopy& c) { return c.barrier == nullptr && in_mask(w, mask, c.thread); });
  }
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    auto* b = reinterpret_cast<uint64_t*>(memory_at(w, lane, memory_address(op, w, lane), 8, 8));
    if (b == nullptr) return;
    if (op.x != 0) *b = PhaseBarrier::after(*b, 1, 0, 0, true);
  }
}

constexpr HandlerRow kRows[] = {{"cp.async", cp_async},
                                {"cp.async.commit", commit_group},
                                {"cp.async.wait", wait_group},
                                {"cp.async.arrive", cp_async_arrive}};

}  // namespace

void finish_copies(Block* block, const uint64_t* barrier) {
  if (block->late == nullptr) return;
  finish(block->late.get(), [&](const LateCopy& c) { return c.barrier == barrier; });
}

HandlerRows async_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
