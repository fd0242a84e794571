#pragma once

// The vGPU's streams by slot, and what is under way on them. Nothing here waits: markers (pooled events) are recorded
// behind work and polled in order; when one is done, all that was put before it on that stream is done, and the client
// is told through the outbox. One thread.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/contexts.h"
#include "server/outbox.h"
#include "server/shared_event.h"
#include "server/staging.h"

namespace tide {

struct Fetch;  // peer_fetcher.h

inline constexpr uint32_t kCommandsPerMarker = 64;       // progress is seen at least this often on a busy stream
inline constexpr uint64_t kBytesPerMarker = 512u << 10;  // of copies

class Streams {
 public:
  struct Parts {
    const Driver& driver;
    Contexts& contexts;
    Staging& staging;
    Outbox& outbox;
    std::function<void(CUresult result, uint64_t sequence)> raise;  // a failure of work that was accepted before
  };
  explicit Streams(Parts parts);

  CUresult create(uint32_t slot, uint32_t context, uint32_t flags, int32_t priority);
  CUresult add_legacy(uint32_t slot, uint32_t context);
  CUresult destroy(uint32_t slot);
  // All slots of a context are forgotten. Requires: idle(context).
  void forget_context(uint32_t context);

  // Before work: makes the stream's context current and gives its handle.
  CUresult enter(uint32_t slot, CUstream* stream);
  // What comes for the slot goes to another stream, to be captured, and is not followed; null: it is refused.
  void divert(uint32_t slot, CUstream to);
  void restore(uint32_t slot);
  // Work was put on the stream as part of command `sequence`.
  void worked(uint32_t slot, uint64_t sequence);
  // Before that: it copies so many bytes. Large copies get markers soon, so that whoever waits for one goes on while
  // the next is made. True: worked() will put one.
  bool copies(uint32_t slot, uint64_t bytes);
  // Whether a marker was put behind large copies since this was asked last.
  bool take_copied() { return std::exchange(copied_, false); }
  // Then: this many bytes in `piece` are the answer's, once the work is done.
  void deliver(uint32_t slot, const AnswerHeader& header, Staging::Piece piece, PackMode pack);
  // Then: the piece is free once the work is done.
  void release(uint32_t slot, Staging::Piece piece);
  // The next work of the slot, and what is told of it, comes after this; then its answer is data of command `sequence`.
  void fetch(uint32_t slot, uint64_t sequence, std::shared_ptr<const Fetch> fetch);
  // Then: this event is complete once the work is done; marks at once. Where it is other processes', too, only these
  // are told (Events::watch).
  void record_event(uint32_t slot, uint32_t event, uint64_t sequence, SharedRecord shared);

  // Puts markers behind all work that has none: nothing more comes for now.
  void mark_all();
  // Tells what has completed; true if anything has.
  bool poll();
  // Everything that was put before this sequence number is done (and everything at all: idle()).
  bool done_before(uint64_t sequence) const;
  bool idle() const { return active_.empty() && dirty_.empty(); }
  bool idle(uint32_t context) const;
  bool has_pending() const { return !active_.empty(); }
  // Some of it is more than waiting for another vGPU's bytes.
  bool computes() const;
  // Grows with each marker that is found to be done.
  uint64_t completed() const { return completed_; }

  // The client hears that this event, or this stream, has got to a sequence number. Never goes back: an event may be
  // recorded on a fast stream while an earlier record on a slow one is still under way.
  void tell_event(uint32_t event, uint64_t sequence);
  void tell_progress(uint32_t slot, uint64_t sequence);

  // The context is lost: nothing completes any more, so from the next poll() on all is called complete.
  void fail_all();
  // The newest sequence executed; with fail_all() every live stream is said to have reached it.
  void reached(uint64_t sequence);

 private:
  struct Pending {
    enum class Kind { kMarker, kData, kRelease, kEvent, kFetch } kind = Kind::kMarker;
    uint64_t sequence = 0;
    CUevent marker = nullptr;  // kMarker, kEvent
    uint32_t event = 0;
    SharedRecord shared;
    AnswerHeader header;
    Staging::Piece piece;
    std::shared_ptr<const Fetch> fetch;
    PackMode pack = PackMode::kOff;  // kData
    // Of what comes before it, too, it says when it is done.
    bool tells() const { return kind == Kind::kMarker || kind == Kind::kEvent || kind == Kind::kFetch; }
  };
  struct Slot {
    bool live = false;
    bool legacy = false;
    bool diverted = false;
    CUstream elsewhere = nullptr;  // where it is diverted to
    bool dirty = false;            // work without a marker behind it
    CUstream handle = nullptr;
    uint32_t context = 0;
    uint32_t unmarked = 0;
    uint64_t unmarked_bytes = 0;
    uint64_t sequence = 0;  // of the last work
    uint64_t reported = 0;  // the progress that was told last
    std::deque<Pending> pending;
  };

  void mark(uint32_t slot, Pending::Kind kind, uint32_t event, SharedRecord shared);
  bool poll_slot(uint32_t slot);
  CUresult query(const Pending& pending) const;
  void tell_fetch(const Pending& pending, bool failed);
  void finish(uint32_t slot, Pending& pending, bool failed);
  void activate(uint32_t slot);
  CUevent take_marker(uint32_t context);

  Parts parts_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> events_told_;  // by event slot: the last record that the client knows to be complete
  std::vector<uint32_t> active_;       // slots with pending entries
  std::vector<uint32_t> dirty_;
  std::unordered_map<uint32_t, std::vector<CUevent>> markers_;  // free ones, by context
  bool failed_ = false;
  bool copied_ = false;
  uint64_t completed_ = 0;
};

}  // namespace tide
