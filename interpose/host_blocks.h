#pragma once

// Page-locked host memory: what cuMemHostAlloc made and cuMemHostRegister was told of. Kernels cannot reach it; copies
// can, and asynchronous copies into it do not wait. Threads: any.

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace tide {

struct HostBlock {
  uint64_t base = 0;
  uint64_t bytes = 0;
  uint32_t flags = 0;
  bool registered = false;  // the program's own memory
  uint64_t context = 0;     // handle
  uint64_t id = 0;
};

class HostBlocks {
 public:
  // Null when the system has no memory.
  void* allocate(uint64_t bytes, uint32_t flags, uint64_t context, uint64_t id);
  // False: not the start of a block that allocate() made.
  bool release(void* p);
  // False: overlaps a known block.
  bool add(void* p, uint64_t bytes, uint32_t flags, uint64_t context, uint64_t id);
  bool remove(void* p);
  // The block that p lies in.
  bool find(const void* p, HostBlock* block) const;

 private:
  const HostBlock* look_up(uint64_t address) const;

  mutable std::mutex mu_;
  std::map<uint64_t, HostBlock> blocks_;
};

}  // namespace tide
