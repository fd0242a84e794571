#include "server/outbox.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"

namespace tide {
namespace {

// Nobody is to wait for long for memory that is being sent from where it lies.
constexpr uint64_t kInPlaceLeastPerS = 1'000'000'000;
constexpr uint64_t kInPlaceStallNs = 3'000'000, kInPlaceSlowNs = 1'000'000'000;

}  // namespace

uint64_t progress_word(uint32_t slot) { return offsetof(WorkerPage, stream_progress) + slot * sizeof(Word); }
uint64_t event_word(uint32_t slot) { return offsetof(WorkerPage, event_done) + slot * sizeof(Word); }
Word& word_at(WorkerPage& page, uint64_t offset) {
  return *reinterpret_cast<Word*>(reinterpret_cast<std::byte*>(&page) + offset);
}

void Outbox::attach(Link* link) {
  for (const Lent& lent : lent_) staging_.give_back(lent.piece);
  lent_.clear();
  places_.clear();  // of that link
  in_place_begin_ = in_place_end_ = 0;
  link_ = link;
  if (link == nullptr) return;
  writer_ = AnswerWriter(link->region());
  writer_.reuse_start(link->shares_memory());
}

void Outbox::record(const AnswerHeader& header, std::span<const std::byte> payload) {
  Entry entry;
  entry.header = header;
  entry.header.payload_bytes = uint32_t(payload.size());
  entry.payload.assign(payload.begin(), payload.end());
  if (!entries_.empty() || !write(entry)) entries_.push_back(std::move(entry));
}

void Outbox::data(const AnswerHeader& header, Staging::Piece piece, PackMode pack) {
  Entry entry;
  entry.pack = pack;
  entry.header = header;
  entry.piece = piece;
  if (!entries_.empty() || !write(entry)) entries_.push_back(std::move(entry));
}

bool Outbox::data_in_place(const AnswerHeader& header, const std::byte* from) {
  const uint32_t bytes = header.payload_bytes;
  if (!entries_.empty() || link_ == nullptr || !link_->lends_unknown() || link_->bytes_per_s() < kInPlaceLeastPerS ||
      (slow_until_ns_ != 0 && now_ns() < slow_until_ns_))
    return false;
  AnswerHeader* const place = writer_.reserve(bytes);
  if (place == nullptr) return false;
  const uint64_t begin = writer_.start() + sizeof(AnswerHeader);
  if (!link_->lend(begin, from, bytes)) return false;
  const uint32_t record = place->bytes;
  *place = header;
  place->bytes = record;
  writer_.publish(place);
  if (!lends_in_place()) in_place_begin_ = begin;
  in_place_end_ = begin + bytes;
  return true;
}

uint64_t Outbox::in_place() const {
  if (link_ == nullptr || in_place_end_ == 0) return 0;
  const uint64_t read = link_->region().client().answer_tail.load(std::memory_order_acquire);
  return in_place_end_ - std::clamp(read, in_place_begin_, in_place_end_);
}

bool Outbox::in_place_gets_on() {
  if (link_ == nullptr) return true;
  const uint64_t now = now_ns(), read = link_->region().client().answer_tail.load(std::memory_order_acquire);
  if (read != waits_at_ || waits_since_ns_ == 0) waits_at_ = read, waits_since_ns_ = now;
  if (now - waits_since_ns_ < kInPlaceStallNs) return true;
  slow_until_ns_ = now + kInPlaceSlowNs;
  if (!link_->alive()) take_in_place();
  return false;
}

void Outbox::take_in_place() {
  if (link_ != nullptr && lends_in_place()) link_->take_back();
  in_place_begin_ = in_place_end_ = 0;
}

void Outbox::word(uint64_t offset, uint64_t value) {
  if (before_word_) before_word_();
  Entry entry;
  entry.word = offset;
  entry.value = value;
  if (!entries_.empty() || !write(entry)) entries_.push_back(std::move(entry));
}

void Outbox::take_back() {
  if (lent_.empty()) return;
  const uint64_t read = link_->region().client().answer_tail.load(std::memory_order_acquire);
  for (; !lent_.empty() && lent_.front().end <= read; lent_.pop_front()) staging_.give_back(lent_.front().piece);
}

bool Outbox::flush() {
  take_back();
  packing_.begin_turn();
  bool any = false;
  while (!entries_.empty() && write(entries_.front())) {
    entries_.pop_front();
    any = true;
  }
  return any;
}

uint64_t Outbox::unread() const {
  return writer_.head() - link_->region().client().answer_tail.load(std::memory_order_acquire);
}

AnswerWriter* Outbox::read_up() { return link_ != nullptr && empty() && unread() == 0 ? &writer_ : nullptr; }

bool Outbox::write(Entry& entry) {
  if (link_ == nullptr) return false;
  if (entry.word != 0) {
    if (ahead_ && !ahead_(writer_)) return false;
    Word& word = word_at(link_->region().worker(), entry.word);
    word.store(entry.value, std::memory_order_release);
    link_->note(word);
    return true;
  }
  return write_record(entry);
}

bool Outbox::write_record(Entry& entry) {
  const uint32_t plain = entry.header.payload_bytes;
  if (!writer_.fits(plain)) return false;  // first of all: nothing is packed twice
  std::span<const std::byte> packed;
  if (entry.pack != PackMode::kOff) {
    if (!packing_.may_pack()) return false;
    packed = packing_.pack(entry.pack, {entry.piece.data, plain}, {link_->bytes_per_s(), link_->on_the_way()});
  }
  AnswerHeader* place = writer_.reserve(packed.empty() ? plain : uint32_t(packed.size()));
  const uint32_t bytes = place->bytes;
  *place = entry.header;
  place->bytes = bytes;
  if (packed.empty()) {
    put_payload(entry, place);
  } else {
    put_packed(entry, place, packed);
  }
  writer_.publish(place);
  return true;
}

void Outbox::land(uint64_t sequence, const RemotePlace& to, uint64_t bytes) {
  if (places_.size() >= kOutboxEntriesMax) places_.clear();  // of copies that failed, or were packed
  places_[sequence] = {to, bytes};
}

RemotePlace Outbox::place_of(const AnswerHeader& header) {
  const auto found = places_.find(header.sequence);
  if (found == places_.end()) return {};
  const RemotePlace to = found->second.to.at(header.offset);
  if (header.payload_bytes >= found->second.left) {
    places_.erase(found);
  } else {
    found->second.left -= header.payload_bytes;
  }
  return to;
}

void Outbox::put_packed(Entry& entry, AnswerHeader* place, std::span<const std::byte> packed) {
  place->kind = uint16_t(AnswerKind::kPackedData);
  place->result = int32_t(entry.header.payload_bytes);
  place->payload_bytes = uint32_t(packed.size());
  memcpy(place + 1, packed.data(), packed.size());
  staging_.give_back(entry.piece);
  entry.piece = {};
}

// Large pieces of staging go out from where they are.
void Outbox::put_payload(Entry& entry, AnswerHeader* place) {
  const uint64_t bytes = entry.header.payload_bytes, begin = writer_.start() + sizeof(AnswerHeader);
  const bool may_lend = entry.piece && bytes >= kLentBytesLeast && link_->lends();
  if (may_lend) {
    const std::span<const std::byte> slab = staging_.slab_of(entry.piece.data);
    link_->know_memory(slab.data(), slab.size(), false);
  }
  if (may_lend && link_->lend_to(begin, entry.piece.data, bytes, place_of(entry.header))) {
    lent_.push_back({begin + bytes, entry.piece});
  } else {
    const std::byte* from = entry.piece ? entry.piece.data : entry.payload.data();
    if (bytes != 0) memcpy(place + 1, from, bytes);
    if (entry.piece) staging_.give_back(entry.piece);
  }
  entry.piece = {};
}

}  // namespace tide
