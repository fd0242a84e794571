#pragma once

// All memory that programs can name: device memory in the window, mapped physical memory of the VMM calls, pinned,
// registered and managed host memory, and the globals of modules. One map by address answers every question about a
// pointer.
//
// Host memory behind device addresses is anonymous; the addresses themselves are reserved without access, so that a
// host dereference of a device pointer faults as it does on hardware.
//
// Threads: any.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>

#include "softgpu/driver/context.h"
#include "softgpu/mem/address_space.h"

namespace softgpu {

// Physical memory of one device: whole chunks of zeroed host memory.
class Backing {
 public:
  // Null when the device's account or the host's memory is exhausted.
  static std::shared_ptr<Backing> make(Device& device, uint64_t bytes);
  ~Backing();
  Backing(const Backing&) = delete;
  Backing& operator=(const Backing&) = delete;

  Device& device;
  std::byte* const host;
  const uint64_t bytes;

 private:
  Backing(Device& of, std::byte* at, uint64_t size) : device(of), host(at), bytes(size) {}
};

enum class RangeKind { kDevice, kMapped, kImage, kPinned, kRegistered, kManaged };

struct Range {
  uint64_t address = 0;
  uint64_t bytes = 0;  // as asked for
  RangeKind kind = RangeKind::kDevice;
  Device* device = nullptr;
  Context* context = nullptr;  // null: of no context (kMapped)
  uint64_t buffer_id = 0;
  unsigned host_flags = 0;             // kPinned, kRegistered
  std::shared_ptr<Backing> backing{};  // kMapped, kImage, large kDevice
  bool accessible = true;              // kMapped: after SetAccess
  bool owns_addresses = true;          // false: inside a reservation of the program's

  bool on_device() const {
    return kind == RangeKind::kDevice || kind == RangeKind::kMapped || kind == RangeKind::kImage;
  }
};

class Memory {
 public:
  Memory();

  AddressSpace& space() { return space_; }

  CUresult allocate(Context& context, uint64_t bytes, uint64_t* address);
  CUresult allocate_host(Context& context, uint64_t bytes, unsigned flags, RangeKind kind, void** address);
  CUresult register_host(Context& context, void* address, uint64_t bytes, unsigned flags);
  // Forgets and unmaps what begins at `address` and is of one of the kinds that fit the call; the caller has waited for
  // its uses.
  CUresult free_device(uint64_t address);
  CUresult free_host(void* address);
  CUresult unregister_host(void* address);
  // A module's globals: chunks at `wanted` (0: anywhere).
  CUresult place_image(Context& context, uint64_t bytes, uint64_t wanted, Range* image);
  void free_image(uint64_t address);
  void free_all_of(Context& context);

  // The range that holds the address.
  std::optional<Range> find(uint64_t address) const;
  // Every byte belongs to accessible ranges.
  bool covered(uint64_t address, uint64_t bytes) const;

  // VMM. Sizes and addresses are multiples of kChunkBytes; the callers have checked.
  CUresult reserve(uint64_t wanted, uint64_t bytes, uint64_t alignment, uint64_t* address);
  CUresult unreserve(uint64_t address, uint64_t bytes);
  CUresult map(uint64_t address, uint64_t bytes, const std::shared_ptr<Backing>& backing);
  CUresult unmap(uint64_t address, uint64_t bytes);
  CUresult set_access(uint64_t address, uint64_t bytes, bool accessible);

  // Copies between any two addresses, device or host; false when a device address means nothing.
  bool copy(uint64_t destination, uint64_t source, uint64_t bytes);
  // Repeats a pattern of `width` bytes (1, 2, 4).
  bool fill(uint64_t address, uint32_t pattern, unsigned width, uint64_t count);

 private:
  // Small allocations of one device share chunks.
  struct Heap {
    std::map<uint64_t, uint64_t> free;                    // address -> bytes
    std::map<uint64_t, std::shared_ptr<Backing>> chunks;  // address of the chunk
  };

  // All require mu_ to be held.
  const Range* locate(uint64_t address) const;
  void add(Range range);
  uint64_t take_window(uint64_t wanted, uint64_t from, uint64_t to, uint64_t bytes, uint64_t alignment);
  void give_window(uint64_t address);
  bool reserved(uint64_t address, uint64_t bytes) const;
  bool occupied(uint64_t address, uint64_t bytes) const;
  CUresult allocate_small(Context& context, uint64_t bytes, uint64_t* address);
  CUresult allocate_large(Context& context, uint64_t bytes, uint64_t* address);
  void free_small(const Range& range);
  void drop(std::map<uint64_t, Range>::iterator range);

  AddressSpace space_;
  bool window_held_ = false;  // all of it is reserved in this process
  mutable std::shared_mutex mu_;
  std::map<uint64_t, Range> ranges_;           // guarded by mu_
  std::map<uint64_t, uint64_t> reservations_;  // of the window: address -> bytes; guarded by mu_
  std::map<Device*, Heap> heaps_;              // guarded by mu_
  uint64_t next_buffer_id_ = 1;                // guarded by mu_
};

}  // namespace softgpu
