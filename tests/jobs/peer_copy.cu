// A ring of copies between devices, ordered by events across devices; what arrives is changed by a kernel and sent on.
//   ./peer_copy [--mib N] [--rounds N]

#include <vector>

#include "job.h"

namespace {

__global__ void add_one(unsigned* values, size_t count) {
  for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) values[i] += 1;
}

struct Station {
  unsigned* own;
  unsigned* inbox;
  cudaStream_t stream;
  cudaEvent_t sent, taken;
};

std::vector<Station> make_ring(int devices, size_t count) {
  std::vector<Station> ring(devices);
  std::vector<unsigned> pattern(count);
  for (int d = 0; d < devices; d++) {
    CHECK(cudaSetDevice(d));
    CHECK(cudaMalloc(&ring[d].own, count * sizeof(unsigned)));
    CHECK(cudaMalloc(&ring[d].inbox, count * sizeof(unsigned)));
    CHECK(cudaStreamCreateWithFlags(&ring[d].stream, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&ring[d].sent, cudaEventDisableTiming));
    CHECK(cudaEventCreateWithFlags(&ring[d].taken, cudaEventDisableTiming));
    for (size_t i = 0; i < count; i++) pattern[i] = d * 1000003u + (unsigned)i;
    CHECK(cudaMemcpy(ring[d].own, pattern.data(), count * sizeof(unsigned), cudaMemcpyHostToDevice));
    CHECK(cudaDeviceSynchronize());
  }
  return ring;
}

// Every station sends to the next one; each adds one to what it got and makes it its own.
void turn(std::vector<Station>* ring, size_t count) {
  const int devices = (int)ring->size();
  for (int d = 0; d < devices; d++) {
    const int next = (d + 1) % devices;
    CHECK(cudaSetDevice(d));
    CHECK(cudaStreamWaitEvent((*ring)[d].stream, (*ring)[next].taken, 0));
    CHECK(
        cudaMemcpyPeerAsync((*ring)[next].inbox, next, (*ring)[d].own, d, count * sizeof(unsigned), (*ring)[d].stream));
    CHECK(cudaEventRecord((*ring)[d].sent, (*ring)[d].stream));
  }
  for (int d = 0; d < devices; d++) {
    Station& station = (*ring)[d];
    CHECK(cudaSetDevice(d));
    CHECK(cudaStreamWaitEvent(station.stream, (*ring)[(d + devices - 1) % devices].sent, 0));
    add_one<<<16, 128, 0, station.stream>>>(station.inbox, count);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(station.own, station.inbox, count * sizeof(unsigned), cudaMemcpyDeviceToDevice,
                          station.stream));
    CHECK(cudaEventRecord(station.taken, station.stream));
  }
}

size_t wrong_values(const Station& station, int origin, unsigned added, size_t count) {
  std::vector<unsigned> values(count);
  CHECK(cudaMemcpy(values.data(), station.own, count * sizeof(unsigned), cudaMemcpyDeviceToHost));
  size_t wrong = 0;
  for (size_t i = 0; i < count; i++) wrong += values[i] != origin * 1000003u + (unsigned)i + added;
  return wrong;
}

}  // namespace

int main(int argc, char** argv) {
  const size_t count = (size_t)(option(argc, argv, "--mib", 1) * 1024 * 1024) / sizeof(unsigned);
  const int rounds = (int)option(argc, argv, "--rounds", 8);
  int devices = 0;
  CHECK(cudaGetDeviceCount(&devices));
  std::vector<Station> ring = make_ring(devices, count);
  for (int round = 0; round < rounds; round++) turn(&ring, count);
  for (int d = 0; d < devices; d++) {
    CHECK(cudaSetDevice(d));
    CHECK(cudaStreamSynchronize(ring[d].stream));
    const int origin = ((d - rounds) % devices + devices) % devices;
    const size_t wrong = wrong_values(ring[d], origin, rounds, count);
    EXPECT(wrong == 0, "device %d: %zu of %zu values", d, wrong, count);
  }
  // The same without streams: by the copy that names devices, and by addresses alone.
  const int last = devices - 1;
  CHECK(cudaMemcpyPeer(ring[last].inbox, last, ring[0].own, 0, count * sizeof(unsigned)));
  CHECK(cudaMemcpy(ring[last].own, ring[last].inbox, count * sizeof(unsigned), cudaMemcpyDefault));
  if (devices > 1) CHECK(cudaMemcpy(ring[last].own, ring[0].own, count * sizeof(unsigned), cudaMemcpyDefault));
  const size_t wrong = wrong_values(ring[last], (devices - rounds % devices) % devices, rounds, count);
  EXPECT(wrong == 0, "copies by address: %zu of %zu values", wrong, count);
  printf("%d devices, %d rounds of %zu bytes\n", devices, rounds, count * sizeof(unsigned));
  return verdict("peer_copy");
}
