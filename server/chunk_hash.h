#pragma once

// Hashes of whole chunks of device memory, by which a move finds what has changed: 128 bits of XXH3, so that two contents
// with one hash do not come up by chance. It is not a cryptographic hash: a tenant who makes two such contents on purpose
// harms its own memory only.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/outcome.h"
#include "server/contexts.h"
#include "server/driver_library.h"

namespace tide {

struct ChunkHash {
  uint64_t low = 0, high = 0;
  bool operator==(const ChunkHash&) const = default;
};

// Of kChunkBytes in host memory: what ChunkHasher says of a chunk with these contents.
ChunkHash hash_of_chunk(const std::byte* data);

// One thread at a time, with the vGPU's primary context current.
class ChunkHasher {
 public:
  ChunkHasher(const DriverLibrary& library, Contexts& contexts);
  ~ChunkHasher();
  ChunkHasher(const ChunkHasher&) = delete;
  ChunkHasher& operator=(const ChunkHasher&) = delete;

  // Takes what it needs. Before that nothing is taken.
  Outcome start();
  // The hashes of chunks as they are now, in no order with work that is under way. `addresses`: of mapped chunks, which
  // stay mapped until it returns; `hashes`: as many.
  Outcome hash(std::span<const uint64_t> addresses, ChunkHash* hashes);

 private:
  struct Device;
  const DriverLibrary& library_;
  Contexts& contexts_;
  std::unique_ptr<Device> device_;
};

}  // namespace tide
