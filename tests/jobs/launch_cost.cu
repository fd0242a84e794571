// What an asynchronous launch with eight arguments costs the thread that makes it, by the runtime and by the driver
// API, beside the floor: writing a record of the same size into a ring in this process's own memory.
//   ./launch_cost [--batches N] [--launches N]

#include <cuda.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "job.h"

namespace {

__global__ void eight(float* a, float* b, float* c, float* d, int e, int f, float g, float h) {
  if (a != nullptr) *a = *b + *c + *d + (float)(e + f) + g + h;
}

constexpr size_t kRecordBytes = 128;  // a header, the grid, the block and eight arguments
constexpr size_t kRingBytes = 1 << 20;

// Nanoseconds of one call: the median over batches of a batch's mean; `after` is not timed.
template <typename Call, typename After>
double median_ns(int batches, int launches, Call call, After after) {
  std::vector<double> means;
  for (int batch = 0; batch < batches; batch++) {
    const double began = now_seconds();
    for (int i = 0; i < launches; i++) call(i);
    means.push_back(1e9 * (now_seconds() - began) / launches);
    after();
  }
  std::sort(means.begin(), means.end());
  return means[means.size() / 2];
}

struct Ring {
  std::vector<char> bytes = std::vector<char>(kRingBytes);
  std::atomic<size_t> written{0};
  void write(const char* record) {
    const size_t at = written.load(std::memory_order_relaxed);
    memcpy(&bytes[at % kRingBytes], record, kRecordBytes);
    written.store(at + kRecordBytes, std::memory_order_release);
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int batches = (int)option(argc, argv, "--batches", 101), launches = (int)option(argc, argv, "--launches", 64);
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const auto drain = [&] { CHECK(cudaStreamSynchronize(stream)); };

  const double runtime = median_ns(
      batches, launches,
      [&](int i) { eight<<<1, 32, 0, stream>>>(nullptr, nullptr, nullptr, nullptr, i, 2, 3.0f, 4.0f); }, drain);
  CHECK(cudaGetLastError());

  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  CHECK(cudaGetDriverEntryPointByVersion("cuLaunchKernel", &entry, 12000, cudaEnableDefault, &found));
  cudaFunction_t function;
  CHECK(cudaGetFuncBySymbol(&function, (const void*)eight));
  const auto launch = reinterpret_cast<decltype(&cuLaunchKernel)>(entry);
  void* null_pointer = nullptr;
  int e = 1, f = 2;
  float g = 3, h = 4;
  void* arguments[] = {&null_pointer, &null_pointer, &null_pointer, &null_pointer, &e, &f, &g, &h};
  int refused = 0;
  const double driver = median_ns(
      batches, launches,
      [&](int) {
        refused +=
            launch((CUfunction)function, 1, 1, 1, 32, 1, 1, 0, (CUstream)stream, arguments, nullptr) != CUDA_SUCCESS;
      },
      drain);
  EXPECT(refused == 0, "%d launches refused", refused);

  Ring ring;
  char record[kRecordBytes] = {};
  const double floor = median_ns(
      batches, launches,
      [&](int i) {
        memcpy(record, &i, sizeof i);
        ring.write(record);
      },
      [] {});
  printf("launch_runtime_ns %.1f\nlaunch_driver_ns %.1f\nfloor_ns %.1f\nruns %d\n", runtime, driver, floor, batches);
  return verdict("launch_cost");
}
