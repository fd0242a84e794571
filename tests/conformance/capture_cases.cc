// Stream capture: its three modes with their errors, captures into existing graphs, what a capture says of itself.
#include <functional>
#include <thread>

#include "fixture.h"

namespace conformance {
namespace {

class CaptureModes : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    work_ = stream();
    data_ = words({0, 0, 0, 0});
  }
  // A call that no capture may see: it waits for all of the device's work.
  static CUresult unsafe() {
    CUdeviceptr address = 0;
    return CU(cuMemAlloc_v2)(&address, 64);
  }
  CUresult unsafe_elsewhere(CUstreamCaptureMode mode) {
    CUresult result = CUDA_SUCCESS;
    std::thread([&] {
      EXPECT_EQ(CU(cuCtxSetCurrent)(context), CUDA_SUCCESS);
      EXPECT_EQ(CU(cuThreadExchangeStreamCaptureMode)(&mode), CUDA_SUCCESS);
      result = unsafe();
    }).join();
    return result;
  }
  void begin(CUstreamCaptureMode mode) { GIVES(CUDA_SUCCESS, CU(cuStreamBeginCapture_v2)(work_, mode)); }
  CUresult end() {
    CUgraph made = nullptr;
    const CUresult result = CU(cuStreamEndCapture)(work_, &made);
    EXPECT_EQ(made != nullptr, result == CUDA_SUCCESS);
    return result;
  }
  CUstreamCaptureStatus status() {
    CUstreamCaptureStatus status{};
    EXPECT_EQ(CU(cuStreamIsCapturing)(work_, &status), CUDA_SUCCESS);
    return status;
  }
  // Words of a launched graph.
  std::vector<uint32_t> launched(CUgraph made) {
    CUgraphExec exec = nullptr;
    EXPECT_EQ(CU(cuGraphInstantiateWithFlags)(&exec, made, 0), CUDA_SUCCESS);
    EXPECT_EQ(CU(cuGraphLaunch)(exec, nullptr), CUDA_SUCCESS);
    return read(data_, 4);
  }
  CUstream work_ = nullptr;
  CUdeviceptr data_ = 0;
};

TEST_F(CaptureModes, global_forbids_unsafe_calls_to_everybody) {
  begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, unsafe_elsewhere(CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_NONE);
  begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, unsafe());
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
}

TEST_F(CaptureModes, threads_may_step_out_of_a_global_one) {
  begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
  GIVES(CUDA_SUCCESS, unsafe_elsewhere(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  GIVES(CUDA_SUCCESS, unsafe_elsewhere(CU_STREAM_CAPTURE_MODE_RELAXED));
  GIVES(CUDA_SUCCESS, end());
}

TEST_F(CaptureModes, thread_local_forbids_them_to_its_thread) {
  begin(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  GIVES(CUDA_SUCCESS, unsafe_elsewhere(CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, unsafe());
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
}

TEST_F(CaptureModes, relaxed_forbids_none) {
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  GIVES(CUDA_SUCCESS, unsafe_elsewhere(CU_STREAM_CAPTURE_MODE_GLOBAL));
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  OK(CU(cuThreadExchangeStreamCaptureMode)(&mode));
  GIVES(CUDA_SUCCESS, unsafe());
  GIVES(CUDA_SUCCESS, end());
}

TEST_F(CaptureModes, end_in_the_thread_that_began) {
  for (const auto mode : {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL}) {
    begin(mode);
    CUresult result = CUDA_SUCCESS;
    std::thread([&] {
      EXPECT_EQ(CU(cuCtxSetCurrent)(context), CUDA_SUCCESS);
      result = end();
    }).join();
    GIVES(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, result);
    GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  }
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);  // which has no thread
  CUresult result = CUDA_ERROR_UNKNOWN;
  std::thread([&] {
    EXPECT_EQ(CU(cuCtxSetCurrent)(context), CUDA_SUCCESS);
    result = end();
  }).join();
  GIVES(CUDA_SUCCESS, result);
}

TEST_F(CaptureModes, what_waits_ends_a_capture) {
  CUevent event = nullptr;
  OK(CU(cuEventCreate)(&event, 0));
  const std::vector<std::pair<const char*, std::function<CUresult()>>> calls = {
      {"query of the stream", [&] { return CU(cuStreamQuery)(work_); }},
      {"wait for the stream", [&] { return CU(cuStreamSynchronize)(work_); }},
      {"wait for the context", [&] { return CU(cuCtxSynchronize)(); }},
      {"callback",
       [&] {
         return CU(cuStreamAddCallback)(
             work_, [](CUstream, CUresult, void*) {}, nullptr, 0);
       }},
  };
  for (const auto& [what, call] : calls) {
    begin(CU_STREAM_CAPTURE_MODE_RELAXED);
    SCOPED_TRACE(what);
    GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, call());
    GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  }
}

TEST_F(CaptureModes, events_of_a_capture_are_no_ordinary_ones) {
  CUevent inside = nullptr, outside = nullptr;
  OK(CU(cuEventCreate)(&inside, 0));
  OK(CU(cuEventCreate)(&outside, 0));
  OK(CU(cuEventRecord)(outside, stream()));
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  OK(CU(cuEventRecord)(inside, work_));
  GIVES(CUDA_ERROR_CAPTURED_EVENT, CU(cuEventQuery)(inside));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  GIVES(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, CU(cuStreamWaitEvent)(work_, outside, 0));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
}

TEST_F(CaptureModes, two_captures_do_not_become_one) {
  const CUstream other = stream();
  CUevent event = nullptr;
  OK(CU(cuEventCreate)(&event, 0));
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  OK(CU(cuStreamBeginCapture_v2)(other, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(CU(cuEventRecord)(event, other));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_MERGE, CU(cuStreamWaitEvent)(work_, event, 0));
  CUgraph made = nullptr;
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CU(cuStreamEndCapture)(other, &made));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
}

TEST_F(CaptureModes, only_the_first_stream_ends_it) {
  const CUstream side = stream();
  CUevent fork = nullptr;
  OK(CU(cuEventCreate)(&fork, 0));
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  OK(CU(cuEventRecord)(fork, work_));
  OK(CU(cuStreamWaitEvent)(side, fork, 0));
  CUgraph made = nullptr;
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, CU(cuStreamEndCapture)(side, &made));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
}

TEST_F(CaptureModes, legacy_stream_would_wait_for_blocking_ones) {
  if (per_thread_streams()) GTEST_SKIP() << "the default stream is another one";
  work_ = stream(CU_STREAM_DEFAULT);
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  GIVES(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, CU(cuMemsetD32Async)(data_, 1, 1, nullptr));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
}

TEST_F(CaptureModes, wrong_arguments) {
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamBeginCapture_v2)(work_, static_cast<CUstreamCaptureMode>(7)));
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  GIVES(CUDA_ERROR_ILLEGAL_STATE, CU(cuStreamBeginCapture_v2)(work_, CU_STREAM_CAPTURE_MODE_RELAXED));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  CUstreamCaptureMode mode = static_cast<CUstreamCaptureMode>(7);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuThreadExchangeStreamCaptureMode)(&mode));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuThreadExchangeStreamCaptureMode)(nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamIsCapturing)(work_, nullptr));
}

// --- the first version ---

TEST_F(CaptureModes, first_version_is_global) {
  OK(CU(cuStreamBeginCapture)(work_));
  OK(CU(cuMemsetD32Async)(data_, 3, 1, work_));
  CUstreamCaptureStatus status{};
  cuuint64_t id = 0, same = 0;
  OK(CU(cuStreamGetCaptureInfo)(work_, &status, &id));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT_NE(id, 0u);
  OK(CU(cuStreamGetCaptureInfo)(work_, &status, nullptr));
  OK(CU(cuStreamGetCaptureInfo_v2)(work_, &status, &same, nullptr, nullptr, nullptr));
  EXPECT_EQ(same, id);
  CUgraph made = nullptr;
  OK(CU(cuStreamEndCapture)(work_, &made));
  EXPECT_EQ(launched(made)[0], 3u);
  OK(CU(cuStreamGetCaptureInfo)(work_, &status, &id));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_NONE);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamGetCaptureInfo)(work_, nullptr, &id));
  OK(CU(cuStreamBeginCapture)(work_));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, unsafe_elsewhere(CU_STREAM_CAPTURE_MODE_GLOBAL));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
}

TEST_F(CaptureModes, dependencies_are_changed) {
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  OK(CU(cuMemsetD32Async)(data_, 1, 1, work_));
  const CUgraphNode* last = nullptr;
  size_t number = 0;
  CUstreamCaptureStatus status{};
  CUgraph into = nullptr;
  OK(CU(cuStreamGetCaptureInfo_v2)(work_, &status, nullptr, &into, &last, &number));
  ASSERT_EQ(number, 1u);
  CUgraphNode first = last[0];
  OK(CU(cuStreamUpdateCaptureDependencies)(work_, nullptr, 0, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
  OK(CU(cuMemsetD32Async)(data_ + 4, 2, 1, work_));  // beside the first
  OK(CU(cuStreamUpdateCaptureDependencies)(work_, &first, 1, CU_STREAM_ADD_CAPTURE_DEPENDENCIES));
  OK(CU(cuMemsetD32Async)(data_ + 8, 3, 1, work_));  // behind both
  size_t roots = 0, edges = 0;
  OK(CU(cuGraphGetRootNodes)(into, nullptr, &roots));
  OK(CU(cuGraphGetEdges)(into, nullptr, nullptr, &edges));
  EXPECT_EQ(roots, 2u);
  EXPECT_EQ(edges, 2u);
  CUgraph other = nullptr;
  CUgraphNode foreign = nullptr;
  OK(CU(cuGraphCreate)(&other, 0));
  OK(CU(cuGraphAddEmptyNode)(&foreign, other, nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamUpdateCaptureDependencies)(work_, &foreign, 1, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamUpdateCaptureDependencies)(work_, &first, 1, 9));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamUpdateCaptureDependencies)(work_, nullptr, 1, 0));
  CUgraph made = nullptr;
  OK(CU(cuStreamEndCapture)(work_, &made));
  EXPECT_EQ(made, into);
  EXPECT_EQ(launched(made), (std::vector<uint32_t>{1, 2, 3, 0}));
  GIVES(CUDA_ERROR_ILLEGAL_STATE, CU(cuStreamUpdateCaptureDependencies)(work_, &first, 1, 0));
}

TEST_F(CaptureModes, into_a_graph_that_exists) {
  CUgraph graph = nullptr, made = nullptr;
  OK(CU(cuGraphCreate)(&graph, 0));
  CUDA_MEMSET_NODE_PARAMS params{};
  params.dst = data_;
  params.elementSize = 4;
  params.value = 4;
  params.width = 4;
  params.height = 1;
  CUgraphNode first = nullptr;
  OK(CU(cuGraphAddMemsetNode)(&first, graph, nullptr, 0, &params, context));
  CUdeviceptr address = data_;
  OK(CU(cuStreamBeginCaptureToGraph)(work_, graph, &first, nullptr, 1, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(launch(function("add_one"), {&address}, work_));
  OK(CU(cuStreamEndCapture)(work_, &made));
  EXPECT_EQ(made, graph);
  size_t number = 0;
  OK(CU(cuGraphGetEdges)(graph, nullptr, nullptr, &number));
  EXPECT_EQ(number, 1u);
  EXPECT_EQ(launched(graph), (std::vector<uint32_t>{5, 4, 4, 4}));
  // A capture that went wrong leaves the graph there.
  OK(CU(cuStreamBeginCaptureToGraph)(work_, graph, nullptr, nullptr, 0, CU_STREAM_CAPTURE_MODE_RELAXED));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CU(cuStreamSynchronize)(work_));
  GIVES(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, end());
  GIVES(CUDA_SUCCESS, CU(cuGraphGetNodes)(graph, nullptr, &number));
  CUgraph other = nullptr;
  OK(CU(cuGraphCreate)(&other, 0));
  const auto mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamBeginCaptureToGraph)(work_, nullptr, nullptr, nullptr, 0, mode));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamBeginCaptureToGraph)(work_, other, &first, nullptr, 1, mode));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamBeginCaptureToGraph)(work_, graph, nullptr, nullptr, 1, mode));
  EXPECT_EQ(status(), CU_STREAM_CAPTURE_STATUS_NONE);
}

}  // namespace
}  // namespace conformance
