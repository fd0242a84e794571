#include "interpose/command_log.h"

#include <cstring>
#include <new>
#include <utility>

#include "transport/ring.h"

namespace tide {
namespace {

// What is no command lies as one without a call: its kind in the flags, the slot as its context.
CommandLog::Kind kind_of(const CommandHeader& header) {
  return header.call != 0 ? CommandLog::Kind::kCommand : CommandLog::Kind(header.flags);
}

}  // namespace

std::byte* CommandLog::room_for(size_t bytes) {
  if (blocks_.empty() || blocks_.back().used + bytes > kBlockBytes) {
    std::unique_ptr<std::byte[]> block;
    if (!spare_.empty()) {
      block = std::move(spare_.back());
      spare_.pop_back();
    } else {
      block.reset(new (std::nothrow) std::byte[kBlockBytes]);
      if (block == nullptr) return nullptr;
    }
    blocks_.push_back({std::move(block), 0});
    bytes_ += kBlockBytes;
  }
  Block& last = blocks_.back();
  std::byte* const place = last.bytes.get() + last.used;
  last.used += bytes;
  return place;
}

bool CommandLog::add(const CommandHeader& header, const std::byte* payload) {
  std::byte* const place = room_for(record_bytes(sizeof header, header.payload_bytes));
  if (place == nullptr) return false;
  memcpy(place, &header, sizeof header);
  memcpy(place + sizeof header, payload, header.payload_bytes);
  end_ = header.sequence;
  return true;
}

bool CommandLog::add(Kind kind, uint32_t slot, uint64_t value) {
  CommandHeader header;
  header.bytes = sizeof header;
  header.flags = uint16_t(kind);
  header.context = slot;
  header.sequence = value;
  std::byte* const place = room_for(sizeof header);
  if (place != nullptr) memcpy(place, &header, sizeof header);
  return place != nullptr;
}

const CommandHeader* CommandLog::at(Place place) const {
  const uint64_t block = place.block - dropped_blocks_;
  if (block >= blocks_.size() || place.at == blocks_[block].used) return nullptr;
  return reinterpret_cast<const CommandHeader*>(blocks_[block].bytes.get() + place.at);
}

// Not at a block's end, unless nothing comes behind it yet.
CommandLog::Place CommandLog::settled(Place place) const {
  const uint64_t block = place.block - dropped_blocks_;
  const bool over = block < blocks_.size() && place.at == blocks_[block].used;
  return over && block + 1 < blocks_.size() ? Place{place.block + 1, 0} : place;
}

// Requires: something is there.
CommandLog::Place CommandLog::behind(Place place) const {
  place.at += at(place)->bytes;
  return settled(place);
}

// The last block stays: who adds goes on in it.
void CommandLog::drop_empty_block() {
  if (blocks_.size() < 2 || first_at_ != blocks_.front().used) return;
  if (spare_.size() < kSpareMost) spare_.push_back(std::move(blocks_.front().bytes));
  blocks_.pop_front();
  ++dropped_blocks_;
  first_at_ = 0;
  bytes_ -= kBlockBytes;
}

void CommandLog::drop_first() {
  drop_empty_block();
  const CommandHeader& header = *at({dropped_blocks_, first_at_});
  if (kind_of(header) == Kind::kCommand) begin_ = header.sequence;
  if (kind_of(header) == Kind::kSignal) {
    if (signals_.empty()) signals_.resize(kSignalSlots);
    signals_[header.context] = header.sequence;
  }
  first_at_ += header.bytes;
  drop_empty_block();
}

bool CommandLog::drop_to(uint64_t sequence, size_t most) {
  for (; begin_ < sequence && begin_ < end_; drop_first()) {
    if (most-- == 0) return true;
  }
  return false;
}

bool CommandLog::look(Entry* entry) const {
  const CommandHeader* const header = at(settled(next_));
  if (header == nullptr) return false;
  *entry = {kind_of(*header), header, header->context, header->sequence};
  if (entry->kind != Kind::kCommand) entry->command = nullptr;
  return true;
}

void CommandLog::pass() { next_ = behind(settled(next_)); }

}  // namespace tide
