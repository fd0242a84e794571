#pragma once

// The addresses of host memory that kernels reach: one zone (base/limits.h), backed by a memory file of which workers
// on this machine map the same parts. Not thread-safe: HostMemory (host_memory.h) holds the lock; descriptor() may be
// called by any thread once open() has returned.

#include <cstdint>

#include "base/limits.h"
#include "interpose/ranges.h"

namespace tide {

class HostZone {
 public:
  // There is one in a process. Never destroyed.
  static HostZone& instance();
  // Reserves the addresses and makes the file, once. False: the addresses are taken. Without a file the memory is the
  // program's alone.
  bool open();
  // -1: there is no file.
  int descriptor() const { return fd_; }

  // Zeroed whole pages; 0: no memory. `mapped`: the program has them, too; else they are addresses only.
  uint64_t allocate(uint64_t bytes, bool mapped);
  void release(uint64_t address, uint64_t bytes);
  // The next piece of mapped memory behind *address that was ever touched; false: none up to `end`.
  bool next_data(uint64_t* address, uint64_t end, uint64_t* bytes) const;
  static bool holds(uint64_t address) { return address - kHostZoneBase < kHostZoneBytes; }

 private:
  bool opened_ = false;
  bool reserved_ = false;
  int fd_ = -1;
  Ranges free_;
};

inline uint64_t whole_pages(uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

}  // namespace tide
