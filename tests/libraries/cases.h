#pragma once

// What the programs that try NVIDIA's libraries share: named cases, numbers that are the same everywhere, buffers, and
// the comparison with what a plain loop on the CPU computes.
//
// A case returns an empty string, or one line that says what is wrong. `PROGRAM` runs all but some,
// `PROGRAM --list` prints the names of all, `PROGRAM NAME...` runs those. The last line is "ok" when nothing was wrong,
// and the status 0.

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

struct Case {
  const char* name;
  std::string (*run)();
  bool by_name = false;  // not among all: it takes minutes
};

// Counts up; every program gets the same numbers in [-1, 1), multiples of 1/64 so that half precision holds them.
class Numbers {
 public:
  explicit Numbers(uint32_t seed) : state_(seed * 2654435761u + 12345u) {}
  float next() {
    state_ = state_ * 1664525u + 1013904223u;
    return (static_cast<int>((state_ >> 16) % 128) - 64) / 64.0f;
  }
  std::vector<float> vector(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = next();
    return values;
  }

 private:
  uint32_t state_;
};

// Device memory with a host vector's contents.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
    if (cudaMalloc(&data_, count * sizeof(T)) != cudaSuccess) data_ = nullptr;
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    if (cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost) != cudaSuccess) values.clear();
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

template <typename To, typename From>
std::vector<To> convert(const std::vector<From>& values) {
  std::vector<To> out;
  out.reserve(values.size());
  for (const From& value : values) out.push_back(static_cast<To>(static_cast<float>(value)));
  return out;
}

// Says which element is off by more than `allowed` (absolute, and relative to values above 1).
template <typename Got>
std::string compare(const std::vector<Got>& got, const std::vector<double>& expected, double allowed) {
  if (got.size() != expected.size()) return "no result came back";
  for (size_t i = 0; i < got.size(); ++i) {
    const double value = static_cast<double>(got[i]);
    const double error = std::fabs(value - expected[i]) / std::fmax(1.0, std::fabs(expected[i]));
    if (!(error <= allowed)) {
      char text[160];
      std::snprintf(text, sizeof(text), "element %zu is %.9g, expected %.9g", i, value, expected[i]);
      return text;
    }
  }
  return "";
}

inline std::string failed(const char* call, int status) {
  return std::string(call) + " returned " + std::to_string(status);
}

// Leaves the case with the call's text and status.
#define TRY(call)                                    \
  do {                                               \
    const int status_ = static_cast<int>(call);      \
    if (status_ != 0) return failed(#call, status_); \
  } while (0)

inline int run_cases(const std::vector<Case>& cases, int argc, char** argv) {
  int wrong = 0;
  for (const Case& one : cases) {
    bool wanted = argc == 1 && !one.by_name;
    for (int i = 1; i < argc; ++i) {
      if (std::strcmp(argv[i], "--list") == 0) std::printf("%s\n", one.name);
      wanted = wanted || std::strcmp(argv[i], one.name) == 0;
    }
    if (!wanted) continue;
    const std::string problem = one.run();
    std::printf("%s: %s\n", one.name, problem.empty() ? "right" : problem.c_str());
    std::fflush(stdout);
    wrong += problem.empty() ? 0 : 1;
  }
  if (argc > 1 && std::strcmp(argv[1], "--list") == 0) return 0;
  std::printf(wrong == 0 ? "ok\n" : "%d wrong\n", wrong);
  return wrong == 0 ? 0 : 1;
}
