// Fragments of matrices from and to memory: wmma.load, wmma.store, ldmatrix, stmatrix, movmatrix.

#include <bit>
#include <cstring>

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"

namespace softgpu {
namespace {

uint64_t address_of(const MicroOp& op, Warp& w, uint32_t lane) {
  const auto offset = static_cast<uint64_t>(op.imm);
  return offset + (op.y == 2 ? lanes<uint64_t>(w, op.a)[lane] : op.y == 1 ? lanes<uint32_t>(w, op.a)[lane] : 0);
}

// Where each line of the matrix begins; false with the fault raised.
bool find_lines(const MicroOp& op, Warp& w, uint32_t lane, const MatrixAccess& x, std::byte** lines) {
  const uint32_t count = x.column_major ? x.columns : x.rows, length = x.column_major ? x.rows : x.columns;
  const uint64_t base = address_of(op, w, lane);
  const uint64_t stride = uint64_t{lanes<uint32_t>(w, op.b)[lane]} * x.stride_bits / 8;
  const uint64_t align = x.bits < 8 ? 1 : x.bits / 8u;
  if (((base | stride) & (align - 1)) != 0) return raise(w, FaultKind::kMisalignedAddress, base, lane), false;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t at = base + i * stride;
    lines[i] = translate_generic(w, lane, at, length * x.bits / 8u);
    if (lines[i] == nullptr) return raise(w, FaultKind::kIllegalAddress, at, lane), false;
  }
  return true;
}

struct Spot {
  uint32_t line, index;
};

Spot spot_of(const MatrixAccess& x, uint32_t slot) {
  const auto at = static_cast<uint32_t>(x.fragment.layout->matrix_of[slot]);
  // Columns are a power of two.
  const uint32_t row = at >> std::countr_zero(x.columns), column = at & (x.columns - 1u);
  return x.column_major ? Spot{column, row} : Spot{row, column};
}

template <class T, class R>
void load_elements(Warp& w, uint32_t mask, const MatrixAccess& x, std::byte* const* lines) {
  constexpr uint32_t kPer = sizeof(R) / sizeof(T);
  for (uint32_t r = 0; r < x.fragment.registers; ++r) {
    R* to = lanes<R>(w, x.fragment.offset[r]);
    for (uint32_t m = mask; m != 0; m &= m - 1) {
      const auto lane = static_cast<uint32_t>(std::countr_zero(m));
      R value = 0;
      for (uint32_t e = 0; e < kPer; ++e) {
        const Spot s = spot_of(x, (r * kPer + e) * 32 + lane);
        T element;
        std::memcpy(&element, lines[s.line] + s.index * sizeof(T), sizeof(T));
        value |= static_cast<R>(static_cast<R>(element) << (8 * sizeof(T) * e));
      }
      to[lane] = value;
    }
  }
}

// The eight 4-bit elements of a register lie side by side.
void load_nibbles(Warp& w, uint32_t mask, const MatrixAccess& x, std::byte* const* lines) {
  for (uint32_t r = 0; r < x.fragment.registers; ++r) {
    for (uint32_t m = mask; m != 0; m &= m - 1) {
      const auto lane = static_cast<uint32_t>(std::countr_zero(m));
      const Spot s = spot_of(x, r * 8 * 32 + lane);
      std::memcpy(&lanes<uint32_t>(w, x.fragment.offset[r])[lane], lines[s.line] + s.index / 2, 4);
    }
  }
}

void wmma_load(const MicroOp& op, Warp& w, uint32_t mask) {
  const MatrixAccess& x = w.block->code->tensor.accesses[op.target];
  std::byte* lines[32];
  if (!find_lines(op, w, static_cast<uint32_t>(std::countr_zero(mask)), x, lines)) return;
  switch (x.bits) {
    case 4:
      return load_nibbles(w, mask, x, lines);
    case 8:
      return load_elements<uint8_t, uint32_t>(w, mask, x, lines);
    case 16:
      return load_elements<uint16_t, uint32_t>(w, mask, x, lines);
    case 32:
      return load_elements<uint32_t, uint32_t>(w, mask, x, lines);
    default:
      return load_elements<uint64_t, uint64_t>(w, mask, x, lines);
  }
}

template <class T, class R>
void store_elements(Warp& w, uint32_t mask, const MatrixAccess& x, std::byte* const* lines) {
  constexpr uint32_t kPer = sizeof(R) / sizeof(T);
  for (uint32_t r = 0; r < x.fragment.registers; ++r) {
    const R* from = lanes<R>(w, x.fragment.offset[r]);
    for (uint32_t m = mask; m != 0; m &= m - 1) {
      const auto lane = static_cast<uint32_t>(std::countr_zero(m));
      for (uint32_t e = 0; e < kPer; ++e) {
        const Spot s = spot_of(x, (r * kPer + e) * 32 + lane);
        const auto element = static_cast<T>(from[lane] >> (8 * sizeof(T) * e));
        std::memcpy(lines[s.line] + s.index * sizeof(T), &element, sizeof(T));
      }
    }
  }
}

void wmma_store(const MicroOp& op, Warp& w, uint32_t mask) {
  const MatrixAccess& x = w.block->code->tensor.accesses[op.target];
  std::byte* lines[32];
  if (!find_lines(op, w, static_cast<uint32_t>(std::countr_zero(mask)), x, lines)) return;
  if (x.bits == 16) return store_elements<uint16_t, uint32_t>(w, mask, x, lines);
  if (x.bits == 32) return store_elements<uint32_t, uint32_t>(w, mask, x, lines);
  store_elements<uint64_t, uint64_t>(w, mask, x, lines);
}

// The rows of `count` matrices, sixteen bytes each, at the addresses of eight lanes each.
bool find_rows(const MicroOp& op, Warp& w, uint32_t count, std::byte** rows) {
  for (uint32_t lane = 0; lane < 8 * count; ++lane) {
    const uint64_t at = address_of(op, w, lane);
    if (at % 16 != 0) return raise(w, FaultKind::kMisalignedAddress, at, lane), false;
    const uint64_t offset = at - kSharedWindow;
    const bool own = offset < w.block->memory.shared_bytes && offset + 16 <= w.block->memory.shared_bytes;
    rows[lane] = own ? w.block->memory.shared + offset : translate_generic(w, lane, at, 16);
    if (rows[lane] == nullptr) return raise(w, FaultKind::kIllegalAddress, at, lane), false;
  }
  return true;
}

struct EightByEight {
  uint16_t at[8][8];
};

void registers_of(const EightByEight& m, bool transposed, uint32_t* out) {
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t row = lane / 4, column = lane % 4 * 2;
    const uint32_t low = transposed ? m.at[column][row] : m.at[row][column];
    const uint32_t high = transposed ? m.at[column + 1][row] : m.at[row][column + 1];
    out[lane] = low | high << 16;
  }
}

EightByEight matrix_of(const uint32_t* in, bool transposed) {
  EightByEight m;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t row = lane / 4, column = lane % 4 * 2;
    (transposed ? m.at[column][row] : m.at[row][column]) = static_cast<uint16_t>(in[lane]);
    (transposed ? m.at[column + 1][row] : m.at[row][column + 1]) = static_cast<uint16_t>(in[lane] >> 16);
  }
  return m;
}

// x: transposed; vec: matrices, in dst, b, c and e.
void ldmatrix(const MicroOp& op, Warp& w, uint32_t mask) {
  std::byte* rows[32];
  if (!find_rows(op, w, op.vec, rows)) return;
  const uint32_t to[] = {op.dst, op.b, op.c, op.e};
  uint32_t values[4][32];
  for (uint32_t i = 0; i < op.vec; ++i) {
    EightByEight matrix;
    for (uint32_t row = 0; row < 8; ++row) std::memcpy(matrix.at[row], rows[8 * i + row], 16);
    if (op.x == 0) {  // the rows behind each other
      std::memcpy(values[i], matrix.at, sizeof(matrix.at));
    } else {
      registers_of(matrix, true, values[i]);
    }
  }
  for (uint32_t i = 0; i < op.vec; ++i) {
    uint32_t* out = lanes<uint32_t>(w, to[i]);
    if (mask == ~uint32_t{0}) {
      std::memcpy(out, values[i], sizeof(values[i]));
      continue;
    }
    for (uint32_t m = mask; m != 0; m &= m - 1) out[std::countr_zero(m)] = values[i][std::countr_zero(m)];
  }
}

void stmatrix(const MicroOp& op, Warp& w, uint32_t) {
  std::byte* rows[32];
  if (!find_rows(op, w, op.vec, rows)) return;
  const uint32_t from[] = {op.dst, op.b, op.c, op.e};
  for (uint32_t i = 0; i < op.vec; ++i) {
    const EightByEight matrix = matrix_of(lanes<uint32_t>(w, from[i]), op.x != 0);
    for (uint32_t row = 0; row < 8; ++row) std::memcpy(rows[8 * i + row], matrix.at[row], 16);
  }
}

void movmatrix(const MicroOp& op, Warp& w, uint32_t mask) {
  uint32_t out[32];
  registers_of(matrix_of(lanes<uint32_t>(w, op.a), false), true, out);
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    lanes<uint32_t>(w, op.dst)[lane] = out[lane];
  }
}

constexpr HandlerRow kRows[] = {{"wmma.load", wmma_load},
                                {"wmma.store", wmma_store},
                                {"ldmatrix", ldmatrix},
                                {"stmatrix", stmatrix},
                                {"movmatrix", movmatrix}};

}  // namespace

HandlerRows matrix_memory_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
