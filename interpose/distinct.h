#pragma once

// What tells the vGPUs of a job apart: the same in every library that shows them to the program.

#include <vector>

#include "interpose/pool.h"

namespace tide {

// Gives every vGPU its own UUID and PCI address, also where several of them were first placed on one GPU.
void make_distinct(std::vector<VgpuPlace>* places);

}  // namespace tide
