#pragma once

// How many blocks of a kernel fit on a multiprocessor: the arithmetic of the card that the profile stands for.

#include <cstddef>
#include <cstdint>

#include "softgpu/driver/module.h"

namespace softgpu {

// 0 when not even one fits. `threads` is of a block, 1 or more.
int blocks_per_multiprocessor(const Launchable& kernel, unsigned threads, size_t dynamic_shared_bytes);

// The largest cluster of the kernel: eight, or what devices have at most where the program allows that.
uint32_t blocks_per_cluster(const Launchable& kernel);

}  // namespace softgpu
