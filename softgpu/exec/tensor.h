#pragma once

// What matrix instructions need beyond a MicroOp: fragments, and where in a warp's registers their elements lie.
// A slot is a place in the registers of a fragment: (register * elements per register + element) * 32 + lane.

#include <cstdint>
#include <deque>
#include <map>
#include <tuple>
#include <vector>

#include "softgpu/exec/micro_op.h"

namespace softgpu {

enum class Element : uint8_t {
  kNone,
  kF16,
  kBf16,
  kTf32,
  kF32,
  kF64,
  kS8,
  kU8,
  kS4,
  kU4,
  kB1,  // 32 of them are handled as one
  kS32,
  kE4m3,
  kE5m2,
  kE3m2,  // six bits at the lower end of a byte
  kE2m3,
  kE2m1,  // four bits in the middle of a byte
};

struct FragmentLayout {
  const int32_t* matrix_of = nullptr;  // slot -> row * columns + column; matrices lie behind each other
  const int32_t* slot_of = nullptr;    // the way back; the first slot of elements that several hold
  uint32_t slots = 0, places = 0;
};

struct Fragment {
  Element element = Element::kNone;
  uint8_t registers = 0;
  uint8_t per = 1;    // elements of a register
  uint8_t width = 4;  // bytes of a register
  const FragmentLayout* layout = nullptr;
  uint32_t offset[16] = {};
};

enum class MatrixRounding : uint8_t { kNearest, kZero, kDown, kUp };

// d = a * b + c; the columns of a are the rows of b: k.
struct MatrixMultiply {
  Fragment a, b, c, d;
  uint16_t m = 0, n = 0, k = 0;
  uint8_t batches = 1;  // independent multiplications, by different lanes
  bool saturate = false;
  bool xor_bits = false;
  // Structured sparsity: of each `chunk` columns of a, half are there, and the metadata says which.
  bool sparse = false;
  uint8_t chunk = 4;
  uint8_t unit = 1;          // columns that go together
  uint8_t lanes_of_row = 1;  // of the four, how many hold the metadata; the selector says which
  uint8_t selector = 0;
  uint32_t metadata = 0;                               // register
  MatrixRounding rounding = MatrixRounding::kNearest;  // of f64
  // Rows of a and columns of b are multiplied by powers of two: bytes of registers, in lanes that the instruction
  // names.
  bool scaled = false;
  struct Scale {
    uint32_t factors = 0, byte = 0, thread = 0;  // registers
  } scale_a, scale_b;
};

// wmma.load and wmma.store: lines of a matrix, `stride` elements apart.
struct MatrixAccess {
  Fragment fragment;
  uint16_t rows = 0, columns = 0;
  bool column_major = false;
  uint8_t bits = 0;         // of an element in memory
  uint8_t stride_bits = 0;  // of what the stride counts
};

// The layouts that a kernel uses, each once, and its matrix operations.
class TensorCode {
 public:
  enum class Role : uint8_t { kA, kB, kC, kQuadA, kQuadB, kQuadC16, kQuadC32, kQuadARow, kQuadBColumn };

  // `elements`: of the fragment that a lane holds, those of one register side by side.
  const FragmentLayout* layout(Role role, uint32_t rows, uint32_t columns, uint32_t per, uint32_t elements);

  std::deque<MatrixMultiply> multiplies;  // micro-ops point at them
  std::deque<MatrixAccess> accesses;

 private:
  struct Stored {
    std::vector<int32_t> matrix_of, slot_of;
    FragmentLayout view;
  };
  std::map<std::tuple<Role, uint32_t, uint32_t, uint32_t, uint32_t>, Stored> layouts_;
};

}  // namespace softgpu
