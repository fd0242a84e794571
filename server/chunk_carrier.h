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
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/chunk_buffers.h"
#include "server/chunk_hash.h"
#include "server/chunk_slots.h"
#include "server/memory.h"
#include "server/shelf.h"
#include "server/streams.h"
#include "transport/stream.h"

namespace tide {

class SourceDoor;

enum class ChunkFrameKind : uint32_t {
  kMap = 1,    // the range is mapped from here on
  kUnmap = 2,  // the range is not mapped any more
  kData = 3,   // one chunk; its bytes follow
  kZero = 4,   // the range is zero
  kPass = 5,   // asks for a verdict on all that came so far
  kEnd = 6,    // no more of chunks
  kSlot = 7,   // one chunk; its bytes are in a slot (server/chunk_slots.h)
  // To a destination whose greeting has kKnowsWord; each is answered by a verdict, in whose words:
  kSecret = 8,  // the secret (base/chunk_hash.h) by which it knows chunks
  kAsk = 9,     // which of some chunks it knows, and has therefore from now on; `bytes` of AskedChunk follow
  // The first, to a destination whose greeting has kReturnsWord:
  kReturns = 10,  // the source comes back where the stream breaks before kEnd (server/source_door.h)
};

struct ChunkFrame {
  ChunkFrameKind kind = ChunkFrameKind::kEnd;
  uint32_t slot = 0;     // of kSlot
  uint64_t address = 0;  // of whole chunks
  uint64_t bytes = 0;
};

// A chunk, as the source has it at this moment.
struct AskedChunk {
  uint64_t address = 0;
  ChunkHash hash;
};
inline constexpr size_t kAskedMost = 64;  // at once: a bit each in the answer, 16 hexadecimal digits

// A vGPU's chunks as a move sends them, wherever they lie.
class ChunkCarrier {
 public:
  struct Pass {
    uint64_t chunks = 0;  // that had changed
    uint64_t bytes = 0;   // that were sent
    uint64_t ns = 0;      // for copying, looking at and sending those
    uint64_t known = 0;   // chunks of these that the destination had already
    bool whole = false;   // nothing that is mapped was left out
  };

  explicit ChunkCarrier(ByteStream& stream) : stream_(stream) {}
  virtual ~ChunkCarrier() = default;
  ChunkCarrier(const ChunkCarrier&) = delete;
  ChunkCarrier& operator=(const ChunkCarrier&) = delete;

  // Before the first pass, and before anything else is sent: takes what the destination has offered in its greeting.
  // Chunks go through its slots, if these can be reached; and if it knows chunks, what it has already is not sent.
  // `comes_back`: we do where the stream breaks, if it waits for that.
  Outcome meet(const std::string& offer, bool comes_back);
  // Whether it waits for us where the stream breaks: not where chunks go through slots, since within one machine a
  // stream breaks with a process only.
  bool may_return() const { return returns_; }
  // Requires: may_return(), and no pass is under way. Over another connection than before, on which the destination has
  // said how many frames it had done of all that were sent: what it had not is not there, and is the next pass's.
  Outcome return_to(uint64_t done);
  // Chunks go through these.
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
  // `mapped`: all that is there, ascending; `lost`: frames that came to nothing.
  virtual void take_back(const std::vector<uint64_t>& mapped, std::span<const ChunkFrame> lost) = 0;
  Outcome send_frame(ChunkFrameKind kind, uint64_t address, uint64_t bytes);
  // `chunks` ascend; neighbours go in one frame, but where one of `begins` (ascending) is.
  Outcome send_ranges(ChunkFrameKind kind, const std::vector<uint64_t>& chunks,
                      const std::vector<uint64_t>& begins = {});
  Outcome send_chunk(uint64_t address, const std::byte* bytes);
  // Of one that lies in the slot already.
  Outcome send_slot(uint64_t address, uint32_t slot);
  // The destination knows chunks by this.
  virtual void know(const ChunkSecret& secret) { secret_ = secret; }
  // Whether the next few chunks are worth a question: mostly not, when many have been asked for in vain.
  bool asks();
  // *there: a bit for each, of kAskedMost at most, that the destination has. Where it fails nothing is known of them.
  Outcome ask(std::span<const AskedChunk> chunks, uint64_t* there);

  ByteStream& stream_;
  std::unique_ptr<ChunkSlots> slots_;  // null: there are none
  ChunkSecret secret_;

 private:
  Outcome say(const ChunkFrame& frame);
  void settle(size_t frames);

  bool knows_ = false;  // the destination
  uint32_t in_vain_ = 0, left_out_ = 0;
  bool returns_ = false;
  uint64_t done_ = 0;            // frames that the destination has done, as it has said last,
  std::set<uint64_t> mapped_;    // what it had mapped then,
  std::vector<ChunkFrame> log_;  // and what was sent since, or was about to be
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

  void take_back(const std::vector<uint64_t>& mapped, std::span<const ChunkFrame> lost) override;
  void know(const ChunkSecret& secret) override;
  Outcome leave_out_known(std::vector<uint64_t>* chunks, Pass* pass);
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
  // Null: it knows no chunks. Else by this secret.
  virtual const ChunkSecret* secret() const { return nullptr; }
  // One chunk becomes what has this hash; *known false: there is nothing that has, and nothing was done. Behind rest().
  virtual Outcome take_known(uint64_t address, const ChunkHash& hash, bool* known) = 0;
  // Until all of it is done.
  virtual Outcome rest() = 0;
};

// For the source's next word, which may wait for other sessions; that it is gone shows at once.
inline constexpr uint32_t kSourceMs = 600'000;
// How they come.
struct ChunkWays {
  ChunkSlots* slots = nullptr;    // that were offered to the source; null: none
  SourceDoor* door = nullptr;     // of the stream, which lasts; null: the source cannot come back
  uint32_t first_ms = kSourceMs;  // for its first word
};
// Until the sender's end().
Outcome receive_chunks(ByteStream& stream, const ChunkWays& ways, ChunkTaker& taker);

// Into a GPU's memory.
class MemoryTaker final : public ChunkTaker {
 public:
  // `shelf`: of what the job's keepers have here; null: there is none.
  MemoryTaker(const DriverLibrary& library, Memory& memory, const Streams& streams, Shelf* shelf)
      : memory_(memory), streams_(streams), shelf_(shelf), buffers_(library.calls), kept_(library.calls) {}

  // `slots`: that were offered to the source; null: none. They outlive it.
  Outcome start(ChunkSlots* slots) { return buffers_.start(slots); }
  bool owns(uint64_t address, uint64_t bytes) const override { return memory_.in_range(address, bytes); }
  Outcome map(uint64_t address, uint64_t bytes) override;
  Outcome unmap(uint64_t address, uint64_t bytes) override;
  Outcome clear(uint64_t address, uint64_t bytes) override { return buffers_.clear(address, bytes); }
  Outcome take(uint64_t address, ByteStream& from) override;
  Outcome take_slot(uint64_t address, ChunkSlots& slots, uint32_t slot) override;
  const ChunkSecret* secret() const override { return shelf_ != nullptr ? &shelf_->secret() : nullptr; }
  Outcome take_known(uint64_t address, const ChunkHash& hash, bool* known) override;
  Outcome rest() override;

 private:
  Memory& memory_;
  const Streams& streams_;
  Shelf* const shelf_;
  ChunkBuffers buffers_;
  ChunkBuffers kept_;  // for what comes from the shelf; started with the first
  size_t turn_ = 0;
  uint32_t read_ = kNoSlot;  // the GPU still reads it
};

}  // namespace tide
