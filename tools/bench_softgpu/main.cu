// What tools/bench --softgpu runs: three kernels beside the same work in plain C++, compiled with the same flags in the
// same program, and what the driver costs around them. Prints "name value" lines; a wrong result ends it with 1.

#include <cuda.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/clock.h"

#define OK(call)                                                                                  \
  do {                                                                                            \
    const auto result = (call);                                                                   \
    if (result != decltype(result){}) {                                                           \
      std::fprintf(stderr, "%s: error %d, line %d\n", #call, static_cast<int>(result), __LINE__); \
      std::exit(1);                                                                               \
    }                                                                                             \
  } while (false)

namespace {

constexpr int kTile = 32;
constexpr int kSide = 512;
constexpr int kElements = 1 << 22;
constexpr int kReduced = 1 << 20;

double seconds() { return static_cast<double>(tide::now_ns()) / 1e9; }

// The best of several runs, in seconds.
template <class Body>
double best_of(int runs, Body body) {
  double best = 1e30;
  for (int i = 0; i < runs; ++i) {
    const double began = seconds();
    body();
    best = std::min(best, seconds() - began);
  }
  return best;
}

void wrong(const char* what) {
  std::fprintf(stderr, "%s: wrong result\n", what);
  std::exit(1);
}

__global__ void add_vectors(const float* a, const float* b, float* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = a[i] + b[i];
}

__global__ void multiply_tiled(const float* a, const float* b, float* out, int side) {
  __shared__ float left[kTile][kTile], right[kTile][kTile];
  const int row = blockIdx.y * kTile + threadIdx.y, column = blockIdx.x * kTile + threadIdx.x;
  float sum = 0;
  for (int t = 0; t < side; t += kTile) {
    left[threadIdx.y][threadIdx.x] = a[row * side + t + threadIdx.x];
    right[threadIdx.y][threadIdx.x] = b[(t + threadIdx.y) * side + column];
    __syncthreads();
    for (int k = 0; k < kTile; ++k) sum += left[threadIdx.y][k] * right[k][threadIdx.x];
    __syncthreads();
  }
  out[row * side + column] = sum;
}

__global__ void reduce_shuffled(const int* in, int* out) {
  __shared__ int sums[32];
  int value = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffff, value, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  value = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0;
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffff, value, step);
  if (threadIdx.x == 0) out[blockIdx.x] = value;
}

__global__ void nothing() {}

// The same in plain C++. Not inlined: the compiler shall not see that the results of a run are not used.
__attribute__((noinline)) void plain_add(const float* a, const float* b, float* __restrict__ out, int count) {
  for (int i = 0; i < count; ++i) out[i] = a[i] + b[i];
}

__attribute__((noinline)) void plain_multiply(const float* a, const float* b, float* __restrict__ out, int side) {
  std::fill_n(out, side * side, 0.0f);
  for (int row = 0; row < side; ++row) {
    for (int k = 0; k < side; ++k) {
      const float factor = a[row * side + k];
      for (int column = 0; column < side; ++column) out[row * side + column] += factor * b[k * side + column];
    }
  }
}

__attribute__((noinline)) int plain_reduce(const int* in, int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) sum += in[i];
  return sum;
}

template <class T>
struct Pair {
  std::vector<T> host;
  T* device = nullptr;
  explicit Pair(size_t count) : host(count) { OK(cudaMalloc(&device, count * sizeof(T))); }
  ~Pair() { cudaFree(device); }
  void up() { OK(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice)); }
  std::vector<T> down() const {
    std::vector<T> out(host.size());
    OK(cudaMemcpy(out.data(), device, out.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }
};

void bench_add(int runs) {
  Pair<float> a(kElements), b(kElements), out(kElements);
  for (int i = 0; i < kElements; ++i) a.host[i] = static_cast<float>(i % 1000), b.host[i] = static_cast<float>(i % 77);
  a.up(), b.up();
  const double plain = best_of(runs, [&] { plain_add(a.host.data(), b.host.data(), out.host.data(), kElements); });
  const double gpu = best_of(runs, [&] {
    add_vectors<<<kElements / 256, 256>>>(a.device, b.device, out.device, kElements);
    OK(cudaDeviceSynchronize());
  });
  if (out.down() != out.host) wrong("add_vectors");
  std::printf("add_gelem %.6f\nadd_plain_gelem %.6f\n", kElements / gpu / 1e9, kElements / plain / 1e9);
}

void bench_multiply(int runs) {
  constexpr size_t kCells = size_t{kSide} * kSide;
  Pair<float> a(kCells), b(kCells), out(kCells);
  for (size_t i = 0; i < kCells; ++i) a.host[i] = static_cast<float>(i % 7), b.host[i] = static_cast<float>(i % 5);
  a.up(), b.up();
  const double plain = best_of(runs, [&] { plain_multiply(a.host.data(), b.host.data(), out.host.data(), kSide); });
  const double gpu = best_of(runs, [&] {
    multiply_tiled<<<dim3(kSide / kTile, kSide / kTile), dim3(kTile, kTile)>>>(a.device, b.device, out.device, kSide);
    OK(cudaDeviceSynchronize());
  });
  if (out.down() != out.host) wrong("multiply_tiled");  // small integers: exact in any order
  const double work = 2.0 * kSide * kSide * kSide / 1e9;
  std::printf("multiply_gflops %.6f\nmultiply_plain_gflops %.6f\n", work / gpu, work / plain);
}

void bench_reduce(int runs) {
  Pair<int> in(kReduced), out(kReduced / 1024);
  for (int i = 0; i < kReduced; ++i) in.host[i] = i * 7 % 1013;
  in.up();
  volatile int sum = 0;
  const double plain = best_of(4 * runs, [&] { sum = plain_reduce(in.host.data(), kReduced); });
  const double gpu = best_of(runs, [&] {
    reduce_shuffled<<<kReduced / 1024, 1024>>>(in.device, out.device);
    OK(cudaDeviceSynchronize());
  });
  const std::vector<int> parts = out.down();
  if (plain_reduce(parts.data(), kReduced / 1024) != sum) wrong("reduce_shuffled");
  std::printf("reduce_gelem %.6f\nreduce_plain_gelem %.6f\n", kReduced / gpu / 1e9, kReduced / plain / 1e9);
}

void bench_launch() {
  constexpr int kLaunches = 10000;
  nothing<<<1, 32>>>();
  OK(cudaDeviceSynchronize());
  const double all = best_of(5, [&] {
    for (int i = 0; i < kLaunches; ++i) nothing<<<1, 32>>>();
    OK(cudaDeviceSynchronize());
  });
  const double call = best_of(5, [&] {
    for (int i = 0; i < 100; ++i) nothing<<<1, 32>>>();
  });
  OK(cudaDeviceSynchronize());
  const double round = best_of(5, [&] {
    for (int i = 0; i < 1000; ++i) {
      nothing<<<1, 32>>>();
      OK(cudaDeviceSynchronize());
    }
  });
  std::printf("launch_us %.3f\nlaunch_call_us %.3f\nlaunch_synchronize_us %.3f\n", all / kLaunches * 1e6,
              call / 100 * 1e6, round / 1000 * 1e6);
}

// A module like those of libraries: kernels of some hundred instructions.
std::string large_module(size_t bytes) {
  std::string text = ".version 8.0\n.target sm_80\n.address_size 64\n";
  for (int k = 0; text.size() < bytes; ++k) {
    text += ".visible .entry kernel_of_a_library_" + std::to_string(k) +
            "(.param .u64 in, .param .u64 out, .param .u32 count)\n{\n.reg .pred %p<4>;\n.reg .b32 %r<40>;\n"
            ".reg .f32 %f<130>;\n.reg .b64 %rd<20>;\n.shared .align 4 .b8 tile[1024];\n"
            "ld.param.u64 %rd1, [in];\nld.param.u64 %rd2, [out];\nld.param.u32 %r1, [count];\n"
            "mov.u32 %r2, %ctaid.x;\nmov.u32 %r3, %ntid.x;\nmov.u32 %r4, %tid.x;\nmad.lo.s32 %r5, %r2, %r3, %r4;\n"
            "setp.ge.s32 %p1, %r5, %r1;\n@%p1 bra $done;\ncvta.to.global.u64 %rd3, %rd1;\n"
            "mul.wide.s32 %rd4, %r5, 4;\nadd.s64 %rd5, %rd3, %rd4;\nmov.f32 %f0, 0f3F800000;\n";
    for (int i = 1; i < 60; ++i) {
      const std::string n = std::to_string(i), m = std::to_string(i - 1), o = std::to_string(i + 60);
      text += "ld.global.f32 %f" + o + ", [%rd5+" + std::to_string(4 * i) + "];\nfma.rn.f32 %f" + n + ", %f" + m +
              ", %f" + o + ", 0f3F000000;\nsetp.gt.f32 %p2, %f" + n + ", 0f00000000;\nselp.f32 %f" + n + ", %f" + n +
              ", %f" + m + ", %p2;\n";
    }
    text += "cvta.to.global.u64 %rd6, %rd2;\nadd.s64 %rd7, %rd6, %rd4;\nst.global.f32 [%rd7], %f59;\n$done:\nret;\n}\n";
  }
  return text;
}

void bench_load() {
  const std::string text = large_module(25 << 20);
  const double load = best_of(2, [&] {
    CUmodule module = nullptr;
    CUfunction function = nullptr;
    OK(cuModuleLoadData(&module, text.c_str()));
    OK(cuModuleGetFunction(&function, module, "kernel_of_a_library_17"));
    OK(cuModuleUnload(module));
  });
  std::printf("load_ms %.1f\nload_megabytes %.1f\n", load * 1e3, static_cast<double>(text.size()) / (1 << 20));
}

long status_value(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) == 0) return std::atol(line.c_str() + std::strlen(key));
  }
  return -1;
}

// What the process weighs when it has counted its devices and used none.
void idle() {
  const long before_kib = status_value("VmRSS:");
  int count = 0;
  OK(cuInit(0));
  OK(cuDeviceGetCount(&count));
  size_t names = 0;
  for (int i = 0; i < count; ++i) {
    char name[64];
    OK(cuDeviceGetName(name, sizeof(name), i));
    names += std::strlen(name);
  }
  if (names == 0) wrong("names of devices");
  std::printf("devices %d\nidle_kib %ld\nidle_threads %ld\n", count, status_value("VmRSS:") - before_kib,
              status_value("Threads:") - 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "idle") == 0) {
    idle();
    return 0;
  }
  const int runs = argc > 1 ? std::atoi(argv[1]) : 5;
  OK(cudaFree(nullptr));
  bench_add(runs);
  bench_multiply(runs);
  bench_reduce(runs);
  bench_launch();
  bench_load();
  return 0;
}
