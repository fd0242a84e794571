#pragma once

// Pools of stream-ordered memory. All memory of a vGPU comes from one allocator; a pool is what it was asked for, who
// uses how much of it, and settings. Threads: any.

#include <cuda.h>

#include <cstdint>
#include <map>
#include <mutex>

#include "interpose/handles.h"
#include "interpose/sharing.h"

namespace tide {

struct Vgpu;

struct MemoryPool : Handled {
  Vgpu* vgpu = nullptr;
  bool is_default = false;
  CUmemPoolProps properties = {};
  // Of one that other processes may have, and of one that is theirs: sharing.h. Its `vgpu` and `name` say which.
  SharedHandle shared;
  bool imported = false;
  // Guarded by MemoryPools::mu_. Bytes.
  int reuse[3] = {1, 1, 1};  // in the order of the attributes
  uint64_t threshold = 0;
  uint64_t used = 0, used_high = 0, reserved = 0, reserved_high = 0;
};

class MemoryPools {
 public:
  // Null when all handles are taken.
  // `shared`: another process's pool.
  MemoryPool* create(Vgpu& vgpu, const CUmemPoolProps& properties, const SharedHandle* shared = nullptr);
  // False for a default pool.
  bool destroy(MemoryPool& pool);
  MemoryPool* find(CUmemoryPool handle) const { return table_.find(handle); }
  MemoryPool* default_of(Vgpu& vgpu);
  MemoryPool* current_of(Vgpu& vgpu);
  void set_current(Vgpu& vgpu, MemoryPool& pool);

  // An allocation of a pool: OUT_OF_MEMORY when the pool may not grow so far.
  CUresult note(MemoryPool& pool, uint64_t address, uint64_t bytes);
  CUresult check(const MemoryPool& pool, uint64_t bytes) const;
  // It is free again; nothing happens for memory of no pool.
  void forget(uint64_t address);
  // The pool of an allocation, or null.
  MemoryPool* of(uint64_t address) const;

  void trim(MemoryPool& pool, uint64_t keep);
  CUresult get(const MemoryPool& pool, CUmemPool_attribute attribute, void* value) const;
  CUresult set(MemoryPool& pool, CUmemPool_attribute attribute, const void* value);

 private:
  struct Use {
    uint64_t pool = 0;  // handle
    uint64_t bytes = 0;
  };
  HandleTable<MemoryPool> table_{HandleKind::kMemoryPool};
  mutable std::mutex mu_;
  std::map<Vgpu*, MemoryPool*> defaults_, current_;  // guarded by mu_
  std::map<uint64_t, Use> uses_;                     // by address; guarded by mu_
};

}  // namespace tide
