#pragma once

// What the keepers of one job keep together on one server: chunks by their hash, each once, whatever number of the
// job's vGPUs has it (docs/decisions/0037-*.md). It is memory, and a file on disk, that have no name: an agent makes
// them for a job and hands them to its keepers, and they end with the last of these. Who has a chunk is a bit in that
// memory; a keeper that has ended, however, is known by a lock that the system took from it, and the others take back
// what was its.
//
// Nothing in it is believed of another job, since nobody of another job has it.
//
// Threads: any, unless said otherwise; no call waits for a keeper that is stopped for longer than kPatienceMs, once.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/chunk_hash.h"
#include "base/outcome.h"
#include "server/park_memory.h"

namespace tide {

struct ShelfPlace;

// Its descriptors. What is left of them is closed.
class JobShelfFiles {
 public:
  static constexpr int kCount = 3;

  // As the agent makes them: a new one.
  static Outcome make(const ShelfPlace& place, std::shared_ptr<const JobShelfFiles>* files);
  // Those that came with a message, of which kCount are used; all are this object's or closed. Null: too few came.
  static std::shared_ptr<const JobShelfFiles> take(int* fds, int count);
  ~JobShelfFiles();
  JobShelfFiles(const JobShelfFiles&) = delete;
  JobShelfFiles& operator=(const JobShelfFiles&) = delete;

  // To be sent to a keeper of the job.
  const int* fds() const { return fds_; }
  int memory() const { return fds_[0]; }
  int disk() const { return fds_[1]; }
  // ParkMemory's, with locks that last as long as anybody has it.
  int ledger() const { return fds_[2]; }

 private:
  JobShelfFiles() = default;
  int fds_[kCount] = {-1, -1, -1};
};

class JobShelf {
 public:
  static constexpr uint32_t kMembersMost = 64;    // processes that keep something of one job on one server
  static constexpr uint32_t kSlots = 1u << 19;    // chunks: 1 TiB
  static constexpr uint32_t kPatienceMs = 3'000;  // for another keeper, which holds the lock for a moment only
  static constexpr uint32_t kNoSlot = ~0u;

  // A chunk, which this keeper has from then on.
  struct Chunk {
    uint32_t slot = kNoSlot;
    const std::byte* data = nullptr;  // null: on disk
    uint32_t stored = 0;              // there, in so many bytes at at(slot)
  };
  struct Share {
    uint64_t in_memory = 0, on_disk = 0;
  };

  // Fails where there is no room for one keeper more, or where it is of another version.
  static Outcome join(std::shared_ptr<const JobShelfFiles> files, const ShelfPlace& place,
                      std::unique_ptr<JobShelf>* shelf);
  // What is only this keeper's is left to the others' sweep().
  ~JobShelf();
  JobShelf(const JobShelf&) = delete;
  JobShelf& operator=(const JobShelf&) = delete;

  const std::shared_ptr<const JobShelfFiles>& files() const { return files_; }
  const ChunkSecret& secret() const;

  // One thread: find() to end().
  // False: nobody has it.
  bool find(const ChunkHash& hash, Chunk* chunk);
  // A place for one that comes; false: there is none, or a keeper that is stopped has the lock.
  bool begin(uint32_t* slot);
  // kChunkBytes there, in memory; false: there is no room.
  bool keep_in_memory(uint32_t slot, const std::byte* data);
  // All of it is there, in `stored` bytes on disk or (0) in memory. Where somebody else has put it meanwhile: that one.
  // False: it can be read neither here nor there, and the slot was left.
  bool end(uint32_t slot, const ChunkHash& hash, uint32_t stored, Chunk* chunk);
  // One that was begun, found or ended.
  void leave(uint32_t slot);

  static constexpr uint64_t at(uint32_t slot) { return uint64_t{slot} * kChunkBytes; }
  // Takes back what was of keepers that have ended.
  void sweep();
  // What it takes, by equal parts for all who have it.
  Share share() const;

 private:
  friend class JobShelfFiles;
  struct Slot;
  struct Head;

  static Outcome make_head(int memory);
  JobShelf(std::shared_ptr<const JobShelfFiles> files, const ShelfPlace& place);
  Outcome open();
  bool enter();
  bool lock();
  void unlock();
  uint64_t dead() const;
  Slot* linked(const ChunkHash& hash) const;
  void unlink(uint32_t slot);
  void discard(uint32_t slot);
  bool take_ledger(Slot* slot);
  void rebuild_ledger();
  Chunk chunk_of(uint32_t slot);
  const std::byte* data_at(uint32_t slot);

  const std::shared_ptr<const JobShelfFiles> files_;
  const bool limited_;
  const uint64_t ledger_slots_;  // of the limit
  int own_ = -1;                 // the memory, opened once more: its locks end with this keeper
  Head* head_ = nullptr;
  uint64_t me_ = 0;  // one bit
  std::atomic<bool> gave_up_{false};
  std::vector<const std::byte*> windows_;  // of the memory, by number; null: not looked at yet
  MemoryLook look_;
};

}  // namespace tide
