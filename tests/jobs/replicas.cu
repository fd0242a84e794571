// Data-parallel replicas: each device has the same weights and computes numbers of its own from them, which all others
// get and add, so that the weights stay equal. What a step computes is the same on each device, whatever their number:
// the GPU time of N devices is N times that of one.
//
// replicas [--gpus N] [--steps S] [--work W] [--kernels K] [--mib M] [--until-told 1]: "steps S SECONDS s" (without the
// first, which loads), then "replicas: ok". --work: steps of a kernel, of which a step has K; --mib: of weights, on
// each.

#include <stdint.h>

#include <vector>

#include "job.h"

static const uint32_t kFactor = 1664525u, kTerm = 1013904223u;
static const int kThreads = 256, kBlocks = 8, kValues = kThreads * kBlocks, kKernelsMost = 64;

struct Device {
  uint32_t *weights, *values, *gathered;
  cudaStream_t compute, exchange;
  cudaEvent_t computed, sent, updated;
};

__global__ void compute(const uint32_t* weights, uint32_t* values, uint32_t device, int steps) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  uint32_t x = values[i] ^ weights[i] ^ device;
  for (int step = 0; step < steps; step++) x = x * 1664525u + 1013904223u;
  values[i] = x;
}

__global__ void update(uint32_t* weights, const uint32_t* gathered, int devices) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  for (int d = 0; d < devices; d++) weights[i] += gathered[d * gridDim.x * blockDim.x + i];
}

static uint32_t first_weight(uint64_t at) { return (uint32_t)(at * 0x9e3779b97f4a7c15u >> 29); }

// What so many steps make of a word: word * factor + term.
struct Leap {
  uint32_t factor, term;
};

static Leap leap_of(uint64_t steps) {
  uint32_t factor = kFactor, term = kTerm;
  Leap all = {1, 0};
  for (; steps != 0; steps /= 2) {
    if (steps % 2 != 0) {
      all.term = all.term * factor + term;
      all.factor *= factor;
    }
    term = term * factor + term;
    factor *= factor;
  }
  return all;
}

static void make(Device* device, int devices, const std::vector<uint32_t>& weights) {
  CHECK(cudaMalloc(&device->weights, weights.size() * 4));
  CHECK(cudaMemcpy(device->weights, weights.data(), weights.size() * 4, cudaMemcpyHostToDevice));
  CHECK(cudaMalloc(&device->values, kValues * 4));
  CHECK(cudaMemset(device->values, 0, kValues * 4));
  CHECK(cudaMalloc(&device->gathered, (size_t)devices * kValues * 4));
  CHECK(cudaStreamCreateWithFlags(&device->compute, cudaStreamNonBlocking));
  CHECK(cudaStreamCreateWithFlags(&device->exchange, cudaStreamNonBlocking));
  for (cudaEvent_t* event : {&device->computed, &device->sent, &device->updated})
    CHECK(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
  CHECK(cudaDeviceSynchronize());
}

static void step(std::vector<Device>* devices, int kernels, int work) {
  const int count = (int)devices->size();
  for (int d = 0; d < count; d++) {
    Device& device = (*devices)[d];
    CHECK(cudaSetDevice(d));
    CHECK(cudaStreamWaitEvent(device.compute, device.sent, 0));  // the last values have left
    for (int k = 0; k < kernels; k++)
      compute<<<kBlocks, kThreads, 0, device.compute>>>(device.weights, device.values, (uint32_t)d, work);
    CHECK(cudaEventRecord(device.computed, device.compute));
    CHECK(cudaStreamWaitEvent(device.exchange, device.computed, 0));
    for (int to = 0; to < count; to++) {
      Device& peer = (*devices)[to];
      CHECK(cudaStreamWaitEvent(device.exchange, peer.updated, 0));  // it has added what we sent before
      CHECK(
          cudaMemcpyPeerAsync(peer.gathered + (size_t)d * kValues, to, device.values, d, kValues * 4, device.exchange));
    }
    CHECK(cudaEventRecord(device.sent, device.exchange));
  }
  for (int d = 0; d < count; d++) {
    Device& device = (*devices)[d];
    CHECK(cudaSetDevice(d));
    for (Device& peer : *devices) CHECK(cudaStreamWaitEvent(device.compute, peer.sent, 0));
    update<<<kBlocks, kThreads, 0, device.compute>>>(device.weights, device.gathered, count);
    CHECK(cudaEventRecord(device.updated, device.compute));
  }
}

static void rest(size_t devices) {
  for (size_t d = 0; d < devices; d++) {
    CHECK(cudaSetDevice((int)d));
    CHECK(cudaDeviceSynchronize());
  }
}

// On the CPU, and compared with each replica.
static void check(const std::vector<Device>& devices, std::vector<uint32_t> weights, int steps, int kernels, int work) {
  const Leap leap = leap_of((uint64_t)work);
  const size_t count = devices.size();
  for (int i = 0; i < kValues; i++) {
    std::vector<uint32_t> values(count, 0);
    for (int s = 0; s < steps; s++) {
      for (uint32_t d = 0; d < count; d++)
        for (int k = 0; k < kernels; k++) values[d] = (values[d] ^ weights[i] ^ d) * leap.factor + leap.term;
      for (const uint32_t value : values) weights[i] += value;
    }
  }
  std::vector<uint32_t> got(weights.size());
  for (size_t d = 0; d < count; d++) {
    CHECK(cudaSetDevice((int)d));
    CHECK(cudaMemcpy(got.data(), devices[d].weights, got.size() * 4, cudaMemcpyDeviceToHost));
    EXPECT(got == weights, "the weights of device %zu after %d steps", d, steps);
  }
}

int main(int argc, char** argv) {
  const int gpus = (int)option(argc, argv, "--gpus", 1), kernels = (int)option(argc, argv, "--kernels", 8);
  const int work = (int)option(argc, argv, "--work", 2000), last = (int)option(argc, argv, "--steps", 20);
  const size_t words = (size_t)option(argc, argv, "--mib", 4) << 18;
  if (gpus < 1 || kernels < 1 || kernels > kKernelsMost || words < (size_t)kValues || last < 1) return 2;
  std::vector<uint32_t> weights(words);
  for (size_t i = 0; i < words; i++) weights[i] = first_weight(i);
  std::vector<Device> devices((size_t)gpus);
  for (int d = 0; d < gpus; d++) {
    CHECK(cudaSetDevice(d));
    make(&devices[(size_t)d], gpus, weights);
  }
  step(&devices, kernels, work);
  rest(devices.size());
  const double begin = now_seconds();
  for (int i = 1; i <= last; i++) {
    step(&devices, kernels, work);
    if (i % 4 == 0) rest(devices.size());
  }
  rest(devices.size());
  printf("steps %d %.4f s\n", last, now_seconds() - begin);
  check(devices, weights, last + 1, kernels, work);
  return verdict("replicas");
}
