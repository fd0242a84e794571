#pragma once

// What the entry points of graphs and captures share.

#include <new>

#include "api/graph/capture.h"
#include "api/graph/host.h"

namespace tide::graph {

// NOT_INITIALIZED before the driver is up.
CUresult ready();

// The host's answer first, then `body` under the lock.
template <typename Body>
CUresult guarded(Body body) noexcept {
  const CUresult result = ready();
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(mutex());
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
}

// Calls about one graph, node or executable graph.
template <typename Body>
CUresult of_graph(CUgraph handle, Body body) noexcept {
  return guarded([&]() -> CUresult {
    const auto graph = find_graph(handle);
    return graph == nullptr ? CUDA_ERROR_INVALID_VALUE : body(*graph);
  });
}
template <typename Body>
CUresult of_node(CUgraphNode handle, Body body) noexcept {
  return guarded([&]() -> CUresult {
    Node* node = find_node(handle);
    return node == nullptr ? CUDA_ERROR_INVALID_VALUE : body(*node);
  });
}
template <typename Body>
CUresult of_exec(CUgraphExec handle, Body body) noexcept {
  return guarded([&]() -> CUresult {
    const auto exec = find_exec(handle);
    return exec == nullptr ? CUDA_ERROR_INVALID_VALUE : body(*exec);
  });
}

// What a node with these parameters does. `before`: of the node that they are for, where there is one.
CUresult make_content(CUgraphNodeParams* params, const Content* before, ContentRef* content);
// The parameters of a node, pointing to what it holds.
void read_params(const Node& node, CUgraphNodeParams* params);

// Nodes of `graph` as ends of edges. `data` null: plain dependencies.
CUresult read_edges(const Graph& graph, const CUgraphNode* nodes, const CUgraphEdgeData* data, size_t count,
                    std::vector<Edge>* edges);

CUresult add(CUgraphNode* handle, CUgraph graph, const CUgraphNode* after, const CUgraphEdgeData* data, size_t count,
             CUgraphNodeParams* params) noexcept;
CUresult set(CUgraphNode handle, CUgraphNodeParams* params) noexcept;
CUresult set_in(CUgraphExec exec, CUgraphNode handle, CUgraphNodeParams* params) noexcept;
// Fails when the node is of another type.
CUresult get(CUgraphNode handle, CUgraphNodeType type, CUgraphNodeParams* params) noexcept;

CUresult update_with(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo* info) noexcept;
CUresult instantiate_with(CUgraphExec* handle, CUgraph graph, unsigned long long flags,
                          CUDA_GRAPH_INSTANTIATE_PARAMS* params) noexcept;

}  // namespace tide::graph
