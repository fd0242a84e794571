#pragma once

// Memory of allocation nodes. Its addresses are fixed from the node's creation on, and so that copies and fills of it
// can be checked when a graph is built, the memory behind them is there as long as the node is. What launches and free
// nodes change is whether the program may use it.
//
// Threads: any.

#include <cstdint>
#include <memory>

#include "softgpu/driver/context.h"

namespace softgpu {

// Keeps the memory of one node; the node's content holds it.
struct GraphAllocation {
  GraphAllocation(Device& of, uint64_t at, uint64_t size, uint64_t buffer);
  ~GraphAllocation();
  GraphAllocation(const GraphAllocation&) = delete;
  GraphAllocation& operator=(const GraphAllocation&) = delete;

  Device& device;
  const uint64_t address;
  const uint64_t bytes;
  const uint64_t buffer_id;  // the memory goes with its context, and others may lie there then
};

CUresult make_graph_allocation(Context& context, uint64_t bytes, std::shared_ptr<GraphAllocation>* allocation);

// Whether an address is the beginning of such memory.
bool is_graph_memory(uint64_t address);
bool graph_memory_in_use(uint64_t address);
// From a launch on, until a free in a later graph or in the program. False where it is so already.
bool use_graph_memory(uint64_t address);
bool unuse_graph_memory(uint64_t address);

uint64_t graph_memory_attribute(const Device& device, CUgraphMem_attribute attribute);
void reset_graph_memory_peak(const Device& device, CUgraphMem_attribute attribute);

}  // namespace softgpu
