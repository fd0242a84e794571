#pragma once

#include <cstdint>

#include "base/outcome.h"

namespace tide {

// Whether the kernel knows an RDMA device; loads nothing.
bool has_rdma_device();

// What this process may lock in memory, as RDMA has to: the kernel counts all that is registered, whoever did it.
struct Memlock {
  bool limited = false;
  uint64_t limit = 0, used = 0;  // bytes

  static Memlock now();
  bool has_room(uint64_t bytes) const { return !limited || (used <= limit && bytes <= limit - used); }
  // "<what> needs 33 MiB of locked memory ...": the numbers, and how to raise the limit.
  std::string too_little_for(const char* what, uint64_t bytes) const;
};

}  // namespace tide
