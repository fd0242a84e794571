// What host memory that kernels reach costs where it is kept twice: a launch and a synchronisation beside the floor,
// comparing the memory with a copy of it once.
//   ./mirror_cost [--mib N | --kib N] [--rounds N]

#include <algorithm>
#include <vector>

#include "job.h"

namespace {

__global__ void add_one(int* value) { *value += 1; }

template <typename Step, typename After>
double median_us(int rounds, Step step, After after) {
  std::vector<double> times;
  for (int i = 0; i < rounds; i++) {
    const double began = now_seconds();
    step(i);
    times.push_back(1e6 * (now_seconds() - began));
    after();
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = (int)option(argc, argv, "--rounds", 15);
  const size_t bytes = (size_t)option(argc, argv, "--kib", 1024 * option(argc, argv, "--mib", 256)) << 10;
  const size_t count = bytes / sizeof(int);
  int *values = nullptr, *other = nullptr;
  CHECK(cudaMallocManaged(&values, bytes));
  CHECK(cudaMalloc(&other, sizeof(int)));
  for (size_t i = 0; i < count; i++) values[i] = (int)i;
  const auto wait = [] { CHECK(cudaDeviceSynchronize()); };
  add_one<<<1, 1>>>(values);
  wait();
  EXPECT(values[0] == 1, "%d", values[0]);

  const double launch = median_us(
      rounds, [&](int) { add_one<<<1, 1>>>(other); }, wait);
  const double launch_written = median_us(
      rounds,
      [&](int i) {
        values[count / 2 + i] += 1;
        add_one<<<1, 1>>>(values + count / 2 + i);
      },
      wait);
  for (int i = 0; i < rounds; i++) {
    EXPECT(values[count / 2 + i] == (int)(count / 2) + i + 2, "%d", values[count / 2 + i]);
  }
  const double round_trip = median_us(
      rounds,
      [&](int i) {
        add_one<<<1, 1>>>(values + i);
        wait();
      },
      [] {});
  const double all = median_us(
      3,
      [&](int i) {
        for (size_t at = 0; at < count; at += 1024) values[at] += i;
        add_one<<<1, 1>>>(other);
      },
      wait);
  CHECK(cudaGetLastError());

  std::vector<int> copy(values, values + count);
  int same = 0;
  const double compare = median_us(
      5, [&](int) { same += memcmp(copy.data(), values, bytes) == 0; }, [] {});
  EXPECT(same == 5, "%d", same);
  printf("launch_us %.1f\nlaunch_written_us %.1f\nlaunch_all_written_us %.1f\n", launch, launch_written, all);
  printf("round_trip_us %.1f\ncompare_us %.1f\nmib %zu\nruns %d\n", round_trip, compare, bytes >> 20, rounds);
  return verdict("mirror_cost");
}
