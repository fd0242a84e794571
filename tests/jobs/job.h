#pragma once

// What the small programs share: every call is checked, every expectation is counted.

#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(call)                                                                                                \
  do {                                                                                                             \
    const cudaError_t error_ = (call);                                                                             \
    if (error_ != cudaSuccess) {                                                                                   \
      fprintf(stderr, "%s:%d: %s: %s (%d)\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_), (int)error_); \
      exit(1);                                                                                                     \
    }                                                                                                              \
  } while (0)

static int failures_ = 0;

#define EXPECT(condition, ...)                                            \
  do {                                                                    \
    if (!(condition)) {                                                   \
      fprintf(stderr, "%s:%d: not %s: ", __FILE__, __LINE__, #condition); \
      fprintf(stderr, __VA_ARGS__);                                       \
      fprintf(stderr, "\n");                                              \
      failures_++;                                                        \
    }                                                                     \
  } while (0)

static inline int verdict(const char* name) {
  printf("%s: %s\n", name, failures_ == 0 ? "ok" : "FAILED");
  return failures_ == 0 ? 0 : 1;
}

static inline double now_seconds() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// The number that follows `name` on the command line.
static inline double option(int argc, char** argv, const char* name, double otherwise) {
  for (int i = 1; i + 1 < argc; i++) {
    if (strcmp(argv[i], name) == 0) return atof(argv[i + 1]);
  }
  return otherwise;
}

// Says `word` and goes on when a line has come: whoever started the program reads its counters meanwhile.
static inline void gate(const char* word) {
  char line[64];
  printf("%s\n", word);
  fflush(stdout);
  if (fgets(line, sizeof line, stdin) == NULL) fprintf(stderr, "nobody answers at the gate; going on\n");
}
