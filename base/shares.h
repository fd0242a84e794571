#pragma once

// What a vGPU has of the time of a GPU that others use, too: a part, in thousandths, which counts as often as its job's
// weight says.

#include <cstdint>

namespace tide {

inline constexpr uint32_t kWholePart = 1000;
inline constexpr uint32_t kWeightMost = 1000;

}  // namespace tide
