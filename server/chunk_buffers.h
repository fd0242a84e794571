#pragma once

// Page-locked buffers of a chunk each and a stream of their own, so that the GPU copies one chunk while the CPU looks
// at another. In no order with any other work on the GPU. One thread at a time, with the vGPU's primary context
// current.

#include <cstddef>
#include <cstdint>

#include "base/limits.h"
#include "base/outcome.h"
#include "server/chunk_slots.h"
#include "server/driver_library.h"

namespace tide {

class ChunkBuffers {
 public:
  struct Buffer {
    std::byte* data = nullptr;
    CUevent done = nullptr;
    bool busy = false;
  };

  explicit ChunkBuffers(const Driver& driver) : driver_(driver) {}
  ~ChunkBuffers();
  ChunkBuffers(const ChunkBuffers&) = delete;
  ChunkBuffers& operator=(const ChunkBuffers&) = delete;

  // `slots`: those are the buffers, each by its number, and outlive them; null: two that are made.
  Outcome start(ChunkSlots* slots);
  bool started() const { return count_ != 0; }
  // By turns.
  Buffer& at(size_t turn) { return buffers_[turn % count_]; }
  // Begin to copy a chunk of device memory, which is mapped until wait().
  Outcome fetch(Buffer* buffer, uint64_t address);
  Outcome store(Buffer* buffer, uint64_t address);
  // Until the buffer is at rest.
  Outcome wait(Buffer* buffer);
  // Begins to zero device memory, behind what was begun before.
  Outcome clear(uint64_t address, uint64_t bytes);
  // Until nothing is under way.
  Outcome rest();

 private:
  Outcome mark(Buffer* buffer);
  Outcome fail(CUresult result) const;

  const Driver& driver_;
  CUstream stream_ = nullptr;
  std::byte* own_ = nullptr;     // two chunks; null: they are slots
  std::byte* locked_ = nullptr;  // what is page-locked
  size_t count_ = 0;
  Buffer buffers_[ChunkSlots::kSlots];
};

}  // namespace tide
