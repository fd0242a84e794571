// Entry points: graphs as a whole, their shape, executable copies.

#include <algorithm>
#include <cstdio>
#include <memory>

#include "api/graph/entry.h"

using namespace tide::graph;  // an entry point is C; everything it uses is ours

namespace {

bool has_memory(const Graph& graph) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const auto& node) {
    return node->content->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || node->content->type == CU_GRAPH_NODE_TYPE_MEM_FREE;
  });
}

// How queries give out lists: with null only the number; what the caller has room for beyond it becomes null.
CUresult give_nodes(const std::vector<CUgraphNode>& found, CUgraphNode* nodes, size_t* count) {
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (nodes == nullptr) {
    *count = found.size();
    return CUDA_SUCCESS;
  }
  const size_t given = std::min(*count, found.size());
  std::copy_n(found.begin(), given, nodes);
  std::fill(nodes + given, nodes + *count, nullptr);
  *count = given;
  return CUDA_SUCCESS;
}

bool plain(const CUgraphEdgeData& data) { return data.from_port == 0 && data.to_port == 0 && data.type == 0; }

// One end of a node's edges. Who cannot take edge data must not lose any.
CUresult give_ends(const std::vector<Edge>& edges, CUgraphNode* nodes, CUgraphEdgeData* data, size_t* count) {
  std::vector<CUgraphNode> found;
  for (const Edge& e : edges) {
    if (nodes != nullptr && data == nullptr && !plain(e.data)) return CUDA_ERROR_LOSSY_QUERY;
    found.push_back(e.node->handle);
  }
  const CUresult result = give_nodes(found, nodes, count);
  if (result == CUDA_SUCCESS && nodes != nullptr && data != nullptr) {
    for (size_t i = 0; i < *count; ++i) data[i] = edges[i].data;
  }
  return result;
}

CUresult give_edges(CUgraph handle, CUgraphNode* from, CUgraphNode* to, CUgraphEdgeData* data, size_t* count) {
  return of_graph(handle, [&](const Graph& graph) -> CUresult {
    if (count == nullptr || (from == nullptr) != (to == nullptr)) return CUDA_ERROR_INVALID_VALUE;
    std::vector<CUgraphNode> starts, ends;
    std::vector<CUgraphEdgeData> all;
    for (const auto& node : graph.nodes) {
      for (const Edge& e : node->out) {
        if (from != nullptr && data == nullptr && !plain(e.data)) return CUDA_ERROR_LOSSY_QUERY;
        starts.push_back(node->handle);
        ends.push_back(e.node->handle);
        all.push_back(e.data);
      }
    }
    size_t room = *count;
    const CUresult result = give_nodes(starts, from, count);
    if (result != CUDA_SUCCESS || from == nullptr) return result;
    if (data != nullptr) std::copy_n(all.begin(), *count, data);
    return give_nodes(ends, to, &room);
  });
}

CUresult change_edges(CUgraph handle, const CUgraphNode* from, const CUgraphNode* to, const CUgraphEdgeData* data,
                      size_t count, bool add) {
  return of_graph(handle, [&](const Graph& graph) -> CUresult {
    if (count != 0 && (from == nullptr || to == nullptr)) return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; ++i) {  // all or nothing
      const Node* a = find_node(from[i]);
      const Node* b = find_node(to[i]);
      if (a == nullptr || b == nullptr || a == b || a->graph != &graph || b->graph != &graph) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      if (depends_on(*b, *a) == add) return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < count; ++i) {
      const CUgraphEdgeData with = data == nullptr ? CUgraphEdgeData{} : data[i];
      if (add) {
        connect(find_node(from[i]), find_node(to[i]), with);
      } else if (!disconnect(find_node(from[i]), find_node(to[i]), with)) {
        return CUDA_ERROR_INVALID_VALUE;
      }
    }
    return CUDA_SUCCESS;
  });
}

}  // namespace

namespace tide::graph {

CUresult instantiate_with(CUgraphExec* handle, CUgraph graph_handle, unsigned long long flags,
                          CUDA_GRAPH_INSTANTIATE_PARAMS* params) noexcept {
  return of_graph(graph_handle, [&](const Graph& graph) -> CUresult {
    constexpr unsigned long long kKnown =
        CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
        CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
    if (handle == nullptr || (flags & ~kKnown) != 0) return CUDA_ERROR_INVALID_VALUE;
    if ((flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) != 0) {
      const bool both = (flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH) != 0;
      return both ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
    }
    if ((flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0 && params == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Exec> exec;
    CUresult result = instantiate(graph, flags, &exec, params);
    if (result != CUDA_SUCCESS) return result;
    if ((flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0) {
      result = host().upload(*exec, params->hUploadStream);
      if (result != CUDA_SUCCESS) {
        destroy_exec(exec->handle);
        return result;
      }
    }
    *handle = exec->handle;
    return CUDA_SUCCESS;
  });
}

CUresult update_with(CUgraphExec exec_handle, CUgraph graph_handle, CUgraphExecUpdateResultInfo* info) noexcept {
  return of_exec(exec_handle, [&](Exec& exec) -> CUresult {
    const auto graph = find_graph(graph_handle);
    if (graph == nullptr || info == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return update(exec, *graph, info);
  });
}

}  // namespace tide::graph

#pragma GCC visibility push(default)
extern "C" {

CUresult cuGraphCreate(CUgraph* graph, unsigned int flags) {
  return guarded([&]() -> CUresult {
    if (graph == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    *graph = make_graph()->handle;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphDestroy(CUgraph graph) {
  return guarded([&] { return destroy_graph(graph); });
}

CUresult cuGraphClone(CUgraph* clone, CUgraph original) {
  return of_graph(original, [&](const Graph& graph) -> CUresult {
    if (clone == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (has_memory(graph)) return CUDA_ERROR_NOT_SUPPORTED;
    const auto made = make_graph();
    clone_into(graph, made.get());
    *clone = made->handle;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphNodeFindInClone(CUgraphNode* node, CUgraphNode original, CUgraph clone) {
  return of_graph(clone, [&](Graph& graph) -> CUresult {
    if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const Node* found = find_in_clone(graph, original);
    if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *node = found->handle;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType* type) {
  return of_node(handle, [&](const Node& node) -> CUresult {
    if (type == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *type = node.content->type;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  return of_graph(handle, [&](const Graph& graph) {
    std::vector<CUgraphNode> found;
    for (const auto& node : graph.nodes) found.push_back(node->handle);
    return give_nodes(found, nodes, count);
  });
}

CUresult cuGraphGetRootNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  return of_graph(handle, [&](const Graph& graph) {
    std::vector<CUgraphNode> found;
    for (const auto& node : graph.nodes) {
      if (node->in.empty()) found.push_back(node->handle);
    }
    return give_nodes(found, nodes, count);
  });
}

CUresult cuGraphGetEdges_v2(CUgraph graph, CUgraphNode* from, CUgraphNode* to, CUgraphEdgeData* data, size_t* count) {
  return give_edges(graph, from, to, data, count);
}

CUresult cuGraphNodeGetDependencies_v2(CUgraphNode handle, CUgraphNode* nodes, CUgraphEdgeData* data, size_t* count) {
  return of_node(handle, [&](const Node& node) { return give_ends(node.in, nodes, data, count); });
}

CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode handle, CUgraphNode* nodes, CUgraphEdgeData* data, size_t* count) {
  return of_node(handle, [&](const Node& node) { return give_ends(node.out, nodes, data, count); });
}

CUresult cuGraphAddDependencies_v2(CUgraph graph, const CUgraphNode* from, const CUgraphNode* to,
                                   const CUgraphEdgeData* data, size_t count) {
  return change_edges(graph, from, to, data, count, true);
}

CUresult cuGraphRemoveDependencies_v2(CUgraph graph, const CUgraphNode* from, const CUgraphNode* to,
                                      const CUgraphEdgeData* data, size_t count) {
  return change_edges(graph, from, to, data, count, false);
}

CUresult cuGraphDestroyNode(CUgraphNode handle) {
  return of_node(handle, [&](Node& node) -> CUresult {
    const CUgraphNodeType type = node.content->type;
    if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || type == CU_GRAPH_NODE_TYPE_MEM_FREE) return CUDA_ERROR_NOT_SUPPORTED;
    forget_node(&node);
    remove_node(&node);
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long flags) {
  return instantiate_with(exec, graph, flags, nullptr);
}

CUresult cuGraphInstantiateWithParams(CUgraphExec* exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS* params) {
  if (params == nullptr) return CUDA_ERROR_INVALID_VALUE;
  params->result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
  return instantiate_with(exec, graph, params->flags, params);
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
  return guarded([&] { return destroy_exec(exec); });
}

CUresult cuGraphExecGetFlags(CUgraphExec handle, cuuint64_t* flags) {
  return of_exec(handle, [&](const Exec& exec) -> CUresult {
    if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *flags = exec.flags;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo* info) {
  return update_with(exec, graph, info);
}

CUresult cuGraphNodeSetEnabled(CUgraphExec exec_handle, CUgraphNode handle, unsigned int enabled) {
  return of_exec(exec_handle, [&](const Exec& exec) -> CUresult {
    Node* node = find_in_clone(*exec.graph, handle);
    if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const CUgraphNodeType type = node->content->type;
    if (type != CU_GRAPH_NODE_TYPE_KERNEL && type != CU_GRAPH_NODE_TYPE_MEMSET && type != CU_GRAPH_NODE_TYPE_MEMCPY) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    node->enabled = enabled != 0;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphNodeGetEnabled(CUgraphExec exec_handle, CUgraphNode handle, unsigned int* enabled) {
  return of_exec(exec_handle, [&](const Exec& exec) -> CUresult {
    const Node* node = find_in_clone(*exec.graph, handle);
    if (node == nullptr || enabled == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *enabled = node->enabled ? 1 : 0;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphUpload(CUgraphExec handle, CUstream stream) {
  return of_exec(handle, [&](Exec& exec) { return host().upload(exec, stream); });
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
  return of_exec(handle, [&](Exec& exec) -> CUresult {
    StreamId id;
    CUresult result = host().find_stream(stream, &id);
    if (result == CUDA_SUCCESS) result = check_use(id);
    if (result != CUDA_SUCCESS) return result;
    if (capture_status(id.key) == CU_STREAM_CAPTURE_STATUS_NONE) return host().launch(exec, stream);
    auto content = std::make_shared<Content>();
    content->type = CU_GRAPH_NODE_TYPE_GRAPH;
    return capture_node(id, std::move(content), nullptr, exec.graph.get());
  });
}

CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle* handle, CUgraph graph_handle, CUcontext context,
                                        unsigned int value, unsigned int flags) {
  return of_graph(graph_handle, [&](Graph& graph) -> CUresult {
    if (handle == nullptr || (flags & ~unsigned{CU_GRAPH_COND_ASSIGN_DEFAULT}) != 0) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = host().make_conditional(context, value, flags, handle);
    if (result == CUDA_SUCCESS) graph.conditionals[*handle] = false;
    return result;
  });
}

CUresult cuGraphDebugDotPrint(CUgraph handle, const char* path, unsigned int flags) {
  return of_graph(handle, [&](const Graph& graph) -> CUresult {
    if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path, "w"), fclose);
    if (file == nullptr) return CUDA_ERROR_OPERATING_SYSTEM;
    const std::string text = dot_of(graph, flags);
    return fwrite(text.data(), 1, text.size(), file.get()) == text.size() ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
  });
}

// Objects of the program that graphs keep alive.

CUresult cuUserObjectCreate(CUuserObject* object, void* pointer, CUhostFn destroy, unsigned int references,
                            unsigned int flags) {
  return guarded([&]() -> CUresult {
    if (object == nullptr || destroy == nullptr || references == 0 || flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return create_object(object, pointer, destroy, references);
  });
}

CUresult cuUserObjectRetain(CUuserObject object, unsigned int count) {
  return guarded([&] { return count == 0 ? CUDA_ERROR_INVALID_VALUE : retain_object(object, count); });
}

CUresult cuUserObjectRelease(CUuserObject object, unsigned int count) {
  return guarded([&] { return count == 0 ? CUDA_ERROR_INVALID_VALUE : release_object(object, count); });
}

CUresult cuGraphRetainUserObject(CUgraph handle, CUuserObject object, unsigned int count, unsigned int flags) {
  return of_graph(handle, [&](Graph& graph) -> CUresult {
    if (count == 0 || (flags & ~unsigned{CU_GRAPH_USER_OBJECT_MOVE}) != 0) return CUDA_ERROR_INVALID_VALUE;
    // With the flag the caller's references become the graph's.
    const CUresult result = flags == 0 ? retain_object(object, count) : check_object(object, count);
    if (result != CUDA_SUCCESS) return result;
    graph.user_objects[object] += count;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphReleaseUserObject(CUgraph handle, CUuserObject object, unsigned int count) {
  return of_graph(handle, [&](Graph& graph) -> CUresult {
    const auto held = graph.user_objects.find(object);
    if (count == 0 || held == graph.user_objects.end() || held->second < count) return CUDA_ERROR_INVALID_VALUE;
    held->second -= count;
    if (held->second == 0) graph.user_objects.erase(held);
    return release_object(object, count);
  });
}

}  // extern "C"
#pragma GCC visibility pop
