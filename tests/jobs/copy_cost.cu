// What copies to and from a device reach, by size, of pageable and of page-locked memory, beside copying as many bytes
// in this process: GB/s, the median of rounds that take turns. Small copies come in rows, and the last of a row is
// waited for; but those from the device to pageable memory wait by themselves, as CUDA has it.
//   ./copy_cost [--mib N]    N: the largest; 4 KiB and each 16 times as much up to it, and N itself

#include <algorithm>
#include <vector>

#include "job.h"

namespace {

constexpr int kRounds = 15, kRoundsOfLarge = 3;
constexpr size_t kLargeBytes = 512u << 20;
constexpr size_t kRowBytes = 4 << 20;

struct Way {
  const char* name;
  void (*copy)(char* to, const char* from, size_t bytes);
  std::vector<double> seconds;
};

void host_to_host(char* to, const char* from, size_t bytes) { memcpy(to, from, bytes); }
void to_device(char* to, const char* from, size_t bytes) {
  CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice));
}
void from_device(char* to, const char* from, size_t bytes) {
  CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost));
}

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const size_t largest = (size_t)option(argc, argv, "--mib", 256) << 20;
  std::vector<char> pageable(largest, 1), other(largest, 2);
  char *pinned = nullptr, *device = nullptr;
  CHECK(cudaMallocHost(&pinned, largest));
  CHECK(cudaMalloc(&device, largest));
  memset(pinned, 3, largest);
  std::vector<size_t> sizes;
  for (size_t bytes = 4096; bytes < largest; bytes *= 16) sizes.push_back(bytes);
  sizes.push_back(largest);
  for (const size_t bytes : sizes) {
    const int rounds = bytes < kLargeBytes ? kRounds : kRoundsOfLarge;
    const int calls = (int)std::max<size_t>(1, kRowBytes / bytes);
    Way ways[] = {{"memcpy", host_to_host, {}},
                  {"pageable_in", to_device, {}},
                  {"pinned_in", to_device, {}},
                  {"pageable_out", from_device, {}},
                  {"pinned_out", from_device, {}}};
    const std::pair<char*, const char*> ends[] = {{other.data(), pageable.data()},
                                                  {device, pageable.data()},
                                                  {device, pinned},
                                                  {other.data(), device},
                                                  {pinned, device}};
    for (int round = 0; round < rounds; round++) {
      for (size_t w = 0; w < std::size(ways); w++) {
        const double began = now_seconds();
        for (int i = 0; i < calls; i++) ways[w].copy(ends[w].first, ends[w].second, bytes);
        CHECK(cudaDeviceSynchronize());
        ways[w].seconds.push_back((now_seconds() - began) / calls);
      }
    }
    printf("runs_%zu %d\n", bytes, rounds);
    for (Way& way : ways) printf("%s_%zu %.4f\n", way.name, bytes, 1e-9 * (double)bytes / median(way.seconds));
  }
  EXPECT(other[0] == 3 && pinned[0] == 3, "%d and %d came back", other[0], pinned[0]);
  return verdict("copy_cost");
}
