// mbarrier objects in shared memory. A block runs in one thread, and so do the blocks of a cluster: plain memory does.

#include "softgpu/exec/async.h"
#include "softgpu/exec/handlers.h"

namespace softgpu {

uint64_t PhaseBarrier::after(uint64_t b, uint32_t arrivals, uint32_t leaving, int32_t bytes, bool may_complete) {
  uint32_t left = pending(b), all = expected(b);
  left -= arrivals < left ? arrivals : left;
  all -= leaving < all ? leaving : all;
  const int32_t tx = awaited(b) + bytes;
  bool phase = parity(b);
  if (may_complete && left == 0 && tx == 0) {
    phase = !phase;
    left = all;
  }
  return uint64_t{phase} << 63 | (static_cast<uint64_t>(static_cast<uint32_t>(tx)) & 0x1fffff) << 40 |
         uint64_t{all} << 20 | left;
}

std::byte* memory_at(Warp& w, uint32_t lane, uint64_t address, uint64_t bytes, uint64_t align) {
  if ((address & (align - 1)) != 0) return raise(w, FaultKind::kMisalignedAddress, address, lane), nullptr;
  std::byte* p = translate_generic(w, lane, address, bytes);
  if (p == nullptr) raise(w, FaultKind::kIllegalAddress, address, lane);
  return p;
}

void arrive_bytes(Warp& w, uint32_t lane, uint64_t barrier, uint32_t bytes) {
  auto* b = reinterpret_cast<uint64_t*>(memory_at(w, lane, barrier, 8, 8));
  if (b != nullptr) *b = PhaseBarrier::after(*b, 0, 0, -static_cast<int32_t>(bytes), true);
}

namespace {

// Calls f(lane, barrier) for each lane, in order, as long as their addresses are good.
template <class F>
void for_each_barrier(const MicroOp& op, Warp& w, uint32_t mask, F f) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    auto* b = reinterpret_cast<uint64_t*>(memory_at(w, lane, memory_address(op, w, lane), 8, 8));
    if (b == nullptr) return;
    f(lane, b);
  }
}

void init(const MicroOp& op, Warp& w, uint32_t mask) {
  for_each_barrier(op, w, mask, [&](uint32_t lane, uint64_t* b) {
    const uint32_t count = lanes<uint32_t>(w, op.b)[lane];
    if (count == 0 || count > PhaseBarrier::kMost) return raise(w, FaultKind::kIllegalInstruction, count, lane);
    *b = PhaseBarrier::make(count);
  });
}

void invalidate(const MicroOp& op, Warp& w, uint32_t mask) {
  for_each_barrier(op, w, mask, [&](uint32_t, uint64_t* b) { *b = 0; });
}

// x: 1 when the bytes have come, 0 when they are expected.
void transaction(const MicroOp& op, Warp& w, uint32_t mask) {
  for_each_barrier(op, w, mask, [&](uint32_t lane, uint64_t* b) {
    const auto bytes = static_cast<int32_t>(lanes<uint32_t>(w, op.b)[lane]);
    *b = PhaseBarrier::after(*b, 0, 0, op.x != 0 ? -bytes : bytes, op.x != 0);
  });
}

// b: arrivals, c: bytes expected with them. x: for later phases as well; vec: 0 when this may not end the phase.
void arrive(const MicroOp& op, Warp& w, uint32_t mask) {
  for_each_barrier(op, w, mask, [&](uint32_t lane, uint64_t* b) {
    const uint32_t count = lanes<uint32_t>(w, op.b)[lane];
    const auto bytes = static_cast<int32_t>(lanes<uint32_t>(w, op.c)[lane]);
    lanes<uint64_t>(w, op.dst)[lane] = *b;
    *b = PhaseBarrier::after(*b, count, op.x != 0 ? count : 0, bytes, op.vec != 0);
  });
}

void pending_count(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    lanes<uint32_t>(w, op.dst)[lane] = PhaseBarrier::pending(lanes<uint64_t>(w, op.a)[lane]);
  }
}

// Whether the phase of the state (x: of that parity) in b is over. e gets the lanes for which it is not.
void test_wait(const MicroOp& op, Warp& w, uint32_t mask) {
  uint32_t over = 0;
  for_each_barrier(op, w, mask, [&](uint32_t lane, uint64_t* b) {
    finish_copies(w.block, b);
    const bool phase =
        op.x != 0 ? (lanes<uint32_t>(w, op.b)[lane] & 1) != 0 : PhaseBarrier::parity(lanes<uint64_t>(w, op.b)[lane]);
    over |= static_cast<uint32_t>(PhaseBarrier::parity(*b) != phase) << lane;
  });
  set_predicate(w, op.dst, mask, over);
  set_predicate(w, op.e, mask, ~over);
}

constexpr HandlerRow kRows[] = {
    {"mbarrier.init", init},     {"mbarrier.inval", invalidate},      {"mbarrier.tx", transaction},
    {"mbarrier.arrive", arrive}, {"mbarrier.pending", pending_count}, {"mbarrier.test", test_wait},
};

}  // namespace

HandlerRows mbarrier_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
