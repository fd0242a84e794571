#pragma once

// Keeps two copies of a region equal: what changed on this side is cut into parcels, which a carrier (ucx, sim) takes
// to the far side in order and applies there. docs/wire.md says every byte of a parcel.
//
// A parcel is a piece of one's own ring, then words (cursors among them) in the order in which they were published. The
// bytes go first, so a head never announces bytes that are not there; words follow the cursors that were published
// before them.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "transport/arriving.h"
#include "transport/arriving_commands.h"
#include "transport/layout.h"
#include "transport/lent.h"
#include "transport/link_rate.h"
#include "transport/wait.h"

namespace tide {

inline constexpr uint32_t kParcelEntriesMax = 64;
inline constexpr uint32_t kParcelRingBytesMax = 256u << 10;
inline constexpr uint32_t kParcelRingBytes = 64u << 10;      // unless the carrier takes more
inline constexpr uint32_t kParcelRingBytesFirst = 4u << 10;  // of the first in a row, see put_ring()
inline constexpr uint64_t kReceivedTold = 256u << 10;        // so many bytes are worth a parcel that says so
inline constexpr uint32_t kParcelSynced = 1;  // flags: the client's state is complete; the channel begins
inline constexpr uint32_t kParcelLanded = 2;  // its ring bytes have been written to where the client wants them

struct ParcelHeader {
  uint64_t serial = 0;      // 0, 1, 2 ... of this direction of this connection
  uint64_t ring_begin = 0;  // cursor of the first ring byte
  uint32_t ring_bytes = 0;  // contiguous in the ring
  uint16_t entry_count = 0;
  uint16_t flags = 0;
  uint64_t received = 0;  // cursor up to which the sender has the far side's ring
};
static_assert(sizeof(ParcelHeader) == 32);

struct ParcelEntry {
  uint32_t word = 0;  // its offset in the region / 8
  uint32_t reserved = 0;
  uint64_t value = 0;
};
static_assert(sizeof(ParcelEntry) == 16);

struct Parcel {
  ParcelHeader header;
  ParcelEntry entries[kParcelEntriesMax];  // directly behind the header, as on the wire
  const std::byte* ring = nullptr;         // into the region, or what was lent; unchanged until the far side has it
  RemotePlace to;                          // of these bytes, if kParcelLanded
  uint64_t head_bytes() const { return sizeof header + header.entry_count * sizeof(ParcelEntry); }
};

class Replica {
 public:
  // The client's begins with sending the whole state; the worker's with waiting for it (synced()). `resumed_at`: the
  // worker's region is that of a connection that broke, with so many bytes of commands in it: both sides go on from
  // what the other has.
  Replica(Region region, Side own, std::optional<uint64_t> resumed_at = {});

  // Any thread.
  void note(const Word& word);
  // Link::lend().
  bool lend(uint64_t begin, const std::byte* from, uint64_t bytes, const RemotePlace& to = {}) {
    return lent_.add({begin, begin + bytes, from, to});
  }
  bool has_more() const;
  // Of one's own ring: how fast its bytes reach the far side (0: not known), and how many are on their way there.
  uint64_t bytes_per_s() const;
  uint64_t on_the_way() const;
  // Whether that is no more than what this path has been seen to carry at once, and needs no waiting for.
  bool little_on_the_way() const;
  // Of both rings; and whether a part of the far side's next record is here, and not all of it.
  uint64_t carried() const { return received_.load() + delivered_.load(); }
  bool part_has_come() const { return synced() && received_.load() > in_.head->load(std::memory_order_acquire); }
  bool synced() const { return synced_.load(std::memory_order_acquire); }
  // The worker's, when there is no carrier any more: so far the client's commands are here. What has come of the next
  // one, perhaps not into the ring, is to come again.
  uint64_t received() const { return resumption_ != nullptr ? resumption_->received : commands_.record(); }

  // The carrier's, one thread at a time. False when there is nothing to carry now.
  bool next(Parcel* parcel, uint32_t ring_bytes_most = kParcelRingBytes);
  // Link::land_in(). The client's.
  void land_in(Landings* landings) { arriving_.set_landings(landings); }
  // Link::land_commands_in(). The worker's.
  void land_commands_in(CommandLandings* landings) { commands_.set_landings(landings); }
  // Link::take_back().
  void take_back();
  // Checks and applies what came; `ring` is null when the ring bytes lie in their place already. Null, or why it is
  // refused; the connection is then of no use.
  const char* apply(const ParcelHeader& header, const ParcelEntry* entries, const std::byte* ring);

 private:
  struct Cursors {
    uint64_t head = 0, acknowledged = 0, tail = 0;
  };
  struct Note {
    uint32_t word = 0;
    uint64_t value = 0;
    Cursors before;  // published before the word
  };
  struct Ring {
    std::byte* bytes = nullptr;
    uint64_t size = 0;
    Word* head = nullptr;  // the producer's
    Word* tail = nullptr;  // the consumer's
  };

  Cursors cursors() const;
  uint32_t index_of(const Word& word) const;
  bool put_cursors(Parcel* parcel, const Cursors& cursors);
  void put(Parcel* parcel, uint32_t word, uint64_t value);
  void put_ring(Parcel* parcel, uint64_t head, uint64_t most);
  const std::byte* next_bytes(uint64_t* bytes, RemotePlace* to);
  bool round_is_done() const;
  bool received_much() const;
  void begin_round();
  uint64_t whole_records();
  void queue_state();
  void begin();
  bool next_of_state(Parcel* parcel);
  const char* begin_worker();
  const char* begin_client(uint64_t received);
  const char* resume_worker();
  void note_news();
  void go_on_from(const Cursors& far_has, uint64_t received);
  const char* apply_ring(const ParcelHeader& header, const std::byte* ring);
  const char* apply_entry(const ParcelEntry& entry);
  const char* apply_head(uint64_t head);
  bool remember(const ParcelEntry& entry);
  const char* apply_state_entry(const ParcelEntry& entry);
  bool may_receive(uint32_t word) const;
  void delivered(uint64_t received);

  const Region region_;
  const Side own_;
  Ring out_, in_;
  Word* acknowledged_ = nullptr;  // the worker's own; null in the client
  std::atomic<bool> synced_{false};

  mutable std::mutex mu_;
  std::vector<Note> notes_;         // guarded by mu_
  std::atomic<uint64_t> noted_{0};  // how many were ever added

  LentPieces lent_;

  // The carrier's.
  std::vector<Note> taken_;
  size_t taken_done_ = 0;
  std::atomic<uint64_t> carried_notes_{0};
  std::vector<ParcelEntry> state_;  // of the client, to be sent first
  size_t state_done_ = 0;
  std::atomic<bool> state_sent_{true};
  std::atomic<bool> far_synced_{true};  // the client's: the worker has taken the state
  uint64_t serial_out_ = 0, serial_in_ = 0;
  uint64_t sent_bytes_ = 0;
  uint64_t piece_bytes_ = kParcelRingBytesFirst;  // the next one's most
  Cursors goal_;                                  // of this round: what was published when it began
  uint64_t walked_ = 0;                           // end of the last whole record that was sent
  Cursors sent_;                                  // as told to the far side
  std::atomic<uint64_t> told_head_{0}, told_acknowledged_{0}, told_tail_{0}, told_received_{0};
  std::atomic<uint64_t> received_{0};   // bytes of the far side's ring
  std::atomic<uint64_t> delivered_{0};  // of one's own ring, as the far side said
  uint64_t heard_head_ = 0;             // the far side's, as it was told last
  ArrivingRecords arriving_;            // the client's
  ArrivingCommands commands_;           // the worker's
  LinkRate rate_;

  // Of a worker's that was resumed, until the client's state is complete: what the client has.
  struct Resumption {
    std::vector<uint64_t> words;  // by their place in the worker's page
    uint64_t command_tail = 0, acknowledged = 0, answer_head = 0, answer_tail = 0;
    uint64_t received = 0;  // of its commands, by us
  };
  std::unique_ptr<Resumption> resumption_;
};

}  // namespace tide
