// Variables that live in a module, their addresses and a chain of device pointers keep their values for as long as the
// program runs: what a move must carry beside what was allocated.
//   ./globals [--seconds N]

#include <vector>

#include "job.h"

namespace {

constexpr int kLinks = 64;

struct Link {
  Link* next;
  unsigned visits;
};

__device__ unsigned counter;
__device__ Link* head;
__device__ unsigned long long history[kLinks];
__constant__ unsigned weights[kLinks];

// Walks the chain once; every link and every variable must be where the last launch left it.
__global__ void walk(unsigned round, unsigned* wrong) {
  unsigned links = 0;
  for (Link* link = head; link != nullptr; link = link->next, links++) {
    if (link->visits != round) atomicAdd(wrong, 1u);
    link->visits += 1;
  }
  if (links != kLinks || counter != round) atomicAdd(wrong, 1u);
  for (int i = 0; i < kLinks; i++) {
    if (history[i] != (unsigned long long)round * weights[i]) atomicAdd(wrong, 1u);
    history[i] += weights[i];
  }
  counter = round + 1;
}

struct Device {
  Link* links;
  unsigned* wrong;
  void* address_of_counter;
};

Device make_device(int index) {
  Device device;
  CHECK(cudaSetDevice(index));
  CHECK(cudaMalloc(&device.links, kLinks * sizeof(Link)));
  CHECK(cudaMalloc(&device.wrong, sizeof(unsigned)));
  CHECK(cudaMemset(device.wrong, 0, sizeof(unsigned)));
  std::vector<Link> links(kLinks);
  std::vector<unsigned> values(kLinks);
  for (int i = 0; i < kLinks; i++) values[i] = index * 100 + i;
  // In steps of 7, which has no factor in common with 64: the chain visits every link.
  for (int i = 0, at = 0; i < kLinks; i++, at = (at + 7) % kLinks) {
    links[at] = {i + 1 < kLinks ? device.links + (at + 7) % kLinks : nullptr, 0};
  }
  CHECK(cudaMemcpy(device.links, links.data(), kLinks * sizeof(Link), cudaMemcpyHostToDevice));
  CHECK(cudaMemcpyToSymbol(head, &device.links, sizeof(Link*)));
  CHECK(cudaMemcpyToSymbol(weights, values.data(), kLinks * sizeof(unsigned)));
  CHECK(cudaGetSymbolAddress(&device.address_of_counter, counter));
  return device;
}

void check_device(int index, const Device& device, unsigned rounds) {
  unsigned seen = 0, wrong = 0;
  void* address = nullptr;
  CHECK(cudaSetDevice(index));
  CHECK(cudaMemcpyFromSymbol(&seen, counter, sizeof seen));
  CHECK(cudaMemcpy(&wrong, device.wrong, sizeof wrong, cudaMemcpyDeviceToHost));
  CHECK(cudaGetSymbolAddress(&address, counter));
  EXPECT(seen == rounds, "device %d: counter %u after %u rounds", index, seen, rounds);
  EXPECT(wrong == 0, "device %d: %u wrong values", index, wrong);
  EXPECT(address == device.address_of_counter, "device %d: a variable moved", index);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = option(argc, argv, "--seconds", 1);
  int count = 0;
  CHECK(cudaGetDeviceCount(&count));
  std::vector<Device> devices;
  for (int d = 0; d < count; d++) devices.push_back(make_device(d));
  const double end = now_seconds() + seconds;
  unsigned round = 0;
  while (failures_ == 0 && (round < 10 || now_seconds() < end)) {
    for (int d = 0; d < count; d++) {
      CHECK(cudaSetDevice(d));
      walk<<<1, 1>>>(round, devices[d].wrong);
      CHECK(cudaGetLastError());
    }
    round++;
    for (int d = 0; d < count && round % 5 == 0; d++) check_device(d, devices[d], round);
  }
  for (int d = 0; d < count; d++) check_device(d, devices[d], round);
  fprintf(stderr, "globals: %u rounds on %d devices\n", round, count);
  return verdict("globals");
}
