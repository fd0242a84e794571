#pragma once

// How handlers of functions that the driver provides get at their arguments: op.imm is the call site, op.target the
// place of the result.

#include <cstddef>
#include <cstdint>

#include "softgpu/exec/warp.h"

namespace softgpu {

// At most eight bytes; 0 where there is no such argument.
uint64_t builtin_argument(const MicroOp& op, const Warp& warp, uint32_t lane, size_t index);
// An argument that is an aggregate; false when it is shorter.
bool builtin_bytes(const MicroOp& op, const Warp& warp, uint32_t lane, size_t index, void* out, uint32_t bytes);
void set_builtin_result(const MicroOp& op, Warp& warp, uint32_t lane, uint64_t value, uint32_t bytes);

}  // namespace softgpu
