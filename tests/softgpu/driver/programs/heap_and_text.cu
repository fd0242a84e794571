// nvcc: -arch=sm_80
// malloc and free in kernels, printf, and assert, which ends the context.
#include <fcntl.h>
#include <unistd.h>

#include <cassert>
#include <string>

#include "expect.h"

__global__ void build(int** lists) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  int* list = static_cast<int*>(malloc(16 * sizeof(int)));
  for (int k = 0; list != nullptr && k < 16; ++k) list[k] = i * k;
  lists[i] = list;
}
__global__ void add_up(int** lists, int* sums) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  for (int k = 0; k < 16; ++k) sums[i] += lists[i][k];
  free(lists[i]);
}
__global__ void exhaust(unsigned long long* got) {
  void* last = nullptr;
  while (void* p = malloc(64 << 10)) {
    *static_cast<void**>(p) = last;
    last = p;
    *got += 64 << 10;
  }
  while (last != nullptr) {
    void* next = *static_cast<void**>(last);
    free(last);
    last = next;
  }
}
__global__ void speak(const char* word) {
  const int count = printf("%d|%5d|%-5u|%x|%lld|%c|%%|%s\n", -7, 42, 7u, 255, 1ll << 40, 'z', word);
  printf("%.3f %e %g count %d\n", 1.5, 12345.678, 0.0001, count);
  printf("no arguments\n");
}
__global__ void babble() {
  for (int i = 0; i < 20000; ++i) printf("%d and a text that is rather long, so that the buffer is soon full\n", i);
}
__global__ void check(int n) { assert(threadIdx.x != 3 || n == 0); }

// What the GPU has printed meanwhile.
template <typename F>
std::string captured(int descriptor, F run) {
  std::fflush(nullptr);
  char name[] = "/tmp/softgpu_text_XXXXXX";
  const int file = mkstemp(name), before = dup(descriptor);
  unlink(name);
  dup2(file, descriptor);
  run();
  std::fflush(nullptr);
  dup2(before, descriptor);
  std::string text(static_cast<size_t>(lseek(file, 0, SEEK_END)), '\0');
  const ssize_t n = pread(file, &text[0], text.size(), 0);
  close(file);
  close(before);
  EXPECT(n == static_cast<ssize_t>(text.size()));
  return text;
}

int main() {
  constexpr int kThreads = 4 * 64;
  int **lists = nullptr, *sums = nullptr, host[kThreads];
  CALL(cudaMalloc(&lists, kThreads * sizeof(*lists)));
  CALL(cudaMalloc(&sums, sizeof(host)));
  CALL(cudaMemset(sums, 0, sizeof(host)));
  CALL(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 4 << 20));
  build<<<4, 64>>>(lists);
  CALL(cudaDeviceSynchronize());
  EXPECT(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 16 << 20) == cudaErrorInvalidValue);
  add_up<<<4, 64>>>(lists, sums);
  CALL(cudaMemcpy(host, sums, sizeof(host), cudaMemcpyDeviceToHost));
  for (int i = 0; i < kThreads; ++i) EXPECT(host[i] == 120 * i);
  unsigned long long *got = nullptr, bytes[2] = {};
  CALL(cudaMalloc(&got, 2 * sizeof(*got)));
  CALL(cudaMemset(got, 0, 2 * sizeof(*got)));
  for (int round = 0; round < 2; ++round) {
    exhaust<<<1, 1>>>(got + round);
    CALL(cudaMemcpy(bytes, got, sizeof(bytes), cudaMemcpyDeviceToHost));
    EXPECT(bytes[round] > (3u << 20) && bytes[round] <= (4u << 20));
  }
  EXPECT(bytes[0] == bytes[1]);

  char* word = nullptr;
  CALL(cudaMalloc(&word, 16));
  CALL(cudaMemcpy(word, "word", 5, cudaMemcpyHostToDevice));
  const std::string text = captured(1, [&] {
    speak<<<1, 1>>>(word);
    CALL(cudaDeviceSynchronize());
  });
  EXPECT(text == "-7|   42|7    |ff|1099511627776|z|%|word\n1.500 1.234568e+04 0.0001 count 7\nno arguments\n");
  CALL(cudaDeviceSetLimit(cudaLimitPrintfFifoSize, 64 << 10));
  const std::string tail = captured(1, [&] {
    babble<<<1, 1>>>();
    CALL(cudaDeviceSynchronize());
  });
  EXPECT(tail.size() <= (64 << 10));
  EXPECT(tail.find("19999 and") != std::string::npos && tail.find("\n0 and") == std::string::npos);

  const std::string complaint = captured(2, [&] {
    check<<<2, 32>>>(1);
    EXPECT(cudaDeviceSynchronize() == cudaErrorAssert);
  });
  EXPECT(complaint.find("heap_and_text.cu:") != std::string::npos);
  EXPECT(complaint.find(
             "void check(int): block: [0,0,0], thread: [3,0,0] Assertion `threadIdx.x != 3 || n == 0` failed.") !=
         std::string::npos);
  EXPECT(cudaDeviceSynchronize() == cudaErrorAssert);
  std::puts("ok");
  return 0;
}
