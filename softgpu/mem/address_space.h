#pragma once

// What addresses mean to the running kernels of one device: a table from 2 MiB chunks of one fixed window to host
// memory.
//
// Device memory lies in one window of virtual addresses, the same in every process. The window itself is never
// readable (the driver half reserves it PROT_NONE), so that a host dereference of a device pointer faults as it does
// on hardware; kernels and copies reach the bytes through this table. Addresses outside the window are host memory
// and valid only inside a host range (pinned, registered or mapped memory), which all devices of a process share.
//
// Threads: translate() may run in any number of threads beside map()/unmap() of other chunks; the caller orders a
// chunk's map() before its first use and its unmap() after its last.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "softgpu/mem/host_pages.h"
#include "softgpu/mem/multicast.h"

namespace softgpu {

inline constexpr uint64_t kChunkShift = 21;
inline constexpr uint64_t kChunkBytes = uint64_t{1} << kChunkShift;
inline constexpr uint64_t kWindowBase = 0x2000'0000'0000;
inline constexpr uint64_t kWindowBytes = 0x2000'0000'0000;  // 32 TiB

class AddressSpace {
 public:
  AddressSpace() : AddressSpace(std::make_shared<HostPages>()) {}
  explicit AddressSpace(std::shared_ptr<HostPages> host_pages);
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  // Makes [address, address + bytes) mean host[0, bytes). Both address and bytes are multiples of kChunkBytes, inside
  // the window. The caller keeps ownership of `host`.
  void map(uint64_t address, std::byte* host, uint64_t bytes);
  void unmap(uint64_t address, uint64_t bytes);

  // Host memory that kernels may touch at its own address.
  HostPages& host_pages() { return *host_pages_; }
  // What `multimem` instructions reach; beside the table.
  Multicast& multicast() { return multicast_; }
  const Multicast& multicast() const { return multicast_; }

  // The host memory behind [address, address + bytes), or null when any of it is not mapped. The range must not cross
  // a chunk boundary unless its chunks were mapped by one map() call (then host memory is contiguous).
  std::byte* translate(uint64_t address, uint64_t bytes) const {
    const uint64_t offset = address - kWindowBase;
    if (offset < kWindowBytes) {
      std::byte* const* slot = &table_[offset >> kChunkShift];
      std::byte* chunk = *slot;
      if (chunk == nullptr) return nullptr;
      const uint64_t within = offset & (kChunkBytes - 1);
      if (within + bytes > kChunkBytes && !continues(offset, bytes)) return nullptr;
      return chunk + within;
    }
    return host_pages_->holds(address, bytes) ? reinterpret_cast<std::byte*>(address) : nullptr;
  }

 private:
  bool continues(uint64_t offset, uint64_t bytes) const;

  std::byte** table_;  // one host pointer a chunk; lazily backed by the kernel
  const std::shared_ptr<HostPages> host_pages_;
  Multicast multicast_;
};

}  // namespace softgpu
