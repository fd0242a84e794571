#pragma once

// What processes of one job give each other: 64 bytes that name something of a vGPU's session, in CUDA's handles or
// behind a file descriptor. They mean nothing by themselves: the owner's worker looks the name up (server/sharing.h),
// and is found among the sessions of the same job and vGPU only.

#include <cuda.h>

#include <cstdint>
#include <cstring>

namespace tide {

struct Process;
struct Vgpu;

enum class SharedKind : uint32_t { kMemory = 1, kEvent, kPool, kPooled, kPhysical };

inline constexpr uint64_t kSharedMagic = 0x3130637069646974;  // "tidipc01"

struct SharedHandle {
  uint64_t magic = kSharedMagic;
  uint64_t owner_low = 0, owner_high = 0;  // the session
  uint32_t vgpu = 0;                       // number in the job
  SharedKind kind{};
  uint64_t name = 0;    // of the owner's
  uint64_t span = 0;    // bytes of addresses that it takes
  uint32_t offset = 0;  // in them
  uint32_t pool = 0;    // of kPooled: its pool's name
  uint64_t bytes = 0;
  bool same_owner(const SharedHandle& other) const {
    return owner_low == other.owner_low && owner_high == other.owner_high;
  }
};
static_assert(sizeof(SharedHandle) == 64);

// With the owner filled in.
SharedHandle own_handle(Vgpu& vgpu, SharedKind kind, uint64_t name);
// The vGPU that a handle is of, open. INVALID_VALUE for what is no handle of that kind, INVALID_DEVICE for one of a
// vGPU that this process does not see.
CUresult find_owner(Process& process, const SharedHandle& handle, SharedKind kind, Vgpu** vgpu);

template <class Cuda>
void pack(const SharedHandle& handle, Cuda* cuda) {
  static_assert(sizeof(Cuda) == sizeof(handle));
  memcpy(static_cast<void*>(cuda), &handle, sizeof(handle));
}
template <class Cuda>
SharedHandle unpack(const Cuda& cuda) {
  SharedHandle handle;
  static_assert(sizeof(Cuda) == sizeof(handle));
  memcpy(static_cast<void*>(&handle), &cuda, sizeof(handle));
  return handle;
}

// A descriptor for the program to pass on, from which any process can read the handle any number of times; `kept`
// tells when no copy of it is left. OUT_OF_MEMORY when the host has no more descriptors.
CUresult make_shared_descriptor(const SharedHandle& handle, int* given, int* kept);
// False: it is none of ours.
bool read_shared_descriptor(int fd, SharedHandle* handle);
// Whether a copy of the given descriptor is still open somewhere, or on its way.
bool shared_descriptor_open(int kept);

}  // namespace tide
