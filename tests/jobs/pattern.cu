// Whether a tenant finds in its memory what another one left there.
//   ./pattern fill     writes a pattern into all memory of the GPU that it gets, says "filled N MiB", and waits to be
//   killed
//   ./pattern fill --end                                                                       ... and ends by itself
//   ./pattern search   takes all memory that it gets, writes none, and says "hits N in M MiB": words of the pattern

#include <stdint.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "job.h"

namespace {

constexpr uint64_t kPattern = 0x5ec2e7da7a1ea4ed;
constexpr size_t kMiB = 1u << 20;
constexpr size_t kSide = 1024;  // of arrays, in elements of 8 bytes
constexpr size_t kHostBytes = 4 * kMiB;
constexpr size_t kSpare = 16 * kMiB;

__device__ uint64_t variable[64 * 1024];

// What one way of getting memory gave, and how to reach it.
struct Tenant {
  bool fills = false;
  size_t bytes = 0, hits = 0;
  std::vector<uint64_t> buffer = std::vector<uint64_t>(8 * kMiB / 8);

  uint64_t* begin() {
    std::fill(buffer.begin(), buffer.end(), fills ? kPattern : 0);
    return buffer.data();
  }
  void end(const uint64_t* data, size_t size) {
    bytes += size;
    if (!fills) hits += std::count(data, data + size / 8, kPattern);
  }

  void linear(void* memory, size_t size) {
    for (size_t at = 0; at < size; at += buffer.size() * 8) {
      const size_t part = std::min(buffer.size() * 8, size - at);
      void* const there = static_cast<char*>(memory) + at;
      uint64_t* const here = begin();
      CHECK(cudaMemcpy(fills ? there : here, fills ? here : there, part, cudaMemcpyDefault));
      end(here, part);
    }
  }
  void array(cudaArray_t memory, size_t side, size_t slices) {
    for (size_t slice = 0; slice < slices; slice++) {
      uint64_t* const here = begin();
      const cudaPitchedPtr host = make_cudaPitchedPtr(here, side * 8, side, side);
      cudaMemcpy3DParms copy = {};
      copy.extent = make_cudaExtent(side, side, 1);
      copy.kind = fills ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
      (fills ? copy.srcPtr : copy.dstPtr) = host;
      (fills ? copy.dstArray : copy.srcArray) = memory;
      (fills ? copy.dstPos : copy.srcPos) = make_cudaPos(0, 0, slice);
      CHECK(cudaMemcpy3D(&copy));
      end(here, side * side * 8);
    }
  }
  void arrays() {
    const cudaChannelFormatDesc element = cudaCreateChannelDesc<uint2>();
    cudaArray_t plain, layered, level;
    cudaMipmappedArray_t mipmap;
    CHECK(cudaMallocArray(&plain, &element, kSide, kSide));
    array(plain, kSide, 1);
    CHECK(cudaMalloc3DArray(&layered, &element, make_cudaExtent(kSide / 2, kSide / 2, 3), cudaArrayLayered));
    array(layered, kSide / 2, 3);
    CHECK(cudaMallocMipmappedArray(&mipmap, &element, make_cudaExtent(kSide, kSide, 0), 3));
    for (unsigned i = 0; i < 3; i++) {
      CHECK(cudaGetMipmappedArrayLevel(&level, mipmap, i));
      array(level, kSide >> i, 1);
    }
  }
  void shared_with_the_host() {
    void *managed, *locked;
    CHECK(cudaMallocManaged(&managed, kHostBytes));
    CHECK(cudaMallocHost(&locked, kHostBytes));
    linear(managed, kHostBytes);
    linear(locked, kHostBytes);
  }
  void variables() {
    void* address;
    CHECK(cudaGetSymbolAddress(&address, variable));
    linear(address, sizeof variable);
  }
  void all_that_is_left() {
    void* memory;
    CHECK(cudaMallocAsync(&memory, 4 * kMiB, 0));
    CHECK(cudaStreamSynchronize(0));
    linear(memory, 4 * kMiB);
    // Not to the last byte: arrays and images take more of a card than they say.
    size_t free = 0, total = 0;
    while (cudaMemGetInfo(&free, &total) == cudaSuccess && free > kSpare + kMiB) {
      const size_t piece = std::min(free - kSpare, 32 * kMiB);
      CHECK(cudaMalloc(&memory, piece));
      linear(memory, piece);
    }
  }
};

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  const bool ends = count > 2 && std::string(arguments[2]) == "--end";
  Tenant tenant;
  tenant.fills = what == "fill";
  if (!tenant.fills && what != "search") return 2;
  tenant.variables();
  tenant.arrays();
  tenant.shared_with_the_host();
  tenant.all_that_is_left();
  CHECK(cudaDeviceSynchronize());
  if (tenant.fills) {
    printf("filled %zu MiB\n", tenant.bytes / kMiB);
  } else {
    printf("hits %zu in %zu MiB\n", tenant.hits, tenant.bytes / kMiB);
  }
  fflush(stdout);
  while (tenant.fills && !ends) pause();
  return 0;
}
