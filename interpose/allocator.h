#pragma once

// Chooses the addresses of a vGPU's memory. Knows no channel: what the worker has to map and unmap comes back as
// ranges of whole chunks, to be sent in this order. Small allocations share chunks; large ones own theirs. A few
// megabytes of free chunks stay mapped, so that a program that allocates in a loop does not map in a loop.
// Out-of-memory is exact: mapped chunks never exceed the quota. Not thread-safe: Memory (memory.h) holds the lock.

#include <cstdint>
#include <map>
#include <vector>

#include "interpose/ranges.h"

namespace tide {

inline constexpr uint64_t kAllocationAlign = 512;
inline constexpr uint64_t kSmallBytesMax = 1u << 20;  // up to this, allocations share chunks
inline constexpr uint64_t kKeptBytesMax = 64u << 20;  // free memory that stays mapped

struct Mapping {
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool map = false;  // false: unmap
};

struct Allocation {
  uint64_t base = 0;
  uint64_t bytes = 0;        // as asked for
  uint32_t context = 0;      // the wire number of the context that it belongs to
  uint64_t id = 0;           // unique in the process (CU_POINTER_ATTRIBUTE_BUFFER_ID)
  bool mapped = false;       // by the VMM's calls, which alone unmap it
  bool synchronous = false;  // CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
};

class Allocator {
 public:
  // [base, base + bytes) is to be divided; `quota` bytes may be mapped at once.
  Allocator(uint64_t base, uint64_t bytes, uint64_t quota);

  // False: out of memory (nothing changed but kept chunks that were unmapped; send `todo` all the same).
  bool allocate(uint64_t bytes, uint32_t context, uint64_t id, uint64_t* address, std::vector<Mapping>* todo);
  // False: `address` is not the start of a live allocation.
  bool release(uint64_t address, std::vector<Mapping>* todo);
  // Addresses without memory, whole chunks.
  bool reserve(uint64_t bytes, uint64_t alignment, uint64_t* address) {
    return unmapped_.take(bytes, alignment, address);
  }
  void unreserve(uint64_t address, uint64_t bytes) { unmapped_.add(address, bytes); }
  // A live allocation made of reserved addresses and charged memory: released by forget_mapped() only.
  void note_mapped(const Allocation& allocation) { live_.emplace(allocation.base, allocation); }
  void forget_mapped(uint64_t address) { live_.erase(address); }
  // All allocations of one context.
  void release_context(uint32_t context, std::vector<Mapping>* todo);

  // What arrays and physical memory take of the quota, whatever their addresses. False: out of memory.
  bool charge(uint64_t bytes, std::vector<Mapping>* todo);
  void discharge(uint64_t bytes) { mapped_ -= bytes; }

  // The live allocation that `address` lies in, or null. Valid until the next change.
  const Allocation* find(uint64_t address) const;
  void set_synchronous(uint64_t base, bool on) { live_.at(base).synchronous = on; }
  bool empty() const { return live_.empty(); }
  uint64_t quota() const { return quota_; }
  // Of several processes, this one's part of it, which changes. Not less than mapped().
  void set_quota(uint64_t quota) { quota_ = quota; }
  uint64_t mapped() const { return mapped_; }
  // What an allocation takes of it at most.
  static uint64_t chunks_of(uint64_t bytes);
  // Of free memory, no more than that stays mapped from now on.
  void keep_at_most(uint64_t bytes, std::vector<Mapping>* todo);
  // The least quota with which so much more can be had, if addresses are left.
  uint64_t needed(uint64_t bytes) const { return mapped_ - kept_.total() + bytes; }
  // Bytes that allocations could still get: the quota less chunks in use.
  uint64_t available() const { return quota_ - mapped_ + kept_.total(); }

 private:
  bool take_chunks(uint64_t bytes, uint64_t* address, std::vector<Mapping>* todo);
  void return_chunks(uint64_t address, uint64_t bytes, std::vector<Mapping>* todo);
  void unmap_largest(std::vector<Mapping>* todo);
  void unmap(uint64_t address, uint64_t bytes, std::vector<Mapping>* todo);

  uint64_t quota_;
  bool make_room(uint64_t bytes, std::vector<Mapping>* todo);
  uint64_t kept_most_ = kKeptBytesMax;
  uint64_t mapped_ = 0;                  // bytes of mapped chunks, kept ones included, and what was charged
  Ranges unmapped_;                      // whole chunks
  Ranges kept_;                          // whole chunks, mapped and free
  Ranges small_;                         // free parts of chunks that small allocations share
  std::map<uint64_t, Allocation> live_;  // by base
};

}  // namespace tide
