#pragma once

// Applies a scalar function to the lanes of a warp. Included only by the files that are compiled once per instruction
// set (SOFTGPU_ISA names it): everything here lives in that namespace, so that the linker never mixes the levels.
// For the same reason these files call builtins instead of the templates of the standard library.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"

#define LANE_FN static inline __attribute__((always_inline))

namespace softgpu::SOFTGPU_ISA {

inline constexpr uint32_t kAll = ~uint32_t{0};

template <class D>
__attribute__((always_inline)) static inline void blend(D* to, const D* from, uint32_t mask) {
#pragma GCC ivdep
  for (uint32_t i = 0; i < 32; ++i) to[i] = (mask & (uint32_t{1} << i)) != 0 ? from[i] : to[i];
}

template <auto F>
struct Lanes;

template <class D, class A, D (*F)(A)>
struct Lanes<F> {
  static void run(const MicroOp& op, Warp& w, uint32_t mask) {
    D* d = lanes<D>(w, op.dst);
    const A* a = lanes<A>(w, op.a);
    if (mask == kAll) {
#pragma GCC ivdep
      for (int i = 0; i < 32; ++i) d[i] = F(a[i]);
      return;
    }
    alignas(64) D t[32];
    for (int i = 0; i < 32; ++i) t[i] = F(a[i]);
    blend(d, t, mask);
  }
};

template <class D, class A, class B, D (*F)(A, B)>
struct Lanes<F> {
  static void run(const MicroOp& op, Warp& w, uint32_t mask) {
    D* d = lanes<D>(w, op.dst);
    const A* a = lanes<A>(w, op.a);
    const B* b = lanes<B>(w, op.b);
    if (mask == kAll) {
#pragma GCC ivdep
      for (int i = 0; i < 32; ++i) d[i] = F(a[i], b[i]);
      return;
    }
    alignas(64) D t[32];
    for (int i = 0; i < 32; ++i) t[i] = F(a[i], b[i]);
    blend(d, t, mask);
  }
};

template <class D, class A, class B, class C, D (*F)(A, B, C)>
struct Lanes<F> {
  static void run(const MicroOp& op, Warp& w, uint32_t mask) {
    D* d = lanes<D>(w, op.dst);
    const A* a = lanes<A>(w, op.a);
    const B* b = lanes<B>(w, op.b);
    const C* c = lanes<C>(w, op.c);
    if (mask == kAll) {
#pragma GCC ivdep
      for (int i = 0; i < 32; ++i) d[i] = F(a[i], b[i], c[i]);
      return;
    }
    alignas(64) D t[32];
    for (int i = 0; i < 32; ++i) t[i] = F(a[i], b[i], c[i]);
    blend(d, t, mask);
  }
};

// For functions that cost more than a blend: only the lanes that run are computed.
template <auto F>
struct Each;

template <class D, class A, D (*F)(A)>
struct Each<F> {
  static void run(const MicroOp& op, Warp& w, uint32_t mask) {
    D* d = lanes<D>(w, op.dst);
    const A* a = lanes<A>(w, op.a);
    for (; mask != 0; mask &= mask - 1) {
      const int i = __builtin_ctz(mask);
      d[i] = F(a[i]);
    }
  }
};

template <class D, class A, class B, D (*F)(A, B)>
struct Each<F> {
  static void run(const MicroOp& op, Warp& w, uint32_t mask) {
    D* d = lanes<D>(w, op.dst);
    const A* a = lanes<A>(w, op.a);
    const B* b = lanes<B>(w, op.b);
    for (; mask != 0; mask &= mask - 1) {
      const int i = __builtin_ctz(mask);
      d[i] = F(a[i], b[i]);
    }
  }
};

template <class D, class A, class B, class C, D (*F)(A, B, C)>
struct Each<F> {
  static void run(const MicroOp& op, Warp& w, uint32_t mask) {
    D* d = lanes<D>(w, op.dst);
    const A* a = lanes<A>(w, op.a);
    const B* b = lanes<B>(w, op.b);
    const C* c = lanes<C>(w, op.c);
    for (; mask != 0; mask &= mask - 1) {
      const int i = __builtin_ctz(mask);
      d[i] = F(a[i], b[i], c[i]);
    }
  }
};

// One bit a lane. Compilers do not find the instructions that gather sign bits.
template <class A, bool (*F)(A, A)>
LANE_FN uint32_t compare_lanes(const A* a, const A* b) {
#ifdef __AVX512DQ__
  alignas(64) int32_t t[32];
  for (int i = 0; i < 32; ++i) t[i] = F(a[i], b[i]) ? -1 : 0;
  const uint32_t high = _mm512_movepi32_mask(_mm512_load_si512(t + 16));
  return high << 16 | _mm512_movepi32_mask(_mm512_load_si512(t));
#else
  alignas(32) int8_t t[32];
  for (int i = 0; i < 32; ++i) t[i] = F(a[i], b[i]) ? -1 : 0;
  const auto half = [&](int from) {
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_load_si128(reinterpret_cast<const __m128i*>(t + from))));
  };
  return half(16) << 16 | half(0);
#endif
}

// setp: x chooses how the comparison meets the predicate c (see BoolOp), e takes the opposite (`p|q`).
template <class A, bool (*F)(A, A)>
struct Compare {
  static void run(const MicroOp& op, Warp& w, uint32_t mask) {
    const A* a = lanes<A>(w, op.a);
    const A* b = lanes<A>(w, op.b);
    uint32_t bits = compare_lanes<A, F>(a, b);
    const uint32_t c = predicate(w, op.c);
    uint32_t opposite = ~bits;
    switch (static_cast<BoolOp>(op.x)) {
      case BoolOp::kNone:
        break;
      case BoolOp::kAnd:
        bits &= c;
        opposite &= c;
        break;
      case BoolOp::kOr:
        bits |= c;
        opposite |= c;
        break;
      case BoolOp::kXor:
        bits ^= c;
        opposite ^= c;
        break;
    }
    set_predicate(w, op.dst, mask, bits);
    set_predicate(w, op.e, mask, opposite);
  }
};

// Two functions on the same row name, kept short for the tables.
template <class T, class U>
LANE_FN T bits_as(U value) {
  static_assert(sizeof(T) == sizeof(U));
  T out;
  __builtin_memcpy(&out, &value, sizeof(T));
  return out;
}

}  // namespace softgpu::SOFTGPU_ISA
