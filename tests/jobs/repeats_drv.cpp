// A graph whose conditional node repeats its body until a kernel says so, launched over and over.
//   repeats_drv --seconds N

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

namespace {

// count_down(u64 condition, u64 word, u32 least): *word -= 1; the condition is whether *word > least
const char kModule[] = R"(
.version 8.0
.target sm_80
.address_size 64
.extern .func cudaGraphSetConditional(.param .b64 condition, .param .b32 value);
.visible .entry count_down(.param .u64 condition, .param .u64 word, .param .u32 least) {
  .reg .pred %p;
  .reg .b32 %r<3>;
  .reg .b64 %d<2>;
  ld.param.u64 %d0, [condition];
  ld.param.u64 %d1, [word];
  ld.param.u32 %r2, [least];
  ld.global.u32 %r0, [%d1];
  sub.u32 %r0, %r0, 1;
  st.global.u32 [%d1], %r0;
  setp.gt.u32 %p, %r0, %r2;
  selp.u32 %r1, 1, 0, %p;
  {
  .param .b64 param0;
  st.param.b64 [param0+0], %d0;
  .param .b32 param1;
  st.param.b32 [param1+0], %r1;
  call.uni cudaGraphSetConditional, (param0, param1);
  }
  ret;
}
)";

void check(CUresult result, const char* what, int line) {
  if (result == CUDA_SUCCESS) return;
  const char* name = "?";
  cuGetErrorName(result, &name);
  fprintf(stderr, "repeats_drv: line %d: %s: %s (%d)\n", line, what, name, static_cast<int>(result));
  exit(1);
}
#define CHECK(call) check((call), #call, __LINE__)

constexpr unsigned kFrom = 20, kLeast = 3;

// word = kFrom, then down to kLeast, one by one.
CUgraphExec make_graph(CUcontext context, CUfunction count_down, CUdeviceptr word) {
  CUgraph graph = nullptr;
  CUgraphNode first = nullptr, loop = nullptr, step = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUDA_MEMSET_NODE_PARAMS fill = {};
  fill.dst = word;
  fill.value = kFrom;
  fill.elementSize = 4;
  fill.width = fill.height = 1;
  CHECK(cuGraphAddMemsetNode(&first, graph, nullptr, 0, &fill, context));
  CUgraphNodeParams params = {};
  params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  params.conditional.type = CU_GRAPH_COND_TYPE_WHILE;
  params.conditional.size = 1;
  params.conditional.ctx = context;
  CHECK(cuGraphConditionalHandleCreate(&params.conditional.handle, graph, context, 1, CU_GRAPH_COND_ASSIGN_DEFAULT));
  CHECK(cuGraphAddNode_v2(&loop, graph, &first, nullptr, 1, &params));
  unsigned least = kLeast;
  void* arguments[] = {&params.conditional.handle, &word, &least};
  CUDA_KERNEL_NODE_PARAMS kernel = {};
  kernel.func = count_down;
  kernel.gridDimX = kernel.gridDimY = kernel.gridDimZ = 1;
  kernel.blockDimX = kernel.blockDimY = kernel.blockDimZ = 1;
  kernel.kernelParams = arguments;
  CHECK(cuGraphAddKernelNode(&step, params.conditional.phGraph_out[0], nullptr, 0, &kernel));
  CUgraphExec exec = nullptr;
  CHECK(cuGraphInstantiate(&exec, graph, 0));
  return exec;
}

}  // namespace

int main(int argc, char** argv) {
  const int seconds = argc == 3 && strcmp(argv[1], "--seconds") == 0 ? atoi(argv[2]) : 1;
  CUcontext context = nullptr;
  CUmodule module = nullptr;
  CUfunction count_down = nullptr;
  CUdeviceptr word = 0;
  CUstream stream = nullptr;
  CHECK(cuInit(0));
  CHECK(cuDevicePrimaryCtxRetain(&context, 0));
  CHECK(cuCtxSetCurrent(context));
  CHECK(cuModuleLoadData(&module, kModule));
  CHECK(cuModuleGetFunction(&count_down, module, "count_down"));
  CHECK(cuMemAlloc(&word, 4));
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUgraphExec exec = make_graph(context, count_down, word);
  const time_t end = time(nullptr) + seconds;
  do {
    unsigned left = 0;
    for (int i = 0; i < 20; i++) CHECK(cuGraphLaunch(exec, stream));
    CHECK(cuMemcpyDtoHAsync(&left, word, sizeof left, stream));
    CHECK(cuStreamSynchronize(stream));
    if (left != kLeast) {
      fprintf(stderr, "repeats_drv: the last one left %u, not %u\n", left, kLeast);
      return 1;
    }
  } while (time(nullptr) < end);
  printf("repeats_drv: all right\n");
  return 0;
}
