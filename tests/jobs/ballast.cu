// State that is large and changes little: what a move has to carry, beside what it has to carry in its pause.
//
// ballast [--mib N] [--share P] [--seconds S | --steps K] [--until-told 1] [--step-ms M]: N MiB in allocations of 32
// MiB, of which each step writes P percent, the next ones each time. Says "ready N MiB", "step I" a few times a second,
// and at the end "digest X" when every word is what as many steps make of it on the CPU.

#include <poll.h>
#include <stdint.h>
#include <unistd.h>

#include "job.h"

static const uint64_t kPartBytes = 32u << 20, kPageWords = 1024, kPartPages = kPartBytes / 4096;
static const uint32_t kFactor = 1664525u;

static inline uint32_t first_value(uint64_t at) { return (uint32_t)(at * 0x9e3779b97f4a7c15u >> 29); }

// A block writes a page.
__global__ void touch(uint32_t* words, uint32_t step) {
  uint32_t* const word = words + blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
  *word = *word * 1664525u + step;
}

static bool is_told() {
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  return poll(&input, 1, 0) > 0;
}

// What the steps have made of a page: word * factor + sum.
struct Page {
  uint32_t factor, sum;
};

int main(int argc, char** argv) {
  const uint64_t parts = ((uint64_t)option(argc, argv, "--mib", 64) + 31) / 32, pages = parts * kPartPages;
  const double seconds = option(argc, argv, "--seconds", 5);
  const uint64_t step_pages = (uint64_t)(option(argc, argv, "--share", 1) / 100 * (double)pages);
  const int step_ms = (int)option(argc, argv, "--step-ms", 10);
  const uint32_t steps = (uint32_t)option(argc, argv, "--steps", 0);
  uint32_t** const words = (uint32_t**)malloc(parts * sizeof(uint32_t*));
  Page* const made = (Page*)malloc(pages * sizeof(Page));
  uint32_t* part;
  CHECK(cudaMallocHost(&part, kPartBytes));
  for (uint64_t p = 0; p < pages; p++) made[p].factor = 1, made[p].sum = 0;
  for (uint64_t i = 0; i < parts; i++) {
    for (uint64_t w = 0; w < kPartBytes / 4; w++) part[w] = first_value(i * (kPartBytes / 4) + w);
    CHECK(cudaMalloc(&words[i], kPartBytes));
    CHECK(cudaMemcpy(words[i], part, kPartBytes, cudaMemcpyHostToDevice));
  }
  printf("ready %llu MiB\n", (unsigned long long)(parts * 32));
  fflush(stdout);
  const bool until_told = option(argc, argv, "--until-told", 0) != 0;
  const double begin = now_seconds();
  double said = begin, slowest = 0;
  uint32_t step = 0;
  for (uint64_t at = 0; until_told ? !is_told() : steps != 0 ? step < steps : now_seconds() - begin < seconds; step++) {
    const double step_begin = now_seconds();
    for (uint64_t left = step_pages; left > 0;) {
      const uint64_t in_part = at % kPartPages, room = kPartPages - in_part, count = left < room ? left : room;
      touch<<<(unsigned)count, kPageWords>>>(words[at / kPartPages] + in_part * kPageWords, step);
      for (uint64_t p = at; p < at + count; p++) {
        made[p].factor *= kFactor;
        made[p].sum = made[p].sum * kFactor + step;
      }
      left -= count;
      at = (at + count) % pages;
    }
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    const double now = now_seconds();
    slowest = now - step_begin > slowest ? now - step_begin : slowest;
    if (now - said > 0.2) {
      printf("step %u\n", step);
      fflush(stdout);
      said = now;
    }
    if (step_ms > 0) usleep((useconds_t)step_ms * 1000);
  }
  uint64_t digest = 1469598103934665603ull, wrong = 0;
  for (uint64_t i = 0; i < parts; i++) {
    CHECK(cudaMemcpy(part, words[i], kPartBytes, cudaMemcpyDeviceToHost));
    for (uint64_t w = 0; w < kPartBytes / 4; w++) {
      const uint64_t at = i * (kPartBytes / 4) + w;
      const Page page = made[at / kPageWords];
      wrong += part[w] != first_value(at) * page.factor + page.sum;
      digest = (digest ^ part[w]) * 1099511628211ull;
    }
  }
  EXPECT(wrong == 0, "%llu words of %llu MiB", (unsigned long long)wrong, (unsigned long long)(parts * 32));
  printf("steps %u slowest %.1f ms\ndigest %016llx\n", step, slowest * 1000, (unsigned long long)digest);
  return verdict("ballast");
}
