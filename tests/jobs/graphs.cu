// Captures a stream with a fork, launches the graph again and again, changes it now and then, and compares every result
// with plain C++.
//   ./graphs [--seconds N]

#include <stdint.h>

#include <vector>

#include "job.h"

namespace {

constexpr int kCount = 1 << 14;

__global__ void step(uint32_t* values, int count, uint32_t factor) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    values[i] = values[i] * factor + (uint32_t)i;
  }
}

__global__ void join(uint32_t* to, const uint32_t* a, const uint32_t* b, int count) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) to[i] = a[i] ^ b[i];
}

struct State {
  uint32_t *a, *b, *joined;
  std::vector<uint32_t> in, out;
  uint64_t called = 0;
};

void count_call(void* data) { ++static_cast<State*>(data)->called; }

// Two branches that meet again; the host gives the input and is called at the end.
cudaGraph_t capture(State* state, cudaStream_t stream, cudaStream_t side, uint32_t factor) {
  cudaEvent_t forked, done;
  CHECK(cudaEventCreateWithFlags(&forked, cudaEventDisableTiming));
  CHECK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK(cudaMemcpyAsync(state->a, state->in.data(), kCount * 4, cudaMemcpyHostToDevice, stream));
  CHECK(cudaEventRecord(forked, stream));
  CHECK(cudaStreamWaitEvent(side, forked, 0));
  CHECK(cudaMemsetAsync(state->b, 3, kCount * 4, side));
  step<<<8, 128, 0, side>>>(state->b, kCount, factor + 2);
  step<<<8, 128, 0, stream>>>(state->a, kCount, factor);
  CHECK(cudaEventRecord(done, side));
  CHECK(cudaStreamWaitEvent(stream, done, 0));
  join<<<8, 128, 0, stream>>>(state->joined, state->a, state->b, kCount);
  CHECK(cudaMemcpyAsync(state->out.data(), state->joined, kCount * 4, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaLaunchHostFunc(stream, count_call, state));
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaEventDestroy(forked));
  CHECK(cudaEventDestroy(done));
  return graph;
}

bool right(const State& state, uint32_t factor) {
  for (uint32_t i = 0; i < kCount; ++i) {
    const uint32_t a = state.in[i] * factor + i, b = 0x03030303u * (factor + 2) + i;
    if (state.out[i] != (a ^ b)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--seconds") == 0) seconds = atof(argv[i + 1]);
  }
  State state;
  state.in.resize(kCount);
  state.out.resize(kCount);
  CHECK(cudaMalloc(&state.a, kCount * 4));
  CHECK(cudaMalloc(&state.b, kCount * 4));
  CHECK(cudaMalloc(&state.joined, kCount * 4));
  cudaStream_t stream, side;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
  uint32_t factor = 5;
  cudaGraph_t graph = capture(&state, stream, side, factor);
  size_t nodes = 0;
  CHECK(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT(nodes == 7, "%zu", nodes);
  cudaGraphExec_t exec;
  CHECK(cudaGraphInstantiate(&exec, graph, 0));
  CHECK(cudaGraphDestroy(graph));
  uint64_t launches = 0;
  const double end = now_seconds() + seconds;
  while (now_seconds() < end || launches < 20) {
    for (int i = 0; i < kCount; i += 97) state.in[i] = (uint32_t)launches * 2654435761u + i;
    if (launches % 5 == 4) {
      factor += 3;
      graph = capture(&state, stream, side, factor);
      cudaGraphExecUpdateResultInfo info;
      CHECK(cudaGraphExecUpdate(exec, graph, &info));
      CHECK(cudaGraphDestroy(graph));
    }
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
    ++launches;
    EXPECT(state.called == launches, "%llu of %llu", (unsigned long long)state.called, (unsigned long long)launches);
    EXPECT(right(state, factor), "launch %llu", (unsigned long long)launches);
  }
  CHECK(cudaGraphExecDestroy(exec));
  return verdict("graphs");
}
