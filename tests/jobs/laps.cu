// Kernels of the same length, some of which are under way at any time, for so long; says how many were done when, so
// that programs that run side by side can be compared. In the end the numbers show whether each ran once.
//
// laps [--seconds S] [--work N] [--ahead N] [--every-ms M]: "laps COUNT NANOSECONDS" lines (CLOCK_MONOTONIC), then
// "laps: ok". --work: steps of a kernel; --ahead: kernels that are begun before the first of them is waited for.
// --every-ms: as somebody who asks, waits for the answer, and thinks for so long; says "waits N p50 A p99 B most C us".

#include <stdint.h>
#include <unistd.h>

#include "job.h"

static const uint32_t kFactor = 1664525u, kTerm = 1013904223u;
static const int kThreads = 32, kAheadMost = 64, kWaitsMost = 10000;

__global__ void lap(uint32_t* state, int steps) {
  uint32_t x = state[threadIdx.x];
  for (int i = 0; i < steps; i++) x = x * kFactor + kTerm;
  state[threadIdx.x] = x;
}

// What 0 becomes in so many steps.
static uint32_t after(unsigned long long steps) {
  uint32_t factor = kFactor, term = kTerm, x = 0;
  for (; steps != 0; steps /= 2) {
    if (steps % 2 != 0) x = x * factor + term;
    term = term * factor + term;
    factor *= factor;
  }
  return x;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static void say_waits(double* waits, int count) {
  qsort(waits, (size_t)count, sizeof *waits, ascending);
  if (count > 0)
    printf("waits %d p50 %.0f p99 %.0f most %.0f us\n", count, 1e6 * waits[count / 2], 1e6 * waits[count * 99 / 100],
           1e6 * waits[count - 1]);
}

int main(int argc, char** argv) {
  const double seconds = option(argc, argv, "--seconds", 3);
  const int steps = (int)option(argc, argv, "--work", 20000);
  const int ahead = (int)option(argc, argv, "--ahead", 16);
  const double every_ms = option(argc, argv, "--every-ms", 0);
  if (ahead < 1 || ahead > kAheadMost) return 2;
  uint32_t* state;
  CHECK(cudaMalloc(&state, kThreads * 4));
  CHECK(cudaMemset(state, 0, kThreads * 4));
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  cudaEvent_t done[kAheadMost];
  for (int i = 0; i < ahead; i++) CHECK(cudaEventCreateWithFlags(&done[i], cudaEventDisableTiming));
  CHECK(cudaDeviceSynchronize());
  long long laps = 0;
  double said = 0;
  double waits[kWaitsMost];
  int waited = 0;
  for (const double end = now_seconds() + seconds; now_seconds() < end; laps++) {
    cudaEvent_t event = done[laps % ahead];
    const double begun = now_seconds();
    if (laps >= ahead) CHECK(cudaEventSynchronize(event));
    lap<<<1, kThreads, 0, stream>>>(state, steps);
    CHECK(cudaEventRecord(event, stream));
    if (every_ms > 0) {
      CHECK(cudaEventSynchronize(event));
      if (waited < kWaitsMost) waits[waited++] = now_seconds() - begun;
      usleep((useconds_t)(1000 * every_ms));
    }
    if (now_seconds() < said + 0.05) continue;
    said = now_seconds();
    printf("laps %lld %.0f\n", laps, said * 1e9);
    fflush(stdout);
  }
  say_waits(waits, waited);
  uint32_t got[kThreads];
  CHECK(cudaMemcpyAsync(got, state, sizeof got, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaStreamSynchronize(stream));
  const uint32_t expected = after((unsigned long long)laps * (unsigned long long)steps);
  for (int i = 0; i < kThreads; i++) EXPECT(got[i] == expected, "thread %d after %lld laps", i, laps);
  return verdict("laps");
}
