#include "softgpu/driver/graph_memory.h"

#include "api/graph/memory.h"
#include "softgpu/driver/driver.h"

namespace softgpu {

GraphAllocation::GraphAllocation(Device& device, uint64_t at, uint64_t bytes, uint64_t buffer)
    : address(at), buffer_id(buffer) {
  tide::graph::add_memory(address, bytes, device.index);
}

GraphAllocation::~GraphAllocation() {
  tide::graph::remove_memory(address);
  const auto range = driver().memory.find(address);
  if (range && range->address == address && range->buffer_id == buffer_id) driver().memory.free_device(address);
}

CUresult make_graph_allocation(Context& context, uint64_t bytes, std::shared_ptr<GraphAllocation>* allocation) {
  uint64_t address = 0;
  const CUresult result = driver().memory.allocate(context, bytes, &address);
  if (result != CUDA_SUCCESS) return result;
  const uint64_t buffer = driver().memory.find(address)->buffer_id;
  *allocation = std::make_shared<GraphAllocation>(context.device, address, bytes, buffer);
  return CUDA_SUCCESS;
}

}  // namespace softgpu
