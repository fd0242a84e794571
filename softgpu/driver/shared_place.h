#pragma once

// Device memory of one process as another one finds it: the number of an open memfd, and where in it.

#include <cstdint>
#include <memory>

#include "softgpu/driver/cuda_api.h"
#include "softgpu/driver/memory.h"

namespace softgpu {

inline constexpr uint64_t kSharedPlaceMagic = 0x656d61732d657375;

// Travels between processes in any way that the program likes. All of one machine and one user.
struct SharedPlace {
  uint64_t magic;
  int32_t pid;
  int32_t fd;
  uint64_t file;           // its inode: tells when the descriptor came to mean another one
  uint64_t backing_bytes;  // of all of the file
  uint64_t offset;
  uint64_t bytes;
  uint64_t kind;  // 0: an allocation; else whose: a pool's identity, or that of events
};
static_assert(sizeof(SharedPlace) == 56);

// Waits for all work first, when the memory has to move into a memfd.
CUresult share_range(const Range& range, SharedPlace* place);
// An open descriptor of the file that a place names; -1 when it is gone or is not what it was.
int open_file(const SharedPlace& place);
// Maps it, or finds it mapped; `context` null: of no context.
CUresult open_shared(const SharedPlace& place, Context* context, const std::shared_ptr<Pool>& pool, Device& device,
                     uint64_t* address);

}  // namespace softgpu
