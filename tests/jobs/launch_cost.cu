// What an asynchronous launch with eight arguments costs the threads that make it, by the runtime and by the driver
// API, beside the floor: writing a record of the same size into a ring in this process's own memory. And how fast
// launches are executed when they come without a pause. Meant for a driver that runs no kernels (tools/bench_driver).
//   ./launch_cost [--batches N] [--launches N] [--burst N]

#include <cuda.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "job.h"

namespace {

__global__ void eight(float* a, float* b, float* c, float* d, int e, int f, float g, float h) {
  if (a != nullptr) *a = *b + *c + *d + (float)(e + f) + g + h;
}

constexpr size_t kRecordBytes = 128;  // a header, the grid, the block and eight arguments
constexpr size_t kRingBytes = 1 << 20;

double median(std::vector<double>& values, double share = 0.5) {
  std::sort(values.begin(), values.end());
  return values[(size_t)((double)values.size() * share)];
}

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
  return median(means);
}

// Of calls that are timed one by one, the one that 1 % exceed. The clock's own time is in it.
template <typename Call, typename After>
double percentile_ns(int batches, int launches, Call call, After after) {
  std::vector<double> times;
  for (int batch = 0; batch < batches; batch++) {
    for (int i = 0; i < launches; i++) {
      const double began = now_seconds();
      call(i);
      times.push_back(1e9 * (now_seconds() - began));
    }
    after();
  }
  return median(times, 0.99);
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

// The driver's function itself, for one kernel.
class Launcher {
 public:
  Launcher() {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found;
    CHECK(cudaGetDriverEntryPointByVersion("cuLaunchKernel", &entry, 12000, cudaEnableDefault, &found));
    CHECK(cudaGetFuncBySymbol(&function_, (const void*)eight));
    launch_ = reinterpret_cast<decltype(launch_)>(entry);
  }
  void operator()(cudaStream_t stream) {
    void* arguments[] = {&null_, &null_, &null_, &null_, &e_, &f_, &g_, &h_};
    const CUresult result = launch_((CUfunction)function_, 1, 1, 1, 32, 1, 1, 0, (CUstream)stream, arguments, nullptr);
    if (result != CUDA_SUCCESS) refused_.fetch_add(1);
  }
  int refused() const { return refused_.load(); }

 private:
  decltype(&cuLaunchKernel) launch_ = nullptr;
  cudaFunction_t function_ = nullptr;
  void* null_ = nullptr;
  int e_ = 1, f_ = 2;
  float g_ = 3, h_ = 4;
  std::atomic<int> refused_{0};
};

cudaStream_t new_stream() {
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

// Each thread on a stream of its own; the median of their figures.
double of_threads(int threads, int batches, int launches, Launcher& launch) {
  std::vector<double> figures(threads);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; t++) {
    running.emplace_back([&, t] {
      cudaStream_t stream = new_stream();
      figures[t] = median_ns(
          batches, launches, [&](int) { launch(stream); }, [&] { CHECK(cudaStreamSynchronize(stream)); });
    });
  }
  for (std::thread& thread : running) thread.join();
  return median(figures);
}

// Launches executed in a second: many at once, until the last is done.
double executed_per_second(int batches, int launches, Launcher& launch, cudaStream_t stream) {
  std::vector<double> rates;
  for (int batch = 0; batch < batches; batch++) {
    const double began = now_seconds();
    for (int i = 0; i < launches; i++) launch(stream);
    CHECK(cudaStreamSynchronize(stream));
    rates.push_back(launches / (now_seconds() - began));
  }
  return median(rates);
}

}  // namespace

int main(int argc, char** argv) {
  const int burst = (int)option(argc, argv, "--burst", 1000);
  const int batches = (int)option(argc, argv, "--batches", 101), launches = (int)option(argc, argv, "--launches", 64);
  cudaStream_t stream = new_stream();
  const auto drain = [&] { CHECK(cudaStreamSynchronize(stream)); };
  const auto by_runtime = [&](int i) {
    eight<<<1, 32, 0, stream>>>(nullptr, nullptr, nullptr, nullptr, i, 2, 3.0f, 4.0f);
  };
  Launcher launch;
  const auto by_driver = [&](int) { launch(stream); };
  const double runtime = median_ns(batches, launches, by_runtime, drain);
  CHECK(cudaGetLastError());
  const double driver = median_ns(batches, launches, by_driver, drain);
  const double p99 = percentile_ns(batches, launches, by_driver, drain);
  const double two = of_threads(2, batches, launches, launch), all_eight = of_threads(8, batches, launches, launch);
  const double rate = executed_per_second(21, burst, launch, stream);
  EXPECT(launch.refused() == 0, "%d launches refused", launch.refused());

  Ring ring;
  char record[kRecordBytes] = {};
  const double floor = median_ns(
      batches, launches,
      [&](int i) {
        memcpy(record, &i, sizeof i);
        ring.write(record);
      },
      [] {});
  printf("launch_runtime_ns %.1f\nlaunch_driver_ns %.1f\nlaunch_p99_ns %.1f\n", runtime, driver, p99);
  printf("launch_2_threads_ns %.1f\nlaunch_8_threads_ns %.1f\n", two, all_eight);
  printf("executed_per_second %.0f\nfloor_ns %.1f\nruns %d\n", rate, floor, batches);
  return verdict("launch_cost");
}
