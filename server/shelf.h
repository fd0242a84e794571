#pragma once

// Where pieces of a parked vGPU lie: in host memory while there is room, else packed in a file that has no name and
// ends with this process. Pieces of a chunk that are equal are kept once. What comes back from the file is compared
// with the hash of what was put there.
//
// Threads: one puts and lets go, nobody reads meanwhile; any number may read at once. The counts: any thread.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/chunk_hash.h"
#include "base/outcome.h"
#include "server/park_memory.h"

struct ZSTD_CCtx_s;

namespace tide {

struct ShelfPlace {
  std::string directory;  // of the file; made when missing
  std::string ledger;     // ParkMemory's
  std::optional<uint64_t> memory_bytes_max;
};
// What the agent has put into this process's environment: TIDE_PARK_DIR, TIDE_PARK_LEDGER, TIDE_PARK_MEMORY_MIB.
ShelfPlace shelf_place();

class Shelf {
 public:
  static constexpr uint32_t kPieceBytesMax = kChunkBytes;

  // Gives its place back when nobody refers to it any more; the shelf outlives it.
  class Piece {
   public:
    ~Piece() { shelf_.forget(*this); }
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;
    uint32_t bytes() const { return bytes_; }
    // Null: it lies in the file.
    const std::byte* data() const { return data_.get(); }

   private:
    friend class Shelf;
    Piece(Shelf& shelf, uint32_t bytes, const ChunkHash& hash) : shelf_(shelf), bytes_(bytes), hash_(hash) {}

    Shelf& shelf_;
    const uint32_t bytes_;
    const ChunkHash hash_;
    std::unique_ptr<std::byte[]> data_;
    uint64_t at_ = 0;      // in the file,
    uint32_t stored_ = 0;  // so many bytes; 0: not there; bytes_: not packed
  };
  using PieceRef = std::shared_ptr<const Piece>;

  explicit Shelf(ShelfPlace place);
  ~Shelf();
  Shelf(const Shelf&) = delete;
  Shelf& operator=(const Shelf&) = delete;

  Outcome start();
  // At most kPieceBytesMax.
  Outcome put(const std::byte* data, uint32_t bytes, PieceRef* piece);
  // `to`: for piece.bytes().
  Outcome read(const Piece& piece, std::byte* to) const;

  uint64_t bytes_in_memory() const { return in_memory_; }
  uint64_t bytes_on_disk() const { return on_disk_; }

 private:
  struct HashOf {
    size_t operator()(const ChunkHash& hash) const { return hash.low; }
  };
  ChunkHash hash(const std::byte* data, uint32_t bytes) const;
  bool keep_in_memory(const std::byte* data, Piece* piece);
  Outcome write(const std::byte* data, Piece* piece);
  bool leaves_room();
  Outcome open_file();
  Outcome fail(const std::string& what) const;
  void forget(const Piece& piece);

  const ShelfPlace place_;
  ChunkSecret secret_;
  ParkMemory memory_;
  int fd_ = -1;
  uint64_t end_ = 0;      // of the file
  uint64_t look_at_ = 0;  // when it ends here, it is looked what the file system has left
  ZSTD_CCtx_s* packer_ = nullptr;
  std::unique_ptr<std::byte[]> packed_;
  std::unordered_map<ChunkHash, std::weak_ptr<const Piece>, HashOf> known_;  // of whole chunks
  std::atomic<uint64_t> in_memory_{0}, on_disk_{0};
};

}  // namespace tide
