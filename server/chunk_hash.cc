#include "server/chunk_hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "server/chunk_buffers.h"

namespace tide {

ChunkHash hash_of_chunk(const std::byte* data) {
  const XXH128_hash_t hash = XXH3_128bits(data, kChunkBytes);
  return {hash.low64, hash.high64};
}

struct ChunkHasher::Device {
  explicit Device(const Driver& driver) : buffers(driver) {}
  ChunkBuffers buffers;
};

ChunkHasher::ChunkHasher(const DriverLibrary& library, Contexts& contexts) : library_(library), contexts_(contexts) {}

ChunkHasher::~ChunkHasher() = default;

Outcome ChunkHasher::start() {
  auto device = std::make_unique<Device>(library_.calls);
  if (Outcome outcome = device->buffers.start(); !outcome.ok()) return outcome;
  device_ = std::move(device);
  return {};
}

Outcome ChunkHasher::hash(std::span<const uint64_t> addresses, ChunkHash* hashes) {
  ChunkBuffers& buffers = device_->buffers;
  for (size_t i = 0; i <= addresses.size(); ++i) {
    ChunkBuffers::Buffer& before = buffers.at(i + 1);
    if (i < addresses.size()) {
      if (Outcome outcome = buffers.fetch(&buffers.at(i), addresses[i]); !outcome.ok()) return outcome;
    }
    if (i == 0) continue;
    if (Outcome outcome = buffers.wait(&before); !outcome.ok()) return outcome;
    hashes[i - 1] = hash_of_chunk(before.data);
  }
  return {};
}

}  // namespace tide
