// Entry points: nodes of each kind, added, read and changed. All come down to add(), get(), set() and set_in().

#include "api/graph/entry.h"

using namespace tide::graph;  // an entry point is C; everything it uses is ours

namespace {

CUgraphNodeParams of_type(CUgraphNodeType type) {
  CUgraphNodeParams params = {};
  params.type = type;
  return params;
}

CUDA_KERNEL_NODE_PARAMS_v3 widened(const CUDA_KERNEL_NODE_PARAMS_v2& p) {
  return {p.func,      p.gridDimX,       p.gridDimY,     p.gridDimZ, p.blockDimX, p.blockDimY,
          p.blockDimZ, p.sharedMemBytes, p.kernelParams, p.extra,    p.kern,      p.ctx};
}

CUDA_KERNEL_NODE_PARAMS_v2 narrowed(const CUDA_KERNEL_NODE_PARAMS_v3& p) {
  return {p.func,      p.gridDimX,       p.gridDimY,     p.gridDimZ, p.blockDimX, p.blockDimY,
          p.blockDimZ, p.sharedMemBytes, p.kernelParams, p.extra,    p.kern,      p.ctx};
}

CUgraphNodeParams of_kernel(const CUDA_KERNEL_NODE_PARAMS_v2& p) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_KERNEL);
  params.kernel = widened(p);
  return params;
}

CUgraphNodeParams of_copy(const CUDA_MEMCPY3D& p, CUcontext context) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_MEMCPY);
  params.memcpy.copyCtx = context;
  params.memcpy.copyParams = p;
  return params;
}

CUgraphNodeParams of_fill(const CUDA_MEMSET_NODE_PARAMS_v1& p, CUcontext context) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_MEMSET);
  params.memset = {p.dst, p.pitch, p.value, p.elementSize, p.width, p.height, context};
  return params;
}

CUgraphNodeParams of_host(const CUDA_HOST_NODE_PARAMS_v1& p) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_HOST);
  params.host = {p.fn, p.userData};
  return params;
}

CUgraphNodeParams of_event(CUgraphNodeType type, CUevent event) {
  CUgraphNodeParams params = of_type(type);
  params.eventWait.event = event;
  return params;
}

CUgraphNodeParams of_values(const CUDA_BATCH_MEM_OP_NODE_PARAMS_v1& p) {
  CUgraphNodeParams params = of_type(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP);
  params.memOp = {p.ctx, p.count, p.paramArray, p.flags};
  return params;
}

// The calls that take a pointer to parameters refuse null before anything else.
template <class Pointer, class Body>
CUresult given(const Pointer* params, Body body) {
  return params == nullptr ? CUDA_ERROR_INVALID_VALUE : body(*params);
}

CUresult get_event(CUgraphNode node, CUgraphNodeType type, CUevent* event) {
  CUgraphNodeParams params;
  if (event == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = get(node, type, &params);
  if (result == CUDA_SUCCESS) *event = params.eventWait.event;
  return result;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuGraphAddNode_v2(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, const CUgraphEdgeData* data,
                           size_t count, CUgraphNodeParams* params) {
  return add(node, graph, after, data, count, params);
}

CUresult cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams* params) { return set(node, params); }

CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams* params) {
  return set_in(exec, node, params);
}

// Kernels.

CUresult cuGraphAddKernelNode_v2(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                                 const CUDA_KERNEL_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_kernel(p);
    return add(node, graph, after, nullptr, count, &all);
  });
}

CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS* params) {
  return given(params, [&](const auto&) {
    CUgraphNodeParams all;
    const CUresult result = get(node, CU_GRAPH_NODE_TYPE_KERNEL, &all);
    if (result == CUDA_SUCCESS) *params = narrowed(all.kernel);
    return result;
  });
}

CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_kernel(p);
    return set(node, &all);
  });
}

CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_kernel(p);
    return set_in(exec, node, &all);
  });
}

// Copies.

CUresult cuGraphAddMemcpyNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                              const CUDA_MEMCPY3D* params, CUcontext context) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_copy(p, context);
    return add(node, graph, after, nullptr, count, &all);
  });
}

CUresult cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D* params) {
  return given(params, [&](const auto&) {
    CUgraphNodeParams all;
    const CUresult result = get(node, CU_GRAPH_NODE_TYPE_MEMCPY, &all);
    if (result == CUDA_SUCCESS) *params = all.memcpy.copyParams;
    return result;
  });
}

CUresult cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_copy(p, nullptr);
    return set(node, &all);
  });
}

CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D* params,
                                        CUcontext context) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_copy(p, context);
    return set_in(exec, node, &all);
  });
}

// Fills.

CUresult cuGraphAddMemsetNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                              const CUDA_MEMSET_NODE_PARAMS* params, CUcontext context) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_fill(p, context);
    return add(node, graph, after, nullptr, count, &all);
  });
}

CUresult cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS* params) {
  return given(params, [&](const auto&) {
    CUgraphNodeParams all;
    const CUresult result = get(node, CU_GRAPH_NODE_TYPE_MEMSET, &all);
    const auto& m = all.memset;
    if (result == CUDA_SUCCESS) *params = {m.dst, m.pitch, m.value, m.elementSize, m.width, m.height};
    return result;
  });
}

CUresult cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_fill(p, nullptr);
    return set(node, &all);
  });
}

CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS* params,
                                        CUcontext context) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_fill(p, context);
    return set_in(exec, node, &all);
  });
}

// Host functions.

CUresult cuGraphAddHostNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                            const CUDA_HOST_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_host(p);
    return add(node, graph, after, nullptr, count, &all);
  });
}

CUresult cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS* params) {
  return given(params, [&](const auto&) {
    CUgraphNodeParams all;
    const CUresult result = get(node, CU_GRAPH_NODE_TYPE_HOST, &all);
    if (result == CUDA_SUCCESS) *params = {all.host.fn, all.host.userData};
    return result;
  });
}

CUresult cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_host(p);
    return set(node, &all);
  });
}

CUresult cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_HOST_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_host(p);
    return set_in(exec, node, &all);
  });
}

// Graphs in graphs, nodes that do nothing.

CUresult cuGraphAddChildGraphNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                                  CUgraph child) {
  CUgraphNodeParams all = of_type(CU_GRAPH_NODE_TYPE_GRAPH);
  all.graph.graph = child;
  return add(node, graph, after, nullptr, count, &all);
}

CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph* graph) {
  if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams all;
  const CUresult result = get(node, CU_GRAPH_NODE_TYPE_GRAPH, &all);
  if (result == CUDA_SUCCESS) *graph = all.graph.graph;
  return result;
}

CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraph child) {
  CUgraphNodeParams all = of_type(CU_GRAPH_NODE_TYPE_GRAPH);
  all.graph.graph = child;
  return set_in(exec, node, &all);
}

CUresult cuGraphAddEmptyNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count) {
  CUgraphNodeParams all = of_type(CU_GRAPH_NODE_TYPE_EMPTY);
  return add(node, graph, after, nullptr, count, &all);
}

// Events.

CUresult cuGraphAddEventRecordNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                                   CUevent event) {
  CUgraphNodeParams all = of_event(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
  return add(node, graph, after, nullptr, count, &all);
}

CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode node, CUevent* event) {
  return get_event(node, CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
}

CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode node, CUevent event) {
  CUgraphNodeParams all = of_event(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
  return set(node, &all);
}

CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event) {
  CUgraphNodeParams all = of_event(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
  return set_in(exec, node, &all);
}

CUresult cuGraphAddEventWaitNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                                 CUevent event) {
  CUgraphNodeParams all = of_event(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
  return add(node, graph, after, nullptr, count, &all);
}

CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode node, CUevent* event) {
  return get_event(node, CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
}

CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode node, CUevent event) {
  CUgraphNodeParams all = of_event(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
  return set(node, &all);
}

CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event) {
  CUgraphNodeParams all = of_event(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
  return set_in(exec, node, &all);
}

// Waits for and writes of values.

CUresult cuGraphAddBatchMemOpNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                                  const CUDA_BATCH_MEM_OP_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_values(p);
    return add(node, graph, after, nullptr, count, &all);
  });
}

CUresult cuGraphBatchMemOpNodeGetParams(CUgraphNode node, CUDA_BATCH_MEM_OP_NODE_PARAMS* params) {
  return given(params, [&](const auto&) {
    CUgraphNodeParams all;
    const CUresult result = get(node, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, &all);
    if (result == CUDA_SUCCESS) *params = {all.memOp.ctx, all.memOp.count, all.memOp.paramArray, all.memOp.flags};
    return result;
  });
}

CUresult cuGraphBatchMemOpNodeSetParams(CUgraphNode node, const CUDA_BATCH_MEM_OP_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_values(p);
    return set(node, &all);
  });
}

CUresult cuGraphExecBatchMemOpNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                            const CUDA_BATCH_MEM_OP_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_values(p);
    return set_in(exec, node, &all);
  });
}

// Memory that lives between two nodes.

CUresult cuGraphAddMemAllocNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                                CUDA_MEM_ALLOC_NODE_PARAMS* params) {
  return given(params, [&](const auto& p) {
    CUgraphNodeParams all = of_type(CU_GRAPH_NODE_TYPE_MEM_ALLOC);
    all.alloc = {p.poolProps, p.accessDescs, p.accessDescCount, p.bytesize, 0};
    const CUresult result = add(node, graph, after, nullptr, count, &all);
    if (result == CUDA_SUCCESS) params->dptr = all.alloc.dptr;
    return result;
  });
}

CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS* params) {
  return given(params, [&](const auto&) {
    CUgraphNodeParams all;
    const CUresult result = get(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC, &all);
    const auto& a = all.alloc;
    if (result == CUDA_SUCCESS) *params = {a.poolProps, a.accessDescs, a.accessDescCount, a.bytesize, a.dptr};
    return result;
  });
}

CUresult cuGraphAddMemFreeNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* after, size_t count,
                               CUdeviceptr address) {
  CUgraphNodeParams all = of_type(CU_GRAPH_NODE_TYPE_MEM_FREE);
  all.free.dptr = address;
  return add(node, graph, after, nullptr, count, &all);
}

CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr* address) {
  if (address == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNodeParams all;
  const CUresult result = get(node, CU_GRAPH_NODE_TYPE_MEM_FREE, &all);
  if (result == CUDA_SUCCESS) *address = all.free.dptr;
  return result;
}

CUresult cuDeviceGraphMemTrim(CUdevice device) {
  return guarded([&] { return host().trim_memory(device); });
}

CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute, void* value) {
  return guarded([&]() -> CUresult {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return host().memory_attribute(device, attribute, static_cast<cuuint64_t*>(value), false);
  });
}

CUresult cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute, void* value) {
  return guarded([&]() -> CUresult {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return host().memory_attribute(device, attribute, static_cast<cuuint64_t*>(value), true);
  });
}

// Attributes of kernels.

CUresult cuGraphKernelNodeCopyAttributes(CUgraphNode to, CUgraphNode from) {
  return of_node(to, [&](Node& target) -> CUresult {
    const Node* source = find_node(from);
    if (source == nullptr || source->content->type != CU_GRAPH_NODE_TYPE_KERNEL) return CUDA_ERROR_INVALID_VALUE;
    if (target.content->type != CU_GRAPH_NODE_TYPE_KERNEL) return CUDA_ERROR_INVALID_VALUE;
    Content with = *target.content;
    with.attributes = source->content->attributes;
    CUgraphNodeParams params;
    read_params(target, &params);
    return make_content(&params, &with, &target.content);
  });
}

CUresult cuGraphKernelNodeGetAttribute(CUgraphNode handle, CUkernelNodeAttrID attribute, CUkernelNodeAttrValue* value) {
  return of_node(handle, [&](const Node& node) -> CUresult {
    if (value == nullptr || node.content->type != CU_GRAPH_NODE_TYPE_KERNEL) return CUDA_ERROR_INVALID_VALUE;
    *value = {};
    const auto found = node.content->attributes.find(attribute);
    if (found != node.content->attributes.end()) *value = found->second;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphKernelNodeSetAttribute(CUgraphNode handle, CUkernelNodeAttrID attribute,
                                       const CUkernelNodeAttrValue* value) {
  return of_node(handle, [&](Node& node) -> CUresult {
    if (value == nullptr || node.content->type != CU_GRAPH_NODE_TYPE_KERNEL) return CUDA_ERROR_INVALID_VALUE;
    // Of launches only.
    if (attribute == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT ||
        attribute == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Content with = *node.content;
    with.attributes[attribute] = *value;
    CUgraphNodeParams params;
    read_params(node, &params);
    return make_content(&params, &with, &node.content);
  });
}

}  // extern "C"
#pragma GCC visibility pop
