#pragma once

// The window of device addresses: which parts of it are taken. All of it is reserved without access in the process, so
// that a host dereference of a device pointer faults as it does on hardware.
//
// Threads: one at a time; the owner has a lock.

#include <cstdint>
#include <map>

#include "softgpu/mem/address_space.h"

namespace softgpu {

inline constexpr uint64_t kWindowEnd = kWindowBase + kWindowBytes;

inline uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
inline bool in_window(uint64_t address) { return address - kWindowBase < kWindowBytes; }

class Window {
 public:
  Window();

  struct Wish {
    uint64_t address = 0;  // 0: the first place in [from, to)
    uint64_t from = 0, to = 0;
    uint64_t alignment = kChunkBytes;
  };
  // 0 when there is no place.
  uint64_t take(uint64_t bytes, const Wish& wish);
  void give(uint64_t address);

  // All of it lies in one taken part.
  bool taken(uint64_t address, uint64_t bytes) const;
  // The part that begins there; 0: none.
  uint64_t bytes_of(uint64_t address) const;

 private:
  bool held_ = false;                   // all of it is reserved in this process
  std::map<uint64_t, uint64_t> parts_;  // address -> bytes
};

}  // namespace softgpu
