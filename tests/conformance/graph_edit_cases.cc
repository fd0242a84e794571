// Graphs, edited: nodes by the one general call, edges, parameters before and after instantiation, attributes.
#include <unistd.h>

#include <cstdio>
#include <string>

#include "fixture.h"

namespace conformance {
namespace {

class GraphEdits : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    OK(CU(cuGraphCreate)(&graph_, 0));
    data_ = words({0, 0, 0, 0});
  }

  CUDA_MEMSET_NODE_PARAMS filled(unsigned value) {
    CUDA_MEMSET_NODE_PARAMS params{};
    params.dst = data_;
    params.elementSize = 4;
    params.value = value;
    params.width = 4;
    params.height = 1;
    return params;
  }
  CUgraphNode fill(unsigned value, CUgraph in = nullptr) {
    const CUDA_MEMSET_NODE_PARAMS params = filled(value);
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddMemsetNode)(&node, in != nullptr ? in : graph_, nullptr, 0, &params, context), CUDA_SUCCESS);
    return node;
  }
  CUgraphNode empty() {
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddEmptyNode)(&node, graph_, nullptr, 0), CUDA_SUCCESS);
    return node;
  }
  // scale(data, 4, factor_), with the first version's parameters.
  CUDA_KERNEL_NODE_PARAMS_v1 scaled(unsigned factor) {
    factor_ = factor;
    CUDA_KERNEL_NODE_PARAMS_v1 params{};
    params.func = function("scale");
    params.gridDimX = params.gridDimY = params.gridDimZ = 1;
    params.blockDimX = 32;
    params.blockDimY = params.blockDimZ = 1;
    params.kernelParams = parameters_;
    return params;
  }
  CUgraphNode scale(unsigned factor, std::vector<CUgraphNode> after = {}) {
    const CUDA_KERNEL_NODE_PARAMS_v1 params = scaled(factor);
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddKernelNode)(&node, graph_, after.data(), after.size(), &params), CUDA_SUCCESS);
    return node;
  }
  CUDA_MEMCPY3D to_host(const uint32_t* where) {
    CUDA_MEMCPY3D box{};
    box.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    box.srcDevice = data_;
    box.dstMemoryType = CU_MEMORYTYPE_HOST;
    box.dstHost = const_cast<uint32_t*>(where);
    box.WidthInBytes = 4;
    box.Height = box.Depth = 1;
    return box;
  }
  CUgraphExec instantiate() {
    CUgraphExec made = nullptr;
    EXPECT_EQ(CU(cuGraphInstantiateWithFlags)(&made, graph_, 0), CUDA_SUCCESS);
    return made;
  }
  // The first word after a launch.
  uint32_t result(CUgraphExec exec) {
    EXPECT_EQ(CU(cuGraphLaunch)(exec, nullptr), CUDA_SUCCESS);
    return read(data_, 1)[0];
  }

  CUgraph graph_ = nullptr;
  CUdeviceptr data_ = 0;
  unsigned count_ = 4, factor_ = 1;
  void* parameters_[3] = {&data_, &count_, &factor_};
};

TEST_F(GraphEdits, edges) {
  const CUgraphNode first = empty(), second = empty(), third = empty();
  const CUgraphNode from[] = {first, second}, to[] = {second, third};
  OK(CU(cuGraphAddDependencies)(graph_, from, to, 2));
  size_t number = 0;
  OK(CU(cuGraphGetEdges)(graph_, nullptr, nullptr, &number));
  EXPECT_EQ(number, 2u);
  CUgraphNode starts[4], ends[4];
  number = 4;  // more room than there are
  OK(CU(cuGraphGetEdges)(graph_, starts, ends, &number));
  EXPECT_EQ(number, 2u);
  EXPECT_EQ(starts[0], first);
  EXPECT_EQ(ends[1], third);
  EXPECT_EQ(starts[2], nullptr);
  number = 1;
  CUgraphNode one = nullptr;
  OK(CU(cuGraphNodeGetDependencies)(third, &one, &number));
  EXPECT_EQ(one, second);
  OK(CU(cuGraphNodeGetDependentNodes)(first, &one, &number));
  EXPECT_EQ(one, second);
  OK(CU(cuGraphNodeGetDependentNodes)(third, nullptr, &number));
  EXPECT_EQ(number, 0u);
  OK(CU(cuGraphRemoveDependencies)(graph_, from, to, 1));
  OK(CU(cuGraphNodeGetDependencies)(second, nullptr, &number));
  EXPECT_EQ(number, 0u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphRemoveDependencies)(graph_, from, to, 1));      // it is not there
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddDependencies)(graph_, &second, &third, 1));  // it is there
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddDependencies)(graph_, &first, &first, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddDependencies)(graph_, nullptr, to, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddDependencies)(nullptr, from, to, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphGetEdges)(graph_, starts, nullptr, &number));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphGetEdges)(graph_, starts, ends, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphNodeGetDependencies)(nullptr, &one, &number));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphNodeGetDependentNodes)(nullptr, &one, &number));
}

TEST_F(GraphEdits, edges_with_data) {
  const CUgraphNode first = scale(2), second = scale(3);
  CUgraphEdgeData data{};
  data.from_port = CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC;
  data.type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
  OK(CU(cuGraphAddDependencies_v2)(graph_, &first, &second, &data, 1));
  CUgraphNode from = nullptr, to = nullptr;
  size_t number = 1;
  GIVES(CUDA_ERROR_LOSSY_QUERY, CU(cuGraphGetEdges)(graph_, &from, &to, &number));
  GIVES(CUDA_ERROR_LOSSY_QUERY, CU(cuGraphNodeGetDependencies)(second, &from, &number));
  GIVES(CUDA_ERROR_LOSSY_QUERY, CU(cuGraphNodeGetDependentNodes)(first, &to, &number));
  CUgraphEdgeData back{};
  OK(CU(cuGraphGetEdges_v2)(graph_, &from, &to, &back, &number));
  EXPECT_EQ(back.type, CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphRemoveDependencies)(graph_, &first, &second, 1));  // that is another edge
  GIVES(CUDA_SUCCESS, CU(cuGraphRemoveDependencies_v2)(graph_, &first, &second, &data, 1));
}

TEST_F(GraphEdits, nodes_of_any_kind) {
  CUgraphNodeParams params{};
  params.type = CU_GRAPH_NODE_TYPE_MEMSET;
  params.memset.dst = data_;
  params.memset.elementSize = 4;
  params.memset.value = 5;
  params.memset.width = 4;
  params.memset.height = 1;
  params.memset.ctx = context;
  CUgraphNode first = nullptr, second = nullptr, third = nullptr;
  OK(CU(cuGraphAddNode)(&first, graph_, nullptr, 0, &params));
  factor_ = 3;
  CUgraphNodeParams kernel{};
  kernel.type = CU_GRAPH_NODE_TYPE_KERNEL;
  kernel.kernel.func = function("scale");
  kernel.kernel.gridDimX = kernel.kernel.gridDimY = kernel.kernel.gridDimZ = 1;
  kernel.kernel.blockDimX = 32;
  kernel.kernel.blockDimY = kernel.kernel.blockDimZ = 1;
  kernel.kernel.kernelParams = parameters_;
  OK(CU(cuGraphAddNode_v2)(&second, graph_, &first, nullptr, 1, &kernel));
  static uint32_t value;
  value = 0;
  CUgraphNodeParams copy{};
  copy.type = CU_GRAPH_NODE_TYPE_MEMCPY;
  copy.memcpy.copyCtx = context;
  copy.memcpy.copyParams = to_host(&value);
  OK(CU(cuGraphAddNode)(&third, graph_, &second, 1, &copy));
  CUgraphExec exec = instantiate();
  EXPECT_EQ(result(exec), 15u);
  EXPECT_EQ(value, 15u);
  params.memset.value = 7;
  OK(CU(cuGraphNodeSetParams)(first, &params));
  EXPECT_EQ(result(exec), 15u);  // what was instantiated stays
  OK(CU(cuGraphExecNodeSetParams)(exec, first, &params));
  EXPECT_EQ(result(exec), 21u);
  EXPECT_EQ(result(instantiate()), 21u);
  kernel.type = CU_GRAPH_NODE_TYPE_MEMSET;  // not what the node is
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphNodeSetParams)(second, &kernel));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecNodeSetParams)(exec, second, &kernel));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphNodeSetParams)(nullptr, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphNodeSetParams)(first, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecNodeSetParams)(nullptr, first, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode)(nullptr, graph_, nullptr, 0, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode)(&first, graph_, nullptr, 0, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode)(&first, nullptr, nullptr, 0, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode_v2)(&first, graph_, nullptr, nullptr, 1, &params));
  params.memset.elementSize = 3;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode_v2)(&first, graph_, nullptr, nullptr, 0, &params));
}

TEST_F(GraphEdits, kernels_of_the_first_version) {
  fill(2);
  CUgraphNode first = nullptr;
  size_t number = 1;
  OK(CU(cuGraphGetNodes)(graph_, &first, &number));
  const CUgraphNode node = scale(5, {first});
  CUDA_KERNEL_NODE_PARAMS_v1 params{};
  OK(CU(cuGraphKernelNodeGetParams)(node, &params));
  EXPECT_EQ(params.func, function("scale"));
  EXPECT_EQ(params.blockDimX, 32u);
  EXPECT_EQ(*static_cast<unsigned*>(params.kernelParams[2]), 5u);
  CUgraphExec exec = instantiate();
  EXPECT_EQ(result(exec), 10u);
  params = scaled(7);
  OK(CU(cuGraphExecKernelNodeSetParams)(exec, node, &params));
  EXPECT_EQ(result(exec), 14u);
  params = scaled(9);
  OK(CU(cuGraphKernelNodeSetParams)(node, &params));
  EXPECT_EQ(result(exec), 14u);
  EXPECT_EQ(result(instantiate()), 18u);
  params.blockDimX = 0;
  EXPECT_NE(CU(cuGraphKernelNodeSetParams)(node, &params), CUDA_SUCCESS);  // which code: docs/limits.md
  EXPECT_NE(CU(cuGraphExecKernelNodeSetParams)(exec, node, &params), CUDA_SUCCESS);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeSetParams)(node, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeGetParams)(first, &params));  // that is a fill
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeGetParams)(node, nullptr));
  CUgraphNode none = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddKernelNode)(&none, graph_, nullptr, 0, nullptr));
  params = scaled(1);
  params.func = nullptr;
  EXPECT_NE(CU(cuGraphAddKernelNode)(&none, graph_, nullptr, 0, &params), CUDA_SUCCESS);
}

TEST_F(GraphEdits, copies) {
  static uint32_t here, there;
  here = there = 0;
  const CUgraphNode first = fill(6);
  CUDA_MEMCPY3D box = to_host(&here);
  CUgraphNode node = nullptr;
  OK(CU(cuGraphAddMemcpyNode)(&node, graph_, &first, 1, &box, context));
  CUgraphExec exec = instantiate();
  box = to_host(&there);
  OK(CU(cuGraphMemcpyNodeSetParams)(node, &box));
  CUDA_MEMCPY3D back{};
  OK(CU(cuGraphMemcpyNodeGetParams)(node, &back));
  EXPECT_EQ(back.dstHost, &there);
  EXPECT_EQ(result(exec), 6u);
  EXPECT_EQ(here, 6u);
  EXPECT_EQ(there, 0u);
  here = 0;
  OK(CU(cuGraphExecMemcpyNodeSetParams)(exec, node, &box, context));
  EXPECT_EQ(result(exec), 6u);
  EXPECT_EQ(here, 0u);
  EXPECT_EQ(there, 6u);
  box.srcMemoryType = CU_MEMORYTYPE_HOST;  // another kind of memory is another node
  box.srcHost = &here;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecMemcpyNodeSetParams)(exec, node, &box, context));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecMemcpyNodeSetParams)(exec, node, nullptr, context));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphMemcpyNodeSetParams)(node, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphMemcpyNodeSetParams)(first, &back));
  back.srcDevice = 0x1000;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphMemcpyNodeSetParams)(node, &back));
}

TEST_F(GraphEdits, fills) {
  const CUgraphNode node = fill(6);
  CUgraphExec exec = instantiate();
  CUDA_MEMSET_NODE_PARAMS params = filled(8);
  OK(CU(cuGraphExecMemsetNodeSetParams)(exec, node, &params, context));
  EXPECT_EQ(result(exec), 8u);
  CUDA_MEMSET_NODE_PARAMS back{};
  OK(CU(cuGraphMemsetNodeGetParams)(node, &back));
  EXPECT_EQ(back.value, 6u);  // the graph itself has not changed
  params.dst = 0x1000;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecMemsetNodeSetParams)(exec, node, &params, context));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecMemsetNodeSetParams)(exec, node, nullptr, context));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecMemsetNodeSetParams)(nullptr, node, &back, context));
}

TEST_F(GraphEdits, host_functions) {
  static int first_calls, second_calls;
  first_calls = second_calls = 0;
  CUDA_HOST_NODE_PARAMS params{};
  params.fn = [](void*) { first_calls++; };
  CUgraphNode node = nullptr;
  OK(CU(cuGraphAddHostNode)(&node, graph_, nullptr, 0, &params));
  CUgraphExec exec = instantiate();
  params.fn = [](void* by) { second_calls += *static_cast<int*>(by); };
  int by = 5;
  params.userData = &by;
  OK(CU(cuGraphHostNodeSetParams)(node, &params));
  result(exec);
  EXPECT_EQ(first_calls, 1);
  EXPECT_EQ(second_calls, 0);
  OK(CU(cuGraphExecHostNodeSetParams)(exec, node, &params));
  result(exec);
  EXPECT_EQ(first_calls, 1);
  EXPECT_EQ(second_calls, 5);
  CUDA_HOST_NODE_PARAMS back{};
  OK(CU(cuGraphHostNodeGetParams)(node, &back));
  EXPECT_EQ(back.userData, &by);
  params.fn = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphHostNodeSetParams)(node, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecHostNodeSetParams)(exec, node, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphHostNodeSetParams)(node, nullptr));
}

TEST_F(GraphEdits, children) {
  CUgraph inner = nullptr, other = nullptr, longer = nullptr;
  OK(CU(cuGraphCreate)(&inner, 0));
  OK(CU(cuGraphCreate)(&other, 0));
  OK(CU(cuGraphCreate)(&longer, 0));
  fill(3, inner);
  fill(4, other);
  fill(5, longer);
  fill(6, longer);
  CUgraphNode child = nullptr;
  OK(CU(cuGraphAddChildGraphNode)(&child, graph_, nullptr, 0, inner));
  CUgraphExec exec = instantiate();
  EXPECT_EQ(result(exec), 3u);
  OK(CU(cuGraphExecChildGraphNodeSetParams)(exec, child, other));
  EXPECT_EQ(result(exec), 4u);
  EXPECT_NE(CU(cuGraphExecChildGraphNodeSetParams)(exec, child, longer), CUDA_SUCCESS);  // another shape
  EXPECT_EQ(result(exec), 4u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecChildGraphNodeSetParams)(exec, child, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecChildGraphNodeSetParams)(nullptr, child, other));
}

TEST_F(GraphEdits, events) {
  CUevent one = nullptr, other = nullptr;
  OK(CU(cuEventCreate)(&one, 0));
  OK(CU(cuEventCreate)(&other, 0));
  CUgraphNode record = nullptr, wait = nullptr;
  OK(CU(cuGraphAddEventWaitNode)(&wait, graph_, nullptr, 0, one));
  OK(CU(cuGraphAddEventRecordNode)(&record, graph_, &wait, 1, one));
  CUgraphExec exec = instantiate();
  OK(CU(cuGraphExecEventRecordNodeSetEvent)(exec, record, other));
  OK(CU(cuGraphExecEventWaitNodeSetEvent)(exec, wait, other));
  // An event of another stream holds the graph up, and the graph's record holds others up.
  const CUstream busy = stream(), work = stream();
  const CUdeviceptr flag = words({0});
  CUdeviceptr address = flag;
  OK(launch(function("spin_until"), {&address}, busy));
  OK(CU(cuEventRecord)(other, busy));
  OK(CU(cuGraphLaunch)(exec, work));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(work));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuEventQuery)(other));
  OK(CU(cuMemsetD32Async)(flag, 1, 1, stream()));
  OK(CU(cuStreamSynchronize)(work));
  GIVES(CUDA_SUCCESS, CU(cuEventQuery)(other));
  GIVES(CUDA_SUCCESS, CU(cuEventQuery)(one));  // never recorded
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecEventRecordNodeSetEvent)(exec, wait, other));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecEventWaitNodeSetEvent)(exec, record, other));
  EXPECT_NE(CU(cuGraphExecEventWaitNodeSetEvent)(exec, wait, nullptr), CUDA_SUCCESS);
}

TEST_F(GraphEdits, attributes_of_kernels) {
  const CUgraphNode first = scale(2), second = scale(3), other = fill(1);
  CUkernelNodeAttrValue value{}, back{};
  value.priority = -1;
  OK(CU(cuGraphKernelNodeSetAttribute)(first, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value));
  OK(CU(cuGraphKernelNodeGetAttribute)(first, CU_LAUNCH_ATTRIBUTE_PRIORITY, &back));
  EXPECT_EQ(back.priority, -1);
  OK(CU(cuGraphKernelNodeGetAttribute)(second, CU_LAUNCH_ATTRIBUTE_PRIORITY, &back));
  EXPECT_EQ(back.priority, 0);
  OK(CU(cuGraphKernelNodeCopyAttributes)(second, first));
  OK(CU(cuGraphKernelNodeGetAttribute)(second, CU_LAUNCH_ATTRIBUTE_PRIORITY, &back));
  EXPECT_EQ(back.priority, -1);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeCopyAttributes)(second, other));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeCopyAttributes)(nullptr, first));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeGetAttribute)(other, CU_LAUNCH_ATTRIBUTE_PRIORITY, &back));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeGetAttribute)(first, CU_LAUNCH_ATTRIBUTE_PRIORITY, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeSetAttribute)(other, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphKernelNodeSetAttribute)(first, CU_LAUNCH_ATTRIBUTE_PRIORITY, nullptr));
  result(instantiate());
}

TEST_F(GraphEdits, updates_of_the_first_version) {
  const CUgraphNode first = fill(2);
  scale(3, {first});
  CUgraphExec exec = instantiate();
  CUgraph again = nullptr;
  OK(CU(cuGraphClone)(&again, graph_));
  CUgraphNode cloned = nullptr;
  OK(CU(cuGraphNodeFindInClone)(&cloned, first, again));
  const CUDA_MEMSET_NODE_PARAMS params = filled(5);
  OK(CU(cuGraphMemsetNodeSetParams)(cloned, &params));
  CUgraphNode where = first;
  CUgraphExecUpdateResult why = CU_GRAPH_EXEC_UPDATE_ERROR;
  OK(CU(cuGraphExecUpdate)(exec, again, &where, &why));
  EXPECT_EQ(why, CU_GRAPH_EXEC_UPDATE_SUCCESS);
  EXPECT_EQ(where, nullptr);
  EXPECT_EQ(result(exec), 15u);
  CUgraphNode more = nullptr;
  OK(CU(cuGraphAddEmptyNode)(&more, again, &cloned, 1));
  GIVES(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, CU(cuGraphExecUpdate)(exec, again, &where, &why));
  EXPECT_EQ(why, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
  EXPECT_EQ(where, more);
  EXPECT_EQ(result(exec), 15u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecUpdate)(nullptr, again, &where, &why));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecUpdate)(exec, nullptr, &where, &why));
}

TEST_F(GraphEdits, updates_say_what_differs) {
  fill(2);
  CUgraphExec exec = instantiate();
  CUgraph other = nullptr;
  OK(CU(cuGraphCreate)(&other, 0));
  CUgraphNode node = nullptr;
  OK(CU(cuGraphAddEmptyNode)(&node, other, nullptr, 0));
  CUgraphExecUpdateResultInfo info{};
  GIVES(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, CU(cuGraphExecUpdate_v2)(exec, other, &info));
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
  EXPECT_EQ(info.errorNode, node);
}

TEST_F(GraphEdits, instantiation_in_every_form) {
  const CUgraphNode first = fill(2), second = scale(3, {first});
  CUgraphExec exec = nullptr;
  CUgraphNode where = first;
  char words_of_it[64] = "untouched";
  OK(CU(cuGraphInstantiate)(&exec, graph_, &where, words_of_it, sizeof words_of_it));
  EXPECT_EQ(where, nullptr);
  EXPECT_EQ(std::string(words_of_it), "");
  EXPECT_EQ(result(exec), 6u);
  OK(CU(cuGraphInstantiate_v2)(&exec, graph_, &where, words_of_it, sizeof words_of_it));
  EXPECT_EQ(result(exec), 6u);
  CUDA_GRAPH_INSTANTIATE_PARAMS params{};
  params.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
  params.hUploadStream = stream();
  params.hErrNode_out = first;
  params.result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
  OK(CU(cuGraphInstantiateWithParams)(&exec, graph_, &params));
  EXPECT_EQ(params.result_out, CUDA_GRAPH_INSTANTIATE_SUCCESS);
  EXPECT_EQ(params.hErrNode_out, nullptr);
  EXPECT_EQ(result(exec), 6u);
  cuuint64_t flags = 0;
  OK(CU(cuGraphExecGetFlags)(exec, &flags));
  EXPECT_EQ(flags, static_cast<cuuint64_t>(CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD));
  OK(CU(cuGraphAddDependencies)(graph_, &second, &first, 1));  // a circle
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiate)(&exec, graph_, &where, words_of_it, sizeof words_of_it));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiate_v2)(&exec, graph_, nullptr, nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiateWithParams)(&exec, graph_, &params));
  EXPECT_EQ(params.result_out, CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiateWithParams)(&exec, graph_, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiateWithFlags)(&exec, graph_, 0x1000));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiate_v2)(nullptr, graph_, nullptr, nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiate)(&exec, nullptr, nullptr, nullptr, 0));
}

TEST_F(GraphEdits, pictures) {
  scale(3, {fill(2)});
  char path[] = "/tmp/conformance_graph_XXXXXX";
  const int file = mkstemp(path);
  ASSERT_GE(file, 0);
  OK(CU(cuGraphDebugDotPrint)(graph_, path, CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE));
  std::string text(4096, 0);
  const ssize_t length = ::read(file, text.data(), text.size());
  unlink(path);
  close(file);
  ASSERT_GT(length, 0);
  EXPECT_NE(text.find("digraph"), std::string::npos);
  EXPECT_NE(text.find("scale"), std::string::npos);
  EXPECT_NE(text.find("->"), std::string::npos);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphDebugDotPrint)(graph_, nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphDebugDotPrint)(nullptr, path, 0));
  GIVES(CUDA_ERROR_OPERATING_SYSTEM, CU(cuGraphDebugDotPrint)(graph_, "/nowhere/at/all", 0));
}

}  // namespace
}  // namespace conformance
