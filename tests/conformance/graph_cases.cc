// Graphs and stream capture.
#include "fixture.h"

namespace conformance {
namespace {

class Graphs : public Conformance {
 protected:
  CUgraph graph() {
    CUgraph made = nullptr;
    EXPECT_EQ(CU(cuGraphCreate)(&made, 0), CUDA_SUCCESS);
    return made;
  }
  CUgraphNode fill(CUgraph in, CUdeviceptr address, unsigned value, std::vector<CUgraphNode> after = {}) {
    CUDA_MEMSET_NODE_PARAMS params{};
    params.dst = address;
    params.elementSize = 4;
    params.value = value;
    params.width = 4;
    params.height = 1;
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddMemsetNode)(&node, in, after.data(), after.size(), &params, context), CUDA_SUCCESS);
    return node;
  }
  CUDA_KERNEL_NODE_PARAMS scaled(CUdeviceptr* data, unsigned* count, unsigned* factor) {
    parameters_[0] = data;
    parameters_[1] = count;
    parameters_[2] = factor;
    CUDA_KERNEL_NODE_PARAMS params{};
    params.func = function("scale");
    params.gridDimX = params.gridDimY = params.gridDimZ = 1;
    params.blockDimX = 32;
    params.blockDimY = params.blockDimZ = 1;
    params.kernelParams = parameters_;
    return params;
  }
  void run(CUgraph made) {
    CUgraphExec exec = nullptr;
    OK(CU(cuGraphInstantiateWithFlags)(&exec, made, 0));
    OK(CU(cuGraphLaunch)(exec, nullptr));
    OK(CU(cuStreamSynchronize)(nullptr));
    GIVES(CUDA_SUCCESS, CU(cuGraphExecDestroy)(exec));
  }
  void* parameters_[3];
};

TEST_F(Graphs, in_order) {
  const CUgraph made = graph();
  CUdeviceptr data = words({0, 0, 0, 0});
  unsigned count = 4, factor = 6;
  const CUgraphNode first = fill(made, data, 7);
  CUDA_KERNEL_NODE_PARAMS params = scaled(&data, &count, &factor);
  CUgraphNode second = nullptr;
  OK(CU(cuGraphAddKernelNode_v2)(&second, made, &first, 1, &params));
  run(made);
  EXPECT_EQ(read(data, 4), std::vector<uint32_t>(4, 42));
  size_t number = 0;
  GIVES(CUDA_SUCCESS, CU(cuGraphGetNodes)(made, nullptr, &number));
  EXPECT_EQ(number, 2u);
  CUgraphNode roots[2]{};
  number = 2;
  GIVES(CUDA_SUCCESS, CU(cuGraphGetRootNodes)(made, roots, &number));
  EXPECT_EQ(number, 1u);
  EXPECT_EQ(roots[0], first);
  number = 0;
  GIVES(CUDA_SUCCESS, CU(cuGraphGetEdges_v2)(made, nullptr, nullptr, nullptr, &number));
  EXPECT_EQ(number, 1u);
  GIVES(CUDA_SUCCESS, CU(cuGraphNodeGetDependencies_v2)(second, nullptr, nullptr, &number));
  EXPECT_EQ(number, 1u);
  GIVES(CUDA_SUCCESS, CU(cuGraphNodeGetDependentNodes_v2)(second, nullptr, nullptr, &number));
  EXPECT_EQ(number, 0u);
  CUgraphNodeType type{};
  GIVES(CUDA_SUCCESS, CU(cuGraphNodeGetType)(second, &type));
  EXPECT_EQ(type, CU_GRAPH_NODE_TYPE_KERNEL);
  CUDA_KERNEL_NODE_PARAMS back{};
  GIVES(CUDA_SUCCESS, CU(cuGraphKernelNodeGetParams_v2)(second, &back));
  EXPECT_EQ(back.blockDimX, 32u);
  GIVES(CUDA_SUCCESS, CU(cuGraphDestroy)(made));
}

TEST_F(Graphs, changed_after_instantiation) {
  const CUgraph made = graph();
  CUdeviceptr data = words({2, 2, 2, 2});
  unsigned count = 4, factor = 3;
  CUDA_KERNEL_NODE_PARAMS params = scaled(&data, &count, &factor);
  CUgraphNode node = nullptr;
  OK(CU(cuGraphAddKernelNode_v2)(&node, made, nullptr, 0, &params));
  CUgraphExec exec = nullptr;
  OK(CU(cuGraphInstantiateWithFlags)(&exec, made, 0));
  factor = 5;
  OK(CU(cuGraphExecKernelNodeSetParams_v2)(exec, node, &params));
  OK(CU(cuGraphLaunch)(exec, nullptr));
  EXPECT_EQ(read(data, 1)[0], 10u);
  OK(CU(cuGraphNodeSetEnabled)(exec, node, 0));
  unsigned enabled = 9;
  GIVES(CUDA_SUCCESS, CU(cuGraphNodeGetEnabled)(exec, node, &enabled));
  EXPECT_EQ(enabled, 0u);
  OK(CU(cuGraphLaunch)(exec, nullptr));
  EXPECT_EQ(read(data, 1)[0], 10u);
  factor = 2;
  OK(CU(cuGraphKernelNodeSetParams_v2)(node, &params));
  CUgraphExecUpdateResultInfo info{};
  OK(CU(cuGraphExecUpdate_v2)(exec, made, &info));
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
  OK(CU(cuGraphUpload)(exec, nullptr));
  unsigned long long flags = 9;
  GIVES(CUDA_SUCCESS, CU(cuGraphExecGetFlags)(exec, reinterpret_cast<cuuint64_t*>(&flags)));
  EXPECT_EQ(flags, 0u);
}

TEST_F(Graphs, copies_hosts_and_children) {
  static uint32_t seen;
  seen = 0;
  const CUgraph inner = graph(), outer = graph();
  const CUdeviceptr data = words({0, 0, 0, 0});
  fill(inner, data, 9);
  CUgraphNode child = nullptr, copy = nullptr, host = nullptr, empty = nullptr;
  OK(CU(cuGraphAddChildGraphNode)(&child, outer, nullptr, 0, inner));
  static uint32_t value;
  value = 0;
  CUDA_MEMCPY3D box{};
  box.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = data;
  box.dstMemoryType = CU_MEMORYTYPE_HOST;
  box.dstHost = &value;
  box.WidthInBytes = 4;
  box.Height = box.Depth = 1;
  OK(CU(cuGraphAddMemcpyNode)(&copy, outer, &child, 1, &box, context));
  CUDA_HOST_NODE_PARAMS call{};
  call.fn = [](void*) { seen = value; };
  OK(CU(cuGraphAddHostNode)(&host, outer, &copy, 1, &call));
  OK(CU(cuGraphAddEmptyNode)(&empty, outer, &host, 1));
  CUgraph inside = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuGraphChildGraphNodeGetGraph)(child, &inside));
  GIVES(CUDA_SUCCESS, CU(cuGraphHostNodeGetParams)(host, &call));
  GIVES(CUDA_SUCCESS, CU(cuGraphMemcpyNodeGetParams)(copy, &box));
  run(outer);
  EXPECT_EQ(seen, 9u);
}

TEST_F(Graphs, clones) {
  const CUgraph made = graph();
  const CUdeviceptr data = words({0, 0, 0, 0});
  const CUgraphNode node = fill(made, data, 3);
  CUgraph clone = nullptr;
  OK(CU(cuGraphClone)(&clone, made));
  CUgraphNode there = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuGraphNodeFindInClone)(&there, node, clone));
  CUDA_MEMSET_NODE_PARAMS params{};
  GIVES(CUDA_SUCCESS, CU(cuGraphMemsetNodeGetParams)(there, &params));
  params.value = 4;
  GIVES(CUDA_SUCCESS, CU(cuGraphMemsetNodeSetParams)(there, &params));
  GIVES(CUDA_SUCCESS, CU(cuGraphDestroyNode)(node));
  run(clone);
  EXPECT_EQ(read(data, 1)[0], 4u);
}

TEST_F(Graphs, cycles_are_refused) {
  const CUgraph made = graph();
  const CUdeviceptr data = words({0, 0, 0, 0});
  const CUgraphNode first = fill(made, data, 1), second = fill(made, data, 2, {first});
  GIVES(CUDA_SUCCESS, CU(cuGraphAddDependencies_v2)(made, &second, &first, nullptr, 1));
  CUgraphExec exec = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiateWithFlags)(&exec, made, 0));
  GIVES(CUDA_SUCCESS, CU(cuGraphRemoveDependencies_v2)(made, &second, &first, nullptr, 1));
  GIVES(CUDA_SUCCESS, CU(cuGraphInstantiateWithFlags)(&exec, made, 0));
}

TEST_F(Graphs, wrong_arguments) {
  CUgraph made = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphCreate)(nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphCreate)(&made, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphDestroy)(nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecDestroy)(nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphLaunch)(nullptr, nullptr));
}

TEST_F(Graphs, events_in_graphs) {
  const CUgraph made = graph();
  CUevent one = nullptr, other = nullptr;
  OK(CU(cuEventCreate)(&one, 0));
  OK(CU(cuEventCreate)(&other, 0));
  CUgraphNode record = nullptr, wait = nullptr;
  OK(CU(cuGraphAddEventRecordNode)(&record, made, nullptr, 0, one));
  OK(CU(cuGraphAddEventWaitNode)(&wait, made, &record, 1, one));
  CUevent of = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuGraphEventRecordNodeGetEvent)(record, &of));
  EXPECT_EQ(of, one);
  GIVES(CUDA_SUCCESS, CU(cuGraphEventRecordNodeSetEvent)(record, other));
  GIVES(CUDA_SUCCESS, CU(cuGraphEventWaitNodeGetEvent)(wait, &of));
  GIVES(CUDA_SUCCESS, CU(cuGraphEventWaitNodeSetEvent)(wait, other));
  run(made);
  GIVES(CUDA_SUCCESS, CU(cuEventQuery)(other));
}

// --- capture
// ----------------------------------------------------------------------------------------------------------

class Captures : public Graphs {};

TEST_F(Captures, one_stream) {
  const CUstream work = stream();
  CUdeviceptr data = words({0, 0, 0, 0});
  unsigned count = 4, factor = 2;
  const CUfunction kernel = function("scale");
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_GLOBAL));
  CUstreamCaptureStatus status{};
  GIVES(CUDA_SUCCESS, CU(cuStreamIsCapturing)(work, &status));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  OK(CU(cuMemsetD32Async)(data, 4, 4, work));
  OK(launch(kernel, {&data, &count, &factor}, work, 1, 32));
  CUgraph made = nullptr;
  OK(CU(cuStreamEndCapture)(work, &made));
  EXPECT_EQ(read(data, 1)[0], 0u);
  run(made);
  EXPECT_EQ(read(data, 1)[0], 8u);
  GIVES(CUDA_SUCCESS, CU(cuStreamIsCapturing)(work, &status));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_NONE);
}

TEST_F(Captures, forks_and_joins) {
  const CUstream main_stream = stream(), side = stream();
  const CUdeviceptr data = words({0, 0});
  CUevent fork = nullptr, join = nullptr;
  OK(CU(cuEventCreate)(&fork, 0));
  OK(CU(cuEventCreate)(&join, 0));
  OK(CU(cuStreamBeginCapture_v2)(main_stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(CU(cuEventRecord)(fork, main_stream));
  OK(CU(cuStreamWaitEvent)(side, fork, 0));
  OK(CU(cuMemsetD32Async)(data, 1, 1, main_stream));
  OK(CU(cuMemsetD32Async)(data + 4, 2, 1, side));
  OK(CU(cuEventRecord)(join, side));
  OK(CU(cuStreamWaitEvent)(main_stream, join, 0));
  CUgraph made = nullptr;
  OK(CU(cuStreamEndCapture)(main_stream, &made));
  run(made);
  EXPECT_EQ(read(data, 2), (std::vector<uint32_t>{1, 2}));
}

TEST_F(Captures, what_is_not_joined_ends_it) {
  const CUstream main_stream = stream(), side = stream();
  const CUdeviceptr data = words({0, 0});
  CUevent fork = nullptr;
  OK(CU(cuEventCreate)(&fork, 0));
  OK(CU(cuStreamBeginCapture_v2)(main_stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(CU(cuEventRecord)(fork, main_stream));
  OK(CU(cuStreamWaitEvent)(side, fork, 0));
  OK(CU(cuMemsetD32Async)(data, 2, 1, side));
  CUgraph made = nullptr;
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, CU(cuStreamEndCapture)(main_stream, &made));
  EXPECT_EQ(made, nullptr);
}

TEST_F(Captures, waiting_is_refused) {
  const CUstream work = stream();
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_RELAXED));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CU(cuStreamSynchronize)(work));
  CUgraph made = nullptr;
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CU(cuStreamEndCapture)(work, &made));
}

TEST_F(Captures, default_stream_is_refused) {
  if (per_thread_streams()) GTEST_SKIP() << "the default stream is another one";
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CU(cuStreamBeginCapture_v2)(nullptr, CU_STREAM_CAPTURE_MODE_RELAXED));
  CUgraph made = nullptr;
  GIVES(CUDA_ERROR_ILLEGAL_STATE, CU(cuStreamEndCapture)(stream(), &made));
}

TEST_F(Captures, unsafe_calls_by_mode) {
  const CUstream work = stream();
  CUdeviceptr address = 0;
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_GLOBAL));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CU(cuMemAlloc_v2)(&address, 16));
  CUgraph made = nullptr;
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CU(cuStreamEndCapture)(work, &made));
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  GIVES(CUDA_SUCCESS, CU(cuThreadExchangeStreamCaptureMode)(&mode));
  EXPECT_EQ(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_RELAXED));
  GIVES(CUDA_SUCCESS, CU(cuMemAlloc_v2)(&address, 16));
  GIVES(CUDA_SUCCESS, CU(cuStreamEndCapture)(work, &made));
}

TEST_F(Captures, information) {
  const CUstream work = stream();
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(CU(cuMemsetD32Async)(words({0}), 2, 1, work));
  CUstreamCaptureStatus status{};
  cuuint64_t id = 0;
  CUgraph into = nullptr;
  const CUgraphNode* last = nullptr;
  size_t number = 0;
  GIVES(CUDA_SUCCESS, CU(cuStreamGetCaptureInfo_v2)(work, &status, &id, &into, &last, &number));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT_NE(id, 0u);
  EXPECT_EQ(number, 1u);
  GIVES(CUDA_SUCCESS, CU(cuStreamGetCaptureInfo_v3)(work, &status, &id, &into, &last, nullptr, &number));
  CUgraphNode node = last[0];
  GIVES(CUDA_SUCCESS,
        CU(cuStreamUpdateCaptureDependencies_v2)(work, &node, nullptr, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
  CUgraph made = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuStreamEndCapture)(work, &made));
}

}  // namespace
}  // namespace conformance
