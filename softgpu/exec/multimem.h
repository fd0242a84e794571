#pragma once

// `multimem`: one instruction on the same place of several devices' memory.

#include <cstdint>

#include "softgpu/exec/bulk.h"

namespace softgpu {

struct MultimemOp {
  enum class Kind : uint8_t { kReduceLoad, kStore, kReduce };
  // How elements are added up: one after the other in their own type, or 16-bit floats in single precision.
  enum class Sum : uint8_t { kOwn, kHalfInFloat, kBrainInFloat };
  Kind kind = Kind::kStore;
  Sum sum = Sum::kOwn;
  AddressOperand address;
  ReduceElement reduce = nullptr;
  uint8_t element_bytes = 0;   // of the reduction
  uint8_t register_bytes = 0;  // a register and its part of memory
  uint8_t count = 1;           // registers
  uint32_t regs[8] = {};
};

}  // namespace softgpu
