#include "transport/replica.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <new>

#include "base/clock.h"
#include "transport/frame.h"

namespace tide {
namespace {

constexpr uint64_t kFastBytesPerS = 1'000'000'000;
constexpr uint64_t kLittle = 64u << 10;

uint32_t word_at(uint64_t offset) { return uint32_t(offset / sizeof(Word)); }

constexpr uint64_t kClient = kClientPageOffset;
constexpr uint64_t kWorker = kWorkerPageOffset;

struct WordRange {
  uint32_t begin = 0, end = 0;
};
WordRange range(uint64_t offset, uint64_t bytes) { return {word_at(offset), word_at(offset + bytes)}; }

// The words that one side may write in the other's copy, cursors aside.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
const WordRange kClientWords[] = {
    range(kClient + offsetof(ClientPage, counters), sizeof(ClientCounters) / 8 * 8),
    range(kClient + offsetof(ClientPage, renewed), 4 * sizeof(Word)),
    range(kClient + offsetof(ClientPage, trips), sizeof(TripCounts)),
    range(kClient + offsetof(ClientPage, signals), sizeof(ClientPage::signals)),
};
const WordRange kWorkerWords[] = {
    range(kWorker + offsetof(WorkerPage, state), 5 * sizeof(Word) + kEndpointBytes),
    range(kWorker + offsetof(WorkerPage, error), 4 * sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, content_slots), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, held), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, memory_shared), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, stream_progress), sizeof(WorkerPage::stream_progress)),
    range(kWorker + offsetof(WorkerPage, event_done), sizeof(WorkerPage::event_done)),
};
// The same, in the order in which a client may learn of them at once: an error is whole before it counts, and known
// before the work that failed is over.
const WordRange kWorkerNews[] = {
    range(kWorker + offsetof(WorkerPage, next_endpoint), kEndpointBytes),
    range(kWorker + offsetof(WorkerPage, epoch), 2 * sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, state), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, error), 2 * sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, sticky), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, errors), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, content_slots), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, held), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, memory_shared), sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, safe_answers), 2 * sizeof(Word)),
    range(kWorker + offsetof(WorkerPage, stream_progress), sizeof(WorkerPage::stream_progress)),
    range(kWorker + offsetof(WorkerPage, event_done), sizeof(WorkerPage::event_done)),
};
constexpr uint32_t kWorkerPageWords = sizeof(WorkerPage) / sizeof(Word);
constexpr uint64_t kNextEndpoint = kWorker + offsetof(WorkerPage, next_endpoint);
#pragma GCC diagnostic pop

template <size_t N>
bool is_in(const WordRange (&ranges)[N], uint32_t word) {
  return std::any_of(ranges, ranges + N, [&](const WordRange& r) { return word >= r.begin && word < r.end; });
}

Word& word_of(Region region, uint32_t word) { return *reinterpret_cast<Word*>(region.base + uint64_t(word) * 8); }

// What a new worker needs to know besides words.
std::array<const Word*, 4> state_cursors(Region region) {
  const WorkerPage& worker = region.worker();
  return {&worker.command_tail, &worker.acknowledged, &worker.answer_head, &region.client().answer_tail};
}

}  // namespace

Replica::Replica(Region region, Side own, std::optional<uint64_t> resumed_at) : region_(region), own_(own) {
  ClientPage& client = region.client();
  WorkerPage& worker = region.worker();
  const Ring commands{region.commands(), kCommandRingBytes, &client.command_head, &worker.command_tail};
  const Ring answers{region.answers(), kAnswerRingBytes, &worker.answer_head, &client.answer_tail};
  out_ = own == Side::kClient ? commands : answers;
  in_ = own == Side::kClient ? answers : commands;
  if (own == Side::kWorker) {
    acknowledged_ = &worker.acknowledged;
    if (resumed_at) {
      resumption_ = std::make_unique<Resumption>();
      resumption_->received = *resumed_at;
      resumption_->words.resize(kWorkerPageWords);
      return;
    }
    new (&client) ClientPage;
    client.region_bytes = kRegionBytes;
    return;
  }
  // In this order: a cursor that moves meanwhile is told again.
  begin();
  queue_state();
  state_sent_ = false;
  far_synced_ = false;
  synced_.store(true, std::memory_order_release);
}

// Both sides know the same cursors now; from here on only differences travel.
void Replica::begin() {
  const uint64_t head = out_.head->load(std::memory_order_acquire);
  const uint64_t tail = out_.tail->load(std::memory_order_acquire);
  Cursors far_has;
  far_has.head = own_ == Side::kClient ? tail : head;
  far_has.tail = in_.tail->load(std::memory_order_acquire);
  far_has.acknowledged = acknowledged_ == nullptr ? 0 : acknowledged_->load(std::memory_order_acquire);
  go_on_from(far_has, own_ == Side::kClient ? in_.head->load(std::memory_order_acquire) : in_.tail->load());
}

// The far side knows these cursors of ours, and we have so much of its ring.
void Replica::go_on_from(const Cursors& far_has, uint64_t received) {
  sent_ = goal_ = far_has;
  sent_bytes_ = walked_ = far_has.head;  // a worker that has more says so (next_of_state)
  told_head_ = far_has.head;
  told_tail_ = far_has.tail;
  told_acknowledged_ = far_has.acknowledged;
  received_ = told_received_ = heard_head_ = received;
  delivered_ = sent_bytes_;
  if (own_ == Side::kClient) {
    arriving_.begin(in_.bytes, in_.size, received);
  } else {
    commands_.begin(in_.bytes, in_.size, received);
  }
}

void Replica::queue_state() {
  const auto add = [&](uint32_t word) {
    const uint64_t value = word_of(region_, word).load(std::memory_order_acquire);
    if (value != 0) state_.push_back({word, 0, value});
  };
  for (const WordRange& r : kClientWords) {
    for (uint32_t word = r.begin; word < r.end; ++word) add(word);
  }
  for (const WordRange& r : kWorkerWords) {
    for (uint32_t word = r.begin; word < r.end; ++word) add(word);
  }
  for (const Word* word : state_cursors(region_)) {
    add(index_of(*word));
  }
}

uint32_t Replica::index_of(const Word& word) const {
  return word_at(uint64_t(reinterpret_cast<const std::byte*>(&word) - region_.base));
}

// Read in the opposite order of publishing, so that no cursor is newer than one that was published before it.
Replica::Cursors Replica::cursors() const {
  Cursors now;
  now.tail = in_.tail->load(std::memory_order_acquire);
  now.acknowledged = acknowledged_ == nullptr ? 0 : acknowledged_->load(std::memory_order_acquire);
  now.head = out_.head->load(std::memory_order_acquire);
  return now;
}

void Replica::note(const Word& word) {
  const std::lock_guard lock(mu_);
  const uint32_t index = index_of(word);
  const Cursors before = cursors();
  if (&word == &region_.worker().next_epoch) {
    for (uint32_t i = 0; i < kEndpointBytes / 8; ++i) {
      uint64_t value;
      memcpy(&value, region_.base + kNextEndpoint + i * 8, 8);
      notes_.push_back({word_at(kNextEndpoint) + i, value, before});
      noted_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  notes_.push_back({index, word.load(std::memory_order_acquire), before});
  noted_.fetch_add(1, std::memory_order_release);
}

bool Replica::has_more() const {
  if (!synced()) return false;
  const Cursors now = cursors();
  if (!far_synced_.load(std::memory_order_relaxed)) return !state_sent_.load(std::memory_order_relaxed);
  return !state_sent_.load(std::memory_order_relaxed) || now.head != told_head_.load(std::memory_order_relaxed) ||
         now.tail != told_tail_.load(std::memory_order_relaxed) ||
         now.acknowledged != told_acknowledged_.load(std::memory_order_relaxed) ||
         noted_.load(std::memory_order_acquire) != carried_notes_.load(std::memory_order_relaxed) || received_much();
}

bool Replica::received_much() const {
  const uint64_t told = told_received_.load(std::memory_order_acquire);  // first: it is never ahead of the other
  return received_.load(std::memory_order_relaxed) - told >= kReceivedTold;
}

// That a path was fast need not be forgotten, so every small copy on it does without a look at the clock.
uint64_t Replica::bytes_per_s() const {
  const uint64_t last = rate_.last();
  return last == 0 || last > kFastBytesPerS ? last : rate_.bytes_per_s(now_ns());
}

uint64_t Replica::on_the_way() const {
  const uint64_t there = delivered_.load(std::memory_order_acquire);  // before the head, which is never behind it
  return out_.head->load(std::memory_order_relaxed) - there;
}

bool Replica::little_on_the_way() const { return on_the_way() <= std::max(kLittle, rate_.quick_bytes()); }

void Replica::put(Parcel* parcel, uint32_t word, uint64_t value) {
  parcel->entries[parcel->header.entry_count++] = {word, 0, value};
}

// Tells the far side those cursors that it does not know. False when there is no room for them and a word.
bool Replica::put_cursors(Parcel* parcel, const Cursors& now) {
  if (parcel->header.entry_count + 4u > kParcelEntriesMax) return false;
  // A note taken late may carry older cursors than were told; they only grow.
  if (now.head > sent_.head) {
    put(parcel, index_of(*out_.head), now.head);
    sent_.head = now.head;
    told_head_.store(now.head, std::memory_order_relaxed);
  }
  if (now.acknowledged > sent_.acknowledged) {
    put(parcel, index_of(*acknowledged_), now.acknowledged);
    sent_.acknowledged = now.acknowledged;
    told_acknowledged_.store(now.acknowledged, std::memory_order_relaxed);
  }
  if (now.tail > sent_.tail) {
    put(parcel, index_of(*in_.tail), now.tail);
    sent_.tail = now.tail;
    told_tail_.store(now.tail, std::memory_order_relaxed);
  }
  return true;
}

// Where the next ring bytes to be sent lie, and at most *bytes of them together.
const std::byte* Replica::next_bytes(uint64_t* bytes, RemotePlace* to) {
  const uint64_t at = sent_bytes_ % out_.size;
  *bytes = std::min(*bytes, out_.size - at);
  lent_.drop_to(out_.tail->load(std::memory_order_acquire));
  const LentPieces::Piece* lent = lent_.behind(sent_bytes_);
  if (lent == nullptr) return out_.bytes + at;
  const bool inside = lent->begin <= sent_bytes_;
  *bytes = std::min(*bytes, (inside ? lent->end : lent->begin) - sent_bytes_);
  if (!inside) return out_.bytes + at;
  if (lent->to) *to = lent->to.at(sent_bytes_ - lent->begin);
  return lent->from + (sent_bytes_ - lent->begin);
}

void Replica::take_back() {
  lent_.drop_to(out_.tail->load(std::memory_order_acquire));
  while (const LentPieces::Piece* lent = lent_.first()) {
    memcpy(out_.bytes + lent->begin % out_.size, lent->from, lent->end - lent->begin);
    lent_.drop_to(lent->end);
  }
}

// A parcel is of use to the far side when all of it has come. So the first is short and the far side begins, and while
// there is more than fits they grow.
void Replica::put_ring(Parcel* parcel, uint64_t head, uint64_t most) {
  const uint64_t ready = head - sent_bytes_;
  uint64_t bytes = std::min(ready, piece_bytes_);
  piece_bytes_ = ready >= piece_bytes_ ? std::min(2 * piece_bytes_, most) : kParcelRingBytesFirst;
  parcel->ring = next_bytes(&bytes, &parcel->to);
  if (parcel->to) parcel->header.flags |= kParcelLanded;
  parcel->header.ring_begin = sent_bytes_;
  parcel->header.ring_bytes = uint32_t(bytes);
  sent_bytes_ += bytes;
}

// The client's state; the worker's answer to it says from where on it wants the commands.
bool Replica::next_of_state(Parcel* parcel) {
  if (state_sent_) return false;
  while (state_done_ < state_.size() && parcel->header.entry_count < kParcelEntriesMax) {
    parcel->entries[parcel->header.entry_count++] = state_[state_done_++];
  }
  if (state_done_ == state_.size()) {
    parcel->header.flags = kParcelSynced;
    state_sent_ = true;
    state_ = {};
  }
  return true;
}

bool Replica::round_is_done() const {
  return taken_done_ == taken_.size() && sent_.head >= goal_.head && sent_.acknowledged >= goal_.acknowledged &&
         sent_.tail >= goal_.tail;
}

// First the cursors, then the notes: a note that was made before a cursor moved is then always among them, and goes
// first. Rounds end, so a producer that never pauses does not keep cursors from being told.
void Replica::begin_round() {
  goal_ = cursors();
  taken_.clear();
  taken_done_ = 0;
  if (noted_.load(std::memory_order_acquire) == carried_notes_.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(mu_);
  taken_.swap(notes_);
  if (!taken_.empty()) goal_.head = std::max(goal_.head, taken_.back().before.head);
}

// The head may stand only between records, and not between padding and its record, but need not wait for all that was
// published.
uint64_t Replica::whole_records() {
  walked_ = std::max(walked_, sent_.head);
  for (uint64_t at = walked_; at < sent_bytes_;) {
    CommandHeader header;  // both directions have length and kind in the same place
    memcpy(static_cast<void*>(&header), out_.bytes + at % out_.size, 16);
    if (header.bytes == 0 || header.bytes % 16 != 0 || header.bytes > sent_bytes_ - at) break;
    at += header.bytes;
    if (header.call != 0) walked_ = at;
  }
  return sent_bytes_ >= goal_.head ? goal_.head : walked_;
}

bool Replica::next(Parcel* parcel, uint32_t ring_bytes_most) {
  if (!synced()) return false;
  parcel->header = {};
  parcel->ring = nullptr;
  parcel->to = {};
  if (next_of_state(parcel)) {
    parcel->header.serial = serial_out_++;
    parcel->header.received = received_.load(std::memory_order_relaxed);
    return true;
  }
  if (!far_synced_) return false;
  if (round_is_done()) begin_round();
  if (goal_.head > sent_bytes_) put_ring(parcel, goal_.head, ring_bytes_most);
  while (taken_done_ < taken_.size()) {
    const Note& note = taken_[taken_done_];
    if (note.before.head > sent_bytes_ || !put_cursors(parcel, note.before)) break;
    put(parcel, note.word, note.value);
    ++taken_done_;
    carried_notes_.fetch_add(1, std::memory_order_relaxed);
  }
  Cursors now = sent_;
  now.head = whole_records();
  // What was published before a note that must wait need not wait with it.
  if (taken_done_ != taken_.size()) now.head = std::min(walked_, taken_[taken_done_].before.head);
  put_cursors(parcel, taken_done_ == taken_.size() && now.head >= goal_.head ? goal_ : now);
  if (parcel->header.ring_bytes == 0 && parcel->header.entry_count == 0 && !received_much()) return false;
  parcel->header.serial = serial_out_++;
  parcel->header.received = received_.load(std::memory_order_relaxed);
  told_received_.store(parcel->header.received, std::memory_order_release);
  return true;
}

const char* Replica::apply(const ParcelHeader& header, const ParcelEntry* entries, const std::byte* ring) {
  if (header.serial != serial_in_) return "a parcel is missing";
  ++serial_in_;
  if (header.entry_count > kParcelEntriesMax) return "a parcel has too many words";
  if ((header.flags & ~(kParcelSynced | kParcelLanded)) != 0) return "a parcel has an unknown flag";
  const bool state = !synced();  // only the worker's begins so
  if (!state && far_synced_) {
    if (header.received > sent_bytes_) return "more has come than was sent";
    delivered(header.received);
  }
  if (header.ring_bytes != 0) {
    const char* refused = state ? "ring bytes came before the state" : apply_ring(header, ring);
    if (refused != nullptr) return refused;
  }
  for (uint32_t i = 0; i < header.entry_count; ++i) {
    const char* refused = state ? apply_state_entry(entries[i]) : apply_entry(entries[i]);
    if (refused != nullptr) return refused;
  }
  if ((header.flags & kParcelSynced) == 0) return nullptr;
  return own_ == Side::kWorker ? begin_worker() : begin_client(header.received);
}

// The worker has so much of the commands already: from a connection that broke, else what the one before it consumed.
const char* Replica::begin_client(uint64_t received) {
  if (far_synced_) return "the worker began twice";
  if (received < sent_bytes_ || received > out_.head->load(std::memory_order_acquire))
    return "it has what was not sent";
  sent_bytes_ = received;
  whole_records();  // while they are all there: what the worker has consumed may be written over
  delivered_.store(received, std::memory_order_release);
  far_synced_.store(true, std::memory_order_release);
  return nullptr;
}

// The client's state is complete.
const char* Replica::begin_worker() {
  if (synced()) return "the state came twice";
  if (resumption_ != nullptr) return resume_worker();
  const WorkerPage& worker = region_.worker();
  const uint64_t unread = worker.answer_head.load() - region_.client().answer_tail.load();
  const uint64_t cursors = worker.answer_head.load() | region_.client().answer_tail.load() | worker.command_tail.load();
  if (unread > kAnswerRingBytes || cursors % 16 != 0) return "the cursors of the state do not fit together";
  region_.client().command_head.store(worker.command_tail.load());
  begin();
  state_sent_ = false;
  synced_.store(true, std::memory_order_release);
  return nullptr;
}

// The same client again, of which the connection broke. It has what its state says; the rest is still in our ring.
const char* Replica::resume_worker() {
  const Resumption& it = *resumption_;
  const uint64_t head = out_.head->load(), tail = in_.tail->load(), read = out_.tail->load();
  const bool fits = it.answer_head <= head && it.answer_tail <= it.answer_head && read <= it.answer_tail &&
                    it.command_tail <= tail && it.received - it.command_tail <= in_.size &&
                    it.acknowledged <= acknowledged_->load();
  const uint64_t cursors = it.answer_head | it.answer_tail | it.command_tail;
  if (!fits || cursors % 16 != 0) return "the client's state does not fit this session";
  out_.tail->store(it.answer_tail, std::memory_order_release);
  go_on_from({.head = it.answer_head, .acknowledged = it.acknowledged, .tail = it.command_tail}, it.received);
  heard_head_ = it.command_tail;
  note_news();
  resumption_.reset();
  state_sent_ = false;
  synced_.store(true, std::memory_order_release);
  return nullptr;
}

// What the worker has said since, as far as the client does not have it: behind all that is in the ring by now.
void Replica::note_news() {
  const std::lock_guard lock(mu_);
  const Cursors before = cursors();
  carried_notes_.fetch_add(notes_.size(), std::memory_order_relaxed);  // the same words, in an older order
  notes_.clear();
  for (const WordRange& range : kWorkerNews) {
    for (uint32_t word = range.begin; word < range.end; ++word) {
      const uint64_t value = word_of(region_, word).load(std::memory_order_acquire);
      if (value == resumption_->words[word - word_at(kWorker)]) continue;
      notes_.push_back({word, value, before});
      noted_.fetch_add(1, std::memory_order_release);
    }
  }
}

void Replica::delivered(uint64_t received) {
  if (received <= delivered_.load(std::memory_order_relaxed)) return;
  delivered_.store(received, std::memory_order_release);
  rate_.delivered(now_ns(), received, out_.head->load(std::memory_order_relaxed));
}

const char* Replica::apply_ring(const ParcelHeader& header, const std::byte* ring) {
  const uint64_t received = received_.load(std::memory_order_relaxed), at = received % in_.size;
  const uint64_t unread = received - in_.tail->load(std::memory_order_acquire);
  if (header.ring_begin != received) return "a piece of the ring is missing";
  if (header.ring_bytes > kParcelRingBytesMax || header.ring_bytes > in_.size - at) return "a piece leaves the ring";
  if (unread + header.ring_bytes > in_.size) return "the ring is overrun";
  const bool landed = (header.flags & kParcelLanded) != 0;
  if (landed && (own_ == Side::kWorker || ring != nullptr)) return "data that nobody wants there";
  if (own_ == Side::kClient) {
    const char* refused = landed ? arriving_.take_landed(header.ring_bytes) : arriving_.take(ring, header.ring_bytes);
    if (refused != nullptr) return refused;
  } else {
    commands_.take(ring, header.ring_bytes);
  }
  received_.store(received + header.ring_bytes, std::memory_order_relaxed);
  return nullptr;
}

bool Replica::may_receive(uint32_t word) const {
  return own_ == Side::kClient ? is_in(kWorkerWords, word) : is_in(kClientWords, word);
}

const char* Replica::apply_entry(const ParcelEntry& entry) {
  if (entry.reserved != 0) return "a reserved field is not zero";
  Word* cursor = nullptr;
  uint64_t most = ~uint64_t{0};
  if (entry.word == index_of(*in_.head)) return apply_head(entry.value);
  if (entry.word == index_of(*out_.tail)) {
    cursor = out_.tail;
    most = sent_bytes_;
  } else if (own_ == Side::kClient && entry.word == index_of(region_.worker().acknowledged)) {
    cursor = &region_.worker().acknowledged;
  } else if (!may_receive(entry.word)) {
    return "a word that is not the far side's";
  }
  if (cursor != nullptr && (entry.value < cursor->load() || entry.value > most)) return "a cursor is out of bounds";
  word_of(region_, entry.word).store(entry.value, std::memory_order_release);
  return nullptr;
}

// Behind a connection that broke the far side's head comes from where that side begins again.
const char* Replica::apply_head(uint64_t head) {
  if (head < heard_head_ || head > received_) return "a cursor is out of bounds";
  heard_head_ = head;
  if (head > in_.head->load(std::memory_order_relaxed)) in_.head->store(head, std::memory_order_release);
  return nullptr;
}

// Before the channel begins the client also tells what the last worker wrote.
// What the client has of the worker's; it does not become ours.
bool Replica::remember(const ParcelEntry& entry) {
  Resumption& it = *resumption_;
  const WorkerPage& worker = region_.worker();
  if (entry.word == index_of(worker.command_tail)) {
    it.command_tail = entry.value;
  } else if (entry.word == index_of(worker.acknowledged)) {
    it.acknowledged = entry.value;
  } else if (entry.word == index_of(worker.answer_head)) {
    it.answer_head = entry.value;
  } else if (entry.word == index_of(region_.client().answer_tail)) {
    it.answer_tail = entry.value;
  } else if (is_in(kWorkerWords, entry.word)) {
    it.words[entry.word - word_at(kWorker)] = entry.value;
  } else {
    return false;
  }
  return true;
}

const char* Replica::apply_state_entry(const ParcelEntry& entry) {
  bool known = is_in(kClientWords, entry.word) || is_in(kWorkerWords, entry.word);
  for (const Word* word : state_cursors(region_)) {
    known |= entry.word == index_of(*word);
  }
  if (!known || entry.reserved != 0) return "a word that is no state";
  if (resumption_ != nullptr && remember(entry)) return nullptr;
  word_of(region_, entry.word).store(entry.value, std::memory_order_release);
  return nullptr;
}

}  // namespace tide
