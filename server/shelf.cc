#include "server/shelf.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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
constexpr uint64_t kBlockBytes = 4096;  // pieces begin at one, so that their place can be given back

constexpr uint64_t kLookEveryBytes = uint64_t{32} << 20;

uint64_t blocks(uint64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }

std::string text_of(const char* variable) {
  const char* const value = getenv(variable);
  return value == nullptr ? "" : value;
}

bool write_at(int fd, const std::byte* data, uint64_t bytes, uint64_t at) {
  while (bytes != 0) {
    const ssize_t n = pwrite(fd, data, bytes, off_t(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n, at += uint64_t(n), bytes -= uint64_t(n);
  }
  return true;
}

bool read_at(int fd, std::byte* data, uint64_t bytes, uint64_t at) {
  while (bytes != 0) {
    const ssize_t n = pread(fd, data, bytes, off_t(at));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;
    if (n <= 0) return false;
    data += n, at += uint64_t(n), bytes -= uint64_t(n);
  }
  return true;
}

}  // namespace

ShelfPlace shelf_place() {
  ShelfPlace place{
      .directory = text_of("TIDE_PARK_DIR"), .ledger = text_of("TIDE_PARK_LEDGER"), .memory_bytes_max = {}};
  if (place.directory.empty()) place.directory = "/var/tmp";
  if (const std::string mib = text_of("TIDE_PARK_MEMORY_MIB"); !mib.empty()) {
    place.memory_bytes_max = strtoull(mib.c_str(), nullptr, 10) << 20;
  }
  return place;
}

Shelf::Shelf(ShelfPlace place) : place_(std::move(place)), memory_(place_.memory_bytes_max, place_.ledger) {}

Shelf::~Shelf() {
  if (fd_ >= 0) close(fd_);
  ZSTD_freeCCtx(packer_);
}

Outcome Shelf::start() {
  if (!make_secret(&secret_)) return Outcome::fail("the system gives no random numbers");
  return memory_.start();
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
  if (!keep_in_memory(data, made.get())) {
    if (Outcome outcome = write(data, made.get()); !outcome.ok()) return outcome;
  }
  if (whole) known_[key] = made;
  *piece = std::move(made);
  return {};
}

bool Shelf::keep_in_memory(const std::byte* data, Piece* piece) {
  if (!memory_.take(piece->bytes_)) return false;
  piece->data_.reset(new (std::nothrow) std::byte[piece->bytes_]);
  if (piece->data_ == nullptr) {
    memory_.give_back(piece->bytes_);
    return false;
  }
  memcpy(piece->data_.get(), data, piece->bytes_);
  in_memory_ += piece->bytes_;
  return true;
}

Outcome Shelf::write(const std::byte* data, Piece* piece) {
  if (Outcome outcome = open_file(); !outcome.ok()) return outcome;
  const size_t packed = ZSTD_compressCCtx(packer_, packed_.get(), kPieceBytesMax, data, piece->bytes_, kLevel);
  const bool smaller = ZSTD_isError(packed) == 0 && packed < piece->bytes_;
  const uint32_t stored = smaller ? uint32_t(packed) : piece->bytes_;
  if (!leaves_room()) {
    errno = ENOSPC;
    return fail("leaves a twentieth of it free in");
  }
  if (!write_at(fd_, smaller ? packed_.get() : data, stored, end_)) return fail("cannot write to");
  piece->at_ = end_;
  piece->stored_ = stored;
  end_ += blocks(stored);
  on_disk_ += blocks(stored);
  return {};
}

// Who else writes there, the agent first, shall go on. Looked at now and then.
bool Shelf::leaves_room() {
  if (end_ < look_at_) return true;
  look_at_ = end_ + kLookEveryBytes;
  struct statvfs system {};
  return fstatvfs(fd_, &system) != 0 || system.f_bavail >= system.f_blocks / 20;
}

Outcome Shelf::open_file() {
  if (fd_ >= 0) return {};
  if (mkdir(place_.directory.c_str(), 0700) != 0 && errno != EEXIST) return fail("cannot make");
  int fd = open(place_.directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {  // a file system without such files
    std::string name = place_.directory + "/parked-XXXXXX";
    fd = mkostemp(name.data(), O_CLOEXEC);
    if (fd >= 0) unlink(name.c_str());
  }
  if (fd < 0) return fail("cannot make a file in");
  packed_.reset(new (std::nothrow) std::byte[kPieceBytesMax]);
  packer_ = ZSTD_createCCtx();
  if (packed_ == nullptr || packer_ == nullptr) {
    close(fd);
    return Outcome::fail("there is no memory to pack what shall go to disk");
  }
  fd_ = fd;
  return {};
}

Outcome Shelf::fail(const std::string& what) const {
  const int error = errno;
  return Outcome::fail("there is no room to keep the vGPU: host memory is short, and the agent " + what + " " +
                       place_.directory + ": " + strerror(error));
}

Outcome Shelf::read(const Piece& piece, std::byte* to) const {
  if (piece.data_ != nullptr) {
    memcpy(to, piece.data_.get(), piece.bytes_);
    return {};
  }
  const bool packed = piece.stored_ != piece.bytes_;
  const std::unique_ptr<std::byte[]> room(packed ? new (std::nothrow) std::byte[piece.stored_] : nullptr);
  if (packed && room == nullptr) return Outcome::fail("there is no memory to read what was kept on disk");
  if (!read_at(fd_, packed ? room.get() : to, piece.stored_, piece.at_)) {
    return errno_failure("what was kept on disk in " + place_.directory + " cannot be read back");
  }
  const bool same = !packed || ZSTD_decompress(to, piece.bytes_, room.get(), piece.stored_) == piece.bytes_;
  if (same && hash(to, piece.bytes_) == piece.hash_) return {};
  return Outcome::fail("what was kept on disk in " + place_.directory +
                       " is not what was written there: the vGPU cannot be made again from it");
}

// A hole where it lay, so that chunks that change while they come do not add up. File systems without holes keep it.
void Shelf::forget(const Piece& piece) {
  if (piece.data_ != nullptr) {
    memory_.give_back(piece.bytes_);
    in_memory_ -= piece.bytes_;
  }
  if (piece.stored_ != 0) {
    const uint64_t bytes = blocks(piece.stored_);
    [[maybe_unused]] const int punched =
        fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(piece.at_), off_t(bytes));
    on_disk_ -= bytes;
  }
  const auto found = known_.find(piece.hash_);
  if (found != known_.end() && found->second.expired()) known_.erase(found);
}

}  // namespace tide
