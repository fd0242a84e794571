#pragma once

// Carries chunks of a vGPU's device memory to another worker, as often as they change: the sender knows what the
// destination has, by its hash, and sends what differs. The hash is that of the bytes that were sent, not of the memory
// that they were read from: a chunk may be written while it is read, and also be written back later, so that only the
// bytes on their way say what arrived. One thread at a time, with the vGPU's primary context current.

#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "server/chunk_buffers.h"
#include "server/chunk_hash.h"
#include "server/memory.h"
#include "server/streams.h"
#include "transport/stream.h"

namespace tide {

enum class ChunkFrameKind : uint32_t {
  kMap = 1,    // the range is mapped from here on
  kUnmap = 2,  // the range is not mapped any more
  kData = 3,   // one chunk; its bytes follow
  kZero = 4,   // the range is zero
  kPass = 5,   // asks for a verdict on all that came so far
  kEnd = 6,    // no more of chunks
};

struct ChunkFrame {
  ChunkFrameKind kind = ChunkFrameKind::kEnd;
  uint32_t reserved = 0;
  uint64_t address = 0;  // of whole chunks
  uint64_t bytes = 0;
};

class ChunkSender {
 public:
  struct Pass {
    uint64_t chunks = 0;  // that had changed
    uint64_t bytes = 0;   // that were sent
    uint64_t ns = 0;      // for copying, looking at and sending those
    bool whole = false;   // nothing that is mapped was left out
  };

  ChunkSender(const DriverLibrary& library, Contexts& contexts, Memory& memory, ByteStream& stream)
      : memory_(memory), stream_(stream), hasher_(library, contexts), buffers_(library.calls) {}

  Outcome start();
  // What is mapped now, and of it what differs from what the destination has. The vGPU may run. `go_on` is asked now
  // and then: false ends the pass early.
  Outcome pass(const std::function<bool()>& go_on, Pass* pass);
  // Waits until the destination has done all that was sent; fails with its reason when it could not.
  Outcome confirm();
  // No more passes.
  Outcome end();

 private:
  // What the destination has at an address.
  struct Copy {
    ChunkHash hash;
    bool hashed = false;  // else nothing is known of it
    bool zero = false;
  };
  // Kept readable for a while.
  struct Pins;

  Outcome tell_mapped(const std::vector<uint64_t>& chunks);
  Outcome tell_ranges(ChunkFrameKind kind, const std::vector<uint64_t>& chunks);
  Outcome changed(const Pins& pins, std::vector<uint64_t>* chunks);
  Outcome send_chunks(std::span<const uint64_t> chunks, const std::function<bool()>& go_on, Pass* pass);
  Outcome carry(uint64_t address, const ChunkBuffers::Buffer& buffer, Pass* pass);
  Outcome send_frame(ChunkFrameKind kind, uint64_t address, uint64_t bytes);

  Memory& memory_;
  ByteStream& stream_;
  ChunkHasher hasher_;
  ChunkBuffers buffers_;
  std::unordered_map<uint64_t, Copy> there_;
  std::vector<uint64_t> told_;  // mapped there, ascending
};

class ChunkReceiver {
 public:
  ChunkReceiver(const DriverLibrary& library, Memory& memory, const Streams& streams, ByteStream& stream)
      : memory_(memory), streams_(streams), stream_(stream), buffers_(library.calls) {}

  // Until the sender's end(). What it says and sends is done to the vGPU's memory.
  Outcome run();

 private:
  Outcome take(const ChunkFrame& frame);
  Outcome take_data(const ChunkFrame& frame);

  Memory& memory_;
  const Streams& streams_;
  ByteStream& stream_;
  ChunkBuffers buffers_;
  size_t turn_ = 0;
};

}  // namespace tide
