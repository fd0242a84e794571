#pragma once

// A vGPU's session that is on no GPU: what a move has brought, kept (shelf.h) until a move takes it away. Nothing of it
// is executed. Belongs to the worker's thread, or while it comes to the one that receives; copying it away may read it
// beside that.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "server/chunk_carrier.h"
#include "server/precopy.h"
#include "server/shelf.h"
#include "server/transfer.h"

namespace tide {

class Kept final : private ChunkTaker {
 public:
  // `quota`: bytes of device memory; 0: any.
  Kept(uint32_t vgpu, uint64_t quota, ShelfPlace place) : vgpu_(vgpu), quota_(quota), shelf_(std::move(place)) {}

  Outcome start() { return shelf_.start(); }
  // All that a source sends behind the greeting.
  Outcome receive(ByteStream& from);

  // What of it is memory, as a source that has not changed since.
  Precopy::MakeCarrier carrier() const;
  // The rest (send_session).
  Outcome send_rest(ByteStream& to, const std::function<void()>& pump, uint64_t* bytes) const;

  // Of what has come.
  const TransferOutline& outline() const { return outline_; }
  // Any thread.
  uint64_t bytes_in_memory() const { return shelf_.bytes_in_memory(); }
  uint64_t bytes_on_disk() const { return shelf_.bytes_on_disk(); }

 private:
  class Carrier;

  bool owns(uint64_t address, uint64_t bytes) const override;
  Outcome map(uint64_t address, uint64_t bytes) override;
  Outcome unmap(uint64_t address, uint64_t bytes) override;
  Outcome clear(uint64_t address, uint64_t bytes) override;
  Outcome take(uint64_t address, ByteStream& from) override;
  Outcome rest() override { return {}; }
  Outcome take_rest(ByteStream& from);

  const uint32_t vgpu_;
  const uint64_t quota_;
  Shelf shelf_;
  std::unique_ptr<std::byte[]> room_;           // for a piece that comes
  std::map<uint64_t, Shelf::PieceRef> chunks_;  // mapped; null: zero
  std::vector<Shelf::PieceRef> rest_;
  TransferOutline outline_;
};

}  // namespace tide
