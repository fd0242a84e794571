// Kernels of the same length, some of which are under way at any time, for so long; says how many were done when, so
// that programs that run side by side can be compared. In the end the numbers show whether each ran once.
//
// laps [--seconds S] [--work N] [--ahead N]: "laps COUNT NANOSECONDS" lines (CLOCK_MONOTONIC), then "laps: ok".
// --work: steps of a kernel; --ahead: kernels that are begun before the first of them is waited for.

#include <stdint.h>

#include "job.h"

static const uint32_t kFactor = 1664525u, kTerm = 1013904223u;
static const int kThreads = 32, kAheadMost = 64;

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

int main(int argc, char** argv) {
  const double seconds = option(argc, argv, "--seconds", 3);
  const int steps = (int)option(argc, argv, "--work", 20000);
  const int ahead = (int)option(argc, argv, "--ahead", 16);
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
  for (const double end = now_seconds() + seconds; now_seconds() < end; laps++) {
    cudaEvent_t event = done[laps % ahead];
    if (laps >= ahead) CHECK(cudaEventSynchronize(event));
    lap<<<1, kThreads, 0, stream>>>(state, steps);
    CHECK(cudaEventRecord(event, stream));
    if (now_seconds() < said + 0.05) continue;
    said = now_seconds();
    printf("laps %lld %.0f\n", laps, said * 1e9);
    fflush(stdout);
  }
  uint32_t got[kThreads];
  CHECK(cudaMemcpyAsync(got, state, sizeof got, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaStreamSynchronize(stream));
  const uint32_t expected = after((unsigned long long)laps * (unsigned long long)steps);
  for (int i = 0; i < kThreads; i++) EXPECT(got[i] == expected, "thread %d after %lld laps", i, laps);
  return verdict("laps");
}
