// Loads and stores. Most accesses of a warp are one value for all lanes, or 32 values side by side: those two are one
// copy. Others are checked together and then go lane by lane without a check; what fails that, or lies in host memory,
// is looked up for each lane.

#include "softgpu/exec/lanes.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;

// How the address operand is made: y of the micro-op.
enum AddressForm : u8 { kOffsetOnly = 0, kRegister32 = 1, kRegister64 = 2 };

LANE_FN void addresses(const MicroOp& op, Warp& w, u64* out) {
  const u64 offset = static_cast<u64>(op.imm);
  if (op.y == kRegister64) {
    const u64* base = lanes<u64>(w, op.a);
    for (int i = 0; i < 32; ++i) out[i] = base[i] + offset;
  } else if (op.y == kRegister32) {
    const u32* base = lanes<u32>(w, op.a);
    for (int i = 0; i < 32; ++i) out[i] = base[i] + offset;
  } else {
    for (int i = 0; i < 32; ++i) out[i] = offset;
  }
}

LANE_FN u64 highest(const u64* a) {
  u64 out = 0;
  for (int i = 0; i < 32; ++i) out = a[i] > out ? a[i] : out;
  return out;
}

LANE_FN bool aligned(const u64* a, u64 bytes) {
  u64 all = 0;
  for (int i = 0; i < 32; ++i) all |= a[i];
  return (all & (bytes - 1)) == 0;
}

// Lanes that do not run take the address of one that does, so that all can be looked at together.
LANE_FN void fill_idle(u64* a, u32 mask) {
  const u64 first = a[__builtin_ctz(mask)];
  for (u32 i = 0; i < 32; ++i) a[i] = (mask & (u32{1} << i)) != 0 ? a[i] : first;
}

// Device memory, and through the slow path every generic address.
struct Generic {
  static constexpr u64 kAddressMask = ~u64{0};
  LANE_FN std::byte* span(Warp& w, u64 address, u64 bytes) {
    return address - kWindowBase < kWindowBytes ? w.block->memory.space->translate(address, bytes) : nullptr;
  }
  // Where all 32 addresses lie in one piece of host memory: the place of address 0, else null.
  LANE_FN std::byte* cover(Warp& w, const u64* a, u64 bytes) {
    const u64 first = a[0];
    u64 difference = 0;
    for (int i = 0; i < 32; ++i) difference |= a[i] ^ first;
    if (first - kWindowBase < kWindowBytes) {
      if (difference >= kChunkBytes) return nullptr;
      std::byte* p = w.block->memory.space->translate(first, bytes);
      return p == nullptr ? nullptr : p - first;
    }
    const BlockMemory& m = w.block->memory;
    if (first - kSharedWindow >= kPrivateWindowBytes || difference >> 32 != 0) return nullptr;
    return highest(a) - kSharedWindow + bytes <= m.shared_bytes ? m.shared - kSharedWindow : nullptr;
  }
  LANE_FN u64 stride(Warp&) { return 0; }
  struct Cache {
    u64 chunk = 1;  // no chunk begins there
    std::byte* host = nullptr;
  };
  LANE_FN std::byte* at(Warp& w, u32 lane, u64 address, u64 bytes, Cache* cache) {
    const u64 chunk = address & ~(kChunkBytes - 1);
    if (chunk == cache->chunk) return cache->host + (address - chunk);
    std::byte* p = translate_generic(w, lane, address, bytes);
    if (p != nullptr && address - kWindowBase < kWindowBytes) {
      cache->chunk = chunk;
      cache->host = p - (address - chunk);
    }
    return p;
  }
};

struct Shared {
  static constexpr u64 kAddressMask = 0xffffffff;  // shared addresses wrap at 32 bits
  LANE_FN std::byte* span(Warp& w, u64 address, u64 bytes) {
    const BlockMemory& m = w.block->memory;
    return address <= m.shared_bytes && bytes <= m.shared_bytes - address ? m.shared + address : nullptr;
  }
  LANE_FN std::byte* cover(Warp& w, const u64* a, u64 bytes) {
    const BlockMemory& m = w.block->memory;
    return highest(a) + bytes <= m.shared_bytes ? m.shared : nullptr;
  }
  LANE_FN u64 stride(Warp&) { return 0; }
  struct Cache {};
  LANE_FN std::byte* at(Warp& w, u32, u64 address, u64 bytes, Cache*) { return span(w, address, bytes); }
};

struct Local {
  static constexpr u64 kAddressMask = 0xffffffff;
  LANE_FN std::byte* span(Warp&, u64, u64) { return nullptr; }
  LANE_FN std::byte* cover(Warp& w, const u64* a, u64 bytes) {
    return highest(a) + bytes <= stride(w) ? w.local : nullptr;
  }
  LANE_FN u64 stride(Warp& w) { return w.block->memory.local_bytes; }
  struct Cache {};
  LANE_FN std::byte* at(Warp& w, u32 lane, u64 address, u64 bytes, Cache*) {
    const u64 size = w.block->memory.local_bytes;
    return address <= size && bytes <= size - address ? w.local + lane * size + address : nullptr;
  }
};

LANE_FN u32 data_register(const MicroOp& op, u32 element) {
  const u32 offsets[] = {op.dst, op.b, op.c, op.d};
  return offsets[element & 3];
}

template <class T>
LANE_FN T read(const std::byte* p) {
  T v;
  __builtin_memcpy(&v, p, sizeof(T));
  return v;
}

enum class Shape { kMixed, kUniform, kContiguous };

LANE_FN Shape shape_of(const u64* a, u64 bytes) {
  const u64 first = a[0];
  u64 uniform = 0, contiguous = 0;
  for (u32 i = 0; i < 32; ++i) {
    uniform |= a[i] ^ first;
    contiguous |= a[i] ^ (first + i * bytes);
  }
  return contiguous == 0 ? Shape::kContiguous : uniform == 0 ? Shape::kUniform : Shape::kMixed;
}

template <class S, class M, class R>
__attribute__((noinline)) void load_each(const MicroOp& op, Warp& w, u32 mask, const u64* a) {
  const u64 bytes = sizeof(M) * op.vec;
  typename S::Cache cache;
  for (; mask != 0; mask &= mask - 1) {
    const u32 i = static_cast<u32>(__builtin_ctz(mask));
    const u64 address = a[i] & S::kAddressMask;
    if ((address & (bytes - 1)) != 0) return raise(w, FaultKind::kMisalignedAddress, address, i);
    const std::byte* p = S::at(w, i, address, bytes, &cache);
    if (p == nullptr) return raise(w, FaultKind::kIllegalAddress, address, i);
    for (u32 e = 0; e < op.vec; ++e) lanes<R>(w, data_register(op, e))[i] = static_cast<R>(read<M>(p + e * sizeof(M)));
  }
}

// Any pattern inside one piece of memory.
template <class S, class M, class R>
bool load_spread(const MicroOp& op, Warp& w, u32 mask, const u64* a, u64 bytes) {
  if (!aligned(a, bytes)) return false;
  const std::byte* base = S::cover(w, a, bytes);
  if (base == nullptr) return false;
  const u64 stride = S::stride(w);
  for (u32 e = 0; e < op.vec; ++e) {
    alignas(64) R t[32];
    for (u32 i = 0; i < 32; ++i) t[i] = static_cast<R>(read<M>(base + a[i] + i * stride + e * sizeof(M)));
    R* d = lanes<R>(w, data_register(op, e));
    if (mask == kAll) {
      __builtin_memcpy(d, t, sizeof(t));
    } else {
      blend(d, t, mask);
    }
  }
  return true;
}

template <class S, class M, class R>
bool load_uniform(const MicroOp& op, Warp& w, u64 address, u64 bytes) {
  const std::byte* p = S::span(w, address, bytes);
  if (p == nullptr) return false;
  for (u32 e = 0; e < op.vec; ++e) {
    const R v = static_cast<R>(read<M>(p + e * sizeof(M)));
    R* d = lanes<R>(w, data_register(op, e));
    for (int i = 0; i < 32; ++i) d[i] = v;
  }
  return true;
}

template <class S, class M, class R>
bool load_contiguous(const MicroOp& op, Warp& w, u64 address, u64 bytes) {
  const std::byte* p = S::span(w, address, 32 * bytes);
  if (p == nullptr) return false;
  if (op.vec == 1) {
    R* d = lanes<R>(w, op.dst);
    for (int i = 0; i < 32; ++i) d[i] = static_cast<R>(read<M>(p + i * sizeof(M)));
    return true;
  }
  for (u32 e = 0; e < op.vec; ++e) {
    R* d = lanes<R>(w, data_register(op, e));
    for (u32 i = 0; i < 32; ++i) d[i] = static_cast<R>(read<M>(p + (i * op.vec + e) * sizeof(M)));
  }
  return true;
}

template <class S, class M, class R>
void load(const MicroOp& op, Warp& w, u32 mask) {
  alignas(64) u64 a[32];
  addresses(op, w, a);
  if (S::kAddressMask != ~u64{0}) {
    for (int i = 0; i < 32; ++i) a[i] &= S::kAddressMask;
  }
  const u64 bytes = sizeof(M) * op.vec;
  if (mask != kAll) {
    fill_idle(a, mask);
  } else if ((a[0] & (bytes - 1)) == 0) {
    const Shape shape = shape_of(a, bytes);
    if (shape == Shape::kUniform && load_uniform<S, M, R>(op, w, a[0], bytes)) return;
    if (shape == Shape::kContiguous && load_contiguous<S, M, R>(op, w, a[0], bytes)) return;
  }
  if (!load_spread<S, M, R>(op, w, mask, a, bytes)) load_each<S, M, R>(op, w, mask, a);
}

// From the highest lane down, so that the lowest wins where several store to one address.
template <class S, class M, class R>
__attribute__((noinline)) void store_each(const MicroOp& op, Warp& w, u32 mask, const u64* a) {
  const u64 bytes = sizeof(M) * op.vec;
  typename S::Cache cache;
  while (mask != 0) {
    const u32 i = 31 - static_cast<u32>(__builtin_clz(mask));
    mask &= ~(u32{1} << i);
    const u64 address = a[i] & S::kAddressMask;
    if ((address & (bytes - 1)) != 0) return raise(w, FaultKind::kMisalignedAddress, address, i);
    std::byte* p = S::at(w, i, address, bytes, &cache);
    if (p == nullptr) return raise(w, FaultKind::kIllegalAddress, address, i);
    for (u32 e = 0; e < op.vec; ++e) {
      const M v = static_cast<M>(lanes<R>(w, data_register(op, e))[i]);
      __builtin_memcpy(p + e * sizeof(M), &v, sizeof(M));
    }
  }
}

template <class S, class M, class R>
bool store_spread(const MicroOp& op, Warp& w, u32 mask, const u64* a, u64 bytes) {
  if (!aligned(a, bytes)) return false;
  std::byte* base = S::cover(w, a, bytes);
  if (base == nullptr) return false;
  const u64 stride = S::stride(w);
  while (mask != 0) {
    const u32 i = 31 - static_cast<u32>(__builtin_clz(mask));
    mask &= ~(u32{1} << i);
    for (u32 e = 0; e < op.vec; ++e) {
      const M v = static_cast<M>(lanes<R>(w, data_register(op, e))[i]);
      __builtin_memcpy(base + a[i] + i * stride + e * sizeof(M), &v, sizeof(M));
    }
  }
  return true;
}

template <class S, class M, class R>
void store(const MicroOp& op, Warp& w, u32 mask) {
  alignas(64) u64 a[32];
  addresses(op, w, a);
  if (S::kAddressMask != ~u64{0}) {
    for (int i = 0; i < 32; ++i) a[i] &= S::kAddressMask;
  }
  const u64 bytes = sizeof(M) * op.vec;
  const bool whole = mask == kAll && (a[0] & (bytes - 1)) == 0 && shape_of(a, bytes) == Shape::kContiguous;
  std::byte* p = whole ? S::span(w, a[0], 32 * bytes) : nullptr;
  if (p == nullptr) {
    if (mask != kAll) fill_idle(a, mask);
    if (!store_spread<S, M, R>(op, w, mask, a, bytes)) store_each<S, M, R>(op, w, mask, a);
    return;
  }
  for (u32 e = 0; e < op.vec; ++e) {
    const R* v = lanes<R>(w, data_register(op, e));
    for (u32 i = 0; i < 32; ++i) {
      const M element = static_cast<M>(v[i]);
      __builtin_memcpy(p + (i * op.vec + e) * sizeof(M), &element, sizeof(M));
    }
  }
}

// Kernel parameters: one value for all lanes, checked when the kernel was lowered.
template <class M, class R>
void load_param(const MicroOp& op, Warp& w, u32 mask) {
  const BlockMemory& m = w.block->memory;
  const u64 bytes = sizeof(M) * op.vec;
  if (op.y == kOffsetOnly && static_cast<u64>(op.imm) + bytes > m.param_bytes) {
    return raise(w, FaultKind::kIllegalAddress, kParamWindow + static_cast<u64>(op.imm),
                 static_cast<u32>(__builtin_ctz(mask)));
  }
  alignas(64) u64 a[32];
  if (op.y != kOffsetOnly) addresses(op, w, a);
  for (; mask != 0; mask &= mask - 1) {
    const u32 i = static_cast<u32>(__builtin_ctz(mask));
    u64 offset = static_cast<u64>(op.imm);
    if (op.y != kOffsetOnly) {
      offset = a[i] >= kParamWindow ? a[i] - kParamWindow : a[i];
      if (offset > m.param_bytes || bytes > m.param_bytes - offset) {
        return raise(w, FaultKind::kIllegalAddress, a[i], i);
      }
    }
    const std::byte* p = m.params + offset;
    for (u32 e = 0; e < op.vec; ++e) lanes<R>(w, data_register(op, e))[i] = static_cast<R>(read<M>(p + e * sizeof(M)));
  }
}

#define PARAM(t, M, R, r) \
  { "ld.kparam." t "." r, load_param<M, R> }
#define LOAD(t, M, R, r)                                                                    \
  {"ld.generic." t "." r, load<Generic, M, R>}, {"ld.shared." t "." r, load<Shared, M, R>}, \
      {"ld.local." t "." r, load<Local, M, R>}, PARAM(t, M, R, r)
#define STORE(t, M, R, r)                                                                       \
  {"st.generic." t "." r, store<Generic, M, R>}, {"st.shared." t "." r, store<Shared, M, R>}, { \
    "st.local." t "." r, store<Local, M, R>                                                     \
  }

constexpr HandlerRow kRows[] = {
    LOAD("u8", u8, u16, "16"),    LOAD("u8", u8, u32, "32"),    LOAD("u8", u8, u64, "64"),
    LOAD("s8", s8, u16, "16"),    LOAD("s8", s8, u32, "32"),    LOAD("s8", s8, u64, "64"),
    LOAD("u16", u16, u16, "16"),  LOAD("u16", u16, u32, "32"),  LOAD("u16", u16, u64, "64"),
    LOAD("s16", s16, u32, "32"),  LOAD("s16", s16, u64, "64"),  LOAD("u32", u32, u32, "32"),
    LOAD("u32", u32, u64, "64"),  LOAD("s32", s32, u64, "64"),  LOAD("u64", u64, u64, "64"),
    STORE("u8", u8, u16, "16"),   STORE("u8", u8, u32, "32"),   STORE("u8", u8, u64, "64"),
    STORE("u16", u16, u16, "16"), STORE("u16", u16, u32, "32"), STORE("u16", u16, u64, "64"),
    STORE("u32", u32, u32, "32"), STORE("u32", u32, u64, "64"), STORE("u64", u64, u64, "64"),
};

}  // namespace

HandlerRows memory_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
