#pragma once

// What the worker tells the client, in order: records for the answer ring and words of the completion page. What finds
// no room in the ring waits here, and everything behind it too, so a progress word never overtakes the data it stands
// for. Survives a move: what was not delivered goes along. One thread.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "server/answer_packing.h"
#include "server/staging.h"
#include "transport/link.h"
#include "transport/ring.h"

namespace tide {

inline constexpr size_t kOutboxEntriesMax = 4096;  // above it no more commands are executed until the client reads

class Outbox {
 public:
  // Exactly one of: a record with payload (from `payload` or `piece`), or a word.
  struct Entry {
    AnswerHeader header;
    std::vector<std::byte> payload;
    Staging::Piece piece;  // holds header.payload_bytes
    PackMode pack = PackMode::kOff;
    uint64_t word = 0;  // not 0: this word (offset in WorkerPage) becomes `value`
    uint64_t value = 0;
  };

  explicit Outbox(Staging& staging) : staging_(staging) {}
  // From now on what waits goes to this link; what was lent to another one lies in the ring (Link::take_back). Null:
  // nowhere, it waits.
  void attach(Link* link);

  void record(const AnswerHeader& header, std::span<const std::byte> payload);
  // Owns the piece from now on.
  void data(const AnswerHeader& header, Staging::Piece piece, PackMode pack = PackMode::kOff);
  // The same of bytes that stay where they are: nobody may write or free them while lends_in_place(). False, and
  // nothing is told: it has to be data().
  bool data_in_place(const AnswerHeader& header, const std::byte* from);
  // Of these bytes, those that the client may not have yet.
  uint64_t in_place() const;
  bool lends_in_place() const { return in_place() != 0; }
  // For who waits until that is over. False once it has taken long; then data_in_place() refuses for a while, and where
  // the connection broke it is over.
  bool in_place_gets_on();
  // From now on they lie in the ring: the connection broke, or they shall be free.
  void take_in_place();
  // The data of this copy may be written straight to the client's memory, from `to` on. Until `bytes` were.
  void land(uint64_t sequence, const RemotePlace& to, uint64_t bytes);
  // Called before each word: what must be in the ring ahead of it.
  void set_before_word(std::function<void()> before) { before_word_ = std::move(before); }
  // Called when a word could go out: writes what must be ahead of it then. False: not yet, the word waits.
  void set_ahead(std::function<bool(AnswerWriter&)> ahead) { ahead_ = std::move(ahead); }
  // `word` points into the worker's page of any region; `page` is that page.
  void word(uint64_t offset, uint64_t value);

  // Writes what the ring has room for; true if anything was written.
  bool flush();
  bool empty() const { return entries_.empty(); }
  // Bytes of the ring that the client has not read.
  uint64_t unread() const;
  // The ring, when nothing waits and the client has read everything; else null.
  AnswerWriter* read_up();
  bool crowded() const { return entries_.size() > kOutboxEntriesMax; }
  std::deque<Entry>& entries() { return entries_; }

 private:
  bool write(Entry& entry);
  bool write_record(Entry& entry);
  void put_packed(Entry& entry, AnswerHeader* place, std::span<const std::byte> packed);
  void put_payload(Entry& entry, AnswerHeader* place);
  void take_back();

  AnswerPacking packing_;
  Staging& staging_;
  std::function<void()> before_word_;
  std::function<bool(AnswerWriter&)> ahead_;
  Link* link_ = nullptr;
  AnswerWriter writer_;
  std::deque<Entry> entries_;
  struct Lent {
    uint64_t end = 0;  // cursor
    Staging::Piece piece;
  };
  struct Place {
    RemotePlace to;
    uint64_t left = 0;
  };
  RemotePlace place_of(const AnswerHeader& header);
  std::unordered_map<uint64_t, Place> places_;      // by sequence
  std::deque<Lent> lent_;                           // to the link, until the client has read so far
  uint64_t in_place_begin_ = 0, in_place_end_ = 0;  // cursors
  uint64_t waits_at_ = 0, waits_since_ns_ = 0;      // who waits for them: where the client had read to
  uint64_t slow_until_ns_ = 0;
};

// Offsets of words in WorkerPage.
uint64_t progress_word(uint32_t stream_slot);
uint64_t event_word(uint32_t event_slot);
Word& word_at(WorkerPage& page, uint64_t offset);

}  // namespace tide
