// Uses one device as little as possible: a context, memory, a kernel, the end. For measuring what starting costs, in
// time and, as it prints, in memory; and, while it lies still, in processor time.
//   ./startup [--bare 1] [--seconds S]    bare: nothing of CUDA at all; S: lies still for so long at the end

#include <unistd.h>

#include "job.h"

namespace {

// Of this process now.
long resident_kib() {
  FILE* file = fopen("/proc/self/statm", "r");
  long size = 0, resident = 0;
  if (file == nullptr || fscanf(file, "%ld %ld", &size, &resident) != 2) return -1;
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

}  // namespace

__global__ void set(int* value) { *value = 42; }

int main(int argc, char** argv) {
  const double seconds = option(argc, argv, "--seconds", 0);
  if (option(argc, argv, "--bare", 0) != 0) {
    printf("resident_kib %ld\n", resident_kib());
    return verdict("startup");
  }
  int *device = nullptr, value = 0;
  CHECK(cudaMalloc(&device, sizeof *device));
  set<<<1, 1>>>(device);
  CHECK(cudaMemcpy(&value, device, sizeof value, cudaMemcpyDeviceToHost));
  EXPECT(value == 42, "%d", value);
  printf("resident_kib %ld\n", resident_kib());
  fflush(stdout);
  if (seconds > 0) usleep((useconds_t)(1e6 * seconds));
  return verdict("startup");
}
