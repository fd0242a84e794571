// atom and red. Blocks run in several threads, so device memory is changed by the host's atomic instructions; lanes
// take their turn in order.

#include <bit>

#define SOFTGPU_ISA isa_base
#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu {
namespace {

using namespace isa_base;

// Address of a lane's operand, or null with the fault raised.
LANE_FN std::byte* operand(const MicroOp& op, Warp& w, uint32_t lane, uint64_t bytes) {
  uint64_t address = static_cast<uint64_t>(op.imm);
  if (op.y == 1) address += lanes<uint32_t>(w, op.a)[lane];
  if (op.y == 2) address += lanes<uint64_t>(w, op.a)[lane];
  std::byte* p = nullptr;
  if ((address & (bytes - 1)) != 0) {
    raise(w, FaultKind::kMisalignedAddress, address, lane);
    return nullptr;
  }
  p = translate_generic(w, lane, address, bytes);
  if (p == nullptr) raise(w, FaultKind::kIllegalAddress, address, lane);
  return p;
}

LANE_FN std::byte* wide_operand(MicroOp op, Warp& w, uint32_t lane) {
  if (op.x == 1) {  // an address of shared memory
    const uint64_t base = op.y == 1 ? lanes<uint32_t>(w, op.a)[lane] : op.y == 2 ? lanes<uint64_t>(w, op.a)[lane] : 0;
    op.imm = static_cast<int64_t>(kSharedWindow + ((base + static_cast<uint64_t>(op.imm)) & 0xffffffff));
    op.y = 0;
  }
  return operand(op, w, lane, 16);
}

// Blocks run in one thread: nobody else sees their shared memory.
template <class T, T (*F)(T, T, T)>
__attribute__((noinline)) void atomic_shared(const MicroOp& op, Warp& w, uint32_t mask) {
  const T* b = lanes<T>(w, op.b);
  const T* c = op.c != 0 ? lanes<T>(w, op.c) : b;  // those without c do not look at it
  T* d = lanes<T>(w, op.dst);
  const bool wide = op.y == 2;
  const auto* base = lanes<uint32_t>(w, op.a);
  const uint32_t offset = static_cast<uint32_t>(op.imm);
  std::byte* const shared = w.block->memory.shared;
  const uint64_t size = w.block->memory.shared_bytes;
  for (; mask != 0; mask &= mask - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(mask));
    const uint32_t address = offset + (op.y == 0 ? 0 : base[wide ? 2 * lane : lane]);
    if (address % sizeof(T) != 0) return raise(w, FaultKind::kMisalignedAddress, kSharedWindow + address, lane);
    if (uint64_t{address} + sizeof(T) > size) {
      return raise(w, FaultKind::kIllegalAddress, kSharedWindow + address, lane);
    }
    auto* p = reinterpret_cast<T*>(shared + address);
    const T old = *p;
    *p = F(old, b[lane], c[lane]);
    d[lane] = old;
  }
}

// T as in memory, F computes the new value from the old one and the operands b and c.
template <class T, T (*F)(T, T, T)>
void atomic(const MicroOp& op, Warp& w, uint32_t mask) {
  if (op.x == 1) return atomic_shared<T, F>(op, w, mask);
  for (; mask != 0; mask &= mask - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(mask));
    auto* p = reinterpret_cast<T*>(operand(op, w, lane, sizeof(T)));
    if (p == nullptr) return;
    const T b = lanes<T>(w, op.b)[lane];
    const T c = op.c != 0 ? lanes<T>(w, op.c)[lane] : T{};
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &old, F(old, b, c), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    lanes<T>(w, op.dst)[lane] = old;
  }
}

template <class T>
T a_add(T old, T b, T) {
  return static_cast<T>(old + b);
}
template <class T>
T a_and(T old, T b, T) {
  return old & b;
}
template <class T>
T a_or(T old, T b, T) {
  return old | b;
}
template <class T>
T a_xor(T old, T b, T) {
  return old ^ b;
}
template <class T>
T a_exch(T, T b, T) {
  return b;
}
template <class T>
T a_cas(T old, T b, T c) {
  return old == b ? c : old;
}
template <class U, class T>
U a_min(U old, U b, U) {
  return static_cast<T>(old) < static_cast<T>(b) ? old : b;
}
template <class U, class T>
U a_max(U old, U b, U) {
  return static_cast<T>(old) > static_cast<T>(b) ? old : b;
}
uint32_t a_inc(uint32_t old, uint32_t b, uint32_t) { return old >= b ? 0 : old + 1; }
uint32_t a_dec(uint32_t old, uint32_t b, uint32_t) { return old == 0 || old > b ? b : old - 1; }
uint32_t add_f32(uint32_t old, uint32_t b, uint32_t) {
  return bits_as<uint32_t>(canon(bits_as<float>(old) + bits_as<float>(b)));
}
uint64_t add_f64(uint64_t old, uint64_t b, uint64_t) {
  return bits_as<uint64_t>(bits_as<double>(old) + bits_as<double>(b));
}
uint16_t add_f16(uint16_t old, uint16_t b, uint16_t) {
  return to_half(static_cast<double>(from_half(old)) + static_cast<double>(from_half(b)));
}
uint16_t add_bf16(uint16_t old, uint16_t b, uint16_t) {
  return to_bf16(static_cast<double>(from_bf16(old)) + static_cast<double>(from_bf16(b)));
}
// The lesser or the greater; a number wins against a NaN.
template <bool Less, bool Half>
uint16_t pick(uint16_t old, uint16_t b, uint16_t) {
  const float x = Half ? from_half(old) : from_bf16(old), y = Half ? from_half(b) : from_bf16(b);
  if (x != x) return y != y ? 0x7fff : b;
  if (y != y) return old;
  if (x == y) return Less ? old | b : old & b;
  return (x < y) == Less ? old : b;
}
template <uint16_t (*F)(uint16_t, uint16_t, uint16_t)>
uint32_t both(uint32_t old, uint32_t b, uint32_t) {
  const uint32_t low = F(static_cast<uint16_t>(old), static_cast<uint16_t>(b), 0);
  return low | static_cast<uint32_t>(F(static_cast<uint16_t>(old >> 16), static_cast<uint16_t>(b >> 16), 0)) << 16;
}

using u128 = unsigned __int128;

// 16 bytes at once, with the processor's own instruction for that.
template <bool Compare>
void atomic_wide(const MicroOp& op, Warp& w, uint32_t mask) {
  for (; mask != 0; mask &= mask - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(mask));
    auto* p = reinterpret_cast<u128*>(wide_operand(op, w, lane));
    if (p == nullptr) return;
    const u128 b = lanes<u128>(w, op.b)[lane];
    u128 old = Compare ? __sync_val_compare_and_swap(p, b, lanes<u128>(w, op.c)[lane]) : b;
    while (!Compare) {
      const u128 seen = __sync_val_compare_and_swap(p, old, b);
      if (seen == old) break;
      old = seen;
    }
    lanes<u128>(w, op.dst)[lane] = old;
  }
}

using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

#define BITS(name, F) \
  {"atom." name ".b32", atomic<u32, F<u32>>}, { "atom." name ".b64", atomic<u64, F<u64>> }
#define ORDERED(name, F)                                                                                \
  {"atom." name ".u32", atomic<u32, F<u32, u32>>}, {"atom." name ".s32", atomic<u32, F<u32, int32_t>>}, \
      {"atom." name ".u64", atomic<u64, F<u64, u64>>}, {                                                \
    "atom." name ".s64", atomic<u64, F<u64, int64_t>>                                                   \
  }

constexpr HandlerRow kRows[] = {
    {"atom.add.u32", atomic<u32, a_add<u32>>},
    {"atom.add.u64", atomic<u64, a_add<u64>>},
    {"atom.add.f32", atomic<u32, add_f32>},
    {"atom.add.f64", atomic<u64, add_f64>},
    {"atom.add.f16", atomic<u16, add_f16>},
    {"atom.add.bf16", atomic<u16, add_bf16>},
    {"atom.add.f16x2", atomic<u32, both<add_f16>>},
    {"atom.add.bf16x2", atomic<u32, both<add_bf16>>},
    BITS("and", a_and),
    BITS("or", a_or),
    BITS("xor", a_xor),
    BITS("exch", a_exch),
    BITS("cas", a_cas),
    {"atom.cas.b16", atomic<u16, a_cas<u16>>},
    ORDERED("min", a_min),
    ORDERED("max", a_max),
    {"atom.min.f16", atomic<u16, pick<true, true>>},
    {"atom.max.f16", atomic<u16, pick<false, true>>},
    {"atom.min.bf16", atomic<u16, pick<true, false>>},
    {"atom.max.bf16", atomic<u16, pick<false, false>>},
    {"atom.min.f16x2", atomic<u32, both<pick<true, true>>>},
    {"atom.max.f16x2", atomic<u32, both<pick<false, true>>>},
    {"atom.min.bf16x2", atomic<u32, both<pick<true, false>>>},
    {"atom.max.bf16x2", atomic<u32, both<pick<false, false>>>},
    {"atom.exch.b128", atomic_wide<false>},
    {"atom.cas.b128", atomic_wide<true>},
    {"atom.inc.u32", atomic<u32, a_inc>},
    {"atom.dec.u32", atomic<u32, a_dec>},
};

}  // namespace

HandlerRows atomic_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu
