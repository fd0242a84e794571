#include "api/graph/memory.h"

#include <algorithm>

namespace tide::graph {
namespace {

struct Place {
  int device = 0;
  uint64_t bytes = 0;
  bool used = false;
};

struct Totals {
  uint64_t used = 0, used_peak = 0, reserved = 0, reserved_peak = 0;
};

struct State {
  std::mutex mu;
  std::map<CUdeviceptr, Place> places;  // guarded by mu
  std::map<int, Totals> totals;         // guarded by mu
};

State& state() {
  static State* const the = new State;
  return *the;
}

bool change(CUdeviceptr address, bool used) {
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

void collect(const Graph& graph, std::vector<CUdeviceptr>* allocated, std::vector<CUdeviceptr>* freed) {
  for (const auto& node : graph.nodes) {
    if (node->content->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) allocated->push_back(node->content->alloc.dptr);
    if (node->content->type == CU_GRAPH_NODE_TYPE_MEM_FREE) freed->push_back(node->content->freed);
    for (const auto& body : node->bodies) collect(*body, allocated, freed);
  }
}

}  // namespace

void add_memory(CUdeviceptr address, uint64_t bytes, int device) {
  State& s = state();
  const std::lock_guard lock(s.mu);
  s.places[address] = {device, bytes, false};
  Totals& totals = s.totals[device];
  totals.reserved += bytes;
  totals.reserved_peak = std::max(totals.reserved_peak, totals.reserved);
}

void remove_memory(CUdeviceptr address) {
  change(address, false);
  State& s = state();
  const std::lock_guard lock(s.mu);
  const auto found = s.places.find(address);
  if (found == s.places.end()) return;
  s.totals[found->second.device].reserved -= found->second.bytes;
  s.places.erase(found);
}

bool is_memory(CUdeviceptr address) {
  const std::lock_guard lock(state().mu);
  return state().places.count(address) != 0;
}

bool memory_in_use(CUdeviceptr address) {
  const std::lock_guard lock(state().mu);
  const auto found = state().places.find(address);
  return found != state().places.end() && found->second.used;
}

bool use_memory(CUdeviceptr address) { return change(address, true); }

bool unuse_memory(CUdeviceptr address) { return change(address, false); }

CUresult launch_memory(const Exec& exec) {
  std::vector<CUdeviceptr> allocated, freed;
  collect(*exec.graph, &allocated, &freed);
  const bool automatic = (exec.flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH) != 0;
  for (const CUdeviceptr address : allocated) {
    if (memory_in_use(address) && !automatic) return CUDA_ERROR_INVALID_VALUE;
  }
  for (const CUdeviceptr address : freed) {
    const bool here = std::find(allocated.begin(), allocated.end(), address) != allocated.end();
    if (!here && !memory_in_use(address)) return CUDA_ERROR_INVALID_VALUE;
  }
  for (const CUdeviceptr address : allocated) use_memory(address);
  for (const CUdeviceptr address : freed) unuse_memory(address);
  return CUDA_SUCCESS;
}

CUresult memory_attribute(int device, CUgraphMem_attribute attribute, cuuint64_t* value, bool set) {
  const std::lock_guard lock(state().mu);
  Totals& totals = state().totals[device];
  switch (attribute) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT:
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT:
      if (set) return CUDA_ERROR_INVALID_VALUE;
      *value = attribute == CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT ? totals.used : totals.reserved;
      return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH:
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH:
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  const bool of_used = attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH;
  uint64_t& peak = of_used ? totals.used_peak : totals.reserved_peak;
  if (!set) {
    *value = peak;
    return CUDA_SUCCESS;
  }
  if (*value != 0) return CUDA_ERROR_INVALID_VALUE;
  peak = of_used ? totals.used : totals.reserved;
  return CUDA_SUCCESS;
}

}  // namespace tide::graph
