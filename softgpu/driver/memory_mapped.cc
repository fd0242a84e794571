// Memory's VMM half: reservations, mappings, access; and memory of pools and of other processes.

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "softgpu/driver/device.h"
#include "softgpu/driver/memory.h"
#include "softgpu/driver/simulation.h"

namespace softgpu {

namespace {

constexpr uint64_t kSlabBytes = 32u << 20;  // what a pool takes from its device for smaller allocations

}  // namespace

CUresult Memory::reserve(uint64_t wanted, uint64_t bytes, uint64_t alignment, uint64_t* address) {
  const std::unique_lock lock(mu_);
  if (wanted != 0 && (!in_window(wanted) || bytes > kWindowEnd - wanted)) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t place = window_.take(
      bytes, {.address = wanted, .from = kWindowBase, .to = kWindowEnd, .alignment = std::max(alignment, kChunkBytes)});
  if (place == 0) {
    tide::log(tide::LogLevel::kWarning, "cannot reserve %llu bytes of device addresses at %#llx: in use",
              static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(wanted));
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  *address = place;
  return CUDA_SUCCESS;
}

CUresult Memory::unreserve(uint64_t address, uint64_t bytes) {
  const std::unique_lock lock(mu_);
  if (bytes == 0 || window_.bytes_of(address) != bytes || occupied(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  window_.give(address);
  return CUDA_SUCCESS;
}

CUresult Memory::map(uint64_t address, uint64_t bytes, uint64_t offset, const std::shared_ptr<Physical>& physical) {
  const std::shared_ptr<Backing>& backing = physical->backing;
  const std::unique_lock lock(mu_);
  if (!window_.taken(address, bytes) || occupied(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  views_.add(address, {backing->host + offset, bytes, backing->device.index, false, 0});
  add({.address = address,
       .bytes = bytes,
       .kind = RangeKind::kMapped,
       .device = &backing->device,
       .backing = backing,
       .backing_offset = offset,
       .physical = physical,
       .access = 0});
  return CUDA_SUCCESS;
}

bool Memory::whole_mappings(uint64_t address, uint64_t bytes) const {
  const uint64_t end = address + bytes;
  for (uint64_t at = address; at < end;) {
    const auto found = ranges_.find(at);
    if (found == ranges_.end() || found->second.kind != RangeKind::kMapped) return false;
    at += found->second.bytes;
    if (at > end) return false;
  }
  return true;
}

CUresult Memory::unmap(uint64_t address, uint64_t bytes) {
  const std::unique_lock lock(mu_);
  if (!whole_mappings(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  const auto first = ranges_.find(address), last = ranges_.lower_bound(address + bytes);
  for (auto range = first; range != last; ++range) views_.remove(range->first);
  ranges_.erase(first, last);
  return CUDA_SUCCESS;
}

CUresult Memory::set_access(uint64_t address, uint64_t bytes, DeviceSet grant, DeviceSet take) {
  const std::unique_lock lock(mu_);
  if (!whole_mappings(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  for (auto range = ranges_.find(address); range != ranges_.end() && range->first < address + bytes; ++range) {
    range->second.access = (range->second.access & ~take) | grant;
    views_.set_seen_by(range->first, range->second.access);
  }
  return CUDA_SUCCESS;
}

CUresult Memory::allocate_from(const std::shared_ptr<Pool>& pool, uint64_t bytes, uint64_t* address) {
  if (bytes > pool->device.memory_bytes || simulation().allocation_fails(pool->device)) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const std::unique_lock lock(mu_);
  Heap& heap = pool->heap;
  uint64_t place = heap.take(bytes);
  if (place == 0) {
    const uint64_t least = round_up(bytes, kChunkBytes);
    const uint64_t most =
        pool->properties.maxSize == 0 ? kWindowBytes : round_up(pool->properties.maxSize, kChunkBytes);
    if (heap.reserved() + least > most) return CUDA_ERROR_OUT_OF_MEMORY;
    const bool shared = pool->properties.handleTypes != CU_MEM_HANDLE_TYPE_NONE;
    std::shared_ptr<Backing> backing;
    if (least < kSlabBytes && heap.reserved() + kSlabBytes <= most) {
      backing = Backing::make(pool->device, kSlabBytes, shared);
    }
    if (backing == nullptr) backing = Backing::make(pool->device, least, shared);
    if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    const DeviceSet seen_by = pool->seen_by | only(pool->device.index);
    const uint64_t slab = place_backing(backing, {.follows_peers = false, .seen_by = seen_by});
    if (slab == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    heap.add_slab(slab, std::move(backing));
    place = heap.take(bytes);
  }
  uint64_t start = 0;
  const std::shared_ptr<Backing>& backing = heap.slab_of(place, &start).backing;
  add({.address = place,
       .bytes = bytes,
       .kind = RangeKind::kPooled,
       .device = &pool->device,
       .backing = backing,
       .backing_offset = place - start,
       .pool = pool});
  pool->used_high = std::max(pool->used_high, heap.used());
  pool->reserved_high = std::max(pool->reserved_high, heap.reserved());
  *address = place;
  return CUDA_SUCCESS;
}

void Memory::trim(Pool& pool, uint64_t keep) {
  const std::unique_lock lock(mu_);
  drop_slab(pool.heap, keep);
}

void Memory::set_pool_access(Pool& pool, DeviceSet grant, DeviceSet take) {
  const std::unique_lock lock(mu_);
  pool.seen_by = (pool.seen_by & ~take) | grant;
  for (const auto& [address, slab] : pool.heap.slabs()) {
    views_.set_seen_by(address, pool.seen_by | only(pool.device.index));
  }
  if (!pool.imported) return;
  for (const auto& [address, range] : ranges_) {
    if (range.pool.get() == &pool) views_.set_seen_by(address, pool.seen_by | only(pool.device.index));
  }
}

Memory::PoolUse Memory::use_of(const Pool& pool) const {
  const std::shared_lock lock(mu_);
  return {pool.heap.used(), pool.used_high, pool.heap.reserved(), pool.reserved_high,
          pool.seen_by | only(pool.device.index)};
}

void Memory::reset_high(Pool& pool, bool used) {
  const std::unique_lock lock(mu_);
  if (used) {
    pool.used_high = pool.heap.used();
  } else {
    pool.reserved_high = pool.heap.reserved();
  }
}

CUresult Memory::open_imported(Context* context, uint64_t identity,
                               const std::function<std::shared_ptr<Backing>()>& open, const std::shared_ptr<Pool>& pool,
                               Device& device, uint64_t* address) {
  const std::unique_lock lock(mu_);
  if (const auto known = imported_.find(identity); known != imported_.end()) {
    ++ranges_[known->second].opens;
    *address = known->second;
    return CUDA_SUCCESS;
  }
  auto backing = open();
  if (backing == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const DeviceSet seen_by = only(device.index) | only(backing->device.index) | (pool == nullptr ? 0 : pool->seen_by);
  const uint64_t place = place_backing(backing, {.follows_peers = false, .seen_by = seen_by});
  if (place == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t bytes = backing->bytes;
  add({.address = place,
       .bytes = bytes,
       .kind = RangeKind::kImported,
       .device = &backing->device,
       .context = context,
       .backing = std::move(backing),
       .pool = pool});
  imported_[identity] = place;
  *address = place;
  return CUDA_SUCCESS;
}

CUresult Memory::close_imported(uint64_t address) {
  const std::unique_lock lock(mu_);
  const Range* range = locate(address);
  if (range == nullptr || range->kind != RangeKind::kImported || range->pool != nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const auto found = ranges_.find(range->address);
  if (--found->second.opens == 0) drop(found);
  return CUDA_SUCCESS;
}

}  // namespace softgpu
