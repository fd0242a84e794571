// Graphs that are built node by node: shape, execution, changes of executable graphs.

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

class Graphs : public DriverTest {
 protected:
  void SetUp() override {
    DriverTest::SetUp();
    data_ = allocate(64);
    OK(cuMemsetD32(data_, 1, 16));
    OK(cuCtxSynchronize());  // the stream below does not wait for it
    OK(cuGraphCreate(&graph_, 0));
    stream_ = stream(CU_STREAM_NON_BLOCKING);
  }
  void TearDown() override {
    if (exec_ != nullptr) {
      EXPECT_EQ(cuGraphExecDestroy(exec_), CUDA_SUCCESS);
    }
    EXPECT_EQ(cuGraphDestroy(graph_), CUDA_SUCCESS);
    DriverTest::TearDown();
  }

  CUDA_KERNEL_NODE_PARAMS scale_params(uint32_t factor) {
    factor_ = factor;
    params_[0] = &data_;
    params_[1] = &count_;
    params_[2] = &factor_;
    CUDA_KERNEL_NODE_PARAMS params = {};
    params.func = function("scale");
    params.gridDimX = params.gridDimY = params.gridDimZ = 1;
    params.blockDimX = 32;
    params.blockDimY = params.blockDimZ = 1;
    params.kernelParams = params_;
    return params;
  }
  CUgraphNode scale(uint32_t factor, std::vector<CUgraphNode> after = {}, CUgraph graph = nullptr) {
    CUgraphNode node = nullptr;
    const CUDA_KERNEL_NODE_PARAMS params = scale_params(factor);
    EXPECT_EQ(cuGraphAddKernelNode(&node, graph == nullptr ? graph_ : graph, after.data(), after.size(), &params),
              CUDA_SUCCESS);
    return node;
  }
  CUgraphNode fill(uint32_t value, std::vector<CUgraphNode> after = {}) {
    CUgraphNode node = nullptr;
    const CUDA_MEMSET_NODE_PARAMS params{data_, 0, value, 4, 16, 1};
    EXPECT_EQ(cuGraphAddMemsetNode(&node, graph_, after.data(), after.size(), &params, context_), CUDA_SUCCESS);
    return node;
  }
  void instantiate(unsigned long long flags = 0) { OK(cuGraphInstantiateWithFlags(&exec_, graph_, flags)); }
  uint32_t launch_and_read() {
    EXPECT_EQ(cuGraphLaunch(exec_, stream_), CUDA_SUCCESS);
    return read();
  }
  uint32_t read() {
    uint32_t value = 0;
    EXPECT_EQ(cuMemcpyDtoHAsync(&value, data_, 4, stream_), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamSynchronize(stream_), CUDA_SUCCESS);
    return value;
  }

  CUdeviceptr data_ = 0;
  CUgraph graph_ = nullptr;
  CUgraphExec exec_ = nullptr;
  CUstream stream_ = nullptr;

 private:
  uint32_t factor_ = 0, count_ = 16;
  void* params_[3] = {};
};

TEST_F(Graphs, nodes_run_behind_what_they_depend_on_whatever_the_order_of_their_creation) {
  CUgraphNode last = scale(5);
  CUgraphNode first = fill(3);
  OK(cuGraphAddDependencies(graph_, &first, &last, nullptr, 1));
  instantiate();
  EXPECT_EQ(launch_and_read(), 15u);
  EXPECT_EQ(launch_and_read(), 15u);
}

TEST_F(Graphs, launches_are_ordered_with_their_stream_and_with_each_other) {
  scale(2);
  instantiate();
  Holding holding;
  OK(launch("hold", {holding.param()}, stream_));
  CUstream other = stream(CU_STREAM_NON_BLOCKING);
  OK(cuGraphLaunch(exec_, stream_));
  OK(cuGraphLaunch(exec_, other));  // behind the first, which is behind the kernel
  EXPECT_EQ(cuStreamQuery(other), CUDA_ERROR_NOT_READY);
  holding.let_go();
  OK(cuStreamSynchronize(other));
  EXPECT_EQ(read(), 4u);
}

TEST_F(Graphs, arguments_are_copied_and_can_be_read_back) {
  CUgraphNode node = scale(7);
  scale_params(1000);  // the caller's variable changes
  CUDA_KERNEL_NODE_PARAMS params = {};
  OK(cuGraphKernelNodeGetParams(node, &params));
  EXPECT_EQ(params.func, function("scale"));
  EXPECT_EQ(params.blockDimX, 32u);
  EXPECT_EQ(*static_cast<uint32_t*>(params.kernelParams[2]), 7u);
  instantiate();
  EXPECT_EQ(launch_and_read(), 7u);
}

TEST_F(Graphs, edges_are_answered_added_and_removed) {
  CUgraphNode a = fill(1), b = scale(2, {a}), c = scale(3, {a});
  size_t count = 0;
  OK(cuGraphGetEdges(graph_, nullptr, nullptr, nullptr, &count));
  EXPECT_EQ(count, 2u);
  CUgraphNode from[3] = {}, to[3] = {};
  count = 3;
  OK(cuGraphGetEdges(graph_, from, to, nullptr, &count));
  EXPECT_EQ(count, 2u);
  EXPECT_EQ(from[0], a);
  EXPECT_EQ(to[1], c);
  EXPECT_EQ(from[2], nullptr);
  EXPECT_EQ(cuGraphAddDependencies(graph_, &a, &b, nullptr, 1), CUDA_ERROR_INVALID_VALUE);  // there already
  EXPECT_EQ(cuGraphRemoveDependencies(graph_, &b, &c, nullptr, 1), CUDA_ERROR_INVALID_VALUE);
  OK(cuGraphRemoveDependencies(graph_, &a, &c, nullptr, 1));
  OK(cuGraphGetRootNodes(graph_, nullptr, &count));
  EXPECT_EQ(count, 2u);
  OK(cuGraphDestroyNode(a));
  CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
  EXPECT_EQ(cuGraphNodeGetType(a, &type), CUDA_ERROR_INVALID_VALUE);
  OK(cuGraphGetRootNodes(graph_, nullptr, &count));
  EXPECT_EQ(count, 2u);
}

TEST_F(Graphs, edge_data_is_kept_and_not_lost_silently) {
  CUgraphNode a = scale(2);
  CUgraphEdgeData data = {};
  data.from_port = CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC;
  data.type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
  CUgraphNodeParams params = {};
  params.type = CU_GRAPH_NODE_TYPE_EMPTY;
  CUgraphNode b = nullptr;
  OK(cuGraphAddNode(&b, graph_, &a, &data, 1, &params));
  CUgraphNode found = nullptr;
  size_t count = 1;
  EXPECT_EQ(cuGraphNodeGetDependencies(b, &found, nullptr, &count), CUDA_ERROR_LOSSY_QUERY);
  CUgraphEdgeData read = {};
  OK(cuGraphNodeGetDependencies(b, &found, &read, &count));
  EXPECT_EQ(read.from_port, CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC);
}

TEST_F(Graphs, cycles_are_found_at_instantiation) {
  CUgraphNode a = scale(2), b = scale(3, {a});
  OK(cuGraphAddDependencies(graph_, &b, &a, nullptr, 1));
  CUDA_GRAPH_INSTANTIATE_PARAMS params = {};
  EXPECT_EQ(cuGraphInstantiateWithParams(&exec_, graph_, &params), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(params.result_out, CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE);
}

TEST_F(Graphs, an_executable_graph_does_not_follow_its_graph_unless_it_is_updated) {
  CUgraphNode node = scale(2);
  instantiate();
  CUDA_KERNEL_NODE_PARAMS params = scale_params(5);
  OK(cuGraphKernelNodeSetParams(node, &params));
  EXPECT_EQ(launch_and_read(), 2u);
  CUgraphExecUpdateResultInfo info = {};
  OK(cuGraphExecUpdate(exec_, graph_, &info));
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
  EXPECT_EQ(launch_and_read(), 10u);
  params = scale_params(3);
  OK(cuGraphExecKernelNodeSetParams(exec_, node, &params));
  EXPECT_EQ(launch_and_read(), 30u);
}

TEST_F(Graphs, an_update_with_another_shape_says_what_differs_and_changes_nothing) {
  CUgraphNode a = scale(2);
  instantiate();
  CUgraphNode added = scale(3, {a});
  CUgraphExecUpdateResultInfo info = {};
  EXPECT_EQ(cuGraphExecUpdate(exec_, graph_, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
  EXPECT_EQ(info.errorNode, added);
  OK(cuGraphDestroyNode(added));
  OK(cuGraphDestroyNode(a));
  CUgraphNode other = fill(1);
  EXPECT_EQ(cuGraphExecUpdate(exec_, graph_, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
  EXPECT_EQ(info.errorNode, other);
  EXPECT_EQ(launch_and_read(), 2u);
}

TEST_F(Graphs, disabled_nodes_are_left_out_and_those_behind_still_run) {
  CUgraphNode a = scale(2), b = scale(3, {a});
  scale(5, {b});
  instantiate();
  OK(cuGraphNodeSetEnabled(exec_, b, 0));
  unsigned enabled = 1;
  OK(cuGraphNodeGetEnabled(exec_, b, &enabled));
  EXPECT_EQ(enabled, 0u);
  EXPECT_EQ(launch_and_read(), 10u);
}

TEST_F(Graphs, clones_are_apart_and_their_nodes_are_found_by_the_originals) {
  CUgraphNode a = scale(2), b = scale(3, {a});
  CUgraph clone = nullptr;
  OK(cuGraphClone(&clone, graph_));
  CUgraphNode found = nullptr;
  OK(cuGraphNodeFindInClone(&found, b, clone));
  EXPECT_NE(found, b);
  CUDA_KERNEL_NODE_PARAMS params = scale_params(11);
  OK(cuGraphKernelNodeSetParams(found, &params));
  instantiate();
  EXPECT_EQ(launch_and_read(), 6u);
  OK(cuGraphDestroy(clone));
}

TEST_F(Graphs, child_graphs_run_in_their_place_and_are_copies) {
  CUgraph child = nullptr;
  OK(cuGraphCreate(&child, 0));
  scale(3, {scale(2, {}, child)}, child);
  CUgraphNode first = fill(4), in = nullptr;
  OK(cuGraphAddChildGraphNode(&in, graph_, &first, 1, child));
  scale(5, {in});
  OK(cuGraphDestroy(child));
  CUgraph embedded = nullptr;
  OK(cuGraphChildGraphNodeGetGraph(in, &embedded));
  size_t count = 0;
  OK(cuGraphGetNodes(embedded, nullptr, &count));
  EXPECT_EQ(count, 2u);
  EXPECT_EQ(cuGraphDestroy(embedded), CUDA_ERROR_INVALID_VALUE);  // its node's
  instantiate();
  EXPECT_EQ(launch_and_read(), 120u);
}

TEST_F(Graphs, copies_of_boxes_go_where_they_are_sent) {
  // Two layers of two rows of 8 bytes each, out of rows of 16 bytes.
  uint8_t host[64], back[32] = {};
  for (uint8_t i = 0; i < 64; ++i) host[i] = i;
  CUDA_MEMCPY3D in = {};
  in.srcMemoryType = CU_MEMORYTYPE_HOST;
  in.srcHost = host;
  in.srcPitch = 16;
  in.srcHeight = 2;
  in.srcXInBytes = 4;
  in.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  in.dstDevice = data_;
  in.dstPitch = 8;
  in.dstHeight = 2;
  in.WidthInBytes = 8;
  in.Height = in.Depth = 2;
  CUgraphNode up = nullptr, down = nullptr;
  OK(cuGraphAddMemcpyNode(&up, graph_, nullptr, 0, &in, context_));
  CUDA_MEMCPY3D out = {};
  out.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  out.srcDevice = data_;
  out.dstMemoryType = CU_MEMORYTYPE_HOST;
  out.dstHost = back;
  out.WidthInBytes = 32;
  out.Height = out.Depth = 1;
  OK(cuGraphAddMemcpyNode(&down, graph_, &up, 1, &out, context_));
  instantiate();
  OK(cuGraphLaunch(exec_, stream_));
  OK(cuStreamSynchronize(stream_));
  for (uint8_t layer = 0; layer < 2; ++layer) {
    for (uint8_t row = 0; row < 2; ++row) {
      for (uint8_t x = 0; x < 8; ++x) EXPECT_EQ(back[layer * 16 + row * 8 + x], layer * 32 + row * 16 + 4 + x);
    }
  }
}

TEST_F(Graphs, memory_nodes_give_memory_from_one_launch_to_the_free) {
  CUDA_MEM_ALLOC_NODE_PARAMS alloc = {};
  alloc.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  alloc.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  alloc.bytesize = 4096;
  CUgraphNode node = nullptr;
  OK(cuGraphAddMemAllocNode(&node, graph_, nullptr, 0, &alloc));
  ASSERT_NE(alloc.dptr, 0u);
  CUgraph clone = nullptr;
  EXPECT_EQ(cuGraphClone(&clone, graph_), CUDA_ERROR_NOT_SUPPORTED);
  instantiate();
  EXPECT_EQ(cuMemFreeAsync(alloc.dptr, stream_), CUDA_ERROR_INVALID_VALUE);  // not allocated yet
  OK(cuGraphLaunch(exec_, stream_));
  EXPECT_EQ(cuGraphLaunch(exec_, stream_), CUDA_ERROR_INVALID_VALUE);  // still allocated
  cuuint64_t used = 0;
  OK(cuDeviceGetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &used));
  EXPECT_GE(used, 4096u);
  OK(cuMemsetD32Async(alloc.dptr, 8, 1024, stream_));
  OK(cuMemFreeAsync(alloc.dptr, stream_));
  OK(cuGraphLaunch(exec_, stream_));
  OK(cuMemFree(alloc.dptr));
  OK(cuGraphExecDestroy(exec_));
  instantiate(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
  OK(cuGraphLaunch(exec_, stream_));
  OK(cuGraphLaunch(exec_, stream_));
  OK(cuStreamSynchronize(stream_));
}

TEST_F(Graphs, events_in_graphs_are_recorded_and_waited_for_at_each_launch) {
  CUevent done = nullptr;
  OK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING));
  CUgraphNode work = scale(3), record = nullptr, found = nullptr;
  OK(cuGraphAddEventRecordNode(&record, graph_, &work, 1, done));
  CUevent read_back = nullptr;
  OK(cuGraphEventRecordNodeGetEvent(record, &read_back));
  EXPECT_EQ(read_back, done);
  EXPECT_EQ(cuGraphEventWaitNodeGetEvent(record, &read_back), CUDA_ERROR_INVALID_VALUE);
  OK(cuGraphAddEventWaitNode(&found, graph_, &record, 1, done));
  instantiate();
  Holding holding;
  OK(launch("hold", {holding.param()}, stream_));
  OK(cuGraphLaunch(exec_, stream_));
  EXPECT_EQ(cuEventQuery(done), CUDA_ERROR_NOT_READY);
  holding.let_go();
  OK(cuEventSynchronize(done));
  EXPECT_EQ(read(), 3u);
}

TEST_F(Graphs, user_objects_live_as_long_as_anything_refers_to_them) {
  static int destroyed = 0;
  destroyed = 0;
  CUuserObject object = nullptr;
  OK(cuUserObjectCreate(
      &object, &destroyed, [](void* counter) { ++*static_cast<int*>(counter); }, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
  OK(cuGraphRetainUserObject(graph_, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
  scale(2);
  instantiate();
  OK(cuGraphReleaseUserObject(graph_, object, 1));
  EXPECT_EQ(destroyed, 0);  // the executable graph has it still
  EXPECT_EQ(launch_and_read(), 2u);
  OK(cuGraphExecDestroy(exec_));
  exec_ = nullptr;
  for (int i = 0; i < 1000 && destroyed == 0; ++i) std::this_thread::yield();
  OK(cuCtxSynchronize());
  EXPECT_EQ(destroyed, 1);
  EXPECT_EQ(cuUserObjectRelease(object, 1), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Graphs, wrong_parameters_are_refused_when_the_node_is_added) {
  CUgraphNode node = nullptr;
  CUDA_KERNEL_NODE_PARAMS params = scale_params(2);
  params.blockDimX = 2048;
  EXPECT_EQ(cuGraphAddKernelNode(&node, graph_, nullptr, 0, &params), CUDA_ERROR_INVALID_VALUE);
  CUDA_MEMSET_NODE_PARAMS bad{data_, 0, 1, 3, 16, 1};
  EXPECT_EQ(cuGraphAddMemsetNode(&node, graph_, nullptr, 0, &bad, context_), CUDA_ERROR_INVALID_VALUE);
  auto nobody = reinterpret_cast<CUgraphNode>(0x1234);
  EXPECT_EQ(cuGraphAddEmptyNode(&node, graph_, &nobody, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuGraphAddMemFreeNode(&node, graph_, nullptr, 0, data_), CUDA_ERROR_INVALID_VALUE);
  size_t count = 1;
  OK(cuGraphGetNodes(graph_, nullptr, &count));
  EXPECT_EQ(count, 0u);
}

TEST_F(Graphs, a_drawing_names_nodes_and_edges) {
  scale(3, {fill(1)});
  char path[] = "/tmp/softgpu-dot-XXXXXX";
  const int file = mkstemp(path);
  ASSERT_GE(file, 0);
  OK(cuGraphDebugDotPrint(graph_, path, CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE));
  std::string text(4096, 0);
  FILE* opened = fopen(path, "r");
  text.resize(fread(text.data(), 1, text.size(), opened));
  fclose(opened);
  remove(path);
  EXPECT_NE(text.find("digraph"), std::string::npos);
  EXPECT_NE(text.find("scale"), std::string::npos);
  EXPECT_NE(text.find("->"), std::string::npos);
}

// set_value(u64 handle, u64 counter): *counter += 1; the condition holds while it is below 5
const char* const kConditional = R"(
.version 8.0
.target sm_80
.address_size 64
.extern .func cudaGraphSetConditional(.param .b64 handle, .param .b32 value);
.visible .entry step(.param .u64 handle, .param .u64 counter)
{
  .reg .pred %p<2>;
  .reg .b32 %r<4>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [handle];
  ld.param.u64 %rd2, [counter];
  ld.global.u32 %r1, [%rd2];
  add.u32 %r1, %r1, 1;
  st.global.u32 [%rd2], %r1;
  setp.lt.u32 %p1, %r1, 5;
  selp.u32 %r2, 1, 0, %p1;
  {
  .param .b64 param0;
  st.param.b64 [param0+0], %rd1;
  .param .b32 param1;
  st.param.b32 [param1+0], %r2;
  call.uni cudaGraphSetConditional, (param0, param1);
  }
  ret;
}
)";

TEST_F(Graphs, a_while_node_repeats_its_body_until_a_kernel_says_so) {
  CUmodule module = nullptr;
  CUfunction step = nullptr;
  OK(cuModuleLoadData(&module, kConditional));
  OK(cuModuleGetFunction(&step, module, "step"));
  CUgraphNode reset = fill(0);
  CUgraphConditionalHandle handle = 0;
  OK(cuGraphConditionalHandleCreate(&handle, graph_, context_, 1, CU_GRAPH_COND_ASSIGN_DEFAULT));
  EXPECT_EQ(cuGraphInstantiateWithFlags(&exec_, graph_, 0), CUDA_ERROR_INVALID_VALUE);  // no node uses it
  CUgraphNodeParams params = {};
  params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  params.conditional.handle = handle;
  params.conditional.type = CU_GRAPH_COND_TYPE_WHILE;
  params.conditional.size = 1;
  params.conditional.ctx = context_;
  CUgraphNode loop = nullptr;
  OK(cuGraphAddNode(&loop, graph_, &reset, nullptr, 1, &params));
  void* arguments[] = {&handle, &data_};
  CUDA_KERNEL_NODE_PARAMS kernel = {};
  kernel.func = step;
  kernel.gridDimX = kernel.gridDimY = kernel.gridDimZ = 1;
  kernel.blockDimX = kernel.blockDimY = kernel.blockDimZ = 1;
  kernel.kernelParams = arguments;
  CUgraphNode body = nullptr;
  OK(cuGraphAddKernelNode(&body, params.conditional.phGraph_out[0], nullptr, 0, &kernel));
  scale(10, {loop});
  instantiate();
  EXPECT_EQ(launch_and_read(), 50u);
  EXPECT_EQ(launch_and_read(), 50u);  // the default is assigned again
}

}  // namespace
}  // namespace softgpu
