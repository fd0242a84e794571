#pragma once

// Bulk copies: many bytes by one thread, to or from shared memory, as a row of bytes or as a box of a tensor.

#include <array>
#include <cstdint>
#include <string_view>

#include "softgpu/exec/micro_op.h"

namespace softgpu {

struct Warp;

// An address as an instruction names it.
struct AddressOperand {
  uint32_t reg = 0;
  uint8_t form = 0;  // as MicroOp::y
  int64_t offset = 0;
};

uint64_t value_of(const AddressOperand& a, Warp& w, uint32_t lane);

// Changes the element at `to` by the one at `from`; atomically where `shared` is false.
using ReduceElement = void (*)(std::byte* to, const std::byte* from);

struct BulkCopy {
  enum class Kind : uint8_t { kLine, kTensorLoad, kTensorStore };
  Kind kind = Kind::kLine;
  bool to_shared = false;
  bool has_barrier = false;
  bool multicast = false;
  bool by_one_lane = false;   // the whole warp asks for one copy
  bool rows = false;          // of a matrix: four rows of it, wherever they are
  bool pixels = false;        // image to column
  bool masked = false;        // only some bytes of each sixteen
  uint8_t rank = 0;           // of a tensor
  uint8_t element_bytes = 0;  // of a reduction; 0: a copy
  ReduceElement reduce = nullptr;
  AddressOperand to, from, barrier, map;
  uint32_t size = 0;  // registers
  uint32_t blocks = 0;
  uint32_t mask = 0;
  uint32_t coordinates[5] = {};
  uint32_t offsets[3] = {};                         // image to column: of the dimensions between the first and the last
  std::array<ReduceElement, 13> reduce_types = {};  // of a tensor, by TensorElement
  bool reduces_tensor = false;
};

// Null for one that is not known.
ReduceElement reduction_of(std::string_view operation, std::string_view type, uint8_t* bytes);

}  // namespace softgpu
