// Runs a program as a job of a fake pool with two vGPUs: fake_pool LIBRARY KERNEL COMMAND... Its one kernel has a
// pointer and an int; it is recorded, not executed. Prints how many launches came.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "fake_pool.h"

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: %s LIBRARY KERNEL COMMAND...\n", argv[0]);
    return 2;
  }
  tide::FakePool pool(2);
  pool.kernels = {{argv[2], {{0, 8}, {8, 4}}, 12, 1024}};
  pool.answer_call = [](const tide::SeenCommand&, std::vector<std::byte>* out) {
    out->resize(64);
    return CUDA_SUCCESS;
  };
  pool.join();
  const pid_t child = fork();
  if (child == 0) {
    setenv("LD_PRELOAD", argv[1], 1);
    execvp(argv[3], argv + 3);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  size_t launches = 0;
  for (uint32_t i = 0; i < 2; ++i) {
    if (pool.worker(i) != nullptr) launches += pool.worker(i)->count(tide::Call::tideLaunch);
  }
  printf("launches %zu\n", launches);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
