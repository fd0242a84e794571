#include "server/chunk_carrier.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "server/source_door.h"
#include "server/verdict.h"

namespace tide {
namespace {

constexpr uint32_t kConfirmMs = 30'000;
constexpr uint32_t kInVainMost = 8;    // questions in a row; then one in
constexpr uint32_t kAskAgainEach = 8;  // is asked, until one helps
constexpr size_t kChunksAtOnce = 16;   // are kept readable: so much of memory that was given back may stay for a while

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

Outcome ChunkCarrier::meet(const std::string& offer, bool comes_back) {
  std::unique_ptr<ChunkSlots> slots;
  const Outcome reached = ChunkSlots::take(offer, &slots);
  if (!reached.ok()) log(LogLevel::kDebug, "chunks go over the network: %s", reached.message().c_str());
  use(std::move(slots));
  if (uint64_t none = 0; comes_back && slots_ == nullptr && read_returns(offer, &none)) {
    returns_ = true;
    if (Outcome outcome = send_frame(ChunkFrameKind::kReturns, 0, 0); !outcome.ok()) return outcome;
  }
  const size_t line = offer.find('\n');
  if (line == std::string::npos || offer.compare(line + 1, std::string::npos, kKnowsWord) != 0) return {};
  ChunkSecret secret;
  std::string words;
  Outcome outcome = send_frame(ChunkFrameKind::kSecret, 0, 0);
  if (outcome.ok()) outcome = await_verdict(stream_, kConfirmMs, &words);
  if (!outcome.ok()) return outcome;
  knows_ = parse_hex(words, secret.bytes, ChunkSecret::kBytes);
  if (knows_) know(secret);
  return {};
}

bool ChunkCarrier::asks() { return knows_ && (in_vain_ < kInVainMost || ++left_out_ % kAskAgainEach == 0); }

Outcome ChunkCarrier::ask(std::span<const AskedChunk> chunks, uint64_t* there) {
  std::string words;
  uint8_t bits[sizeof(*there)] = {};
  Outcome outcome = send_frame(ChunkFrameKind::kAsk, 0, chunks.size_bytes());
  if (outcome.ok()) outcome = stream_.send(chunks.data(), chunks.size_bytes());
  if (outcome.ok()) outcome = await_verdict(stream_, kConfirmMs, &words);
  if (!outcome.ok()) return outcome;
  if (!parse_hex(words, bits, sizeof(bits))) return Outcome::fail("the destination does not say what it has");
  memcpy(there, bits, sizeof(bits));
  in_vain_ = *there == 0 ? in_vain_ + 1 : 0;
  return {};
}

// Written down first: of one that fails the destination may have all.
Outcome ChunkCarrier::say(const ChunkFrame& frame) {
  if (returns_) log_.push_back(frame);
  return stream_.send(&frame, sizeof(frame));
}

Outcome ChunkCarrier::send_frame(ChunkFrameKind kind, uint64_t address, uint64_t bytes) {
  return say({.kind = kind, .address = address, .bytes = bytes});
}

// So many of those that were sent are done.
void ChunkCarrier::settle(size_t frames) {
  for (const ChunkFrame& frame : std::span(log_).first(frames)) {
    for (uint64_t at = frame.address; at < frame.address + frame.bytes; at += kChunkBytes) {
      if (frame.kind == ChunkFrameKind::kMap) mapped_.insert(at);
      if (frame.kind == ChunkFrameKind::kUnmap) mapped_.erase(at);
    }
  }
  done_ += frames;
}

Outcome ChunkCarrier::return_to(uint64_t done) {
  if (done < done_ || done - done_ > log_.size()) return Outcome::fail("the destination has not done what it says");
  const size_t there = done - done_;
  settle(there);
  const std::vector<ChunkFrame> log = std::exchange(log_, {});
  take_back({mapped_.begin(), mapped_.end()}, std::span(log).subspan(there));
  return {};
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
  return say({.kind = ChunkFrameKind::kSlot, .slot = slot, .address = address, .bytes = kChunkBytes});
}

// Processes that share a piece have it as it is cut, so it has to be cut so there. What was told before is cut
// otherwise there: all begins anew. That is so when something is shared while it is copied.
Outcome ChunkSender::tell_pieces(const std::vector<MemoryRange>& pieces) {
  const auto known = [this](const MemoryRange& piece) {
    return std::find(cuts_.begin(), cuts_.end(), piece) != cuts_.end();
  };
  const bool anew = !std::all_of(pieces.begin(), pieces.end(), known);
  if (anew && !told_.empty()) {
    for (auto& [chunk, copy] : there_) copy = Copy();
    if (Outcome outcome = send_ranges(ChunkFrameKind::kUnmap, std::exchange(told_, {})); !outcome.ok()) return outcome;
  }
  cuts_ = pieces;
  return {};
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

// Of what was told and came to nothing: what became of a chunk since is not known, whatever was sent of it. What was
// to be unmapped may be cut otherwise there than here: then all begins anew where something is shared.
void ChunkSender::take_back(const std::vector<uint64_t>& mapped, std::span<const ChunkFrame> lost) {
  told_ = mapped;
  for (const ChunkFrame& frame : lost) {
    if (frame.kind == ChunkFrameKind::kUnmap) cuts_.clear();
    if (frame.kind != ChunkFrameKind::kData && frame.kind != ChunkFrameKind::kZero) continue;
    for (uint64_t at = 0; at < frame.bytes; at += kChunkBytes) there_[frame.address + at] = Copy();
  }
}

void ChunkSender::know(const ChunkSecret& secret) {
  ChunkCarrier::know(secret);
  hasher_.use(secret);
}

// What the destination has at another place, or of another vGPU of the job, is not read even.
Outcome ChunkSender::leave_out_known(std::vector<uint64_t>* chunks, Pass* pass) {
  std::vector<ChunkHash> hashes(chunks->size());
  if (Outcome outcome = hasher_.hash(*chunks, hashes.data()); !outcome.ok()) return outcome;
  std::vector<AskedChunk> asked;
  for (size_t i = 0; i < hashes.size(); ++i) {
    if (hashes[i] != hasher_.zeros()) asked.push_back({(*chunks)[i], hashes[i]});
  }
  uint64_t there = 0;
  if (asked.empty()) return {};
  if (Outcome outcome = ask(asked, &there); !outcome.ok()) {
    for (const AskedChunk& chunk : asked) there_[chunk.address] = Copy();
    return outcome;
  }
  for (size_t i = 0; i < asked.size(); ++i) {
    if ((there >> i & 1) == 0) continue;
    there_[asked[i].address] = {.hash = asked[i].hash, .hashed = true, .zero = false};
    chunks->erase(std::find(chunks->begin(), chunks->end(), asked[i].address));
    ++pass->chunks, ++pass->known;
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
    const bool any = !chunks.empty();
    const Outcome asked = any && asks() ? leave_out_known(&chunks, pass) : Outcome();
    const Outcome sent = asked.ok() ? send_chunks(chunks, go_on, pass) : asked;
    const Outcome rested = buffers_.rest();
    pass->ns += any ? now_ns() - begin : 0;
    if (!sent.ok()) return sent;
    if (!rested.ok()) return rested;
    pass->whole = pass->whole && go_on();
  }
  return {};
}

Outcome ChunkCarrier::confirm() {
  Outcome outcome = send_frame(ChunkFrameKind::kPass, 0, 0);
  if (outcome.ok()) outcome = await_verdict(stream_, kConfirmMs);
  if (!outcome.ok()) return outcome;
  settle(log_.size());
  log_.clear();
  return {};
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

Outcome take_asked(const ChunkFrame& frame, ByteStream& stream, ChunkTaker& taker, std::string* answer) {
  std::vector<AskedChunk> asked(std::min(frame.bytes / sizeof(AskedChunk), kAskedMost));
  const uint64_t bytes = asked.size() * sizeof(AskedChunk);
  if (taker.secret() == nullptr || frame.bytes != bytes) return Outcome::fail("the source asks for what cannot be");
  if (Outcome outcome = stream.receive(asked.data(), bytes); !outcome.ok()) return outcome;
  if (Outcome outcome = taker.rest(); !outcome.ok()) return outcome;
  uint64_t there = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (asked[i].address % kChunkBytes != 0 || !taker.owns(asked[i].address, kChunkBytes))
      return Outcome::fail("the source asks for memory that is not the vGPU's");
    bool known = false;
    if (Outcome outcome = taker.take_known(asked[i].address, asked[i].hash, &known); !outcome.ok()) return outcome;
    there |= uint64_t{known} << i;
  }
  *answer = hex(reinterpret_cast<const uint8_t*>(&there), sizeof(there));
  return taker.rest();
}

bool has_answer(ChunkFrameKind kind) {
  return kind == ChunkFrameKind::kPass || kind == ChunkFrameKind::kSecret || kind == ChunkFrameKind::kAsk;
}

Outcome take(const ChunkFrame& frame, ByteStream& stream, const ChunkWays& ways, ChunkTaker& taker,
             std::string* answer) {
  if (frame.kind == ChunkFrameKind::kAsk) return take_asked(frame, stream, taker, answer);
  if (frame.kind == ChunkFrameKind::kSecret) {
    const ChunkSecret* const secret = taker.secret();
    if (secret == nullptr) return Outcome::fail("the source asks for a secret that is not here");
    *answer = hex(secret->bytes, ChunkSecret::kBytes);
    return {};
  }
  if (frame.kind == ChunkFrameKind::kPass) return taker.rest();
  if (frame.kind == ChunkFrameKind::kReturns) {
    return ways.door != nullptr ? ways.door->open() : Outcome::fail("the source says that it comes back, and may not");
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
      if (frame.bytes != kChunkBytes || ways.slots == nullptr || !ways.slots->is_ours(frame.slot))
        return Outcome::fail("the source named a slot that it had not filled");
      return taker.take_slot(frame.address, *ways.slots, frame.slot);
    default:
      return Outcome::fail("the source sent what this worker does not know");
  }
}

struct Came {
  uint64_t frames = 0;  // that are done
  bool end = false;
};

// One is done before its answer is sent: what the source has heard of counts where it comes back.
Outcome take_next(ByteStream& stream, const ChunkWays& ways, ChunkTaker& taker, Came* came) {
  ChunkFrame frame;
  const uint32_t patience_ms = came->frames == 0 ? ways.first_ms : kSourceMs;
  if (Outcome outcome = stream.receive(&frame, sizeof(frame), patience_ms); !outcome.ok()) return outcome;
  came->end = frame.kind == ChunkFrameKind::kEnd;
  if (came->end) return taker.rest();
  if (came->frames == 0 && ways.door != nullptr && frame.kind != ChunkFrameKind::kReturns) ways.door->close();
  std::string answer;
  if (Outcome outcome = take(frame, stream, ways, taker, &answer); !outcome.ok()) return outcome;
  ++came->frames;
  return has_answer(frame.kind) ? send_verdict(stream, {}, answer) : Outcome();
}

}  // namespace

Outcome receive_chunks(ByteStream& stream, const ChunkWays& ways, ChunkTaker& taker) {
  Outcome outcome;
  for (Came came; outcome.ok() && !came.end;) {
    outcome = take_next(stream, ways, taker, &came);
    if (!outcome.ok() && ways.door != nullptr) outcome = ways.door->await(came.frames, outcome);
  }
  if (ways.door != nullptr) ways.door->close();
  return outcome;
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

Outcome MemoryTaker::rest() {
  const Outcome outcome = buffers_.rest();
  return outcome.ok() && kept_.started() ? kept_.rest() : outcome;
}

// What cannot be read back from disk counts as not there: the source has it.
Outcome MemoryTaker::take_known(uint64_t address, const ChunkHash& hash, bool* known) {
  Shelf::PieceRef piece;
  *known = false;
  if (!shelf_->find(hash, &piece)) return {};
  if (!kept_.started()) {
    if (Outcome outcome = kept_.start(nullptr); !outcome.ok()) return outcome;
  }
  ChunkBuffers::Buffer& buffer = kept_.at(turn_++);
  if (Outcome outcome = kept_.wait(&buffer); !outcome.ok()) return outcome;
  if (!shelf_->read(*piece, buffer.data).ok()) return {};
  *known = true;
  return kept_.store(&buffer, address);
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
