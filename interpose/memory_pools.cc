#include "interpose/memory_pools.h"

#include <algorithm>
#include <cstring>

#include "interpose/vgpu.h"

namespace tide {
namespace {

constexpr uint64_t kReserveStep = 32u << 20;  // how a pool is said to grow

uint64_t in_steps(uint64_t bytes) { return (bytes + kReserveStep - 1) / kReserveStep * kReserveStep; }

uint64_t rounded(uint64_t bytes) { return (bytes + kAllocationAlign - 1) / kAllocationAlign * kAllocationAlign; }

template <class T>
CUresult put(void* value, T from) {
  memcpy(value, &from, sizeof from);
  return CUDA_SUCCESS;
}

}  // namespace

MemoryPool* MemoryPools::create(Vgpu& vgpu, const CUmemPoolProps& properties, const SharedHandle* shared) {
  MemoryPool* made = table_.create();
  if (made == nullptr) return nullptr;
  const uint64_t handle = made->handle;
  *made = MemoryPool{};
  made->handle = handle;
  made->vgpu = &vgpu;
  made->properties = properties;
  made->imported = shared != nullptr;
  if (shared != nullptr) made->shared = *shared;
  table_.publish(made);
  return made;
}

bool MemoryPools::destroy(MemoryPool& pool) {
  if (pool.is_default) return false;
  const std::lock_guard lock(mu_);
  if (current_[pool.vgpu] == &pool) current_.erase(pool.vgpu);
  return table_.destroy(&pool);
}

MemoryPool* MemoryPools::default_of(Vgpu& vgpu) {
  const std::lock_guard lock(mu_);
  MemoryPool*& pool = defaults_[&vgpu];
  if (pool == nullptr) {
    CUmemPoolProps properties = {};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = vgpu.ordinal;
    pool = create(vgpu, properties);
    if (pool != nullptr) pool->is_default = true;
  }
  return pool;
}

MemoryPool* MemoryPools::current_of(Vgpu& vgpu) {
  {
    const std::lock_guard lock(mu_);
    if (const auto found = current_.find(&vgpu); found != current_.end()) return found->second;
  }
  return default_of(vgpu);
}

void MemoryPools::set_current(Vgpu& vgpu, MemoryPool& pool) {
  const std::lock_guard lock(mu_);
  current_[&vgpu] = &pool;
}

CUresult MemoryPools::check(const MemoryPool& pool, uint64_t bytes) const {
  const std::lock_guard lock(mu_);
  const uint64_t most = pool.properties.maxSize;
  return most != 0 && pool.used + rounded(bytes) > most ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

CUresult MemoryPools::note(MemoryPool& pool, uint64_t address, uint64_t bytes) {
  const std::lock_guard lock(mu_);
  uses_[address] = {pool.handle, rounded(bytes)};
  pool.used += rounded(bytes);
  pool.used_high = std::max(pool.used_high, pool.used);
  pool.reserved = std::max(pool.reserved, in_steps(pool.used));
  pool.reserved_high = std::max(pool.reserved_high, pool.reserved);
  return CUDA_SUCCESS;
}

void MemoryPools::forget(uint64_t address) {
  const std::lock_guard lock(mu_);
  const auto found = uses_.find(address);
  if (found == uses_.end()) return;
  if (MemoryPool* pool = table_.find(found->second.pool); pool != nullptr) {
    pool->used -= found->second.bytes;
    if (pool->reserved > pool->threshold) pool->reserved = std::max(in_steps(pool->used), in_steps(pool->threshold));
    pool->reserved = std::min(pool->reserved, pool->reserved_high);
  }
  uses_.erase(found);
}

MemoryPool* MemoryPools::of(uint64_t address) const {
  const std::lock_guard lock(mu_);
  const auto found = uses_.find(address);
  return found == uses_.end() ? nullptr : table_.find(found->second.pool);
}

void MemoryPools::trim(MemoryPool& pool, uint64_t keep) {
  const std::lock_guard lock(mu_);
  if (pool.reserved > keep) pool.reserved = std::max(in_steps(pool.used), std::min(in_steps(keep), pool.reserved));
}

CUresult MemoryPools::get(const MemoryPool& pool, CUmemPool_attribute attribute, void* value) const {
  const std::lock_guard lock(mu_);
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      return put(value, pool.reuse[attribute - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES]);
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      return put(value, pool.threshold);
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      return put(value, pool.reserved);
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      return put(value, pool.reserved_high);
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
      return put(value, pool.used);
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      return put(value, pool.used_high);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult MemoryPools::set(MemoryPool& pool, CUmemPool_attribute attribute, const void* value) {
  const std::lock_guard lock(mu_);
  uint64_t number = 0;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      memcpy(&pool.reuse[attribute - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES], value, sizeof(int));
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      memcpy(&pool.threshold, value, sizeof pool.threshold);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      memcpy(&number, value, sizeof number);
      if (number != 0) return CUDA_ERROR_INVALID_VALUE;  // a high watermark can only be reset
      (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ? pool.used_high : pool.reserved_high) =
          attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ? pool.used : pool.reserved;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

}  // namespace tide
