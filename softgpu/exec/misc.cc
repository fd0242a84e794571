// Predicates, packing, clocks, results of calls.

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/clock.h"
#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"

namespace softgpu {
namespace {

void nothing(const MicroOp&, Warp&, uint32_t) {}

void fence(const MicroOp&, Warp&, uint32_t) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

void p_mov(const MicroOp& op, Warp& w, uint32_t mask) { set_predicate(w, op.dst, mask, predicate(w, op.a)); }
void p_not(const MicroOp& op, Warp& w, uint32_t mask) { set_predicate(w, op.dst, mask, ~predicate(w, op.a)); }
void p_and(const MicroOp& op, Warp& w, uint32_t mask) {
  set_predicate(w, op.dst, mask, predicate(w, op.a) & predicate(w, op.b));
}
void p_or(const MicroOp& op, Warp& w, uint32_t mask) {
  set_predicate(w, op.dst, mask, predicate(w, op.a) | predicate(w, op.b));
}
void p_xor(const MicroOp& op, Warp& w, uint32_t mask) {
  set_predicate(w, op.dst, mask, predicate(w, op.a) ^ predicate(w, op.b));
}

// W: the whole, P: a part; the first part is the lowest.
template <class W, class P>
void pack(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint32_t parts[] = {op.a, op.b, op.c, op.d};
  constexpr uint32_t kParts = sizeof(W) / sizeof(P);
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    W out = 0;
    for (uint32_t i = 0; i < kParts; ++i)
      out |= static_cast<W>(static_cast<W>(lanes<P>(w, parts[i])[lane]) << (8 * sizeof(P) * i));
    lanes<W>(w, op.dst)[lane] = out;
  }
}

template <class W, class P>
void unpack(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint32_t parts[] = {op.dst, op.b, op.c, op.d};
  constexpr uint32_t kParts = sizeof(W) / sizeof(P);
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    const W in = lanes<W>(w, op.a)[lane];
    for (uint32_t i = 0; i < kParts; ++i) lanes<P>(w, parts[i])[lane] = static_cast<P>(in >> (8 * sizeof(P) * i));
  }
}

// Bytes lie in registers of 16 bits.
template <class W>
void pack_bytes(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint32_t parts[] = {op.a, op.b, op.c, op.d};
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    W out = 0;
    for (uint32_t i = 0; i < sizeof(W); ++i)
      out |= static_cast<W>(static_cast<W>(lanes<uint16_t>(w, parts[i])[lane] & 0xff) << (8 * i));
    lanes<W>(w, op.dst)[lane] = out;
  }
}

template <class W>
void unpack_bytes(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint32_t parts[] = {op.dst, op.b, op.c, op.d};
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    const W in = lanes<W>(w, op.a)[lane];
    for (uint32_t i = 0; i < sizeof(W); ++i) lanes<uint16_t>(w, parts[i])[lane] = in >> (8 * i) & 0xff;
  }
}

void move_wide(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    lanes<unsigned __int128>(w, op.dst)[lane] = lanes<unsigned __int128>(w, op.a)[lane];
  }
}

template <class T>
void fill(const MicroOp& op, Warp& w, uint32_t mask, uint64_t value) {
  for (uint32_t m = mask; m != 0; m &= m - 1) lanes<T>(w, op.dst)[std::countr_zero(m)] = static_cast<T>(value);
}

// The clock of a block counts the instructions of its warps.
void clock32(const MicroOp& op, Warp& w, uint32_t mask) { fill<uint32_t>(op, w, mask, w.block->clock); }
void clock_high(const MicroOp& op, Warp& w, uint32_t mask) { fill<uint32_t>(op, w, mask, w.block->clock >> 32); }
void clock64(const MicroOp& op, Warp& w, uint32_t mask) { fill<uint64_t>(op, w, mask, w.block->clock); }
void timer(const MicroOp& op, Warp& w, uint32_t mask) { fill<uint64_t>(op, w, mask, tide::now_ns()); }
void timer_low(const MicroOp& op, Warp& w, uint32_t mask) { fill<uint32_t>(op, w, mask, tide::now_ns()); }
void timer_high(const MicroOp& op, Warp& w, uint32_t mask) { fill<uint32_t>(op, w, mask, tide::now_ns() >> 32); }

bool in_private_window(uint64_t address) {
  for (const uint64_t base : {kSharedWindow, kLocalWindow, kParamWindow}) {
    if (address - base < kPrivateWindowBytes) return true;
  }
  return false;
}

// imm is the window asked for, 0 for device memory.
void isspacep(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint64_t* a = lanes<uint64_t>(w, op.a);
  const auto window = static_cast<uint64_t>(op.imm);
  uint32_t bits = 0;
  for (uint32_t i = 0; i < 32; ++i) {
    const bool in = window != 0 ? a[i] - window < kPrivateWindowBytes : !in_private_window(a[i]);
    bits |= static_cast<uint32_t>(in) << i;
  }
  set_predicate(w, op.dst, mask, bits);
}

constexpr HandlerRow kRows[] = {
    {"nothing", nothing},
    {"fence", fence},
    {"mov.pred", p_mov},
    {"not.pred", p_not},
    {"and.pred", p_and},
    {"or.pred", p_or},
    {"xor.pred", p_xor},
    {"pack.64.16", pack<uint64_t, uint16_t>},
    {"unpack.64.16", unpack<uint64_t, uint16_t>},
    {"pack.128.64", pack<unsigned __int128, uint64_t>},
    {"pack.128.32", pack<unsigned __int128, uint32_t>},
    {"unpack.128.64", unpack<unsigned __int128, uint64_t>},
    {"unpack.128.32", unpack<unsigned __int128, uint32_t>},
    {"pack.16.8", pack_bytes<uint16_t>},
    {"pack.32.8", pack_bytes<uint32_t>},
    {"unpack.16.8", unpack_bytes<uint16_t>},
    {"unpack.32.8", unpack_bytes<uint32_t>},
    {"mov.b128", move_wide},
    {"clock", clock32},
    {"clock_hi", clock_high},
    {"clock64", clock64},
    {"globaltimer", timer},
    {"globaltimer_lo", timer_low},
    {"globaltimer_hi", timer_high},
    {"isspacep", isspacep},
};

}  // namespace

HandlerRows misc_rows() { return {kRows, std::size(kRows)}; }

void raise(Warp& warp, FaultKind kind, uint64_t address, uint32_t lane) {
  Block& block = *warp.block;
  if (block.fault != FaultKind::kNone) return;
  block.fault = kind;
  block.fault_address = address;
  block.fault_lane = lane;
}

std::byte* translate_generic(const Warp& warp, uint32_t lane, uint64_t address, uint64_t bytes) {
  const BlockMemory& m = warp.block->memory;
  const auto within = [&](uint64_t base, std::byte* host, uint64_t size) -> std::byte* {
    const uint64_t offset = address - base;
    return offset <= size && bytes <= size - offset ? host + offset : nullptr;
  };
  if (address - kWindowBase < kWindowBytes) return m.space->translate(address, bytes);
  if (address - kSharedWindow < kPrivateWindowBytes) {
    const uint64_t rank = (address - kSharedWindow) >> kRankShift;
    if (rank == 0) return within(kSharedWindow, m.shared, m.shared_bytes);
    const Block* peer = block_of_cluster(*warp.block, static_cast<uint32_t>(rank - 1));
    if (peer == nullptr) return nullptr;
    return within(kSharedWindow + (rank << kRankShift), peer->memory.shared, peer->memory.shared_bytes);
  }
  if (address - kLocalWindow < kPrivateWindowBytes)
    return within(kLocalWindow, warp.local + lane * m.local_bytes, m.local_bytes);
  if (address - kParamWindow < kPrivateWindowBytes) {
    // Kernels may read their parameters by address; nothing may write them, and PTX has no way to.
    return within(kParamWindow, const_cast<std::byte*>(m.params), m.param_bytes);
  }
  if (address - kGridWindow < kPrivateWindowBytes) return within(kGridWindow, m.workspace, kGridWorkspaceBytes);
  return m.space->translate(address, bytes);
}

}  // namespace softgpu
