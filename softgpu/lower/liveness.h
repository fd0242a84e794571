#pragma once

// From which statement to which a register holds a value that is still wanted. Registers whose ranges do not meet may
// share their place: that keeps a warp's registers in the first-level cache.

#include <cstdint>
#include <vector>

#include "softgpu/ptx/ast.h"

namespace softgpu {

struct LiveRange {
  uint32_t first = ~uint32_t{0};  // first > last: never used
  uint32_t last = 0;
};

// One range for each register of the function, in statements.
std::vector<LiveRange> live_ranges(const ptx::Function& function);

// Which registers no statement reads.
std::vector<bool> unread_registers(const ptx::Function& function);

// How many statements write each register of the function.
std::vector<uint32_t> writes(const ptx::Function& function);

}  // namespace softgpu
