#pragma once

// Bulk copies: many bytes by one thread, to or from shared memory, as a row of bytes or as a box of a tensor.

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

// Changes the element at `to` by the one at `from`; atomically where `shared` is false.
using ReduceElement = void (*)(std::byte* to, const std::byte* from);

struct BulkCopy {
  enum class Kind : uint8_t { kLine, kTensorLoad, kTensorStore };
  Kind kind = Kind::kLine;
  bool to_shared = false;
  bool has_barrier = false;
  bool multicast = false;
  uint8_t rank = 0;           // of a tensor
  uint8_t element_bytes = 0;  // of a reduction; 0: a copy
  ReduceElement reduce = nullptr;
  AddressOperand to, from, barrier, map;
  uint32_t size = 0;  // registers
  uint32_t blocks = 0;
  uint32_t coordinates[5] = {};
};

// Null for one that is not known.
ReduceElement reduction_of(std::string_view operation, std::string_view type, uint8_t* bytes);

}  // namespace softgpu
