// Forks children without end while a thread of its own works on the GPU: neither may notice the other.
//   ./forks [--children N]      default 1000

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "job.h"

namespace {

__global__ void add_one(unsigned* counter) { atomicAdd(counter, 1); }

// Launches and reads until it is told to stop; every answer must be what it counted itself.
void work(const std::atomic<bool>& stop, unsigned* rounds) {
  unsigned *counter, got = 0;
  CHECK(cudaMalloc(&counter, sizeof *counter));
  CHECK(cudaMemset(counter, 0, sizeof *counter));
  while (!stop) {
    add_one<<<1, 32>>>(counter);
    CHECK(cudaMemcpy(&got, counter, sizeof got, cudaMemcpyDeviceToHost));
    *rounds += 1;
    EXPECT(got == 32 * *rounds, "%u after %u rounds", got, *rounds);
  }
  CHECK(cudaFree(counter));
}

}  // namespace

int main(int argc, char** argv) {
  int children = 1000;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--children") == 0 && i + 1 < argc) children = atoi(argv[++i]);
  }
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(nullptr));
  std::atomic<bool> stop{false};
  unsigned rounds = 0;
  std::thread worker([&] { work(stop, &rounds); });
  for (int i = 0; i < children; i++) {
    const pid_t child = fork();
    if (child == 0) {
      // Every hundredth asks, and learns that it cannot go on with the parent's GPU.
      void* memory = nullptr;
      _exit(i % 100 != 0 || cudaMalloc(&memory, 4) == cudaErrorInitializationError ? 0 : 1);
    }
    int status = 0;
    EXPECT(child > 0 && waitpid(child, &status, 0) == child, "child %d", i);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d ended with %#x", i, status);
  }
  stop = true;
  worker.join();
  EXPECT(rounds > 0, "no work was done");
  printf("forks: %d children, %u rounds beside them\n", children, rounds);
  return verdict("forks");
}
