#include "server/kept.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "server/pieces.h"

namespace tide {
namespace {

constexpr uint64_t kSpareMib = 4096;  // of images

static_assert(kPieceBytesMax <= Shelf::kPieceBytesMax);

std::unique_ptr<std::byte[]> make_room() {
  return std::unique_ptr<std::byte[]>(new (std::nothrow) std::byte[Shelf::kPieceBytesMax]);
}

Outcome no_room() { return Outcome::fail("there is no memory for a chunk"); }

// Where its bytes lie, read into `room` where that is not in memory.
Outcome bytes_of(const Shelf& shelf, const Shelf::Piece& piece, std::byte* room, const std::byte** bytes) {
  *bytes = piece.data() != nullptr ? piece.data() : room;
  return piece.data() != nullptr ? Outcome() : shelf.read(piece, room);
}

}  // namespace

// One pass sends everything; the later ones find nothing that has changed.
class Kept::Carrier final : public ChunkCarrier {
 public:
  Carrier(const Shelf& shelf, std::shared_ptr<const Whole> whole, ByteStream& stream)
      : ChunkCarrier(stream),
        shelf_(shelf),
        whole_(std::move(whole)),
        next_(whole_->chunks.begin()),
        room_(make_room()) {}

  Outcome start() { return room_ != nullptr ? Outcome() : no_room(); }
  Outcome pass(const std::function<bool()>& go_on, Pass* pass) override {
    const uint64_t begin = now_ns();
    *pass = {.whole = true};
    if (Outcome outcome = tell_mapped(); !outcome.ok()) return outcome;
    for (; next_ != whole_->chunks.end() && pass->whole; ++next_, pass->whole = go_on()) {
      if (next_->second == nullptr) continue;  // what is newly mapped is zero
      if (left_ == 0) {
        if (Outcome outcome = look_ahead(); !outcome.ok()) return outcome;
      }
      --left_;
      if (there_.erase(next_->first) != 0) {
        ++pass->chunks, ++pass->known;
        continue;
      }
      const std::byte* bytes = nullptr;
      Outcome outcome = bytes_of(shelf_, *next_->second, room_.get(), &bytes);
      if (outcome.ok()) outcome = send_chunk(next_->first, bytes);
      if (!outcome.ok()) return outcome;
      ++pass->chunks;
      pass->bytes += kChunkBytes;
    }
    pass->whole = next_ == whole_->chunks.end();
    pass->ns = pass->chunks == 0 ? 0 : now_ns() - begin;
    return {};
  }

 private:
  static constexpr uint32_t kAskedAtOnce = 16;

  Outcome tell_mapped() {
    std::vector<uint64_t> mapped;
    if (all_told_) return {};
    for (const auto& [address, piece] : whole_->chunks) {
      if (!std::binary_search(told_.begin(), told_.end(), address)) mapped.push_back(address);
    }
    all_told_ = true;
    return send_ranges(ChunkFrameKind::kMap, mapped, {whole_->begins.begin(), whole_->begins.end()});
  }

  // From the first chunk on that is not there: what the destination was asked for behind it, it is asked for again.
  void take_back(const std::vector<uint64_t>& mapped, std::span<const ChunkFrame> lost) override {
    told_ = mapped;
    all_told_ = false;
    for (const ChunkFrame& frame : lost) {
      if (frame.kind != ChunkFrameKind::kData) continue;
      if (next_ == whole_->chunks.end() || frame.address < next_->first) next_ = whole_->chunks.find(frame.address);
    }
    left_ = 0;
    there_.clear();
  }

  // From next_ on, which of some the destination has.
  Outcome look_ahead() {
    std::vector<AskedChunk> asked;
    const bool wanted = asks();
    uint64_t there = 0;
    for (auto at = next_; at != whole_->chunks.end() && left_ < kAskedAtOnce; ++at) {
      if (at->second == nullptr) continue;
      ++left_;
      AskedChunk chunk{.address = at->first, .hash = at->second->hash()};
      if (wanted && shelf_.secret() != secret_) {
        const std::byte* bytes = nullptr;
        if (Outcome outcome = bytes_of(shelf_, *at->second, room_.get(), &bytes); !outcome.ok()) return outcome;
        chunk.hash = hash_chunk(secret_, bytes);
      }
      asked.push_back(chunk);
    }
    if (!wanted) return {};
    if (Outcome outcome = ask(asked, &there); !outcome.ok()) return outcome;
    for (size_t i = 0; i < asked.size(); ++i) {
      if ((there >> i & 1) != 0) there_.insert(asked[i].address);
    }
    return {};
  }

  const Shelf& shelf_;
  const std::shared_ptr<const Whole> whole_;
  bool all_told_ = false;
  std::vector<uint64_t> told_;  // mapped there, where not all that is mapped was told, ascending
  Chunks::const_iterator next_;
  uint32_t left_ = 0;         // from there on, that were looked at,
  std::set<uint64_t> there_;  // and of these what the destination has
  const std::unique_ptr<std::byte[]> room_;
};

std::shared_ptr<const Kept::Whole> Kept::whole() const {
  const std::lock_guard lock(whole_mu_);
  return whole_;
}

TransferOutline Kept::outline() const {
  const auto kept = whole();
  return kept == nullptr ? TransferOutline() : kept->outline;
}

uint64_t Kept::bytes_apart() const {
  const auto kept = whole();
  uint64_t bytes = 0;
  if (kept == nullptr) return bytes;
  for (const auto& [address, piece] : kept->chunks) bytes += piece != nullptr ? piece->cost() : 0;
  for (const Shelf::PieceRef& piece : kept->rest) bytes += piece->cost();
  return bytes;
}

Precopy::MakeCarrier Kept::carrier() const {
  return [this](ByteStream& to, std::unique_ptr<ChunkCarrier>* carrier) {
    auto kept = whole();
    if (kept == nullptr) return Outcome::fail("nothing that is whole is kept here");
    auto made = std::make_unique<Carrier>(shelf_, std::move(kept), to);
    const Outcome outcome = made->start();
    if (outcome.ok()) *carrier = std::move(made);
    return outcome;
  };
}

Outcome Kept::receive(ByteStream& from, const ChunkWays& ways) {
  room_ = make_room();
  if (room_ == nullptr) return no_room();
  auto next = std::make_shared<Whole>();
  Outcome outcome = receive_chunks(from, ways, *this);
  if (outcome.ok()) outcome = from.receive(&next->outline, sizeof(next->outline));
  if (outcome.ok()) outcome = take_rest(from, &next->rest);
  room_.reset();
  if (!outcome.ok()) return outcome;
  next->chunks = chunks_;
  next->begins = begins_;
  std::shared_ptr<const Whole> before = std::move(next);
  const std::lock_guard lock(whole_mu_);
  whole_.swap(before);
  return outcome;
}

// Arrays and host memory are within the quota, each; images are not.
uint64_t Kept::usual_rest(uint64_t quota) {
  const char* const text = getenv("TIDE_GUARD_SPARE_MIB");
  const uint64_t mib = text == nullptr || *text == '\0' ? kSpareMib : strtoull(text, nullptr, 10);
  return 2 * quota + (mib << 20);
}

Outcome Kept::take_rest(ByteStream& from, std::vector<Shelf::PieceRef>* rest) {
  for (uint64_t all = 0;;) {
    uint32_t bytes = 0, same = kNotSame;
    if (Outcome outcome = receive_piece(from, room_.get(), &bytes, &same); !outcome.ok()) return outcome;
    if (bytes == 0) return {};
    if (same != kNotSame) {
      const auto before = whole();
      if (before == nullptr || same >= before->rest.size()) return Outcome::fail("the source names what is not here");
      rest->push_back(before->rest[same]);
      all += rest->back()->bytes();
      continue;
    }
    all += bytes;
    if (all > rest_most_) {
      return Outcome::fail(format("%s: %llu MiB of images, arrays and the like, which TIDE_GUARD_SPARE_MIB can change",
                                  kTooMuchKept, static_cast<unsigned long long>(rest_most_ >> 20)));
    }
    if (Outcome outcome = shelf_.put(room_.get(), bytes, &rest->emplace_back()); !outcome.ok()) return outcome;
  }
}

Outcome Kept::send_rest(ByteStream& to, const std::function<void()>& pump, uint64_t* bytes) const {
  const std::unique_ptr<std::byte[]> room = make_room();
  const auto kept = whole();
  if (room == nullptr) return no_room();
  if (kept == nullptr) return Outcome::fail("nothing that is whole is kept here");
  if (Outcome outcome = to.send(&kept->outline, sizeof(kept->outline)); !outcome.ok()) return outcome;
  *bytes = 0;
  for (const Shelf::PieceRef& piece : kept->rest) {
    const std::byte* data = nullptr;
    if (Outcome outcome = bytes_of(shelf_, *piece, room.get(), &data); !outcome.ok()) return outcome;
    if (Outcome outcome = send_piece(to, data, piece->bytes()); !outcome.ok()) return outcome;
    *bytes += piece->bytes();
    pump();
  }
  return send_piece(to, nullptr, 0);
}

bool Kept::owns(uint64_t address, uint64_t bytes) const {
  const uint64_t base = vgpu_range_base(vgpu_);
  return address >= base && address - base <= kVgpuRangeBytes && bytes <= kVgpuRangeBytes - (address - base);
}

Outcome Kept::map(uint64_t address, uint64_t bytes) {
  const uint64_t have = chunks_.size() * kChunkBytes;
  if (quota_ != 0 && have + bytes > quota_ + kChunkBytes - 1) {
    return Outcome::fail("the source maps more memory than the vGPU may have");
  }
  for (uint64_t at = address; at < address + bytes; at += kChunkBytes) {
    if (!chunks_.try_emplace(at).second) return Outcome::fail("the source maps memory that is mapped");
  }
  begins_.insert(address);
  return {};
}

Outcome Kept::unmap(uint64_t address, uint64_t bytes) {
  for (uint64_t at = address; at < address + bytes; at += kChunkBytes) {
    begins_.erase(at);
    if (chunks_.erase(at) == 0) return Outcome::fail("the source unmaps memory that is not mapped");
  }
  return {};
}

Outcome Kept::clear(uint64_t address, uint64_t bytes) {
  for (uint64_t at = address; at < address + bytes; at += kChunkBytes) {
    const auto found = chunks_.find(at);
    if (found == chunks_.end()) return Outcome::fail("the source zeroes memory that is not mapped");
    found->second = nullptr;
  }
  return {};
}

Outcome Kept::take(uint64_t address, ByteStream& from) {
  const auto found = chunks_.find(address);
  if (found == chunks_.end()) return Outcome::fail("the source sends memory that is not mapped");
  if (Outcome outcome = from.receive(room_.get(), kChunkBytes); !outcome.ok()) return outcome;
  found->second = nullptr;  // what was there makes room for what comes
  return shelf_.put(room_.get(), uint32_t(kChunkBytes), &found->second);
}

Outcome Kept::take_known(uint64_t address, const ChunkHash& hash, bool* known) {
  const auto found = chunks_.find(address);
  if (found == chunks_.end()) return Outcome::fail("the source asks for memory that is not mapped");
  Shelf::PieceRef piece;
  *known = shelf_.find(hash, &piece);
  if (*known) found->second = std::move(piece);
  return {};
}

Outcome Kept::take_slot(uint64_t address, ChunkSlots& slots, uint32_t slot) {
  const auto found = chunks_.find(address);
  if (found == chunks_.end()) return Outcome::fail("the source sends memory that is not mapped");
  found->second = nullptr;
  const Outcome outcome = shelf_.put(slots.at(slot), uint32_t(kChunkBytes), &found->second);
  slots.give_back(slot);
  return outcome;
}

}  // namespace tide
