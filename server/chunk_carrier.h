#pragma once

// Carries chunks of a vGPU's device memory to another worker, as often as they change: the sender knows what the
// destination has, by its hash, and sends what differs. The hash is that of the bytes that were sent, not of the memory
// that they were read from: a chunk may be written while it is read, and also be written back later, so that only the
// bytes on their way say what arrived. One thread at a time, with the vGPU's primary context current.
//
// Where a vGPU is on no GPU its chunks lie elsewhere (server/kept.h), and are carried alike.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/chunk_buffers.h"
#include "server/chunk_hash.h"
#include "server/chunk_slots.h"
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
  kSlot = 7,   // one chunk; its bytes are in a slot (server/chunk_slots.h)
};

struct ChunkFrame {
  ChunkFrameKind kind = ChunkFrameKind::kEnd;
  uint32_t slot = 0;     // of kSlot
  uint64_t address = 0;  // of whole chunks
  uint64_t bytes = 0;
};

// A vGPU's chunks as a move sends them, wherever they lie.
class ChunkCarrier {
 public:
  struct Pass {
    uint64_t chunks = 0;  // that had changed
    uint64_t bytes = 0;   // that were sent
    uint64_t ns = 0;      // for copying, looking at and sending those
    bool whole = false;   // nothing that is mapped was left out
  };

  explicit ChunkCarrier(ByteStream& stream) : stream_(stream) {}
  virtual ~ChunkCarrier() = default;
  ChunkCarrier(const ChunkCarrier&) = delete;
  ChunkCarrier& operator=(const ChunkCarrier&) = delete;

  // Before the first pass: chunks go through these, which the destination has offered.
  void use(std::unique_ptr<ChunkSlots> slots) { slots_ = std::move(slots); }
  // The calling thread is the one from now on.
  virtual void enter_thread() {}
  // What is mapped now, and of it what differs from what the destination has. The vGPU may run. `go_on` is asked now
  // and then: false ends the pass early.
  virtual Outcome pass(const std::function<bool()>& go_on, Pass* pass) = 0;
  // Waits until the destination has done all that was sent; fails with its reason when it could not.
  Outcome confirm();
  // No more passes.
  Outcome end();

 protected:
  Outcome send_frame(ChunkFrameKind kind, uint64_t address, uint64_t bytes);
  // `chunks` ascend; neighbours go in one frame, but where one of `begins` (ascending) is.
  Outcome send_ranges(ChunkFrameKind kind, const std::vector<uint64_t>& chunks,
                      const std::vector<uint64_t>& begins = {});
  Outcome send_chunk(uint64_t address, const std::byte* bytes);
  // Of one that lies in the slot already.
  Outcome send_slot(uint64_t address, uint32_t slot);

  ByteStream& stream_;
  std::unique_ptr<ChunkSlots> slots_;  // null: there are none
};

// Of a GPU's memory.
class ChunkSender final : public ChunkCarrier {
 public:
  ChunkSender(const DriverLibrary& library, Contexts& contexts, Memory& memory, ByteStream& stream)
      : ChunkCarrier(stream),
        contexts_(contexts),
        memory_(memory),
        hasher_(library, contexts),
        buffers_(library.calls) {}

  Outcome start();
  void enter_thread() override { contexts_.use(0); }
  Outcome pass(const std::function<bool()>& go_on, Pass* pass) override;

 private:
  // What the destination has at an address.
  struct Copy {
    ChunkHash hash;
    bool hashed = false;  // else nothing is known of it
    bool zero = false;
  };
  // Kept readable for a while.
  struct Pins;

  Outcome tell_pieces(const std::vector<MemoryRange>& pieces);
  Outcome tell_mapped(const std::vector<uint64_t>& chunks);
  Outcome changed(const Pins& pins, std::vector<uint64_t>* chunks);
  Outcome send_chunks(std::span<const uint64_t> chunks, const std::function<bool()>& go_on, Pass* pass);
  Outcome next_buffer(uint32_t but, uint32_t* which);
  Outcome carry(uint64_t address, uint32_t which, Pass* pass);

  Contexts& contexts_;
  Memory& memory_;
  ChunkHasher hasher_;
  ChunkBuffers buffers_;
  std::unordered_map<uint64_t, Copy> there_;
  std::vector<uint64_t> told_;     // mapped there, ascending
  std::vector<MemoryRange> cuts_;  // shared pieces, each of which was told in one
};

// What becomes of chunks that come. Addresses and bytes are of whole chunks that are the vGPU's.
class ChunkTaker {
 public:
  virtual ~ChunkTaker() = default;
  virtual bool owns(uint64_t address, uint64_t bytes) const = 0;
  // What is new is zero.
  virtual Outcome map(uint64_t address, uint64_t bytes) = 0;
  virtual Outcome unmap(uint64_t address, uint64_t bytes) = 0;
  virtual Outcome clear(uint64_t address, uint64_t bytes) = 0;
  // Of one chunk, whose bytes come next.
  virtual Outcome take(uint64_t address, ByteStream& from) = 0;
  // Of one chunk, whose bytes are in the slot, which is given back.
  virtual Outcome take_slot(uint64_t address, ChunkSlots& slots, uint32_t slot) = 0;
  // Until all of it is done.
  virtual Outcome rest() = 0;
};

// For the source's next word, which may wait for other sessions; that it is gone shows at once.
inline constexpr uint32_t kSourceMs = 600'000;
// Until the sender's end(). Waits `first_ms` for its first word. `slots`: that were offered to it; null: none.
Outcome receive_chunks(ByteStream& stream, ChunkSlots* slots, ChunkTaker& taker, uint32_t first_ms = kSourceMs);

// Into a GPU's memory.
class MemoryTaker final : public ChunkTaker {
 public:
  MemoryTaker(const DriverLibrary& library, Memory& memory, const Streams& streams)
      : memory_(memory), streams_(streams), buffers_(library.calls) {}

  // `slots`: that were offered to the source; null: none. They outlive it.
  Outcome start(ChunkSlots* slots) { return buffers_.start(slots); }
  bool owns(uint64_t address, uint64_t bytes) const override { return memory_.in_range(address, bytes); }
  Outcome map(uint64_t address, uint64_t bytes) override;
  Outcome unmap(uint64_t address, uint64_t bytes) override;
  Outcome clear(uint64_t address, uint64_t bytes) override { return buffers_.clear(address, bytes); }
  Outcome take(uint64_t address, ByteStream& from) override;
  Outcome take_slot(uint64_t address, ChunkSlots& slots, uint32_t slot) override;
  Outcome rest() override { return buffers_.rest(); }

 private:
  Memory& memory_;
  const Streams& streams_;
  ChunkBuffers buffers_;
  size_t turn_ = 0;
  uint32_t read_ = kNoSlot;  // the GPU still reads it
};

}  // namespace tide
