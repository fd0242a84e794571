#pragma once

// The vGPU's device memory: chunks at the addresses that the client chose, backed by pieces of physical memory. A piece
// covers up to kPieceBytes, because each costs the driver time; chunks of it may be unmapped one by one, and the piece
// goes when none is left and the work that may still use it is done. One thread.

#include <cstdint>
#include <map>
#include <vector>

#include "base/limits.h"
#include "base/outcome.h"
#include "server/contexts.h"
#include "server/streams.h"

namespace tide {

inline constexpr uint64_t kPieceBytes = 32u << 20;

struct MemoryRange {
  uint64_t address = 0;
  uint64_t bytes = 0;
};

class Memory {
 public:
  Memory(const DriverLibrary& library, Contexts& contexts) : library_(library), contexts_(contexts) {}
  ~Memory();

  // Reserves the vGPU's addresses. Fails where the driver cannot give exactly those.
  Outcome start(uint32_t vgpu, uint64_t quota);

  // Makes whole chunks usable; new ones are zero. CUDA_ERROR_OUT_OF_MEMORY above the quota or when the GPU is full;
  // while has_condemned(), a retry after collect() may help.
  CUresult map(uint64_t address, uint64_t bytes);
  // As of command `sequence`; what is under way may still use them.
  CUresult unmap(uint64_t address, uint64_t bytes, uint64_t sequence);
  // Gives back what no work uses any more.
  void collect(const Streams& streams);
  // Memory that the driver takes for an array; false above the quota.
  bool charge(uint64_t bytes);
  void discharge(uint64_t bytes) { charged_bytes_ -= bytes; }
  bool has_condemned() const { return condemned_bytes_ != 0; }

  // Whether a command may name these bytes: inside the vGPU's range.
  bool in_range(uint64_t address, uint64_t bytes) const;
  // What is mapped, ascending, neighbours joined.
  std::vector<MemoryRange> ranges() const;
  uint64_t mapped_bytes() const { return mapped_bytes_; }
  uint64_t base() const { return base_; }

 private:
  struct Piece {
    uint64_t bytes = 0;
    CUmemGenericAllocationHandle handle = 0;
    uint32_t live = 0;             // one bit a chunk
    uint64_t condemned_since = 0;  // the sequence after which none was live; 0: some is
  };
  using Pieces = std::map<uint64_t, Piece>;

  Pieces::iterator piece_at(uint64_t address);
  CUresult create(uint64_t address, uint64_t bytes);
  CUresult back(uint64_t address, Piece* piece);
  CUresult zero(uint64_t address, uint64_t bytes);
  void drop(Pieces::iterator piece);

  const DriverLibrary& library_;
  Contexts& contexts_;
  uint64_t base_ = 0;
  uint64_t range_bytes_ = 0;
  uint64_t reserved_bytes_ = 0;
  uint64_t quota_ = 0;
  uint64_t mapped_bytes_ = 0;
  uint64_t charged_bytes_ = 0;
  uint64_t condemned_bytes_ = 0;
  CUstream scrub_ = nullptr;
  Pieces pieces_;
};

}  // namespace tide
