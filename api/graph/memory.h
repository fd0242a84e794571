#pragma once

// Memory of allocation nodes. Its addresses are fixed from the node's creation on, and so that copies and fills of it
// can be checked when a graph is built, the memory behind them is there as long as the node is. What launches and free
// nodes change is whether the program may use it: kept here.
//
// Threads: any.

#include "api/graph/model.h"

namespace tide::graph {

void add_memory(CUdeviceptr address, uint64_t bytes, int device);
void remove_memory(CUdeviceptr address);

// Whether an address is the beginning of such memory.
bool is_memory(CUdeviceptr address);
bool memory_in_use(CUdeviceptr address);
// From a launch on, until a free in a later graph or in the program. False where it is so already.
bool use_memory(CUdeviceptr address);
bool unuse_memory(CUdeviceptr address);
// What a launch of the graph changes; INVALID_VALUE where it would allocate or free a second time.
CUresult launch_memory(const Exec& exec);

// cuDeviceGetGraphMemAttribute and its counterpart, which can only reset the peaks.
CUresult memory_attribute(int device, CUgraphMem_attribute attribute, cuuint64_t* value, bool set);

}  // namespace tide::graph
