// Conditional nodes: the GPU decides which of their bodies run, and how often.
#include <cstdlib>

#include "fixture.h"

namespace conformance {
namespace {

// Kernels by one thread.
//   count_down(u64 handle, u64 word, u32 least): *word -= 1; the condition is whether *word > least
//   decide(u64 handle, u32 value): the condition's value
const char* const kDeciding = R"(.version 8.0
.target sm_80
.address_size 64
.extern .func cudaGraphSetConditional(.param .b64 handle, .param .b32 value);

.visible .entry count_down(.param .u64 handle, .param .u64 word, .param .u32 least) {
  .reg .pred %p<2>; .reg .b32 %r<4>; .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [handle]; ld.param.u64 %rd2, [word]; ld.param.u32 %r3, [least];
  ld.global.u32 %r1, [%rd2];
  sub.u32 %r1, %r1, 1;
  st.global.u32 [%rd2], %r1;
  setp.gt.u32 %p1, %r1, %r3;
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

.visible .entry decide(.param .u64 handle, .param .u32 value) {
  .reg .b32 %r<2>; .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [handle]; ld.param.u32 %r1, [value];
  {
  .param .b64 param0;
  st.param.b64 [param0+0], %rd1;
  .param .b32 param1;
  st.param.b32 [param1+0], %r1;
  call.uni cudaGraphSetConditional, (param0, param1);
  }
  ret;
}
)";

class Conditionals : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    OK(CU(cuModuleLoadData)(&module, kDeciding));
    OK(CU(cuGraphCreate)(&graph_, 0));
    data_ = words({0, 0, 0, 0});
  }
  CUgraphConditionalHandle handle(CUgraph in, unsigned value, unsigned flags = CU_GRAPH_COND_ASSIGN_DEFAULT) {
    CUgraphConditionalHandle made = 0;
    EXPECT_EQ(CU(cuGraphConditionalHandleCreate)(&made, in, context, value, flags), CUDA_SUCCESS);
    return made;
  }
  // The node's bodies.
  std::vector<CUgraph> conditional(CUgraph in, CUgraphConditionalHandle of, CUgraphConditionalNodeType type,
                                   unsigned bodies, std::vector<CUgraphNode> after = {}) {
    CUgraphNodeParams params{};
    params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
    params.conditional.handle = of;
    params.conditional.type = type;
    params.conditional.size = bodies;
    params.conditional.ctx = context;
    EXPECT_EQ(CU(cuGraphAddNode)(&last_, in, after.data(), after.size(), &params), CUDA_SUCCESS);
    if (params.conditional.phGraph_out == nullptr) return std::vector<CUgraph>(bodies);
    return {params.conditional.phGraph_out, params.conditional.phGraph_out + bodies};
  }
  CUgraphNode kernel(CUgraph in, const char* name, std::vector<void*> parameters, std::vector<CUgraphNode> after = {}) {
    CUDA_KERNEL_NODE_PARAMS params{};
    params.func = function(name);
    params.gridDimX = params.gridDimY = params.gridDimZ = 1;
    params.blockDimX = params.blockDimY = params.blockDimZ = 1;
    params.kernelParams = parameters.data();
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddKernelNode_v2)(&node, in, after.data(), after.size(), &params), CUDA_SUCCESS);
    return node;
  }
  CUgraphNode decide(CUgraph in, CUgraphConditionalHandle which, unsigned value, std::vector<CUgraphNode> after = {}) {
    return kernel(in, "decide", {&which, &value}, std::move(after));
  }
  CUgraphNode count_down(CUgraph in, CUgraphConditionalHandle which, CUdeviceptr word, unsigned least) {
    return kernel(in, "count_down", {&which, &word, &least});
  }
  CUgraphNode fill(CUgraph in, CUdeviceptr address, unsigned value, std::vector<CUgraphNode> after = {}) {
    CUDA_MEMSET_NODE_PARAMS params{};
    params.dst = address;
    params.elementSize = 4;
    params.value = value;
    params.width = params.height = 1;
    CUgraphNode node = nullptr;
    EXPECT_EQ(CU(cuGraphAddMemsetNode)(&node, in, after.data(), after.size(), &params, context), CUDA_SUCCESS);
    return node;
  }
  CUgraphExec instantiate() {
    CUgraphExec made = nullptr;
    EXPECT_EQ(CU(cuGraphInstantiateWithFlags)(&made, graph_, 0), CUDA_SUCCESS);
    return made;
  }
  std::vector<uint32_t> launched(CUgraphExec exec) {
    const CUstream work = stream();
    EXPECT_EQ(CU(cuGraphLaunch)(exec, work), CUDA_SUCCESS);
    EXPECT_EQ(CU(cuStreamSynchronize)(work), CUDA_SUCCESS);
    return read(data_, 4);
  }
  CUgraph graph_ = nullptr;
  CUgraphNode last_ = nullptr;
  CUdeviceptr data_ = 0;
};

TEST_F(Conditionals, choose_by_a_default) {
  const auto yes = handle(graph_, 1), no = handle(graph_, 0);
  fill(conditional(graph_, yes, CU_GRAPH_COND_TYPE_IF, 1)[0], data_, 7);
  fill(conditional(graph_, no, CU_GRAPH_COND_TYPE_IF, 1)[0], data_ + 4, 8);
  EXPECT_EQ(launched(instantiate()), (std::vector<uint32_t>{7, 0, 0, 0}));
}

TEST_F(Conditionals, choose_by_what_a_kernel_said) {
  const auto which = handle(graph_, 1);
  const CUgraphNode set = decide(graph_, which, 0);
  const auto bodies = conditional(graph_, which, CU_GRAPH_COND_TYPE_IF, 2, {set});
  fill(bodies[0], data_, 7);
  fill(bodies[1], data_, 8);  // else
  fill(graph_, data_ + 4, 9, {last_});
  const CUgraphExec exec = instantiate();
  EXPECT_EQ(launched(exec), (std::vector<uint32_t>{8, 9, 0, 0}));
  CUgraphConditionalHandle of = which;
  unsigned value = 3;
  void* parameters[] = {&of, &value};
  CUDA_KERNEL_NODE_PARAMS params{};
  OK(CU(cuGraphKernelNodeGetParams_v2)(set, &params));
  params.kernelParams = parameters;
  OK(CU(cuGraphExecKernelNodeSetParams_v2)(exec, set, &params));
  EXPECT_EQ(launched(exec), (std::vector<uint32_t>{7, 9, 0, 0}));
}

TEST_F(Conditionals, repeat) {
  const auto which = handle(graph_, 1);
  const CUgraphNode begin = fill(graph_, data_, 10);
  const auto bodies = conditional(graph_, which, CU_GRAPH_COND_TYPE_WHILE, 1, {begin});
  count_down(bodies[0], which, data_, 4);
  const CUgraphExec exec = instantiate();
  for (int i = 0; i < 2; i++) EXPECT_EQ(launched(exec)[0], 4u);  // the default is assigned at each launch
}

TEST_F(Conditionals, choose_one_of_many) {
  const auto which = handle(graph_, 0);
  const CUgraphNode set = decide(graph_, which, 2);
  const auto bodies = conditional(graph_, which, CU_GRAPH_COND_TYPE_SWITCH, 4, {set});
  for (unsigned i = 0; i < 4; i++) fill(bodies[i], data_ + 4 * i, i + 1);
  EXPECT_EQ(launched(instantiate()), (std::vector<uint32_t>{0, 0, 3, 0}));
}

TEST_F(Conditionals, choose_none_of_many) {
  const auto which = handle(graph_, 9);
  const auto bodies = conditional(graph_, which, CU_GRAPH_COND_TYPE_SWITCH, 2);
  for (unsigned i = 0; i < 2; i++) fill(bodies[i], data_, 1);
  EXPECT_EQ(launched(instantiate())[0], 0u);
}

// The handle is the outer graph's, and so is the kernel that sets it; the node lies in a body.
TEST_F(Conditionals, are_decided_from_outside) {
  const auto outer = handle(graph_, 1), inner = handle(graph_, 0);
  const CUgraphNode set = decide(graph_, inner, 1);
  const auto body = conditional(graph_, outer, CU_GRAPH_COND_TYPE_IF, 1, {set})[0];
  fill(conditional(body, inner, CU_GRAPH_COND_TYPE_IF, 1)[0], data_, 7);
  EXPECT_EQ(launched(instantiate())[0], 7u);
}

TEST_F(Conditionals, lie_in_each_other) {
  const auto outer = handle(graph_, 1);
  const CUgraphNode begin = fill(graph_, data_, 5);
  const auto body = conditional(graph_, outer, CU_GRAPH_COND_TYPE_WHILE, 1, {begin})[0];
  const auto inner = handle(body, 1);
  fill(conditional(body, inner, CU_GRAPH_COND_TYPE_IF, 1)[0], data_ + 4, 6);
  decide(body, inner, 0, {last_});
  count_down(body, outer, data_, 2);
  const CUgraphExec exec = instantiate();
  for (int i = 0; i < 2; i++) {  // the inner default, too, is assigned at each launch
    EXPECT_EQ(launched(exec), (std::vector<uint32_t>{2, 6, 0, 0}));
    OK(CU(cuMemsetD32_v2)(data_ + 4, 0, 1));
    OK(CU(cuCtxSynchronize)());  // the next launch's stream does not wait for it
  }
}

TEST_F(Conditionals, stand_between_what_the_host_does) {
  static uint32_t before, after;
  before = after = 0;
  const auto which = handle(graph_, 1);
  CUDA_HOST_NODE_PARAMS call{};
  call.fn = [](void* flag) { *static_cast<uint32_t*>(flag) = 1; };
  call.userData = &before;
  CUgraphNode first = nullptr, second = nullptr;
  OK(CU(cuGraphAddHostNode)(&first, graph_, nullptr, 0, &call));
  fill(conditional(graph_, which, CU_GRAPH_COND_TYPE_IF, 1, {first})[0], data_, 7);
  CUDA_MEMCPY3D box{};
  box.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = data_;
  box.dstMemoryType = CU_MEMORYTYPE_HOST;
  box.dstHost = &after;
  box.WidthInBytes = 4;
  box.Height = box.Depth = 1;
  OK(CU(cuGraphAddMemcpyNode)(&second, graph_, &last_, 1, &box, context));
  launched(instantiate());
  EXPECT_EQ(before, 1u);
  EXPECT_EQ(after, 7u);
}

TEST_F(Conditionals, wait_for_their_stream) {
  const auto which = handle(graph_, 1);
  fill(conditional(graph_, which, CU_GRAPH_COND_TYPE_IF, 1)[0], data_, 7);
  const CUstream work = stream();
  CUmodule others = nullptr;
  CUfunction spin = nullptr;
  OK(CU(cuModuleLoadData)(&others, kKernels));
  OK(CU(cuModuleGetFunction)(&spin, others, "spin_until"));
  CUdeviceptr flag = words({0});
  OK(launch(spin, {&flag}, work));
  OK(CU(cuGraphLaunch)(instantiate(), work));
  OK(CU(cuMemsetD32Async)(data_ + 4, 8, 1, work));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(work));
  EXPECT_EQ(read(data_, 1)[0], 0u);
  OK(CU(cuMemsetD32Async)(flag, 1, 1, stream()));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(read(data_, 2), (std::vector<uint32_t>{7, 8}));
}

TEST_F(Conditionals, wrong_arguments) {
  CUgraphConditionalHandle made = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphConditionalHandleCreate)(nullptr, graph_, context, 1, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphConditionalHandleCreate)(&made, nullptr, context, 1, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphConditionalHandleCreate)(&made, graph_, context, 1, 8));
  CUgraphNodeParams params{};
  params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  params.conditional.handle = 12345;  // nobody's
  params.conditional.type = CU_GRAPH_COND_TYPE_IF;
  params.conditional.size = 1;
  params.conditional.ctx = context;
  CUgraphNode node = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode)(&node, graph_, nullptr, 0, &params));
  params.conditional.handle = handle(graph_, 1);
  params.conditional.size = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode)(&node, graph_, nullptr, 0, &params));
  params.conditional.type = CU_GRAPH_COND_TYPE_WHILE;
  params.conditional.size = 2;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode)(&node, graph_, nullptr, 0, &params));
  CUgraphExec exec = nullptr;
  CUDA_GRAPH_INSTANTIATE_PARAMS how{};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphInstantiateWithParams)(&exec, graph_, &how));  // no node has the handle
  EXPECT_EQ(how.result_out, CUDA_GRAPH_INSTANTIATE_CONDITIONAL_HANDLE_UNUSED);
  params.conditional.size = 1;
  OK(CU(cuGraphAddNode)(&node, graph_, nullptr, 0, &params));
  CUgraphNode again = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode)(&again, graph_, nullptr, 0, &params));  // one node has it
  CUgraph other = nullptr;
  OK(CU(cuGraphCreate)(&other, 0));
  params.conditional.handle = handle(graph_, 1);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGraphAddNode)(&again, other, nullptr, 0, &params));  // of another graph
}

class BlockingConditionals : public Conditionals {
 protected:
  void SetUp() override {
    setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
    Conditionals::SetUp();
  }
};

TEST_F(BlockingConditionals, are_launched) {
  const auto which = handle(graph_, 1);
  const CUgraphNode set = decide(graph_, which, 1);
  const auto bodies = conditional(graph_, which, CU_GRAPH_COND_TYPE_IF, 1, {set});
  fill(bodies[0], data_, 7);
  EXPECT_EQ(launched(instantiate())[0], 7u);
}

}  // namespace
}  // namespace conformance
