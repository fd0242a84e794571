#pragma once

// Small and stream-ordered allocations out of larger pieces of physical memory: first fit, neighbours joined within a
// slab.
//
// Threads: one at a time; the owner has a lock.

#include <cstdint>
#include <map>
#include <memory>

#include "softgpu/driver/backing.h"

namespace softgpu {

class Heap {
 public:
  static constexpr uint64_t kAlignment = 512;

  void add_slab(uint64_t address, std::shared_ptr<Backing> backing);
  // 0 when no slab has room. Sizes are rounded up to kAlignment.
  uint64_t take(uint64_t bytes);
  void give(uint64_t address, uint64_t bytes);

  struct Slab {
    std::shared_ptr<Backing> backing;
    uint64_t used = 0;
  };
  // The slab that holds an address that was taken, and where it begins.
  const Slab& slab_of(uint64_t address, uint64_t* start) const;
  // Removes a slab of which nothing is in use; 0: there is none.
  uint64_t drop_unused();

  uint64_t used() const { return used_; }
  uint64_t reserved() const { return reserved_; }
  const std::map<uint64_t, Slab>& slabs() const { return slabs_; }

 private:
  std::map<uint64_t, uint64_t> free_;  // address -> bytes
  std::map<uint64_t, Slab> slabs_;
  uint64_t used_ = 0, reserved_ = 0;
};

}  // namespace softgpu
