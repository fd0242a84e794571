#pragma once

// All memory that programs can name: device memory in the window, mapped physical memory of the VMM calls, pools,
// memory of other processes, managed memory, pinned and registered host memory, and the globals of modules. One map by
// address answers every question about a pointer.
//
// Host memory behind device addresses lies elsewhere (backing.h); the addresses themselves are reserved without access,
// but for managed memory, which host and device find at the same address. Kernels see what their device may touch
// (views.h).
//
// Threads: any.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "api/composed/advice.h"
#include "softgpu/driver/backing.h"
#include "softgpu/driver/context.h"
#include "softgpu/driver/heap.h"
#include "softgpu/driver/pool.h"
#include "softgpu/driver/views.h"
#include "softgpu/driver/window.h"
#include "softgpu/mem/address_space.h"

namespace softgpu {

enum class RangeKind { kDevice, kPooled, kMapped, kImported, kImage, kPinned, kRegistered, kManaged };

// What a CUmemGenericAllocationHandle names.
struct Physical {
  std::shared_ptr<Backing> backing;
  CUmemAllocationProp properties;
};

struct Range {
  uint64_t address = 0;
  uint64_t bytes = 0;  // as asked for
  RangeKind kind = RangeKind::kDevice;
  Device* device = nullptr;
  Context* context = nullptr;  // null: of no context (kMapped, kPooled)
  uint64_t buffer_id = 0;
  unsigned host_flags = 0;                           // kPinned, kRegistered, kManaged: as given
  std::shared_ptr<Backing> backing{};                // of all device memory
  uint64_t backing_offset = 0;                       // of the range's first byte
  std::shared_ptr<Physical> physical{};              // kMapped
  std::shared_ptr<Pool> pool{};                      // kPooled, kImported from a pool
  std::shared_ptr<tide::composed::Advice> advice{};  // kManaged
  DeviceSet access = kAllDevices;                    // kMapped: after SetAccess
  bool owns_addresses = true;                        // false: inside a reservation of the program's
  bool sync_memops = false;
  uint32_t opens = 1;  // kImported: how often it was opened

  // What the host cannot touch.
  bool on_device() const { return !on_host() && kind != RangeKind::kManaged; }
  bool usable() const { return access != 0; }  // else it was freed, or is not accessible yet
  // What lies outside the window.
  bool on_host() const { return kind == RangeKind::kPinned || kind == RangeKind::kRegistered; }
};

class Memory {
 public:
  // Everything, for copies.
  AddressSpace& space() { return views_.all(); }
  Views& views() { return views_; }

  CUresult allocate(Context& context, uint64_t bytes, uint64_t* address);
  CUresult allocate_pinned(Context& context, uint64_t bytes, unsigned flags, void** address);
  CUresult allocate_managed(Context& context, uint64_t bytes, unsigned flags, uint64_t* address);
  CUresult register_host(Context& context, void* address, uint64_t bytes, unsigned flags);
  // Forgets and unmaps what begins at `address` and is of one of the kinds that fit the call; the caller has waited for
  // its uses.
  CUresult free_device(uint64_t address);  // kDevice, kPooled, kManaged, and kImported from a pool
  CUresult free_host(void* address);
  CUresult unregister_host(void* address);
  // A module's globals: chunks at `wanted` (0: anywhere).
  CUresult place_image(Context& context, uint64_t bytes, uint64_t wanted, Range* image) {
    return place_image(context.device, &context, bytes, wanted, image);
  }
  // The same where some are managed: of all devices and the host.
  CUresult place_managed_image(uint64_t bytes, uint64_t wanted, Device& device, Range* image) {
    return place_image(device, nullptr, bytes, wanted, image);
  }
  void free_image(uint64_t address);
  void free_all_of(Context& context);

  // The range that holds the address.
  std::optional<Range> find(uint64_t address) const;
  // What is on the device and live.
  std::vector<Range> device_ranges(const Device& device) const;
  // Every byte belongs to ranges that somebody may access.
  bool covered(uint64_t address, uint64_t bytes) const;
  CUresult set_sync_memops(uint64_t address, bool on);

  // VMM. Sizes and addresses are multiples of kChunkBytes; the callers have checked.
  CUresult reserve(uint64_t wanted, uint64_t bytes, uint64_t alignment, uint64_t* address);
  CUresult unreserve(uint64_t address, uint64_t bytes);
  CUresult map(uint64_t address, uint64_t bytes, uint64_t offset, const std::shared_ptr<Physical>& physical);
  CUresult unmap(uint64_t address, uint64_t bytes);
  // Grants and takes away, for the devices named.
  CUresult set_access(uint64_t address, uint64_t bytes, DeviceSet grant, DeviceSet take);

  // Stream-ordered memory.
  CUresult allocate_from(const std::shared_ptr<Pool>& pool, uint64_t bytes, uint64_t* address);
  // Gives unused slabs back until no more than `keep` bytes are reserved.
  void trim(Pool& pool, uint64_t keep);
  void set_pool_access(Pool& pool, DeviceSet grant, DeviceSet take);
  struct PoolUse {
    uint64_t used = 0, used_high = 0, reserved = 0, reserved_high = 0;  // bytes
    DeviceSet seen_by = 0;
  };
  PoolUse use_of(const Pool& pool) const;
  // Sets a high watermark to what is now: of used bytes, or of reserved ones.
  void reset_high(Pool& pool, bool used);

  // Memory of another process. The same backing (`identity`) opened again is at the same place.
  CUresult open_imported(Context* context, uint64_t identity, const std::function<std::shared_ptr<Backing>()>& open,
                         const std::shared_ptr<Pool>& pool, Device& device, uint64_t* address);
  CUresult close_imported(uint64_t address);

  // Copies between any two addresses, device or host.
  enum class Copied { kYes, kNoDevice, kNoHost };  // what could not be reached
  Copied copy(uint64_t destination, uint64_t source, uint64_t bytes);
  // From host memory that is there; false when a device address means nothing.
  bool write(uint64_t address, const std::byte* from, uint64_t bytes);
  // Repeats a pattern of `width` bytes (1, 2, 4); false when a device address means nothing.
  bool fill(uint64_t address, uint32_t pattern, unsigned width, uint64_t count);

 private:
  // All require mu_ to be held.
  const Range* locate(uint64_t address) const;
  void add(Range range);
  bool occupied(uint64_t address, uint64_t bytes) const;
  uint64_t place_backing(const std::shared_ptr<Backing>& backing, const Views::Place& how);
  CUresult allocate_small(Context& context, uint64_t bytes, uint64_t* address);
  CUresult allocate_large(Context& context, uint64_t bytes, uint64_t* address);
  void drop(std::map<uint64_t, Range>::iterator range);
  void drop_slab(Heap& heap, uint64_t keep);
  bool whole_mappings(uint64_t address, uint64_t bytes) const;
  CUresult place_image(Device& device, Context* context, uint64_t bytes, uint64_t wanted, Range* image);  // takes mu_
  bool keep_freed(Range* range);
  void drop_quarantine(size_t keep);

  Views views_;
  mutable std::shared_mutex mu_;
  Window window_;                          // guarded by mu_
  std::map<uint64_t, Range> ranges_;       // guarded by mu_
  std::map<Device*, Heap> heaps_;          // of small allocations; guarded by mu_
  std::map<uint64_t, uint64_t> imported_;  // identity -> address; guarded by mu_
  std::deque<uint64_t> quarantine_;        // addresses; guarded by mu_
  uint64_t next_buffer_id_ = 1;            // guarded by mu_
};

}  // namespace softgpu
