// Copies to, from and within a device, timed and verified.
//   ./bandwidth [--mib N] [--rounds N]

#include <algorithm>
#include <vector>

#include "job.h"

namespace {

void fill(unsigned* values, size_t count, unsigned seed) {
  for (size_t i = 0; i < count; i++) values[i] = seed + (unsigned)i * 2654435761u;
}

template <typename Copy>
void measure(const char* name, size_t bytes, int rounds, Copy copy) {
  std::vector<double> seconds;
  for (int round = 0; round < rounds; round++) {
    const double began = now_seconds();
    copy();
    CHECK(cudaDeviceSynchronize());
    seconds.push_back(now_seconds() - began);
  }
  std::sort(seconds.begin(), seconds.end());
  printf("%-24s %9.3f GB/s\n", name, 1e-9 * (double)bytes / seconds[seconds.size() / 2]);
}

}  // namespace

int main(int argc, char** argv) {
  const size_t bytes = (size_t)(option(argc, argv, "--mib", 32) * 1024 * 1024);
  const int rounds = (int)option(argc, argv, "--rounds", 5);
  const size_t count = bytes / sizeof(unsigned);
  std::vector<unsigned> pageable(count), back(count);
  unsigned *pinned, *first, *second;
  CHECK(cudaMallocHost(&pinned, bytes));
  CHECK(cudaMalloc(&first, bytes));
  CHECK(cudaMalloc(&second, bytes));

  fill(pageable.data(), count, 1);
  measure("host to device", bytes, rounds,
          [&] { CHECK(cudaMemcpy(first, pageable.data(), bytes, cudaMemcpyDefault)); });
  CHECK(cudaMemcpy(back.data(), first, bytes, cudaMemcpyDeviceToHost));
  EXPECT(back == pageable, "host to device to host");

  fill(pinned, count, 2);
  measure("pinned host to device", bytes, rounds,
          [&] { CHECK(cudaMemcpyAsync(first, pinned, bytes, cudaMemcpyHostToDevice)); });
  measure("device to device", bytes, rounds,
          [&] { CHECK(cudaMemcpy(second, first, bytes, cudaMemcpyDeviceToDevice)); });
  measure("device to host", bytes, rounds,
          [&] { CHECK(cudaMemcpy(back.data(), second, bytes, cudaMemcpyDeviceToHost)); });
  EXPECT(memcmp(back.data(), pinned, bytes) == 0, "pinned to device to device to host");

  memset(pinned, 0, bytes);
  measure("device to pinned host", bytes, rounds,
          [&] { CHECK(cudaMemcpyAsync(pinned, second, bytes, cudaMemcpyDeviceToHost)); });
  EXPECT(memcmp(back.data(), pinned, bytes) == 0, "device to pinned");

  measure("memset", bytes, rounds, [&] { CHECK(cudaMemset(first, 0x5a, bytes)); });
  CHECK(cudaMemcpy(back.data(), first, bytes, cudaMemcpyDeviceToHost));
  EXPECT(std::count(back.begin(), back.end(), 0x5a5a5a5au) == (long)count, "memset");
  return verdict("bandwidth");
}
