// What graphs may hold besides kernels and fills: waits for and writes of values, copies with arrays.
#include "fixture.h"

namespace conformance {
namespace {

CUstreamBatchMemOpParams write_of(CUdeviceptr address, uint32_t value) {
  CUstreamBatchMemOpParams step{};
  step.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  step.writeValue.address = address;
  step.writeValue.value = value;
  return step;
}

CUstreamBatchMemOpParams wait_for(CUdeviceptr address, uint32_t value) {
  CUstreamBatchMemOpParams step{};
  step.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
  step.waitValue.address = address;
  step.waitValue.value = value;
  step.waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
  return step;
}

class GraphValues : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    OK(CU(cuGraphCreate)(&graph_, 0));
    data_ = words({0, 0, 0, 0});
  }
  CUDA_BATCH_MEM_OP_NODE_PARAMS of(std::vector<CUstreamBatchMemOpParams>& steps) {
    CUDA_BATCH_MEM_OP_NODE_PARAMS params{};
    params.ctx = context;
    params.count = static_cast<unsigned>(steps.size());
    params.paramArray = steps.data();
    return params;
  }
  CUgraphExec instantiate() {
    CUgraphExec made = nullptr;
    EXPECT_EQ(CU(cuGraphInstantiateWithFlags)(&made, graph_, 0), CUDA_SUCCESS);
    return made;
  }
  CUgraph graph_ = nullptr;
  CUdeviceptr data_ = 0;
};

TEST_F(GraphValues, are_waited_for_and_written) {
  std::vector<CUstreamBatchMemOpParams> steps = {wait_for(data_, 5), write_of(data_ + 4, 7)};
  CUDA_BATCH_MEM_OP_NODE_PARAMS params = of(steps);
  CUgraphNode node = nullptr;
  OK(CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, &params));
  const CUgraphExec exec = instantiate();
  const CUstream work = stream(), other = stream();
  OK(CU(cuGraphLaunch)(exec, work));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(work));
  OK(CU(cuStreamWriteValue32_v2)(other, data_, 5, 0));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(read(data_, 2)[1], 7u);
  CUgraphNodeType type{};
  OK(CU(cuGraphNodeGetType)(node, &type));
  EXPECT_EQ(type, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP);
}

TEST_F(GraphValues, parameters_are_read_and_changed) {
  std::vector<CUstreamBatchMemOpParams> steps = {write_of(data_, 3)};
  CUDA_BATCH_MEM_OP_NODE_PARAMS params = of(steps), back{};
  CUgraphNode node = nullptr;
  OK(CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, &params));
  CUgraphExec exec = instantiate();
  steps[0].writeValue.value = 4;
  OK(CU(cuGraphBatchMemOpNodeSetParams)(node, &params));
  OK(CU(cuGraphBatchMemOpNodeGetParams)(node, &back));
  ASSERT_EQ(back.count, 1u);
  EXPECT_EQ(back.paramArray[0].writeValue.value, 4u);
  EXPECT_EQ(back.ctx, context);
  OK(CU(cuGraphLaunch)(exec, nullptr));
  EXPECT_EQ(read(data_, 1)[0], 3u);
  steps[0].writeValue.value = 6;
  OK(CU(cuGraphExecBatchMemOpNodeSetParams)(exec, node, &params));
  OK(CU(cuGraphLaunch)(exec, nullptr));
  EXPECT_EQ(read(data_, 1)[0], 6u);
  steps.push_back(write_of(data_, 9));  // the number of operations is part of the shape
  params = of(steps);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecBatchMemOpNodeSetParams)(exec, node, &params));
  params.count = 1;
  steps[0] = wait_for(data_, 1);  // and so is what they are
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecBatchMemOpNodeSetParams)(exec, node, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphExecBatchMemOpNodeSetParams)(exec, node, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphBatchMemOpNodeGetParams)(node, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphBatchMemOpNodeGetParams)(nullptr, &back));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphBatchMemOpNodeSetParams)(node, nullptr));
}

TEST_F(GraphValues, wrong_operations) {
  std::vector<CUstreamBatchMemOpParams> steps = {write_of(0x1000, 3)};
  CUDA_BATCH_MEM_OP_NODE_PARAMS params = of(steps);
  CUgraphNode node = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, &params));
  steps[0] = write_of(data_ + 2, 3);  // not aligned
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, &params));
  steps[0] = wait_for(data_, 3);
  steps[0].waitValue.flags = 99;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, &params));
  steps[0] = write_of(data_, 3);
  params.flags = 1;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, &params));
  params.flags = 0;
  params.paramArray = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, &params));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, nullptr));
  params = of(steps);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddBatchMemOpNode)(&node, nullptr, nullptr, 0, &params));
  // The same outside of graphs.
  steps[0] = write_of(0x1000, 3);
  const CUstream work = stream();
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamBatchMemOp_v2)(work, 1, steps.data(), 0));
  steps[0] = write_of(data_, 3);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamBatchMemOp_v2)(work, 1, steps.data(), 1));
  GIVES(CUDA_SUCCESS, CU(cuStreamSynchronize)(work));
}

TEST_F(GraphValues, are_captured) {
  const CUstream work = stream();
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(CU(cuStreamWaitValue32_v2)(work, data_, 5, CU_STREAM_WAIT_VALUE_EQ));
  OK(CU(cuStreamWriteValue32_v2)(work, data_ + 4, 6, 0));
  OK(CU(cuStreamWriteValue64_v2)(work, data_ + 8, 0x700000008ull, 0));
  OK(CU(cuStreamWaitValue64_v2)(work, data_ + 8, 0x700000008ull, CU_STREAM_WAIT_VALUE_EQ));
  std::vector<CUstreamBatchMemOpParams> steps = {write_of(data_, 1), wait_for(data_, 1)};
  OK(CU(cuStreamBatchMemOp_v2)(work, 2, steps.data(), 0));
  CUgraph made = nullptr;
  OK(CU(cuStreamEndCapture)(work, &made));
  EXPECT_EQ(read(data_, 2)[1], 0u);
  size_t number = 0;
  OK(CU(cuGraphGetNodes)(made, nullptr, &number));
  EXPECT_EQ(number, 5u);
  CUgraphExec exec = nullptr;
  OK(CU(cuGraphInstantiateWithFlags)(&exec, made, 0));
  for (int i = 0; i < 2; i++) {
    OK(CU(cuGraphLaunch)(exec, work));
    GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(work));
    OK(CU(cuStreamWriteValue32_v2)(stream(), data_, 5, 0));
    OK(CU(cuStreamSynchronize)(work));
    EXPECT_EQ(read(data_, 4), (std::vector<uint32_t>{1, 6, 8, 7}));
  }
}

TEST_F(GraphValues, lie_in_host_memory_too) {
  void* host = nullptr;
  OK(CU(cuMemHostAlloc)(&host, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
  auto* shared = static_cast<volatile uint32_t*>(host);
  shared[0] = 0;
  shared[1] = 0;
  const auto address = reinterpret_cast<CUdeviceptr>(host);
  std::vector<CUstreamBatchMemOpParams> steps = {wait_for(address, 5), write_of(address + 4, 7)};
  CUDA_BATCH_MEM_OP_NODE_PARAMS params = of(steps);
  CUgraphNode node = nullptr;
  OK(CU(cuGraphAddBatchMemOpNode)(&node, graph_, nullptr, 0, &params));
  const CUstream work = stream();
  OK(CU(cuGraphLaunch)(instantiate(), work));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(work));
  shared[0] = 5;
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(shared[1], 7u);
}

class GraphArrays : public GraphValues {
 protected:
  void SetUp() override {
    GraphValues::SetUp();
    const CUDA_ARRAY_DESCRIPTOR shape{4, 2, CU_AD_FORMAT_UNSIGNED_INT32, 1};
    OK(CU(cuArrayCreate_v2)(&array_, &shape));
  }
  static CUDA_MEMCPY3D rows() {
    CUDA_MEMCPY3D box{};
    box.WidthInBytes = 16;
    box.Height = 2;
    box.Depth = 1;
    return box;
  }
  CUarray array_ = nullptr;
};

TEST_F(GraphArrays, are_copied) {
  static uint32_t values[8], back[8];
  CUDA_MEMCPY3D in = rows(), out = rows();
  in.srcMemoryType = out.dstMemoryType = CU_MEMORYTYPE_HOST;
  in.dstMemoryType = out.srcMemoryType = CU_MEMORYTYPE_ARRAY;
  in.srcHost = values;
  out.dstHost = back;
  in.dstArray = out.srcArray = array_;
  CUgraphNode first = nullptr, second = nullptr;
  OK(CU(cuGraphAddMemcpyNode)(&first, graph_, nullptr, 0, &in, context));
  OK(CU(cuGraphAddMemcpyNode)(&second, graph_, &first, 1, &out, context));
  const CUgraphExec exec = instantiate();
  for (uint32_t i = 1; i < 3; i++) {  // the source is read at each launch
    std::fill(values, values + 8, i);
    values[7] = 10 * i;
    OK(CU(cuGraphLaunch)(exec, nullptr));
    OK(CU(cuStreamSynchronize)(nullptr));
    EXPECT_EQ(back[0], i);
    EXPECT_EQ(back[7], 10 * i);
  }
  CUDA_MEMCPY3D read_back{};
  OK(CU(cuGraphMemcpyNodeGetParams)(first, &read_back));
  EXPECT_EQ(read_back.dstArray, array_);
  in.dstXInBytes = 4;  // out of the row
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddMemcpyNode)(&second, graph_, nullptr, 0, &in, context));
  in.dstXInBytes = 0;
  in.dstArray = nullptr;
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuGraphAddMemcpyNode)(&second, graph_, nullptr, 0, &in, context));
}

TEST_F(GraphArrays, are_copied_in_captures) {
  static uint32_t values[8] = {1, 2, 3, 4, 5, 6, 7, 8}, back[8];
  memset(back, 0, sizeof back);
  const CUstream work = stream();
  const CUdeviceptr memory = allocate(32);
  CUDA_MEMCPY2D flat{};
  flat.srcMemoryType = CU_MEMORYTYPE_ARRAY;
  flat.srcArray = array_;
  flat.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  flat.dstDevice = memory;
  flat.dstPitch = flat.WidthInBytes = 16;
  flat.Height = 2;
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(CU(cuMemcpyHtoAAsync_v2)(array_, 0, values, 32, work));
  OK(CU(cuMemcpy2DAsync_v2)(&flat, work));
  OK(CU(cuMemcpyDtoHAsync_v2)(back, memory, 32, work));
  CUgraph made = nullptr;
  OK(CU(cuStreamEndCapture)(work, &made));
  EXPECT_EQ(back[7], 0u);
  CUgraphExec exec = nullptr;
  OK(CU(cuGraphInstantiateWithFlags)(&exec, made, 0));
  OK(CU(cuGraphLaunch)(exec, work));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(back[0], 1u);
  EXPECT_EQ(back[7], 8u);
}

TEST_F(GraphArrays, boxes_are_one_node) {
  const CUdeviceptr from = words(std::vector<uint32_t>(16, 3)), to = words(std::vector<uint32_t>(16, 0));
  CUDA_MEMCPY3D box{};
  box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = from;
  box.dstDevice = to;
  box.srcPitch = box.dstPitch = 8;
  box.srcHeight = box.dstHeight = 2;
  box.WidthInBytes = 4;
  box.Height = 1;
  box.Depth = 4;
  const CUstream work = stream();
  OK(CU(cuStreamBeginCapture_v2)(work, CU_STREAM_CAPTURE_MODE_RELAXED));
  OK(CU(cuMemcpy3DAsync_v2)(&box, work));
  CUgraph made = nullptr;
  OK(CU(cuStreamEndCapture)(work, &made));
  size_t number = 0;
  OK(CU(cuGraphGetNodes)(made, nullptr, &number));
  EXPECT_EQ(number, 1u);
  CUgraphExec exec = nullptr;
  OK(CU(cuGraphInstantiateWithFlags)(&exec, made, 0));
  OK(CU(cuGraphLaunch)(exec, nullptr));
  EXPECT_EQ(read(to, 16), (std::vector<uint32_t>{3, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0}));
}

}  // namespace
}  // namespace conformance
