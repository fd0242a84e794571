#include "server/chunk_carrier.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "server/verdict.h"

namespace tide {
namespace {

constexpr uint32_t kConfirmMs = 30'000;
constexpr size_t kChunksAtOnce = 16;  // are kept readable: so much of memory that was given back may stay for a while

std::vector<uint64_t> chunks_of(const std::vector<MemoryRange>& ranges) {
  std::vector<uint64_t> chunks;
  for (const MemoryRange& range : ranges) {
    for (uint64_t at = 0; at < range.bytes; at += kChunkBytes) chunks.push_back(range.address + at);
  }
  return chunks;
}

bool is_zero(const std::byte* data) { return data[0] == std::byte{0} && memcmp(data, data + 1, kChunkBytes - 1) == 0; }

}  // namespace

// Of those that are asked for, the ones that are mapped.
struct ChunkSender::Pins {
  Pins(Memory& of, std::span<const uint64_t> wanted) : memory(of) {
    for (const uint64_t chunk : wanted) {
      if (memory.pin(chunk)) chunks.push_back(chunk);
    }
  }
  ~Pins() {
    for (const uint64_t chunk : chunks) memory.unpin(chunk);
  }
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;

  Memory& memory;
  std::vector<uint64_t> chunks;
};

Outcome ChunkSender::start() { return hasher_.start(); }

Outcome ChunkCarrier::send_frame(ChunkFrameKind kind, uint64_t address, uint64_t bytes) {
  const ChunkFrame frame{.kind = kind, .address = address, .bytes = bytes};
  return stream_.send(&frame, sizeof(frame));
}

Outcome ChunkCarrier::send_ranges(ChunkFrameKind kind, const std::vector<uint64_t>& chunks,
                                  const std::vector<uint64_t>& begins) {
  const auto begins_at = [&](uint64_t chunk) { return std::binary_search(begins.begin(), begins.end(), chunk); };
  for (size_t i = 0; i < chunks.size();) {
    size_t end = i + 1;
    while (end < chunks.size() && chunks[end] == chunks[end - 1] + kChunkBytes && !begins_at(chunks[end])) ++end;
    if (Outcome outcome = send_frame(kind, chunks[i], (end - i) * kChunkBytes); !outcome.ok()) return outcome;
    i = end;
  }
  return {};
}

Outcome ChunkCarrier::send_chunk(uint64_t address, const std::byte* bytes) {
  if (slots_ == nullptr) {
    const Outcome outcome = send_frame(ChunkFrameKind::kData, address, kChunkBytes);
    return outcome.ok() ? stream_.send(bytes, kChunkBytes) : outcome;
  }
  uint32_t slot = 0;
  if (Outcome outcome = slots_->find_free(kNoSlot, stream_, &slot); !outcome.ok()) return outcome;
  memcpy(slots_->at(slot), bytes, kChunkBytes);
  return send_slot(address, slot);
}

Outcome ChunkCarrier::send_slot(uint64_t address, uint32_t slot) {
  slots_->hand_over(slot);
  const ChunkFrame frame{.kind = ChunkFrameKind::kSlot, .slot = slot, .address = address, .bytes = kChunkBytes};
  return stream_.send(&frame, sizeof(frame));
}

// Processes that share a piece have it as it is cut, so it has to be cut so there. What was told before is cut
// otherwise there: all begins anew. That is so when something is shared while it is copied.
Outcome ChunkSender::tell_pieces(const std::vector<MemoryRange>& pieces) {
  const auto known = [this](const MemoryRange& piece) {
    return std::find(cuts_.begin(), cuts_.end(), piece) != cuts_.end();
  };
  const bool anew = !std::all_of(pieces.begin(), pieces.end(), known);
  cuts_ = pieces;
  if (!anew || told_.empty()) return {};
  for (auto& [chunk, copy] : there_) copy = Copy();
  return send_ranges(ChunkFrameKind::kUnmap, std::exchange(told_, {}));
}

// What is new there is zero. Not so what is mapped there once more: a piece of memory of which a part is still mapped
// keeps its contents.
Outcome ChunkSender::tell_mapped(const std::vector<uint64_t>& chunks) {
  std::vector<uint64_t> gone, come;
  std::set_difference(told_.begin(), told_.end(), chunks.begin(), chunks.end(), std::back_inserter(gone));
  std::set_difference(chunks.begin(), chunks.end(), told_.begin(), told_.end(), std::back_inserter(come));
  told_ = chunks;
  for (const uint64_t chunk : gone) there_[chunk] = Copy();
  for (const uint64_t chunk : come) there_.try_emplace(chunk, Copy{.hash = {}, .hashed = false, .zero = true});
  const Outcome outcome = send_ranges(ChunkFrameKind::kUnmap, gone);
  std::vector<uint64_t> cuts;
  for (const MemoryRange& piece : cuts_) {
    if (cuts.empty() || cuts.back() != piece.address) cuts.push_back(piece.address);
    cuts.push_back(piece.address + piece.bytes);
  }
  return outcome.ok() ? send_ranges(ChunkFrameKind::kMap, come, cuts) : outcome;
}

// Of those that are kept, what is not known to be there.
Outcome ChunkSender::changed(const Pins& pins, std::vector<uint64_t>* chunks) {
  std::vector<uint64_t> known;
  for (const uint64_t chunk : pins.chunks) (there_[chunk].hashed ? known : *chunks).push_back(chunk);
  std::vector<ChunkHash> hashes(known.size());
  if (known.empty()) return {};
  if (Outcome outcome = hasher_.hash(known, hashes.data()); !outcome.ok()) return outcome;
  for (size_t i = 0; i < known.size(); ++i) {
    if (hashes[i] != there_[known[i]].hash) chunks->push_back(known[i]);
  }
  return {};
}

Outcome ChunkSender::pass(const std::function<bool()>& go_on, Pass* pass) {
  if (!buffers_.started()) {
    if (Outcome outcome = buffers_.start(slots_.get()); !outcome.ok()) return outcome;
  }
  std::vector<MemoryRange> pieces;
  for (const Memory::SharedPiece& piece : memory_.shared_pieces()) pieces.push_back({piece.address, piece.bytes});
  const std::vector<uint64_t> ours = chunks_of(memory_.ranges()), shared = chunks_of(pieces);
  std::vector<uint64_t> mapped;
  std::set_union(ours.begin(), ours.end(), shared.begin(), shared.end(), std::back_inserter(mapped));
  if (Outcome outcome = tell_pieces(pieces); !outcome.ok()) return outcome;
  if (Outcome outcome = tell_mapped(mapped); !outcome.ok()) return outcome;
  *pass = {.whole = true};
  for (size_t at = 0; at < mapped.size() && pass->whole; at += kChunksAtOnce) {
    const size_t count = std::min(kChunksAtOnce, mapped.size() - at);
    const Pins pins(memory_, std::span(mapped).subspan(at, count));
    std::vector<uint64_t> chunks;
    if (Outcome outcome = changed(pins, &chunks); !outcome.ok()) return outcome;
    const uint64_t begin = now_ns();
    const Outcome sent = send_chunks(chunks, go_on, pass);
    const Outcome rested = buffers_.rest();
    pass->ns += chunks.empty() ? 0 : now_ns() - begin;
    if (!sent.ok()) return sent;
    if (!rested.ok()) return rested;
    pass->whole = pass->whole && go_on();
  }
  return {};
}

Outcome ChunkCarrier::confirm() {
  const Outcome outcome = send_frame(ChunkFrameKind::kPass, 0, 0);
  return outcome.ok() ? await_verdict(stream_, kConfirmMs) : outcome;
}

// Any but the one that is looked at.
Outcome ChunkSender::next_buffer(uint32_t but, uint32_t* which) {
  if (slots_ != nullptr) return slots_->find_free(but, stream_, which);
  *which = but == 0 ? 1 : 0;
  return {};
}

// While one is looked at and sent, the GPU copies the next.
Outcome ChunkSender::send_chunks(std::span<const uint64_t> chunks, const std::function<bool()>& go_on, Pass* pass) {
  uint32_t before = kNoSlot, next = kNoSlot;
  for (size_t i = 0; i <= chunks.size(); ++i, before = next) {
    if (i < chunks.size() && pass->whole) {
      if (Outcome outcome = next_buffer(before, &next); !outcome.ok()) return outcome;
      if (Outcome outcome = buffers_.fetch(&buffers_.at(next), chunks[i]); !outcome.ok()) return outcome;
    }
    if (i == 0) continue;
    if (Outcome outcome = buffers_.wait(&buffers_.at(before)); !outcome.ok()) return outcome;
    if (Outcome outcome = carry(chunks[i - 1], before, pass); !outcome.ok()) return outcome;
    if (!pass->whole) break;
    pass->whole = go_on();
  }
  return {};
}

Outcome ChunkSender::carry(uint64_t address, uint32_t which, Pass* pass) {
  const ChunkBuffers::Buffer& buffer = buffers_.at(which);
  Copy& there = there_[address];
  const Copy now{.hash = hash_chunk(hasher_.secret(), buffer.data), .hashed = true, .zero = is_zero(buffer.data)};
  const bool same = (there.zero && now.zero) || (there.hashed && there.hash == now.hash);
  there = now;
  if (same) return {};
  ++pass->chunks;
  if (now.zero) return send_frame(ChunkFrameKind::kZero, address, kChunkBytes);
  pass->bytes += kChunkBytes;
  return slots_ != nullptr ? send_slot(address, which) : send_chunk(address, buffer.data);
}

Outcome ChunkCarrier::end() { return send_frame(ChunkFrameKind::kEnd, 0, 0); }

namespace {

Outcome take(const ChunkFrame& frame, ByteStream& stream, ChunkSlots* slots, ChunkTaker& taker) {
  if (frame.kind == ChunkFrameKind::kPass) {
    const Outcome outcome = taker.rest();
    return outcome.ok() ? send_verdict(stream, outcome) : outcome;
  }
  const bool whole = frame.address % kChunkBytes == 0 && frame.bytes % kChunkBytes == 0 && frame.bytes != 0;
  if (!whole || !taker.owns(frame.address, frame.bytes)) {
    return Outcome::fail("the source sent memory that is not the vGPU's");
  }
  switch (frame.kind) {
    case ChunkFrameKind::kMap:
      return taker.map(frame.address, frame.bytes);
    case ChunkFrameKind::kUnmap:
      return taker.unmap(frame.address, frame.bytes);
    case ChunkFrameKind::kZero:
      return taker.clear(frame.address, frame.bytes);
    case ChunkFrameKind::kData:
      if (frame.bytes != kChunkBytes) return Outcome::fail("the source sent more than a chunk at once");
      return taker.take(frame.address, stream);
    case ChunkFrameKind::kSlot:
      if (frame.bytes != kChunkBytes || slots == nullptr || !slots->is_ours(frame.slot))
        return Outcome::fail("the source named a slot that it had not filled");
      return taker.take_slot(frame.address, *slots, frame.slot);
    default:
      return Outcome::fail("the source sent what this worker does not know");
  }
}

}  // namespace

Outcome receive_chunks(ByteStream& stream, ChunkSlots* slots, ChunkTaker& taker, uint32_t first_ms) {
  for (uint32_t patience_ms = first_ms;; patience_ms = kSourceMs) {
    ChunkFrame frame;
    if (Outcome outcome = stream.receive(&frame, sizeof(frame), patience_ms); !outcome.ok()) return outcome;
    if (frame.kind == ChunkFrameKind::kEnd) return taker.rest();
    if (Outcome outcome = take(frame, stream, slots, taker); !outcome.ok()) return outcome;
  }
}

Outcome MemoryTaker::map(uint64_t address, uint64_t bytes) {
  const CUresult result = memory_.map(address, bytes);
  return result == CUDA_SUCCESS ? Outcome() : memory_.cannot_map(bytes, result);
}

Outcome MemoryTaker::unmap(uint64_t address, uint64_t bytes) {
  if (Outcome outcome = buffers_.rest(); !outcome.ok()) return outcome;
  const CUresult result = memory_.unmap(address, bytes, 0);
  memory_.collect(streams_);
  return result == CUDA_SUCCESS ? Outcome() : Outcome::fail("the source unmaps memory that is not mapped");
}

Outcome MemoryTaker::take(uint64_t address, ByteStream& from) {
  ChunkBuffers::Buffer& buffer = buffers_.at(turn_++);
  if (Outcome outcome = buffers_.wait(&buffer); !outcome.ok()) return outcome;
  if (Outcome outcome = from.receive(buffer.data, kChunkBytes); !outcome.ok()) return outcome;
  return buffers_.store(&buffer, address);
}

// While the GPU reads it the next one may come; the one before goes back.
Outcome MemoryTaker::take_slot(uint64_t address, ChunkSlots& slots, uint32_t slot) {
  if (Outcome outcome = buffers_.store(&buffers_.at(slot), address); !outcome.ok()) return outcome;
  const uint32_t before = std::exchange(read_, slot);
  if (before == kNoSlot) return {};
  if (Outcome outcome = buffers_.wait(&buffers_.at(before)); !outcome.ok()) return outcome;
  slots.give_back(before);
  return {};
}

}  // namespace tide
