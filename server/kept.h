#pragma once

// A vGPU's session that is on no GPU: what a move has brought, kept (shelf.h) until a move takes it away; or a guard's:
// the last checkpoint that is whole, and beside it what has come of the next one. Nothing of it is executed. Belongs to
// the worker's thread, or while it comes to the one that receives. What is whole may be read by any thread while
// nothing comes.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "server/chunk_carrier.h"
#include "server/precopy.h"
#include "server/shelf.h"
#include "server/transfer.h"

namespace tide {

// With this begins the reason why a guard refuses what it will refuse again.
inline constexpr const char* kTooMuchKept = "it has more than a guard keeps besides memory";

class Kept final : private ChunkTaker {
 public:
  // Of what is no device memory (images, arrays, ...) no more than so many bytes are taken at once.
  void limit_rest(uint64_t bytes) { rest_most_ = bytes; }
  // TIDE_GUARD_SPARE_MIB, or what is usual, and for a vGPU of this quota.
  static uint64_t usual_rest(uint64_t quota);

  // `quota`: bytes of device memory; 0: any.
  Kept(uint32_t vgpu, uint64_t quota, ShelfPlace place) : vgpu_(vgpu), quota_(quota), shelf_(std::move(place)) {}

  // `job`: what it keeps together with other keepers of the job (JobShelf); null: nothing.
  Outcome start(std::unique_ptr<JobShelf> job) { return shelf_.start(std::move(job)); }
  // The source that comes next knows nothing of what is here. What is whole stays.
  void begin_anew() { chunks_.clear(), begins_.clear(); }
  // All that a source sends behind the greeting, and each time that it does it again: what differs from the time
  // before. Where it fails, what was whole before still is.
  Outcome receive(ByteStream& from, const ChunkWays& ways = {});

  // Of what is whole. What of it is memory, as a source that has not changed since.
  Precopy::MakeCarrier carrier() const;
  // The rest (send_session).
  Outcome send_rest(ByteStream& to, const std::function<void()>& pump, uint64_t* bytes) const;
  TransferOutline outline() const;
  bool any() const { return whole() != nullptr; }
  // Any thread.
  // What it takes: of chunks that other keepers of the job have, too, an equal part.
  JobShelf::Share kept() const { return shelf_.kept(); }
  // What is whole would take so much if equal chunks were not kept once.
  uint64_t bytes_apart() const;
  // Another keeper of the job has ended (JobShelf::sweep). Any thread.
  void sweep() const {
    if (shelf_.job() != nullptr) shelf_.job()->sweep();
  }

 private:
  class Carrier;

  bool owns(uint64_t address, uint64_t bytes) const override;
  Outcome map(uint64_t address, uint64_t bytes) override;
  Outcome unmap(uint64_t address, uint64_t bytes) override;
  Outcome clear(uint64_t address, uint64_t bytes) override;
  Outcome take(uint64_t address, ByteStream& from) override;
  Outcome take_slot(uint64_t address, ChunkSlots& slots, uint32_t slot) override;
  const ChunkSecret* secret() const override { return &shelf_.secret(); }
  Outcome take_known(uint64_t address, const ChunkHash& hash, bool* known) override;
  Outcome rest() override { return {}; }
  Outcome take_rest(ByteStream& from, std::vector<Shelf::PieceRef>* rest);

  using Chunks = std::map<uint64_t, Shelf::PieceRef>;  // mapped; null: zero
  // Never changes.
  struct Whole {
    Chunks chunks;
    std::set<uint64_t> begins;
    std::vector<Shelf::PieceRef> rest;
    TransferOutline outline;
  };
  std::shared_ptr<const Whole> whole() const;

  const uint32_t vgpu_;
  const uint64_t quota_;
  uint64_t rest_most_ = ~uint64_t{0};
  Shelf shelf_;
  std::unique_ptr<std::byte[]> room_;  // for a piece that comes
  Chunks chunks_;                      // as the source has told so far
  std::set<uint64_t> begins_;          // of what it told in one, which is so told again
  mutable std::mutex whole_mu_;        // guards what follows
  std::shared_ptr<const Whole> whole_;
};

}  // namespace tide
