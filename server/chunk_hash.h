#pragma once

// The hashes of chunks of device memory (base/chunk_hash.h), for finding out what a running job has changed. A GPU
// computes them itself (hash_chunks.cu), at the rate of its memory; the software GPU has an entry of its own, which
// reads only what was written since the last question (softgpu/driver/chunk_hash.h).
//
// Threads: one, or several in turn. Each has the vGPU's primary context current, also when this ends.

#include <cstdint>
#include <span>

#include "base/chunk_hash.h"
#include "base/outcome.h"
#include "server/contexts.h"
#include "server/driver_library.h"

namespace tide {

class ChunkHasher {
 public:
  // Nothing is taken before start(). Both are kept.
  ChunkHasher(const DriverLibrary& library, Contexts& contexts);
  // The software GPU forgets what it knew: its memory is not watched any longer.
  ~ChunkHasher();
  ChunkHasher(const ChunkHasher&) = delete;
  ChunkHasher& operator=(const ChunkHasher&) = delete;

  // On a real GPU: an own stream, of the lowest priority and in no order with others, the kernel, which the driver
  // translates, and a page of host memory. Requires: contexts.use(0).
  Outcome start();
  // Instead of a secret of its own: hashes can be compared with those of whoever has that one, too. Before hash().
  void use(const ChunkSecret& secret);

  // The hashes of whole chunks of device memory as they are now, in no order with work that is under way: of a chunk
  // that is being written, some state of each word. `addresses`: of mapped chunks (kChunkBytes each), any number. No
  // hashes are set if it fails. Waits for the GPU. Requires: start() was ok.
  Outcome hash(std::span<const uint64_t> addresses, ChunkHash* hashes);

  // What a chunk of zeros has, after start(). Only hashes by one secret can be compared.
  const ChunkHash& zeros() const { return zeros_; }
  const ChunkSecret& secret() const { return secret_; }

 private:
  struct Page;
  Outcome start_kernel();
  CUresult hash_batch(std::span<const uint64_t> addresses);

  const DriverLibrary& library_;
  Contexts& contexts_;
  ChunkSecret secret_;
  ChunkKeys keys_ = {};
  ChunkHash zeros_;
  CUstream stream_ = nullptr;
  CUmodule module_ = nullptr;
  CUfunction kernel_ = nullptr;
  Page* page_ = nullptr;        // page-locked, which the kernel reads and writes where it lies
  CUdeviceptr page_there_ = 0;  // its address for the kernel
};

}  // namespace tide
