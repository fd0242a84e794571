#include "server/shelf.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include <cstring>
#include <new>
#include <utility>

#include "base/descriptors.h"

namespace tide {
namespace {

constexpr int kLevel = 1;

std::string text_of(const char* variable) {
  const char* const value = getenv(variable);
  return value == nullptr ? "" : value;
}

}  // namespace

ShelfPlace shelf_place(const std::function<std::string(const char* name)>& value_of) {
  ShelfPlace place{
      .directory = value_of("TIDE_PARK_DIR"), .ledger = value_of("TIDE_PARK_LEDGER"), .memory_bytes_max = {}};
  if (place.directory.empty()) place.directory = "/var/tmp";
  if (const std::string mib = value_of("TIDE_PARK_MEMORY_MIB"); !mib.empty()) {
    place.memory_bytes_max = strtoull(mib.c_str(), nullptr, 10) << 20;
  }
  return place;
}

ShelfPlace shelf_place() { return shelf_place(text_of); }

Shelf::Shelf(ShelfPlace place) : place_(std::move(place)), memory_(place_.memory_bytes_max, place_.ledger) {}

Shelf::~Shelf() {
  if (fd_ >= 0) close(fd_);
  ZSTD_freeCCtx(packer_);
}

Outcome Shelf::start(std::unique_ptr<JobShelf> job) {
  job_ = std::move(job);
  if (job_ != nullptr) secret_ = job_->secret();
  if (job_ == nullptr && !make_secret(&secret_)) return Outcome::fail("the system gives no random numbers");
  return memory_.start();
}

JobShelf::Share Shelf::kept() const {
  JobShelf::Share all = job_ != nullptr ? job_->share() : JobShelf::Share();
  all.in_memory += in_memory_;
  all.on_disk += on_disk_;
  return all;
}

ChunkHash Shelf::hash(const std::byte* data, uint32_t bytes) const {
  const XXH128_hash_t hash = XXH3_128bits_withSecret(data, bytes, secret_.bytes, ChunkSecret::kBytes);
  return {hash.low64, hash.high64};
}

Outcome Shelf::put(const std::byte* data, uint32_t bytes, PieceRef* piece) {
  const ChunkHash key = hash(data, bytes);
  const bool whole = bytes == kChunkBytes;
  if (const auto found = whole ? known_.find(key) : known_.end(); found != known_.end()) {
    if (PieceRef same = found->second.lock(); same != nullptr) {
      *piece = std::move(same);
      return {};
    }
  }
  std::shared_ptr<Piece> made(new Piece(*this, bytes, key));
  if (whole && job_ != nullptr) {
    if (Outcome outcome = keep_together(data, made.get()); !outcome.ok()) return outcome;
  }
  if (made->slot_ == JobShelf::kNoSlot && !keep_in_memory(data, made.get())) {
    if (Outcome outcome = open_file(); !outcome.ok()) return outcome;
    if (Outcome outcome = write(data, {fd_, end_}, made.get()); !outcome.ok()) return outcome;
    end_ += on_disk_bytes(made->stored_);
    on_disk_ += on_disk_bytes(made->stored_);
  }
  if (whole) known_[key] = made;
  *piece = std::move(made);
  return {};
}

// Where that cannot be (too many chunks, a keeper that is stopped) it has no slot afterwards, and nothing has failed.
Outcome Shelf::keep_together(const std::byte* data, Piece* piece) {
  JobShelf::Chunk chunk;
  uint32_t slot = JobShelf::kNoSlot;
  bool there = job_->find(piece->hash_, &chunk);
  if (!there && job_->begin(&slot)) {
    const bool in_memory = job_->keep_in_memory(slot, data);
    if (const int disk = job_->files()->disk(); !in_memory) {
      if (Outcome outcome = write(data, {disk, JobShelf::at(slot)}, piece); !outcome.ok()) {
        job_->leave(slot);
        return outcome;
      }
    }
    there = job_->end(slot, piece->hash_, in_memory ? 0 : piece->stored_, &chunk);
  }
  piece->slot_ = there ? chunk.slot : JobShelf::kNoSlot;
  piece->data_ = chunk.data;
  piece->stored_ = chunk.stored;
  piece->at_ = there ? JobShelf::at(chunk.slot) : 0;
  return {};
}

bool Shelf::keep_in_memory(const std::byte* data, Piece* piece) {
  if (!memory_.take(piece->bytes_)) return false;
  piece->own_.reset(new (std::nothrow) std::byte[piece->bytes_]);
  piece->data_ = piece->own_.get();
  if (piece->own_ == nullptr) {
    memory_.give_back(piece->bytes_);
    return false;
  }
  memcpy(piece->own_.get(), data, piece->bytes_);
  in_memory_ += piece->bytes_;
  return true;
}

Outcome Shelf::write(const std::byte* data, const Spot& spot, Piece* piece) {
  if (Outcome outcome = make_packer(); !outcome.ok()) return outcome;
  const size_t packed = ZSTD_compressCCtx(packer_, packed_.get(), kPieceBytesMax, data, piece->bytes_, kLevel);
  const bool smaller = ZSTD_isError(packed) == 0 && packed < piece->bytes_;
  const uint32_t stored = smaller ? uint32_t(packed) : piece->bytes_;
  if (!look_.leaves_room(spot.fd, stored)) {
    errno = ENOSPC;
    return fail("leaves a twentieth of it free in");
  }
  if (!write_at(spot.fd, smaller ? packed_.get() : data, stored, spot.at)) return fail("cannot write to");
  piece->at_ = spot.at;
  piece->stored_ = stored;
  return {};
}

Outcome Shelf::make_packer() {
  if (packer_ != nullptr) return {};
  packed_.reset(new (std::nothrow) std::byte[kPieceBytesMax]);
  packer_ = packed_ != nullptr ? ZSTD_createCCtx() : nullptr;
  return packer_ != nullptr ? Outcome() : Outcome::fail("there is no memory to pack what shall go to disk");
}

Outcome Shelf::open_file() {
  if (fd_ < 0) fd_ = open_shelf_file(place_.directory);
  return fd_ >= 0 ? Outcome() : fail("cannot make a file in");
}

Outcome Shelf::fail(const std::string& what) const {
  const int error = errno;
  return Outcome::fail("there is no room to keep the vGPU: host memory is short, and the agent " + what + " " +
                       place_.directory + ": " + strerror(error));
}

Outcome Shelf::read(const Piece& piece, std::byte* to) const {
  if (piece.data_ != nullptr) {
    memcpy(to, piece.data_, piece.bytes_);
    return {};
  }
  const bool packed = piece.stored_ != piece.bytes_;
  const int fd = piece.slot_ != JobShelf::kNoSlot ? job_->files()->disk() : fd_;
  const std::unique_ptr<std::byte[]> room(packed ? new (std::nothrow) std::byte[piece.stored_] : nullptr);
  if (packed && room == nullptr) return Outcome::fail("there is no memory to read what was kept on disk");
  if (!read_at(fd, packed ? room.get() : to, piece.stored_, piece.at_)) {
    return errno_failure("what was kept on disk in " + place_.directory + " cannot be read back");
  }
  const bool same = !packed || ZSTD_decompress(to, piece.bytes_, room.get(), piece.stored_) == piece.bytes_;
  if (same && hash(to, piece.bytes_) == piece.hash_) return {};
  return Outcome::fail("what was kept on disk in " + place_.directory +
                       " is not what was written there: the vGPU cannot be made again from it");
}

// A hole where it lay, so that chunks that change while they come do not add up. File systems without holes keep it.
void Shelf::forget(const Piece& piece) {
  if (piece.slot_ != JobShelf::kNoSlot) {
    job_->leave(piece.slot_);
  } else if (piece.data_ != nullptr) {
    memory_.give_back(piece.bytes_);
    in_memory_ -= piece.bytes_;
  } else if (piece.stored_ != 0) {
    const uint64_t bytes = on_disk_bytes(piece.stored_);
    [[maybe_unused]] const int punched =
        fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(piece.at_), off_t(bytes));
    on_disk_ -= bytes;
  }
  const auto found = known_.find(piece.hash_);
  if (found != known_.end() && found->second.expired()) known_.erase(found);
}

}  // namespace tide
