// Parameters of nodes: from what programs give to Content and back.

#include <algorithm>
#include <cstring>

#include "api/graph/entry.h"

namespace tide::graph {
namespace {

CUresult kernel_content(const CUDA_KERNEL_NODE_PARAMS_v3& params, const Content* before, Content* content) {
  if (before != nullptr) content->attributes = before->attributes;
  if (params.ctx != nullptr && params.func == nullptr) content->context = params.ctx;
  const CUresult result = host().kernel(params, content);
  if (result != CUDA_SUCCESS) return result;
  content->kernel.kernelParams = content->arg_pointers.empty() ? nullptr : content->arg_pointers.data();
  content->kernel.extra = nullptr;
  return CUDA_SUCCESS;
}

CUresult alloc_content(CUDA_MEM_ALLOC_NODE_PARAMS_v2* params, Content* content) {
  if (params->bytesize == 0) return CUDA_ERROR_INVALID_VALUE;
  if (params->poolProps.allocType != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_INVALID_VALUE;
  if (params->poolProps.handleTypes != CU_MEM_HANDLE_TYPE_NONE) return CUDA_ERROR_NOT_SUPPORTED;
  if (params->accessDescCount != 0 && params->accessDescs == nullptr) return CUDA_ERROR_INVALID_VALUE;
  content->alloc = *params;
  content->access.assign(params->accessDescs, params->accessDescs + params->accessDescCount);
  content->alloc.accessDescs = content->access.empty() ? nullptr : content->access.data();
  const CUresult result = host().alloc(content);
  params->dptr = content->alloc.dptr;
  return result;
}

CUresult values_content(const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2& params, Content* content) {
  if (params.ctx != nullptr) content->context = params.ctx;
  if (params.count != 0 && params.paramArray == nullptr) return CUDA_ERROR_INVALID_VALUE;
  content->values.assign(params.paramArray, params.paramArray + params.count);
  return host().values(params.flags, content);
}

CUresult conditional_content(const CUDA_CONDITIONAL_NODE_PARAMS& params, Content* content) {
  const unsigned most = params.type == CU_GRAPH_COND_TYPE_WHILE ? 1 : params.type == CU_GRAPH_COND_TYPE_IF ? 2 : ~0u;
  if (params.type > CU_GRAPH_COND_TYPE_SWITCH || params.size == 0 || params.size > most) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  content->conditional = params;
  return host().conditional(content);
}

CUresult fill_content(CUgraphNodeParams* params, const Content* before, Content* content) {
  switch (params->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return kernel_content(params->kernel, before, content);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      if (params->memcpy.flags != 0) return CUDA_ERROR_INVALID_VALUE;
      if (params->memcpy.copyCtx != nullptr) content->context = params->memcpy.copyCtx;
      content->copy = params->memcpy.copyParams;
      return host().copy(content);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      if (params->memset.ctx != nullptr) content->context = params->memset.ctx;
      content->fill = params->memset;
      return host().fill(content);
    case CU_GRAPH_NODE_TYPE_HOST:
      if (params->host.fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
      content->host = params->host;
      return host().host_function(content);
    case CU_GRAPH_NODE_TYPE_GRAPH:
    case CU_GRAPH_NODE_TYPE_EMPTY:
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      content->event = params->eventWait.event;  // both unions begin with it
      return host().event(content);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      return alloc_content(&params->alloc, content);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      content->freed = params->free.dptr;
      return host().free(content);
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      return values_content(params->memOp, content);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      return conditional_content(params->conditional, content);
    default:
      return CUDA_ERROR_NOT_SUPPORTED;  // external semaphores
  }
}

bool has_memory_nodes(const Graph& graph) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const auto& node) {
    const CUgraphNodeType type = node->content->type;
    return type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || type == CU_GRAPH_NODE_TYPE_MEM_FREE;
  });
}

bool has_conditionals(const Graph& graph) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(),
                     [](const auto& node) { return node->content->type == CU_GRAPH_NODE_TYPE_CONDITIONAL; });
}

// The graph that becomes the body of a child node.
CUresult take_child(const CUDA_CHILD_GRAPH_NODE_PARAMS& params, const Graph& parent, std::shared_ptr<Graph>* body) {
  const auto child = find_graph(params.graph);
  if (child == nullptr || child.get() == &parent || has_conditionals(*child)) return CUDA_ERROR_INVALID_VALUE;
  if (params.ownership == CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE) {
    if (child->owner != nullptr) return CUDA_ERROR_INVALID_VALUE;
    *body = child;
    return destroy_graph(child->handle);  // its handle stays good as a body's
  }
  if (params.ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE) return CUDA_ERROR_INVALID_VALUE;
  if (has_memory_nodes(*child)) return CUDA_ERROR_NOT_SUPPORTED;
  *body = std::make_shared<Graph>();
  clone_into(*child, body->get());
  return CUDA_SUCCESS;
}

void own(Node* node, std::shared_ptr<Graph> body) {
  body->owner = node;
  node->body_handles.push_back(body->handle);
  node->bodies.push_back(std::move(body));
}

// A conditional's handle belongs to the graph that its node is in.
CUresult use_conditional(Graph& graph, CUgraphConditionalHandle handle) {
  Graph* at = &graph;
  while (true) {
    const auto found = at->conditionals.find(handle);
    if (found != at->conditionals.end()) {
      if (found->second) return CUDA_ERROR_INVALID_VALUE;  // one node for each handle
      found->second = true;
      return CUDA_SUCCESS;
    }
    if (at->owner == nullptr) return CUDA_ERROR_INVALID_VALUE;
    at = at->owner->graph;
  }
}

}  // namespace

CUresult ready() {
  if (!has_host()) return CUDA_ERROR_NOT_INITIALIZED;
  return host().ready();
}

CUresult make_content(CUgraphNodeParams* params, const Content* before, ContentRef* content) {
  auto made = std::make_shared<Content>();
  made->type = params->type;
  CUresult result = CUDA_SUCCESS;
  if (before != nullptr) {
    made->context = before->context;
  } else {
    result = host().current(&made->context);
    // Nodes that run nothing need none.
    const bool needed = params->type != CU_GRAPH_NODE_TYPE_EMPTY && params->type != CU_GRAPH_NODE_TYPE_GRAPH &&
                        params->type != CU_GRAPH_NODE_TYPE_HOST;
    if (result != CUDA_SUCCESS && needed) return result;
  }
  result = fill_content(params, before, made.get());
  if (result == CUDA_SUCCESS) *content = std::move(made);
  return result;
}

void read_params(const Node& node, CUgraphNodeParams* params) {
  const Content& c = *node.content;
  *params = {};
  params->type = c.type;
  switch (c.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      params->kernel = c.kernel;
      break;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      params->memcpy.copyCtx = c.context;
      params->memcpy.copyParams = c.copy;
      break;
    case CU_GRAPH_NODE_TYPE_MEMSET:
      params->memset = c.fill;
      params->memset.ctx = c.context;
      break;
    case CU_GRAPH_NODE_TYPE_HOST:
      params->host = c.host;
      break;
    case CU_GRAPH_NODE_TYPE_GRAPH:
      params->graph.graph = node.bodies[0]->handle;
      break;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      params->eventWait.event = c.event;
      break;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
      params->alloc = c.alloc;
      break;
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      params->free.dptr = c.freed;
      break;
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      params->memOp.ctx = c.context;
      params->memOp.count = static_cast<unsigned>(c.values.size());
      params->memOp.paramArray = const_cast<CUstreamBatchMemOpParams*>(c.values.data());
      break;
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      params->conditional = c.conditional;
      params->conditional.phGraph_out = const_cast<CUgraph*>(node.body_handles.data());
      break;
    default:
      break;
  }
}

CUresult read_edges(const Graph& graph, const CUgraphNode* nodes, const CUgraphEdgeData* data, size_t count,
                    std::vector<Edge>* edges) {
  if (count != 0 && nodes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    Node* node = find_node(nodes[i]);
    if (node == nullptr || node->graph != &graph) return CUDA_ERROR_INVALID_VALUE;
    const bool twice = std::any_of(edges->begin(), edges->end(), [&](const Edge& e) { return e.node == node; });
    if (twice) return CUDA_ERROR_INVALID_VALUE;
    Edge edge{node, data == nullptr ? CUgraphEdgeData{} : data[i]};
    if (edge.data.to_port != 0 || edge.data.type > CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (edge.data.from_port != 0 && node->content->type != CU_GRAPH_NODE_TYPE_KERNEL) return CUDA_ERROR_INVALID_VALUE;
    edges->push_back(edge);
  }
  return CUDA_SUCCESS;
}

CUresult add(CUgraphNode* handle, CUgraph graph_handle, const CUgraphNode* after, const CUgraphEdgeData* data,
             size_t count, CUgraphNodeParams* params) noexcept {
  return of_graph(graph_handle, [&](Graph& graph) -> CUresult {
    if (handle == nullptr || params == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::vector<Edge> edges;
    CUresult result = read_edges(graph, after, data, count, &edges);
    if (result != CUDA_SUCCESS) return result;
    ContentRef content;
    result = make_content(params, nullptr, &content);
    if (result != CUDA_SUCCESS) return result;
    std::shared_ptr<Graph> child;
    if (params->type == CU_GRAPH_NODE_TYPE_GRAPH) result = take_child(params->graph, graph, &child);
    if (params->type == CU_GRAPH_NODE_TYPE_CONDITIONAL) result = use_conditional(graph, params->conditional.handle);
    if (result != CUDA_SUCCESS) return result;
    Node* node = add_node(graph, std::move(content), edges);
    if (child != nullptr) own(node, std::move(child));
    if (params->type == CU_GRAPH_NODE_TYPE_CONDITIONAL) {
      for (unsigned i = 0; i < params->conditional.size; ++i) own(node, std::make_shared<Graph>());
      params->conditional.phGraph_out = node->body_handles.data();
    }
    *handle = node->handle;
    return CUDA_SUCCESS;
  });
}

namespace {

bool settable(CUgraphNodeType type) {
  return type != CU_GRAPH_NODE_TYPE_EMPTY && type != CU_GRAPH_NODE_TYPE_MEM_ALLOC &&
         type != CU_GRAPH_NODE_TYPE_MEM_FREE && type != CU_GRAPH_NODE_TYPE_CONDITIONAL;
}

}  // namespace

CUresult set(CUgraphNode handle, CUgraphNodeParams* params) noexcept {
  return of_node(handle, [&](Node& node) -> CUresult {
    if (params == nullptr || params->type != node.content->type) return CUDA_ERROR_INVALID_VALUE;
    if (!settable(params->type) || params->type == CU_GRAPH_NODE_TYPE_GRAPH) return CUDA_ERROR_NOT_SUPPORTED;
    return make_content(params, node.content.get(), &node.content);
  });
}

CUresult set_in(CUgraphExec exec_handle, CUgraphNode handle, CUgraphNodeParams* params) noexcept {
  return of_exec(exec_handle, [&](Exec& exec) -> CUresult {
    Node* node = find_in_clone(*exec.graph, handle);
    if (node == nullptr || params == nullptr || params->type != node->content->type) return CUDA_ERROR_INVALID_VALUE;
    if (!settable(params->type)) return CUDA_ERROR_NOT_SUPPORTED;
    if (params->type == CU_GRAPH_NODE_TYPE_GRAPH) {
      const auto child = find_graph(params->graph.graph);
      if (child == nullptr) return CUDA_ERROR_INVALID_VALUE;
      // The body is taken over like a whole graph.
      CUgraphExecUpdateResultInfo info;
      Exec inner;
      inner.graph = node->bodies[0];
      return update(inner, *child, &info);
    }
    ContentRef content;
    const CUresult result = make_content(params, node->content.get(), &content);
    if (result != CUDA_SUCCESS) return result;
    if (may_replace(*node->content, *content) != CU_GRAPH_EXEC_UPDATE_SUCCESS) return CUDA_ERROR_INVALID_VALUE;
    node->content = std::move(content);
    return CUDA_SUCCESS;
  });
}

CUresult get(CUgraphNode handle, CUgraphNodeType type, CUgraphNodeParams* params) noexcept {
  return of_node(handle, [&](const Node& node) -> CUresult {
    if (node.content->type != type) return CUDA_ERROR_INVALID_VALUE;
    read_params(node, params);
    return CUDA_SUCCESS;
  });
}

}  // namespace tide::graph
