#pragma once

// The entry points of the preload library over workers in threads of the test.

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "fake_worker.h"
#include "interpose/entry/entry.h"
#include "interpose/thread.h"

namespace tide {

inline constexpr uint64_t kQuota = 256u << 20;
inline constexpr char kPtx[] = ".version 7.0\n.target sm_50\n";

// Two vGPUs of one process, each with a worker; the first one's primary context is current.
struct Loopback : testing::Test {
  std::unique_ptr<FakeWorker> workers[2];
  Process* p = nullptr;
  CUcontext contexts[2] = {};

  void SetUp() override {
    p = Process::adopt();
    thread_state = {};
    for (int i = 0; i < 2; ++i) {
      workers[i] = std::make_unique<FakeWorker>();
      workers[i]->kernels = {{"add", {{0, 8}, {8, 8}, {16, 4}}, 20, 256}, {"none", {}, 0, 1024}};
      p->adopt_vgpu(Channel::adopt(workers[i]->region(), workers[i]->make_link()), fake_device(), kQuota);
      ASSERT_EQ(cuDevicePrimaryCtxRetain(&contexts[i], i), CUDA_SUCCESS);
    }
    ASSERT_EQ(cuCtxSetCurrent(contexts[0]), CUDA_SUCCESS);
  }
  // Processes are never destroyed; its service thread may still look at the channels.
  void TearDown() override {
    for (auto& w : workers) w.release()->stop();
    live_process.store(nullptr);
  }
  FakeWorker& worker() { return *workers[0]; }
  uint64_t round_trips(int i = 0) { return workers[i]->region().client().counters.round_trips.load(); }
  // By the function that waited, as the worker reads it.
  std::map<std::string, uint64_t> trips_by_function() {
    std::map<std::string, uint64_t> found;
    for (const Word& word : workers[0]->region().client().trips.words) {
      if (word != 0) found[call_name(TripCounts::function_of(word))] = TripCounts::count_of(word);
    }
    return found;
  }
  CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_EQ(cuMemAlloc_v2(&address, bytes), CUDA_SUCCESS);
    return address;
  }
  CUfunction function(const char* name) {
    CUmodule module = nullptr;
    CUfunction f = nullptr;
    EXPECT_EQ(cuModuleLoadData(&module, kPtx), CUDA_SUCCESS);
    EXPECT_EQ(cuModuleGetFunction(&f, module, name), CUDA_SUCCESS);
    return f;
  }
};

}  // namespace tide
