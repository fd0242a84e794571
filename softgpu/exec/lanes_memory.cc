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
using u128 = unsigned __int128;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;

// How the address operand is made: y of the micro-op.
enum AddressForm : u8 { kOffsetOnly = 0, kRegister32 = 1, kRegister64 = 2 };

// The 32 addresses; W is as wide as addresses of the state space are.
template <class W>
LANE_FN void addresses(const MicroOp& op, Warp& w, W* out) {
  const W offset = static_cast<W>(op.imm);
  if (op.y == kRegister64) {
    const u64* base = lanes<u64>(w, op.a);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<W>(base[i]) + offset;
  } else if (op.y == kRegister32) {
    const u32* base = lanes<u32>(w, op.a);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<W>(base[i]) + offset;
  } else {
    for (int i = 0; i < 32; ++i) out[i] = offset;
  }
}

template <class W>
LANE_FN W address_of(const MicroOp& op, Warp& w, u32 lane) {
  W out = static_cast<W>(op.imm);
  if (op.y == kRegister64) out += static_cast<W>(lanes<u64>(w, op.a)[lane]);
  if (op.y == kRegister32) out += static_cast<W>(lanes<u32>(w, op.a)[lane]);
  return out;
}

// For a single lane nothing has to be looked at together.
LANE_FN bool single(u32 mask) { return (mask & (mask - 1)) == 0; }

template <class W>
LANE_FN W highest(const W* a) {
  W out = 0;
  for (int i = 0; i < 32; ++i) out = a[i] > out ? a[i] : out;
  return out;
}

template <class W>
LANE_FN W lowest(const W* a) {
  W out = a[0];
  for (int i = 1; i < 32; ++i) out = a[i] < out ? a[i] : out;
  return out;
}

template <class W>
LANE_FN bool aligned(const W* a, u64 bytes) {
  W all = 0;
  for (int i = 0; i < 32; ++i) all |= a[i];
  return (all & (bytes - 1)) == 0;
}

// Lanes that do not run take the address of one that does, so that all can be looked at together.
template <class W>
LANE_FN void fill_idle(W* a, u32 mask) {
  const W first = a[__builtin_ctz(mask)];
  for (u32 i = 0; i < 32; ++i) a[i] = (mask & (u32{1} << i)) != 0 ? a[i] : first;
}

// Device memory, and through the slow path every generic address.
struct Generic {
  using Word = u64;
  static constexpr bool kSpans = true;  // several lanes may lie in one span
  LANE_FN std::byte* span(Warp& w, u64 address, u64 bytes) {
    if (address - kSharedWindow < kPrivateWindowsBytes) return nullptr;
    return w.block->memory.space->translate(address, bytes);
  }
  // Whether all 32 addresses lie in one piece of host memory; *base gets the place of address 0.
  LANE_FN bool cover(Warp& w, const u64* a, u64 bytes, std::byte** base) {
    const u64 first = a[0];
    u64 difference = 0;
    for (int i = 0; i < 32; ++i) difference |= a[i] ^ first;
    const BlockMemory& m = w.block->memory;
    if (first - kSharedWindow < kPrivateWindowBytes) {
      *base = m.shared - kSharedWindow;
      return difference >> 32 == 0 && highest(a) - kSharedWindow + bytes <= m.shared_bytes;
    }
    if (difference >= kChunkBytes) return false;
    if (first - kWindowBase < kWindowBytes) {
      std::byte* p = m.space->translate(first, bytes);
      if (p == nullptr) return false;
      *base = p - first;
      return true;
    }
    if (first - kSharedWindow < kPrivateWindowsBytes) return false;
    *base = nullptr;  // host memory lies at its own address
    const u64 least = lowest(a);
    return m.space->translate(least, highest(a) - least + bytes) != nullptr;
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
  using Word = u32;  // shared addresses wrap at 32 bits
  static constexpr bool kSpans = true;
  LANE_FN std::byte* span(Warp& w, u64 address, u64 bytes) {
    const BlockMemory& m = w.block->memory;
    return address <= m.shared_bytes && bytes <= m.shared_bytes - address ? m.shared + address : nullptr;
  }
  LANE_FN bool cover(Warp& w, const u32* a, u64 bytes, std::byte** base) {
    const BlockMemory& m = w.block->memory;
    *base = m.shared;
    return highest(a) + bytes <= m.shared_bytes;
  }
  LANE_FN u64 stride(Warp&) { return 0; }
  struct Cache {};
  LANE_FN std::byte* at(Warp& w, u32, u64 address, u64 bytes, Cache*) { return span(w, address, bytes); }
};

struct Local {
  using Word = u32;
  static constexpr bool kSpans = false;
  LANE_FN std::byte* span(Warp&, u64, u64) { return nullptr; }
  LANE_FN bool cover(Warp& w, const u32* a, u64 bytes, std::byte** base) {
    *base = w.local;
    return highest(a) + bytes <= stride(w);
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

// Lane i of a row of values that are kStep apart.
template <class B, u64 kStep>
struct Row {
  B at[32];
  constexpr Row() : at() {
    for (u32 i = 0; i < 32; ++i) at[i] = static_cast<B>(i * kStep);
  }
};

// Whether each of the first kCount lanes i holds first + i * kStep.
template <u64 kStep, u32 kCount = 32, class B>
LANE_FN bool is_row(const B* a, B first) {
  alignas(64) static constexpr Row<B, kStep> kRow;
#ifdef __AVX512F__
  // The compiler does not find the comparison into masks by itself.
  u32 wrong = 0;
  for (u32 i = 0; i < kCount; i += 64 / sizeof(B)) {
    const __m512i have = _mm512_loadu_si512(a + i), row = _mm512_load_si512(kRow.at + i);
    if constexpr (sizeof(B) == 4) {
      wrong |= _mm512_cmpneq_epi32_mask(have, _mm512_add_epi32(row, _mm512_set1_epi32(static_cast<int>(first))));
    } else {
      wrong |= _mm512_cmpneq_epi64_mask(have, _mm512_add_epi64(row, _mm512_set1_epi64(static_cast<long long>(first))));
    }
  }
#else
  B wrong = 0;
  for (u32 i = 0; i < kCount; ++i) wrong |= a[i] ^ (first + kRow.at[i]);
#endif
  return wrong == 0;
}

// The ends tell which shape it may be; only that one is looked at. Every value still lacks the operation's offset.
template <u64 kBytes, class B>
LANE_FN Shape shape_of(const B* a) {
  const B first = a[0], span = a[31] - first;
  if (span == 0) return is_row<0>(a, first) ? Shape::kUniform : Shape::kMixed;
  if (span != 31 * kBytes) return Shape::kMixed;
  return is_row<kBytes>(a, first) ? Shape::kContiguous : Shape::kMixed;
}

// The same for 16 lanes: a block that is 16 wide has two rows in a warp.
constexpr u32 kHalf = 16;
template <u64 kBytes, class B>
LANE_FN Shape shape_of_half(const B* a) {
  const B first = a[0], span = a[kHalf - 1] - first;
  if (span == 0) return is_row<0, kHalf>(a, first) ? Shape::kUniform : Shape::kMixed;
  if (span != (kHalf - 1) * kBytes) return Shape::kMixed;
  return is_row<kBytes, kHalf>(a, first) ? Shape::kContiguous : Shape::kMixed;
}

// How the addresses of a whole warp lie, without making them; *first gets that of lane 0. Values of 32 bits that wrap
// do not wrap as addresses of 64 bits do, so those are mixed.
template <class W, u64 kBytes>
LANE_FN Shape look(const MicroOp& op, Warp& w, W* first) {
  *first = static_cast<W>(op.imm);
  if (op.y == kOffsetOnly) return Shape::kUniform;
  if (op.y == kRegister64) {
    const u64* base = lanes<u64>(w, op.a);
    *first += static_cast<W>(base[0]);
    return shape_of<kBytes>(base);
  }
  const u32* base = lanes<u32>(w, op.a);
  *first += base[0];
  if (sizeof(W) > sizeof(u32) && base[31] < base[0]) return Shape::kMixed;
  return shape_of<kBytes>(base);
}

template <class S, class M, class R, u32 kVec>
__attribute__((noinline)) void load_each(const MicroOp& op, Warp& w, u32 mask, const typename S::Word* a) {
  constexpr u64 kBytes = sizeof(M) * kVec;
  typename S::Cache cache;
  for (; mask != 0; mask &= mask - 1) {
    const u32 i = static_cast<u32>(__builtin_ctz(mask));
    const u64 address = a[i];
    if ((address & (kBytes - 1)) != 0) return raise(w, FaultKind::kMisalignedAddress, address, i);
    const std::byte* p = S::at(w, i, address, kBytes, &cache);
    if (p == nullptr) return raise(w, FaultKind::kIllegalAddress, address, i);
    for (u32 e = 0; e < kVec; ++e) lanes<R>(w, data_register(op, e))[i] = static_cast<R>(read<M>(p + e * sizeof(M)));
  }
}

// Any pattern inside one piece of memory.
template <class S, class M, class R, u32 kVec>
LANE_FN bool load_spread(const MicroOp& op, Warp& w, u32 mask, const typename S::Word* a) {
  constexpr u64 kBytes = sizeof(M) * kVec;
  if (!aligned(a, kBytes)) return false;
  std::byte* base = nullptr;
  if (!S::cover(w, a, kBytes, &base)) return false;
  const u64 stride = S::stride(w);
  for (u32 e = 0; e < kVec; ++e) {
    R* d = lanes<R>(w, data_register(op, e));
    if (mask == kAll) {
#pragma GCC ivdep
      for (u32 i = 0; i < 32; ++i) d[i] = static_cast<R>(read<M>(base + a[i] + i * stride + e * sizeof(M)));
    } else {
      alignas(64) R t[32];
      for (u32 i = 0; i < 32; ++i) t[i] = static_cast<R>(read<M>(base + a[i] + i * stride + e * sizeof(M)));
      blend(d, t, mask);
    }
  }
  return true;
}

template <class M, class R, u32 kVec>
LANE_FN void load_uniform(const MicroOp& op, Warp& w, const std::byte* p) {
  for (u32 e = 0; e < kVec; ++e) {
    const R v = static_cast<R>(read<M>(p + e * sizeof(M)));
    R* d = lanes<R>(w, data_register(op, e));
    for (int i = 0; i < 32; ++i) d[i] = v;
  }
}

template <class M, class R, u32 kVec>
LANE_FN void load_contiguous(const MicroOp& op, Warp& w, const std::byte* p) {
  for (u32 e = 0; e < kVec; ++e) {
    R* d = lanes<R>(w, data_register(op, e));
#pragma GCC ivdep
    for (u32 i = 0; i < 32; ++i) d[i] = static_cast<R>(read<M>(p + (i * kVec + e) * sizeof(M)));
  }
}

// Two halves of the warp that are uniform or contiguous each.
template <class S, class M, class R, u32 kVec>
LANE_FN bool load_halves(const MicroOp& op, Warp& w, const typename S::Word* a) {
  constexpr u64 kBytes = sizeof(M) * kVec;
  const Shape shapes[2] = {shape_of_half<kBytes>(a), shape_of_half<kBytes>(a + kHalf)};
  if (shapes[0] == Shape::kMixed || shapes[1] == Shape::kMixed || ((a[0] | a[kHalf]) & (kBytes - 1)) != 0) return false;
  const std::byte* from[2];
  for (u32 h = 0; h < 2; ++h) {
    from[h] = S::span(w, a[h * kHalf], shapes[h] == Shape::kUniform ? kBytes : kHalf * kBytes);
    if (from[h] == nullptr) return false;
  }
  for (u32 e = 0; e < kVec; ++e) {
    for (u32 h = 0; h < 2; ++h) {
      R* d = lanes<R>(w, data_register(op, e)) + h * kHalf;
      const std::byte* p = from[h] + e * sizeof(M);
      if (shapes[h] == Shape::kUniform) {
        const R v = static_cast<R>(read<M>(p));
        for (u32 i = 0; i < kHalf; ++i) d[i] = v;
      } else {
#pragma GCC ivdep
        for (u32 i = 0; i < kHalf; ++i) d[i] = static_cast<R>(read<M>(p + i * kBytes));
      }
    }
  }
  return true;
}

template <class S, class M, class R, u32 kVec>
__attribute__((noinline)) void load_mixed(const MicroOp& op, Warp& w, u32 mask) {
  alignas(64) typename S::Word a[32];
  if (single(mask)) {
    const auto lane = static_cast<u32>(__builtin_ctz(mask));
    a[lane] = address_of<typename S::Word>(op, w, lane);
    return load_each<S, M, R, kVec>(op, w, mask, a);
  }
  addresses(op, w, a);
  if (S::kSpans && mask == kAll && load_halves<S, M, R, kVec>(op, w, a)) return;
  if (mask != kAll) fill_idle(a, mask);
  if (!load_spread<S, M, R, kVec>(op, w, mask, a)) load_each<S, M, R, kVec>(op, w, mask, a);
}

template <class S, class M, class R, u32 kVec>
LANE_FN void load_elements(const MicroOp& op, Warp& w, u32 mask) {
  constexpr u64 kBytes = sizeof(M) * kVec;
  if (mask == kAll) {
    typename S::Word first;
    const Shape shape = look<typename S::Word, kBytes>(op, w, &first);
    if (shape != Shape::kMixed && (first & (kBytes - 1)) == 0) {
      const std::byte* p = S::span(w, first, shape == Shape::kUniform ? kBytes : 32 * kBytes);
      if (p != nullptr && shape == Shape::kUniform) return load_uniform<M, R, kVec>(op, w, p);
      if (p != nullptr) return load_contiguous<M, R, kVec>(op, w, p);
    }
  }
  load_mixed<S, M, R, kVec>(op, w, mask);
}

template <class S, class M, class R>
void load(const MicroOp& op, Warp& w, u32 mask) {
  if (op.vec == 1) return load_elements<S, M, R, 1>(op, w, mask);
  if (op.vec == 2) return load_elements<S, M, R, 2>(op, w, mask);
  load_elements<S, M, R, 4>(op, w, mask);
}

// From the highest lane down, so that the lowest wins where several store to one address.
template <class S, class M, class R, u32 kVec>
__attribute__((noinline)) void store_each(const MicroOp& op, Warp& w, u32 mask, const typename S::Word* a) {
  constexpr u64 kBytes = sizeof(M) * kVec;
  typename S::Cache cache;
  while (mask != 0) {
    const u32 i = 31 - static_cast<u32>(__builtin_clz(mask));
    mask &= ~(u32{1} << i);
    const u64 address = a[i];
    if ((address & (kBytes - 1)) != 0) return raise(w, FaultKind::kMisalignedAddress, address, i);
    std::byte* p = S::at(w, i, address, kBytes, &cache);
    if (p == nullptr) return raise(w, FaultKind::kIllegalAddress, address, i);
    for (u32 e = 0; e < kVec; ++e) {
      const M v = static_cast<M>(lanes<R>(w, data_register(op, e))[i]);
      __builtin_memcpy(p + e * sizeof(M), &v, sizeof(M));
    }
  }
}

template <class M, class R, u32 kVec>
LANE_FN void store_lane(R* const* data, u32 i, std::byte* p) {
  for (u32 e = 0; e < kVec; ++e) {
    const M v = static_cast<M>(data[e][i]);
    __builtin_memcpy(p + e * sizeof(M), &v, sizeof(M));
  }
}

template <class S, class M, class R, u32 kVec>
LANE_FN bool store_spread(const MicroOp& op, Warp& w, u32 mask, const typename S::Word* a) {
  constexpr u64 kBytes = sizeof(M) * kVec;
  if (!aligned(a, kBytes)) return false;
  std::byte* base = nullptr;
  if (!S::cover(w, a, kBytes, &base)) return false;
  const u64 stride = S::stride(w);
  R* data[kVec];
  for (u32 e = 0; e < kVec; ++e) data[e] = lanes<R>(w, data_register(op, e));
  if (__builtin_popcount(mask) < 8) {
    while (mask != 0) {
      const u32 i = 31 - static_cast<u32>(__builtin_clz(mask));
      mask &= ~(u32{1} << i);
      store_lane<M, R, kVec>(data, i, base + a[i] + i * stride);
    }
    return true;
  }
  // Idle lanes write beside it: that costs less than to branch for each.
  std::byte aside[kBytes];
#pragma GCC unroll 8
  for (u32 n = 0; n < 32; ++n) {
    const u32 i = 31 - n;
    std::byte* p = base + a[i] + i * stride;
    store_lane<M, R, kVec>(data, i, (mask & (u32{1} << i)) != 0 ? p : aside);
  }
  return true;
}

template <class S, class M, class R, u32 kVec>
LANE_FN bool store_halves(const MicroOp& op, Warp& w, const typename S::Word* a) {
  constexpr u64 kBytes = sizeof(M) * kVec;
  if (shape_of_half<kBytes>(a) != Shape::kContiguous || shape_of_half<kBytes>(a + kHalf) != Shape::kContiguous ||
      ((a[0] | a[kHalf]) & (kBytes - 1)) != 0) {
    return false;
  }
  std::byte* to[2];
  for (u32 h = 0; h < 2; ++h) {
    to[h] = S::span(w, a[h * kHalf], kHalf * kBytes);
    if (to[h] == nullptr) return false;
  }
  // The upper half first: where they meet, the lowest lane wins.
  for (u32 h = 2; h-- > 0;) {
    for (u32 e = 0; e < kVec; ++e) {
      const R* v = lanes<R>(w, data_register(op, e)) + h * kHalf;
#pragma GCC ivdep
      for (u32 i = 0; i < kHalf; ++i) {
        const M element = static_cast<M>(v[i]);
        __builtin_memcpy(to[h] + i * kBytes + e * sizeof(M), &element, sizeof(M));
      }
    }
  }
  return true;
}

template <class S, class M, class R, u32 kVec>
__attribute__((noinline)) void store_mixed(const MicroOp& op, Warp& w, u32 mask) {
  alignas(64) typename S::Word a[32];
  if (single(mask)) {
    const auto lane = static_cast<u32>(__builtin_ctz(mask));
    a[lane] = address_of<typename S::Word>(op, w, lane);
    return store_each<S, M, R, kVec>(op, w, mask, a);
  }
  addresses(op, w, a);
  if (S::kSpans && mask == kAll && store_halves<S, M, R, kVec>(op, w, a)) return;
  if (mask != kAll) fill_idle(a, mask);
  if (!store_spread<S, M, R, kVec>(op, w, mask, a)) store_each<S, M, R, kVec>(op, w, mask, a);
}

template <class S, class M, class R, u32 kVec>
LANE_FN void store_elements(const MicroOp& op, Warp& w, u32 mask) {
  constexpr u64 kBytes = sizeof(M) * kVec;
  typename S::Word first;
  if (mask != kAll || look<typename S::Word, kBytes>(op, w, &first) != Shape::kContiguous ||
      (first & (kBytes - 1)) != 0) {
    return store_mixed<S, M, R, kVec>(op, w, mask);
  }
  std::byte* p = S::span(w, first, 32 * kBytes);
  if (p == nullptr) return store_mixed<S, M, R, kVec>(op, w, mask);
  for (u32 e = 0; e < kVec; ++e) {
    const R* v = lanes<R>(w, data_register(op, e));
#pragma GCC ivdep
    for (u32 i = 0; i < 32; ++i) {
      const M element = static_cast<M>(v[i]);
      __builtin_memcpy(p + (i * kVec + e) * sizeof(M), &element, sizeof(M));
    }
  }
}

template <class S, class M, class R>
void store(const MicroOp& op, Warp& w, u32 mask) {
  if (op.vec == 1) return store_elements<S, M, R, 1>(op, w, mask);
  if (op.vec == 2) return store_elements<S, M, R, 2>(op, w, mask);
  store_elements<S, M, R, 4>(op, w, mask);
}

// Kernel parameters at places that a register gives.
template <class M, class R>
__attribute__((noinline)) void load_param_each(const MicroOp& op, Warp& w, u32 mask) {
  const BlockMemory& m = w.block->memory;
  const u64 bytes = sizeof(M) * op.vec;
  alignas(64) u64 a[32];
  addresses(op, w, a);
  for (; mask != 0; mask &= mask - 1) {
    const u32 i = static_cast<u32>(__builtin_ctz(mask));
    const u64 offset = a[i] >= kParamWindow ? a[i] - kParamWindow : a[i];
    if (offset > m.param_bytes || bytes > m.param_bytes - offset) {
      return raise(w, FaultKind::kIllegalAddress, a[i], i);
    }
    const std::byte* p = m.params + offset;
    for (u32 e = 0; e < op.vec; ++e) lanes<R>(w, data_register(op, e))[i] = static_cast<R>(read<M>(p + e * sizeof(M)));
  }
}

// Kernel parameters: mostly one value for all lanes.
template <class M, class R>
void load_param(const MicroOp& op, Warp& w, u32 mask) {
  if (op.y != kOffsetOnly) return load_param_each<M, R>(op, w, mask);
  const BlockMemory& m = w.block->memory;
  const u64 offset = static_cast<u64>(op.imm);
  if (offset + sizeof(M) * op.vec > m.param_bytes) {
    return raise(w, FaultKind::kIllegalAddress, kParamWindow + offset, static_cast<u32>(__builtin_ctz(mask)));
  }
  for (u32 e = 0; e < op.vec; ++e) {
    const R v = static_cast<R>(read<M>(m.params + offset + e * sizeof(M)));
    R* d = lanes<R>(w, data_register(op, e));
    if (mask == kAll) {
      for (u32 i = 0; i < 32; ++i) d[i] = v;
    } else {
      for (u32 i = 0; i < 32; ++i) d[i] = (mask & (u32{1} << i)) != 0 ? v : d[i];
    }
  }
}

// Ahead of a vector access that is done in parts: imm + a must be a multiple of target bytes.
void align(const MicroOp& op, Warp& w, u32 mask) {
  alignas(64) u64 a[32];
  addresses(op, w, a);
  for (; mask != 0; mask &= mask - 1) {
    const u32 i = static_cast<u32>(__builtin_ctz(mask));
    if ((a[i] & (op.target - 1)) != 0) return raise(w, FaultKind::kMisalignedAddress, a[i], i);
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
    LOAD("u8", u8, u16, "16"),       LOAD("u8", u8, u32, "32"),        LOAD("u8", u8, u64, "64"),
    LOAD("s8", s8, u16, "16"),       LOAD("s8", s8, u32, "32"),        LOAD("s8", s8, u64, "64"),
    LOAD("u16", u16, u16, "16"),     LOAD("u16", u16, u32, "32"),      LOAD("u16", u16, u64, "64"),
    LOAD("s16", s16, u32, "32"),     LOAD("s16", s16, u64, "64"),      LOAD("u32", u32, u32, "32"),
    LOAD("u32", u32, u64, "64"),     LOAD("s32", s32, u64, "64"),      LOAD("u64", u64, u64, "64"),
    LOAD("u128", u128, u128, "128"), STORE("u128", u128, u128, "128"), {"align", align},
    STORE("u8", u8, u16, "16"),      STORE("u8", u8, u32, "32"),       STORE("u8", u8, u64, "64"),
    STORE("u16", u16, u16, "16"),    STORE("u16", u16, u32, "32"),     STORE("u16", u16, u64, "64"),
    STORE("u32", u32, u32, "32"),    STORE("u32", u32, u64, "64"),     STORE("u64", u64, u64, "64"),
};

}  // namespace

HandlerRows memory_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
