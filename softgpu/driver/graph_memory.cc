#include "softgpu/driver/graph_memory.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "softgpu/driver/driver.h"

namespace softgpu {
namespace {

struct Place {
  const Device* device = nullptr;
  uint64_t bytes = 0;
  bool used = false;
};

struct Totals {
  uint64_t used = 0, used_peak = 0, reserved = 0, reserved_peak = 0;
};

struct State {
  std::mutex mu;
  std::map<uint64_t, Place> places;        // guarded by mu
  std::map<const Device*, Totals> totals;  // guarded by mu
};

State& state() {
  static State* const the = new State;
  return *the;
}

bool change(uint64_t address, bool used) {
  State& s = state();
  const std::lock_guard lock(s.mu);
  const auto found = s.places.find(address);
  if (found == s.places.end() || found->second.used == used) return false;
  found->second.used = used;
  Totals& totals = s.totals[found->second.device];
  totals.used += used ? found->second.bytes : -found->second.bytes;
  totals.used_peak = std::max(totals.used_peak, totals.used);
  return true;
}

}  // namespace

GraphAllocation::GraphAllocation(Device& of, uint64_t at, uint64_t size, uint64_t buffer)
    : device(of), address(at), bytes(size), buffer_id(buffer) {
  State& s = state();
  const std::lock_guard lock(s.mu);
  s.places[address] = {&device, bytes, false};
  Totals& totals = s.totals[&device];
  totals.reserved += bytes;
  totals.reserved_peak = std::max(totals.reserved_peak, totals.reserved);
}

GraphAllocation::~GraphAllocation() {
  unuse_graph_memory(address);
  State& s = state();
  {
    const std::lock_guard lock(s.mu);
    s.places.erase(address);
    s.totals[&device].reserved -= bytes;
  }
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

bool is_graph_memory(uint64_t address) {
  const std::lock_guard lock(state().mu);
  return state().places.count(address) != 0;
}

bool graph_memory_in_use(uint64_t address) {
  const std::lock_guard lock(state().mu);
  const auto found = state().places.find(address);
  return found != state().places.end() && found->second.used;
}

bool use_graph_memory(uint64_t address) { return change(address, true); }

bool unuse_graph_memory(uint64_t address) { return change(address, false); }

uint64_t graph_memory_attribute(const Device& device, CUgraphMem_attribute attribute) {
  const std::lock_guard lock(state().mu);
  const Totals& totals = state().totals[&device];
  switch (attribute) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT:
      return totals.used;
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH:
      return totals.used_peak;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT:
      return totals.reserved;
    default:
      return totals.reserved_peak;
  }
}

void reset_graph_memory_peak(const Device& device, CUgraphMem_attribute attribute) {
  const std::lock_guard lock(state().mu);
  Totals& totals = state().totals[&device];
  (attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH ? totals.used_peak : totals.reserved_peak) =
      attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH ? totals.used : totals.reserved;
}

}  // namespace softgpu
