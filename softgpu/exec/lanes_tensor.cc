// Matrix multiplication by a warp: its registers become three small matrices, which are multiplied by plain loops, and
// go back. Products of narrow floats are exact in float; they are added to c in the order of k, each sum rounded.

#include <xmmintrin.h>

#include "softgpu/exec/lanes.h"
#include "softgpu/exec/narrow_floats.h"
#include "softgpu/exec/small_floats.h"
#include "softgpu/exec/tensor.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

// The largest operands: 32x16 or 16x256 bits, of 32 lanes with up to 16 registers of 8 elements.
constexpr int kSlots = 32 * 32;
constexpr int kMatrix = 2048;

template <class T>
LANE_FN void gather(T* out, const T* flat, const int32_t* from, uint32_t n) {
#pragma GCC ivdep
  for (uint32_t i = 0; i < n; ++i) out[i] = flat[from[i]];
}

template <float (*F)(uint32_t)>
LANE_FN void unpack_bytes(float* to, const uint32_t* r) {
  for (int e = 0; e < 4; ++e) {
    for (int i = 0; i < 32; ++i) to[e * 32 + i] = F(r[i] >> (8 * e) & 0xff);
  }
}

LANE_FN void unpack_register(float* to, const std::byte* from, Element element) {
  const auto* r = reinterpret_cast<const uint32_t*>(from);
  switch (element) {
    case Element::kF16:
      for (int i = 0; i < 32; ++i) to[i] = from_half(static_cast<uint16_t>(r[i]));
      for (int i = 0; i < 32; ++i) to[32 + i] = from_half(static_cast<uint16_t>(r[i] >> 16));
      break;
    case Element::kBf16:
      for (int i = 0; i < 32; ++i) to[i] = bits_as<float>(r[i] << 16);
      for (int i = 0; i < 32; ++i) to[32 + i] = bits_as<float>(r[i] & 0xffff0000);
      break;
    case Element::kTf32:
      for (int i = 0; i < 32; ++i) to[i] = bits_as<float>(r[i] & 0xffffe000);
      break;
    case Element::kE4m3:
      unpack_bytes<from_e4m3>(to, r);
      break;
    case Element::kE5m2:
      unpack_bytes<from_e5m2>(to, r);
      break;
    case Element::kE3m2:
      unpack_bytes<from_e3m2>(to, r);
      break;
    case Element::kE2m3:
      unpack_bytes<from_e2m3>(to, r);
      break;
    case Element::kE2m1:
      unpack_bytes<from_e2m1_in_byte>(to, r);
      break;
    default:
      __builtin_memcpy(to, from, 32 * sizeof(float));
      break;
  }
}

LANE_FN void unpack_register(double* to, const std::byte* from, Element) {
  __builtin_memcpy(to, from, 32 * sizeof(double));
}

LANE_FN void unpack_register(int32_t* to, const std::byte* from, Element element) {
  const auto* r = reinterpret_cast<const uint32_t*>(from);
  switch (element) {
    case Element::kS8:
      for (int e = 0; e < 4; ++e) {
        for (int i = 0; i < 32; ++i) to[e * 32 + i] = static_cast<int8_t>(r[i] >> (8 * e));
      }
      break;
    case Element::kU8:
      for (int e = 0; e < 4; ++e) {
        for (int i = 0; i < 32; ++i) to[e * 32 + i] = static_cast<uint8_t>(r[i] >> (8 * e));
      }
      break;
    case Element::kS4:
      for (int e = 0; e < 8; ++e) {
        for (int i = 0; i < 32; ++i) to[e * 32 + i] = static_cast<int32_t>(r[i] << (28 - 4 * e)) >> 28;
      }
      break;
    case Element::kU4:
      for (int e = 0; e < 8; ++e) {
        for (int i = 0; i < 32; ++i) to[e * 32 + i] = static_cast<int32_t>(r[i] >> (4 * e) & 15);
      }
      break;
    default:
      __builtin_memcpy(to, from, 32 * sizeof(int32_t));
      break;
  }
}

template <class T>
LANE_FN void unpack(T* out, const Fragment& f, const Warp& w) {
  alignas(64) T flat[kSlots];
  for (uint32_t r = 0; r < f.registers; ++r) {
    unpack_register(flat + static_cast<size_t>(r) * f.per * 32, w.regs + f.offset[r], f.element);
  }
  gather(out, flat, f.layout->slot_of, f.layout->places);
}

template <class T>
LANE_FN void pack(const T* in, const Fragment& f, Warp& w, uint32_t mask) {
  alignas(64) T flat[kSlots];
  gather(flat, in, f.layout->matrix_of, f.layout->slots);
  for (uint32_t r = 0; r < f.registers; ++r) {
    const T* from = flat + static_cast<size_t>(r) * f.per * 32;
    if constexpr (sizeof(T) == 4) {
      if (f.element == Element::kF16) {
        alignas(64) uint32_t both[32];
        for (int i = 0; i < 32; ++i) {
          both[i] = to_half(static_cast<float>(from[i])) |
                    static_cast<uint32_t>(to_half(static_cast<float>(from[32 + i]))) << 16;
        }
        blend(lanes<uint32_t>(w, f.offset[r]), both, mask);
        continue;
      }
    }
    blend(lanes<T>(w, f.offset[r]), from, mask);
  }
}

LANE_FN float multiply_add(float a, float b, float c) { return c + a * b; }
LANE_FN double multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
LANE_FN uint32_t multiply_add(uint32_t a, uint32_t b, uint32_t c) { return c + a * b; }
LANE_FN int64_t multiply_add(int32_t a, int32_t b, int64_t c) { return c + static_cast<int64_t>(a) * b; }
LANE_FN uint32_t multiply_and(uint32_t a, uint32_t b, uint32_t c) {
  return c + static_cast<uint32_t>(__builtin_popcount(a & b));
}
LANE_FN uint32_t multiply_xor(uint32_t a, uint32_t b, uint32_t c) {
  return c + static_cast<uint32_t>(__builtin_popcount(a ^ b));
}

// c[m][N] += a[m][k] * b[k][N], four rows at a time: their sums do not wait for each other.
template <int N, class A, class C, C (*F)(A, A, C)>
LANE_FN void multiply_columns(C* c, const A* a, const A* b, int m, int k) {
  for (int i = 0; i < m; i += 4) {
    C sum[4][N];
    for (int r = 0; r < 4; ++r) {
      for (int j = 0; j < N; ++j) sum[r][j] = c[(i + r) * N + j];
    }
    for (int l = 0; l < k; ++l) {
      const A* right = b + l * N;
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const A left = a[(i + r) * k + l];
#pragma GCC ivdep
        for (int j = 0; j < N; ++j) sum[r][j] = F(left, right[j], sum[r][j]);
      }
    }
    for (int r = 0; r < 4; ++r) {
      for (int j = 0; j < N; ++j) c[(i + r) * N + j] = sum[r][j];
    }
  }
}

template <class A, class C, C (*F)(A, A, C)>
void multiply_all(C* c, const A* a, const A* b, const MatrixMultiply& x, int k) {
  const int m = x.m, n = x.n;
  for (int i = 0; i < x.batches; ++i) {
    if (n == 8) multiply_columns<8, A, C, F>(c, a, b, m, k);
    if (n == 16) multiply_columns<16, A, C, F>(c, a, b, m, k);
    if (n == 32) multiply_columns<32, A, C, F>(c, a, b, m, k);
    a += m * k;
    b += k * n;
    c += m * n;
  }
}

// The two bits that say where in its chunk element `index` of a row stands.
LANE_FN uint32_t metadata_bits(const MatrixMultiply& x, const uint32_t* metadata, uint32_t row, uint32_t index,
                               uint32_t lanes_of_row) {
  // 16 bits of a lane belong to a row of the upper half, 16 to that eight rows below; four lanes have all 32 for one.
  const uint32_t quad = row % 8 * 4;
  const uint32_t bit = 2 * index;
  if (lanes_of_row == 4) {
    const uint32_t half = row / 8, lane = quad + half + bit / 32 * 2;
    return metadata[lane] >> (bit % 32) & 3;
  }
  const uint32_t lane = quad + x.selector * lanes_of_row + bit / 16;
  return metadata[lane] >> (row / 8 * 16 + bit % 16) & 3;
}

// Puts the elements of a sparse operand at their columns; the rest is zero.
template <class A>
LANE_FN void spread(A* to, const A* from, const MatrixMultiply& x, const Warp& w, uint32_t lanes_of_row) {
  const auto* metadata = reinterpret_cast<const uint32_t*>(w.regs + x.metadata);
  const uint32_t stored = x.k / 2u, units = stored / x.unit, per_chunk = x.chunk / x.unit / 2u;
  for (uint32_t i = 0; i < static_cast<uint32_t>(x.m) * x.k; ++i) to[i] = 0;
  for (uint32_t row = 0; row < x.m; ++row) {
    for (uint32_t u = 0; u < units; ++u) {
      uint32_t at = u / per_chunk * x.chunk;
      if (per_chunk == 1) {  // one of two, named by both halves of a 4-bit index
        at += metadata_bits(x, metadata, row, 2 * u, lanes_of_row) / 2;
      } else {
        at += metadata_bits(x, metadata, row, u, lanes_of_row) * x.unit;
      }
      for (uint32_t e = 0; e < x.unit; ++e) to[row * x.k + at + e] = from[row * stored + u * x.unit + e];
    }
  }
}

template <class A>
LANE_FN void unpack_a(A* a, const MatrixMultiply& x, const Warp& w) {
  if (!x.sparse) return unpack(a, x.a, w);
  alignas(64) A stored[kMatrix];
  unpack(stored, x.a, w);
  spread(a, stored, x, w, x.lanes_of_row);
}

LANE_FN const MatrixMultiply& multiply_of(const MicroOp& op) {
  return *reinterpret_cast<const MatrixMultiply*>(op.imm);
}

// The exponent by which column (or row) number `index` is multiplied, or -1 for a NaN. Rows: eight of each lane.
LANE_FN int scale_exponent(const Warp& w, const MatrixMultiply::Scale& s, uint32_t index, bool rows) {
  const auto* factors = reinterpret_cast<const uint32_t*>(w.regs + s.factors);
  const uint32_t byte = *reinterpret_cast<const uint16_t*>(w.regs + s.byte) & 3;
  const uint32_t thread = *reinterpret_cast<const uint16_t*>(w.regs + s.thread);
  const uint32_t lane = index % 8 * 4 + (rows ? (thread & 1) * 2 + index / 8 : thread & 3);
  const uint32_t bits = factors[lane] >> (8 * byte) & 0xff;
  return bits == 0xff ? -1 : static_cast<int>(bits);
}

// c + p * 2^(row's exponent + column's): the product of the factors alone may be out of range.
LANE_FN void add_scaled(float* c, const float* p, const MatrixMultiply& x, const Warp& w) {
  for (uint32_t i = 0; i < x.m; ++i) {
    const int row = scale_exponent(w, x.scale_a, i, true);
    for (uint32_t j = 0; j < x.n; ++j) {
      const int column = scale_exponent(w, x.scale_b, j, false);
      float& to = c[i * x.n + j];
      const double factor = __builtin_ldexp(1.0, row + column - 254);
      const double product = static_cast<double>(p[i * x.n + j]) * factor;
      to = row < 0 || column < 0 ? bits_as<float>(uint32_t{0x7fffffff})
                                 : static_cast<float>(static_cast<double>(to) + product);
    }
  }
}

void mma_f32(const MicroOp& op, Warp& w, uint32_t mask) {
  const MatrixMultiply& x = multiply_of(op);
  alignas(64) float a[kMatrix], b[kMatrix], c[kMatrix];
  unpack_a(a, x, w);
  unpack(b, x.b, w);
  unpack(c, x.c, w);
  if (x.scaled) {
    alignas(64) float p[kMatrix] = {};
    multiply_all<float, float, multiply_add>(p, a, b, x, x.k);
    add_scaled(c, p, x, w);
  } else {
    multiply_all<float, float, multiply_add>(c, a, b, x, x.k);
  }
  for (int i = 0; i < x.m * x.n * x.batches; ++i) c[i] = canon(c[i]);
  pack(c, x.d, w, mask);
}

// With the processor's own rounding mode; nothing may move across its change.
__attribute__((noinline)) void multiply_rounded(double* c, const double* a, const double* b, const MatrixMultiply& x) {
  static constexpr unsigned kModes[] = {_MM_ROUND_NEAREST, _MM_ROUND_TOWARD_ZERO, _MM_ROUND_DOWN, _MM_ROUND_UP};
  const unsigned before = _mm_getcsr();
  _mm_setcsr((before & ~static_cast<unsigned>(_MM_ROUND_MASK)) | kModes[static_cast<unsigned>(x.rounding)]);
  __asm__ volatile("" ::: "memory");
  multiply_all<double, double, multiply_add>(c, a, b, x, x.k);
  __asm__ volatile("" ::: "memory");
  _mm_setcsr(before);
}

void mma_f64(const MicroOp& op, Warp& w, uint32_t mask) {
  const MatrixMultiply& x = multiply_of(op);
  alignas(64) double a[256], b[256], c[256];
  unpack(a, x.a, w);
  unpack(b, x.b, w);
  unpack(c, x.c, w);
  if (x.rounding == MatrixRounding::kNearest) {
    multiply_all<double, double, multiply_add>(c, a, b, x, x.k);
  } else {
    multiply_rounded(c, a, b, x);
  }
  // Which operand's NaN comes out is the compiler's choice.
  const auto nan = bits_as<double>(uint64_t{0x7ff8000000000000});
  for (int i = 0; i < x.m * x.n; ++i) c[i] = c[i] == c[i] ? c[i] : nan;
  pack(c, x.d, w, mask);
}

void mma_s32(const MicroOp& op, Warp& w, uint32_t mask) {
  const MatrixMultiply& x = multiply_of(op);
  alignas(64) int32_t a[kMatrix], b[kMatrix], c[kMatrix];
  unpack_a(a, x, w);
  unpack(b, x.b, w);
  unpack(c, x.c, w);
  const int count = x.m * x.n;
  if (!x.saturate) {
    multiply_all<uint32_t, uint32_t, multiply_add>(reinterpret_cast<uint32_t*>(c), reinterpret_cast<uint32_t*>(a),
                                                   reinterpret_cast<uint32_t*>(b), x, x.k);
  } else {
    alignas(64) int64_t wide[kMatrix];
    for (int i = 0; i < count; ++i) wide[i] = c[i];
    multiply_all<int32_t, int64_t, multiply_add>(wide, a, b, x, x.k);
    for (int i = 0; i < count; ++i) {
      c[i] = static_cast<int32_t>(wide[i] > INT32_MAX ? INT32_MAX : wide[i] < INT32_MIN ? INT32_MIN : wide[i]);
    }
  }
  pack(c, x.d, w, mask);
}

void mma_b1(const MicroOp& op, Warp& w, uint32_t mask) {
  const MatrixMultiply& x = multiply_of(op);
  alignas(64) int32_t a[256], b[256], c[256];
  unpack(a, x.a, w);
  unpack(b, x.b, w);
  unpack(c, x.c, w);
  auto* to = reinterpret_cast<uint32_t*>(c);
  const auto* left = reinterpret_cast<const uint32_t*>(a);
  const auto* right = reinterpret_cast<const uint32_t*>(b);
  if (x.xor_bits) {
    multiply_all<uint32_t, uint32_t, multiply_xor>(to, left, right, x, x.k / 32);
  } else {
    multiply_all<uint32_t, uint32_t, multiply_and>(to, left, right, x, x.k / 32);
  }
  pack(c, x.d, w, mask);
}

constexpr HandlerRow kRows[] = {{"mma.f32", mma_f32}, {"mma.f64", mma_f64}, {"mma.s32", mma_s32}, {"mma.b1", mma_b1}};

}  // namespace

HandlerRows tensor_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
