// Stream capture: what becomes nodes, how streams join, and the errors 900 to 908.

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

class Captures : public DriverTest {
 protected:
  void SetUp() override {
    DriverTest::SetUp();
    data_ = allocate(64);
    OK(cuMemsetD32(data_, 1, 16));
    OK(cuCtxSynchronize());
  }

  CUresult scale(CUstream s, uint32_t factor) {
    uint32_t count = 16;
    return launch("scale", {&data_, &count, &factor}, s, 1, 32);
  }
  uint32_t value() {
    uint32_t read = 0;
    EXPECT_EQ(cuMemcpyDtoH(&read, data_, 4), CUDA_SUCCESS);
    return read;
  }
  CUevent event() {
    CUevent made = nullptr;
    EXPECT_EQ(cuEventCreate(&made, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
    return made;
  }
  void run(CUgraph graph, CUstream s) {
    CUgraphExec exec = nullptr;
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphLaunch(exec, s));
    OK(cuStreamSynchronize(s));
    OK(cuGraphExecDestroy(exec));
  }
  // Ends a capture that must have failed with `error`.
  void expect_end(CUstream s, CUresult error) {
    auto graph = reinterpret_cast<CUgraph>(1);
    EXPECT_EQ(cuStreamEndCapture(s, &graph), error);
    EXPECT_EQ(graph, nullptr);
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
    OK(cuStreamIsCapturing(s, &status));
    EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_NONE);
  }

  CUdeviceptr data_ = 0;
};

TEST_F(Captures, captured_work_runs_when_the_graph_is_launched_and_not_before) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  OK(cuStreamIsCapturing(s, &status));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  OK(cuMemsetD32Async(data_, 3, 16, s));
  OK(scale(s, 5));
  CUgraph graph = nullptr;
  OK(cuStreamEndCapture(s, &graph));
  EXPECT_EQ(value(), 1u);
  run(graph, s);
  EXPECT_EQ(value(), 15u);
  size_t nodes = 0, edges = 0;
  OK(cuGraphGetNodes(graph, nullptr, &nodes));
  OK(cuGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
  EXPECT_EQ(nodes, 2u);
  EXPECT_EQ(edges, 1u);
  OK(cuGraphDestroy(graph));
}

TEST_F(Captures, a_fork_through_an_event_is_part_of_the_graph_once_it_is_joined) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING), side = stream(CU_STREAM_NON_BLOCKING);
  CUevent forked = event(), joined = event();
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(scale(s, 2));
  OK(cuEventRecord(forked, s));
  OK(cuStreamWaitEvent(side, forked, 0));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  OK(cuStreamIsCapturing(side, &status));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  OK(scale(side, 3));
  OK(cuMemsetD32Async(data_ + 32, 9, 1, s));
  OK(cuEventRecord(joined, side));
  OK(cuStreamWaitEvent(s, joined, 0));
  OK(scale(s, 7));
  CUgraph graph = nullptr;
  OK(cuStreamEndCapture(s, &graph));
  OK(cuStreamIsCapturing(side, &status));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_NONE);
  size_t edges = 0, roots = 0;
  OK(cuGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
  OK(cuGraphGetRootNodes(graph, nullptr, &roots));
  EXPECT_EQ(edges, 4u);  // first to both sides, both sides to last
  EXPECT_EQ(roots, 1u);
  run(graph, s);
  EXPECT_EQ(value(), 42u);
}

TEST_F(Captures, a_fork_that_is_not_joined_spoils_the_graph) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING), side = stream(CU_STREAM_NON_BLOCKING);
  CUevent forked = event();
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(cuEventRecord(forked, s));
  OK(cuStreamWaitEvent(side, forked, 0));
  OK(scale(side, 3));
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
}

TEST_F(Captures, a_forked_stream_may_go_and_what_it_captured_must_be_joined_all_the_same) {
  for (const bool join : {true, false}) {
    CUstream s = stream(CU_STREAM_NON_BLOCKING), side = nullptr;
    OK(cuStreamCreate(&side, CU_STREAM_NON_BLOCKING));
    CUevent forked = event(), joined = event();
    OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    OK(cuEventRecord(forked, s));
    OK(cuStreamWaitEvent(side, forked, 0));
    OK(scale(side, 3));
    OK(cuEventRecord(joined, side));
    OK(cuStreamDestroy(side));
    if (!join) {
      expect_end(s, CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
      continue;
    }
    OK(cuStreamWaitEvent(s, joined, 0));
    CUgraph graph = nullptr;
    OK(cuStreamEndCapture(s, &graph));
    run(graph, s);
    EXPECT_EQ(value(), 3u);
    OK(cuGraphDestroy(graph));
  }
}

TEST_F(Captures, only_the_stream_and_the_thread_that_began_may_end) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING), side = stream(CU_STREAM_NON_BLOCKING);
  CUevent forked = event();
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(s, &graph), CUDA_ERROR_ILLEGAL_STATE);
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(cuEventRecord(forked, s));
  OK(cuStreamWaitEvent(side, forked, 0));
  EXPECT_EQ(cuStreamEndCapture(side, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  const auto end_elsewhere = [&] {
    CUresult result = CUDA_SUCCESS;
    std::thread([&] {
      EXPECT_EQ(cuCtxSetCurrent(context_), CUDA_SUCCESS);
      result = cuStreamEndCapture(s, &graph);
    }).join();
    return result;
  };
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  EXPECT_EQ(end_elsewhere(), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_EQ(end_elsewhere(), CUDA_SUCCESS);
}

TEST_F(Captures, queries_and_waits_of_a_capturing_stream_or_context_are_not_permitted) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  for (const auto ask :
       {+[](CUstream of) { return cuStreamQuery(of); }, +[](CUstream of) { return cuStreamSynchronize(of); },
        +[](CUstream) { return cuCtxSynchronize(); }}) {
    OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    EXPECT_EQ(ask(s), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    EXPECT_EQ(scale(s, 2), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  }
}

TEST_F(Captures, the_legacy_stream_cannot_be_used_while_it_would_wait_for_a_capture) {
  CUstream s = stream();  // blocking
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  EXPECT_EQ(cuStreamIsCapturing(nullptr, &status), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  OK(scale(s, 2));  // asking did no harm
  EXPECT_EQ(scale(nullptr, 2), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
  uint32_t read = 0;
  EXPECT_EQ(cuMemcpyDtoH(&read, data_, 4), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_EQ(cuStreamBeginCapture(nullptr, CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);

  CUstream free = stream(CU_STREAM_NON_BLOCKING);
  OK(cuStreamBeginCapture(free, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(scale(nullptr, 2));
  CUgraph graph = nullptr;
  OK(cuStreamEndCapture(free, &graph));
}

TEST_F(Captures, unsafe_calls_depend_on_the_modes_of_capture_and_thread) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  CUdeviceptr memory = 0;
  const auto allocate_elsewhere = [&] {
    CUresult result = CUDA_SUCCESS;
    std::thread([&] {
      EXPECT_EQ(cuCtxSetCurrent(context_), CUDA_SUCCESS);
      result = cuMemAlloc(&memory, 4);
    }).join();
    return result;
  };
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_EQ(cuMemAlloc(&memory, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_EQ(allocate_elsewhere(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  EXPECT_EQ(allocate_elsewhere(), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAlloc(&memory, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  OK(cuThreadExchangeStreamCaptureMode(&mode));
  EXPECT_EQ(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(cuMemAlloc(&memory, 4));
  CUgraph graph = nullptr;
  OK(cuStreamEndCapture(s, &graph));
  OK(cuThreadExchangeStreamCaptureMode(&mode));
  EXPECT_EQ(mode, CU_STREAM_CAPTURE_MODE_RELAXED);
}

TEST_F(Captures, dependencies_do_not_cross_the_border_of_a_capture) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING), other = stream(CU_STREAM_NON_BLOCKING);
  CUevent outside = event(), inside = event();
  OK(cuEventRecord(outside, other));
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_EQ(cuStreamWaitEvent(s, outside, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(cuStreamBeginCapture(other, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(cuEventRecord(inside, other));
  EXPECT_EQ(cuStreamWaitEvent(s, inside, 0), CUDA_ERROR_STREAM_CAPTURE_MERGE);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  expect_end(other, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(cuEventRecord(inside, s));
  EXPECT_EQ(cuEventQuery(inside), CUDA_ERROR_CAPTURED_EVENT);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_EQ(cuEventSynchronize(inside), CUDA_ERROR_CAPTURED_EVENT);
  OK(cuEventRecord(inside, s));
  OK(cuEventSynchronize(inside));
}

TEST_F(Captures, copies_read_the_hosts_memory_when_the_graph_runs) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  uint32_t in[2] = {5, 6}, out[2] = {};
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(cuMemcpyHtoDAsync(data_, in, 8, s));
  OK(cuMemcpyDtoHAsync(out, data_, 8, s));
  CUgraph graph = nullptr;
  OK(cuStreamEndCapture(s, &graph));
  in[0] = 50;
  run(graph, s);
  EXPECT_EQ(out[0], 50u);
  EXPECT_EQ(out[1], 6u);
}

TEST_F(Captures, host_functions_allocations_and_graphs_become_nodes) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  static int called = 0;
  called = 0;
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(scale(s, 2));
  CUgraph inner = nullptr;
  OK(cuStreamEndCapture(s, &inner));
  CUgraphExec inner_exec = nullptr;
  OK(cuGraphInstantiateWithFlags(&inner_exec, inner, 0));

  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(cuGraphLaunch(inner_exec, s));
  OK(cuLaunchHostFunc(
      s, [](void* counter) { ++*static_cast<int*>(counter); }, &called));
  CUdeviceptr temporary = 0;
  OK(cuMemAllocAsync(&temporary, 64, s));
  OK(cuMemsetD32Async(temporary, 77, 16, s));
  OK(cuMemcpyDtoDAsync(data_ + 4, temporary, 4, s));
  OK(cuMemFreeAsync(temporary, s));
  EXPECT_EQ(cuStreamAddCallback(
                s, [](CUstream, CUresult, void*) {}, nullptr, 0),
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  expect_end(s, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(cuGraphLaunch(inner_exec, s));
  OK(cuLaunchHostFunc(
      s, [](void* counter) { ++*static_cast<int*>(counter); }, &called));
  OK(cuMemAllocAsync(&temporary, 64, s));
  OK(cuMemsetD32Async(temporary, 77, 16, s));
  OK(cuMemcpyDtoDAsync(data_ + 4, temporary, 4, s));
  OK(cuMemFreeAsync(temporary, s));
  CUgraph graph = nullptr;
  OK(cuStreamEndCapture(s, &graph));
  std::vector<CUgraphNode> nodes(6);
  size_t count = 6;
  OK(cuGraphGetNodes(graph, nodes.data(), &count));
  ASSERT_EQ(count, 6u);
  const CUgraphNodeType expected[] = {CU_GRAPH_NODE_TYPE_GRAPH,     CU_GRAPH_NODE_TYPE_HOST,
                                      CU_GRAPH_NODE_TYPE_MEM_ALLOC, CU_GRAPH_NODE_TYPE_MEMSET,
                                      CU_GRAPH_NODE_TYPE_MEMCPY,    CU_GRAPH_NODE_TYPE_MEM_FREE};
  for (size_t i = 0; i < count; ++i) {
    CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
    OK(cuGraphNodeGetType(nodes[i], &type));
    EXPECT_EQ(type, expected[i]) << i;
  }
  EXPECT_EQ(called, 0);
  run(graph, s);
  EXPECT_EQ(called, 1);
  uint32_t read[2] = {};
  OK(cuMemcpyDtoH(read, data_, 8));
  EXPECT_EQ(read[0], 2u);
  EXPECT_EQ(read[1], 77u);
}

TEST_F(Captures, dependencies_can_be_asked_for_and_replaced) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(scale(s, 2));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  cuuint64_t id = 0;
  CUgraph graph = nullptr;
  const CUgraphNode* after = nullptr;
  size_t count = 0;
  OK(cuStreamGetCaptureInfo(s, &status, &id, &graph, &after, nullptr, &count));
  ASSERT_EQ(count, 1u);
  EXPECT_NE(id, 0u);
  CUgraphNode first = after[0], own = nullptr;
  OK(cuGraphAddEmptyNode(&own, graph, &first, 1));
  OK(cuStreamUpdateCaptureDependencies(s, &own, nullptr, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
  OK(scale(s, 3));
  CUgraph ended = nullptr;
  OK(cuStreamEndCapture(s, &ended));
  EXPECT_EQ(ended, graph);
  size_t dependents = 0;
  OK(cuGraphNodeGetDependentNodes(own, nullptr, nullptr, &dependents));
  EXPECT_EQ(dependents, 1u);
  OK(cuGraphNodeGetDependentNodes(first, nullptr, nullptr, &dependents));
  EXPECT_EQ(dependents, 1u);
}

TEST_F(Captures, external_events_become_nodes) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING), other = stream(CU_STREAM_NON_BLOCKING);
  CUevent done = event();
  EXPECT_EQ(cuEventRecordWithFlags(done, s, CU_EVENT_RECORD_EXTERNAL), CUDA_ERROR_INVALID_VALUE);
  OK(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(scale(s, 6));
  OK(cuEventRecordWithFlags(done, s, CU_EVENT_RECORD_EXTERNAL));
  CUgraph graph = nullptr;
  OK(cuStreamEndCapture(s, &graph));
  CUgraphExec exec = nullptr;
  OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
  OK(cuGraphLaunch(exec, s));
  OK(cuStreamWaitEvent(other, done, 0));
  uint32_t read = 0;
  OK(cuMemcpyDtoHAsync(&read, data_, 4, other));
  OK(cuStreamSynchronize(other));
  EXPECT_EQ(read, 6u);
}

TEST_F(Captures, a_capture_may_extend_a_graph) {
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  CUgraph graph = nullptr, ended = nullptr;
  OK(cuGraphCreate(&graph, 0));
  CUgraphNode root = nullptr;
  CUDA_MEMSET_NODE_PARAMS fill{data_, 0, 4, 4, 16, 1};
  OK(cuGraphAddMemsetNode(&root, graph, nullptr, 0, &fill, context_));
  OK(cuStreamBeginCaptureToGraph(s, graph, &root, nullptr, 1, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(scale(s, 5));
  OK(cuStreamEndCapture(s, &ended));
  EXPECT_EQ(ended, graph);
  run(graph, s);
  EXPECT_EQ(value(), 20u);
}

}  // namespace
}  // namespace softgpu
