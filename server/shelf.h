#pragma once

// Where pieces of a parked vGPU lie: in host memory while there is room, else packed in a file that has no name and
// ends with this process. Pieces of a chunk that are equal are kept once, where there is a JobShelf once for all
// keepers of the job. What comes back from the file is compared with the hash of what was put there.
//
// Threads: one puts and lets go, nobody reads meanwhile; any number may read at once. The counts: any thread.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/chunk_hash.h"
#include "base/outcome.h"
#include "server/job_shelf.h"
#include "server/park_memory.h"
#include "server/shelf_file.h"

struct ZSTD_CCtx_s;

namespace tide {

struct ShelfPlace {
  std::string directory;  // of the file; made when missing
  std::string ledger;     // ParkMemory's
  std::optional<uint64_t> memory_bytes_max;
};
// What an environment says: TIDE_PARK_DIR, TIDE_PARK_LEDGER, TIDE_PARK_MEMORY_MIB; empty: not set there.
ShelfPlace shelf_place(const std::function<std::string(const char* name)>& value_of);
// This process's own, into which the agent has put them.
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
    const std::byte* data() const { return data_; }
    // That it takes, if nobody else has it.
    uint64_t cost() const { return data_ != nullptr ? bytes_ : on_disk_bytes(stored_); }

   private:
    friend class Shelf;
    Piece(Shelf& shelf, uint32_t bytes, const ChunkHash& hash) : shelf_(shelf), bytes_(bytes), hash_(hash) {}

    Shelf& shelf_;
    const uint32_t bytes_;
    const ChunkHash hash_;
    const std::byte* data_ = nullptr;  // own_'s, or the JobShelf's
    std::unique_ptr<std::byte[]> own_;
    uint32_t slot_ = JobShelf::kNoSlot;  // there
    uint64_t at_ = 0;                    // in its file or ours,
    uint32_t stored_ = 0;                // so many bytes; 0: not there; bytes_: not packed
  };
  using PieceRef = std::shared_ptr<const Piece>;

  explicit Shelf(ShelfPlace place);
  ~Shelf();
  Shelf(const Shelf&) = delete;
  Shelf& operator=(const Shelf&) = delete;

  // `job`: what this one keeps together with others; null: nothing.
  Outcome start(std::unique_ptr<JobShelf> job = nullptr);
  // At most kPieceBytesMax.
  Outcome put(const std::byte* data, uint32_t bytes, PieceRef* piece);
  // `to`: for piece.bytes().
  Outcome read(const Piece& piece, std::byte* to) const;

  // Of what others have, too, an equal part.
  JobShelf::Share kept() const;
  // Null: nothing is kept together with others.
  JobShelf* job() const { return job_.get(); }

 private:
  struct HashOf {
    size_t operator()(const ChunkHash& hash) const { return hash.low; }
  };
  ChunkHash hash(const std::byte* data, uint32_t bytes) const;
  bool keep_in_memory(const std::byte* data, Piece* piece);
  Outcome keep_together(const std::byte* data, Piece* piece);
  // Where the piece is to lie: in a file, from `at` on.
  struct Spot {
    int fd;
    uint64_t at;
  };
  Outcome write(const std::byte* data, const Spot& spot, Piece* piece);
  Outcome make_packer();
  Outcome open_file();
  Outcome fail(const std::string& what) const;
  void forget(const Piece& piece);

  const ShelfPlace place_;
  ChunkSecret secret_;
  ParkMemory memory_;
  std::unique_ptr<JobShelf> job_;
  int fd_ = -1;
  uint64_t end_ = 0;  // of the file
  DiskLook look_;
  ZSTD_CCtx_s* packer_ = nullptr;
  std::unique_ptr<std::byte[]> packed_;
  std::unordered_map<ChunkHash, std::weak_ptr<const Piece>, HashOf> known_;  // of whole chunks
  std::atomic<uint64_t> in_memory_{0}, on_disk_{0};
};

}  // namespace tide
