#pragma once

// The hashes of one block of host memory, chunk by chunk (base/chunk_hash.h), remembered with those of their leaves:
// who asks again pays for the pages that were written since. For that the system watches the memory
// (base/page_watch.h), from the first question on until forget(); the first write to a page after each question costs
// about a microsecond, and a huge page falls apart then, which the system mends later.
//
// Threads: one at a time, the owner has a lock; any may write to the memory meanwhile. What is written while hash()
// runs is in its answer or not, and in the next answer for certain.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/chunk_hash.h"
#include "base/page_watch.h"

namespace softgpu {

class ChunkHashes {
 public:
  // Anonymous memory, of whole chunks. `ours`: nobody writes there but this process, by these addresses; else nothing
  // can be remembered.
  struct Block {
    const std::byte* host = nullptr;
    uint64_t bytes = 0;
    bool ours = false;
  };
  // Those of `count` chunks from number `first` on. Returns how many leaves it computed. The block is the same in all
  // calls until forget().
  uint64_t hash(const Block& block, const tide::ChunkSecret& secret, uint64_t first, uint64_t count,
                tide::ChunkHash* hashes);
  // Before the memory goes, or comes to lie elsewhere.
  void forget();

 private:
  bool start(const Block& block, const tide::ChunkSecret& secret);
  uint64_t take_written(const Block& block, uint64_t first, uint64_t count);

  tide::PageWatch watch_;
  tide::ChunkSecret secret_;
  std::vector<tide::ChunkHash> leaves_, chunks_;
};

}  // namespace softgpu
