#pragma once

// What lies behind the addresses of an allocation node (api/graph/memory.h).

#include <cstdint>
#include <memory>

#include "softgpu/driver/context.h"

namespace softgpu {

// Keeps the memory of one node; the node's content holds it.
struct GraphAllocation {
  GraphAllocation(Device& device, uint64_t at, uint64_t bytes, uint64_t buffer);
  ~GraphAllocation();
  GraphAllocation(const GraphAllocation&) = delete;
  GraphAllocation& operator=(const GraphAllocation&) = delete;

  const uint64_t address;
  const uint64_t buffer_id;  // the memory goes with its context, and others may lie there then
};

CUresult make_graph_allocation(Context& context, uint64_t bytes, std::shared_ptr<GraphAllocation>* allocation);

}  // namespace softgpu
