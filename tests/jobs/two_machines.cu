// Two virtual GPUs, of which one may be on another machine: a large copy from one to the other waits for a host
// function, while a kernel is launched that reaches page-locked memory for the first time.
//   ./two_machines [--from 0|1]

#include <unistd.h>

#include "job.h"

namespace {

constexpr size_t kBytes = 8 << 20;

__global__ void add(int* values) { values[threadIdx.x] += 1; }

void hold_up(void*) { usleep(300'000); }

}  // namespace

int main(int argc, char** argv) {
  const int from = (int)option(argc, argv, "--from", 0), to = 1 - from;
  char *here, *there, *touched, *landing;
  cudaStream_t stream;
  CHECK(cudaSetDevice(to));
  CHECK(cudaMalloc(&there, kBytes));
  CHECK(cudaMemset(there, 0, kBytes));
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaSetDevice(from));
  CHECK(cudaMalloc(&here, kBytes));
  CHECK(cudaMemset(here, 3, kBytes));
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaMallocHost(&touched, 1 << 20));
  CHECK(cudaMallocHost(&landing, 1 << 20));
  memset(touched, 0, 1 << 20);
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaLaunchHostFunc(stream, hold_up, nullptr));
  CHECK(cudaMemcpyPeerAsync(there, to, here, from, kBytes, stream));
  CHECK(cudaMemcpyAsync(landing, here, 1 << 20, cudaMemcpyDeviceToHost, stream));
  add<<<1, 32, 0, stream>>>((int*)touched);
  CHECK(cudaStreamSynchronize(stream));
  EXPECT(((int*)touched)[31] == 1, "%d", ((int*)touched)[31]);
  EXPECT(landing[(1 << 20) - 1] == 3, "%d came back", landing[(1 << 20) - 1]);
  CHECK(cudaMemcpy(landing, there + kBytes - 4096, 4096, cudaMemcpyDefault));
  EXPECT(landing[4095] == 3, "%d went over", landing[4095]);
  return verdict("two_machines");
}
