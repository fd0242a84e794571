#pragma once

// The vGPU's device memory: chunks at the addresses that the client chose, backed by pieces of physical memory. A piece
// covers up to kPieceBytes, because each costs the driver time; chunks of it may be unmapped one by one, and the piece
// goes when none is left and the work that may still use it is done. One thread, but for what says otherwise: during a
// move another one reads what is mapped, chunk by chunk.

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/outcome.h"
#include "server/contexts.h"
#include "server/memory_quota.h"
#include "server/streams.h"

namespace tide {

inline constexpr uint64_t kPieceBytes = 32u << 20;

class Memory;

// Memory without an address: of the client's cuMemCreate, or another process's. Ends when nobody names or maps it.
struct Physical {
  struct Part {
    CUmemGenericAllocationHandle handle = 0;
    uint64_t bytes = 0;
    uint64_t name = 0;  // its owner's, once it was exported
  };
  explicit Physical(Memory& memory) : of(memory) {}
  ~Physical();
  Physical(const Physical&) = delete;
  Physical& operator=(const Physical&) = delete;
  uint64_t bytes() const;

  Memory& of;
  std::vector<Part> parts;
  uint64_t charged = 0;                    // 0: another process pays for it,
  uint64_t owner_low = 0, owner_high = 0;  // which has this session
};

struct MemoryRange {
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool operator==(const MemoryRange&) const = default;
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
  // Of a vGPU that comes from elsewhere: what to say when map() gave `result`.
  Outcome cannot_map(uint64_t bytes, CUresult result) const;
  // As of command `sequence`; what is under way may still use them.
  CUresult unmap(uint64_t address, uint64_t bytes, uint64_t sequence);
  // Gives back what no work uses any more.
  void collect(const Streams& streams);
  // Memory that the driver takes for an array; false above the quota.
  bool charge(uint64_t bytes);
  void discharge(uint64_t bytes);

  // The quota is one of all processes of the job: `path` is what their workers share (memory_quota.h). Before the first
  // map().
  Outcome share_quota(const std::string& path) { return shared_.start(path, quota_); }
  // Nobody else is there: the client needs not ask for what it takes.
  void hold_all() { shared_.hold_all(); }
  // What others have may come back until then: who asks waits for that.
  void be_patient_until(uint64_t ns) { patient_until_ns_ = ns; }
  // The client takes no more than so much until it says so again. `waits`: it asks whether that can be, NOT_READY: not
  // known yet; else it only tells. OUT_OF_MEMORY: others have too much.
  CUresult promise(uint64_t bytes, bool waits);
  // Of the quota, what nobody has.
  uint64_t left();
  bool has_condemned() const { return condemned_bytes_ != 0; }

  // Memory without an address, zeroed, in parts of at most kPieceBytes.
  CUresult create_physical(uint64_t bytes, std::shared_ptr<Physical>* physical);
  // Another process's, from its parts' descriptors, which stay the caller's. Null where the driver refuses.
  std::shared_ptr<Physical> import_physical(const std::vector<int>& fds, const std::vector<uint64_t>& bytes);
  // All of it, at chunks that are not mapped; ended by unmap(), whole. CUDA_ERROR_OUT_OF_MEMORY as in map().
  CUresult map_physical(uint64_t address, std::shared_ptr<Physical> physical);
  // The whole pieces that a mapped range lies in; `span`: from the first one's begin to the last one's end.
  CUresult parts_at(uint64_t address, uint64_t bytes, std::vector<Physical::Part>* parts, MemoryRange* span);
  // A descriptor that another process can import; -1 where the driver refuses. The caller closes it.
  int export_part(const Physical::Part& part) const;
  bool shareable() const { return shareable_; }
  bool has_views() const { return views_ != 0; }

  // Pieces that other processes may have. A move carries each whole, whatever of it is mapped, and makes it again in
  // one: they have it so.
  struct SharedPiece {
    uint64_t address = 0, bytes = 0, name = 0;
  };
  // Ascending. Any thread.
  std::vector<SharedPiece> shared_pieces() const;
  // All pieces in a range that parts_at() gave get a name, where they have none.
  void name_pieces(const MemoryRange& span);
  // After a move: this piece is there with just these bytes, and gets the name that it had. False: it is not there so.
  bool name_piece(const SharedPiece& piece);
  // The piece of that name; false: there is none any more.
  bool find_piece(uint64_t name, Physical::Part* part) const;
  // Where something that was imported is mapped; 0: nowhere.
  uint64_t address_of(const Physical* physical) const;
  std::vector<std::shared_ptr<Physical>> mapped_physicals() const;

  // Whether a command may name these bytes: inside the vGPU's range.
  bool in_range(uint64_t address, uint64_t bytes) const;
  // What is mapped, ascending, neighbours joined. Any thread.
  std::vector<MemoryRange> ranges() const;
  // Until unpin() the chunk can be read, though it may be unmapped meanwhile; false: it is not mapped, nor in a shared
  // piece. Any thread.
  bool pin(uint64_t chunk);
  void unpin(uint64_t chunk);
  uint64_t mapped_bytes() const { return mapped_bytes_; }
  uint64_t base() const { return base_; }

 private:
  friend struct Physical;
  struct Piece {
    uint64_t bytes = 0;
    CUmemGenericAllocationHandle handle = 0;
    uint32_t live = 0;  // one bit a chunk
    uint32_t pins = 0;
    uint64_t name = 0;                  // in other processes; 0: it was never exported
    uint64_t condemned_since = 0;       // the sequence after which none was live; 0: some is
    std::shared_ptr<Physical> view_of;  // it has no memory of its own, but shows this
  };
  using Pieces = std::map<uint64_t, Piece>;

  Pieces::iterator piece_at(uint64_t address);
  void keep(uint64_t address, Piece piece);
  bool unpinned(Pieces::iterator piece) const;
  CUresult create(uint64_t address, uint64_t bytes);
  CUresult back(uint64_t address, uint64_t bytes, CUmemGenericAllocationHandle handle);
  CUresult clean(const Physical::Part& part);
  bool is_free(uint64_t address, uint64_t bytes, bool* condemned);
  CUresult zero(uint64_t address, uint64_t bytes);
  void drop(Pieces::iterator piece);
  bool is_room(uint64_t bytes);
  void give_back();
  // Of the quota, with so much that is about to be unmapped.
  uint64_t held(uint64_t condemned) const {
    return std::max(promised_bytes_, mapped_bytes_ + charged_bytes_ + condemned);
  }

  const DriverLibrary& library_;
  Contexts& contexts_;
  uint64_t base_ = 0;
  uint64_t range_bytes_ = 0;
  uint64_t reserved_bytes_ = 0;
  uint64_t quota_ = 0;
  uint64_t mapped_bytes_ = 0;
  uint64_t charged_bytes_ = 0;
  uint64_t condemned_bytes_ = 0;
  MemoryQuota shared_;
  uint64_t promised_bytes_ = 0;  // to the client
  uint64_t asked_ns_ = 0;        // since when it waits for more; 0: it does not
  uint64_t patient_until_ns_ = 0;
  uint64_t views_ = 0;  // pieces that are views
  uint64_t next_name_ = 1;
  bool shareable_ = false;
  CUstream scrub_ = nullptr;
  // Held by the owning thread where it changes pieces_, and by others where they look; for some instructions only.
  mutable std::mutex pieces_mu_;
  Pieces pieces_;
};

}  // namespace tide
