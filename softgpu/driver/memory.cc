#include "softgpu/driver/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <vector>

#include "softgpu/driver/device.h"
#include "softgpu/driver/simulation.h"

namespace softgpu {
namespace {

constexpr uint64_t kSmallBytesMax = 1u << 20;  // above it an allocation gets chunks of its own
constexpr size_t kQuarantineMax = 64;          // freed allocations that are kept where memory is checked

// The driver's own choices lie in the upper half of the window, so that the lower half is free for those who ask for an
// address.
constexpr uint64_t kOwnBase = kWindowBase + kWindowBytes / 2;
constexpr uint64_t kOwnBytes = 128ull << 30;  // a device
constexpr uint64_t kImageBase = kWindowBase + kWindowBytes / 4 * 3;

uint64_t own_base(const Device& device) { return kOwnBase + static_cast<uint64_t>(device.index) * kOwnBytes; }

}  // namespace

const Range* Memory::locate(uint64_t address) const {
  auto after = ranges_.upper_bound(address);
  if (after == ranges_.begin()) return nullptr;
  const Range& range = std::prev(after)->second;
  return address - range.address < std::max<uint64_t>(range.bytes, 1) ? &range : nullptr;
}

void Memory::add(Range range) {
  range.buffer_id = next_buffer_id_++;
  ranges_[range.address] = std::move(range);
}

std::optional<Range> Memory::find(uint64_t address) const {
  const std::shared_lock lock(mu_);
  const Range* range = locate(address);
  return range == nullptr ? std::nullopt : std::optional<Range>(*range);
}

bool Memory::covered(uint64_t address, uint64_t bytes) const {
  const std::shared_lock lock(mu_);
  if (bytes > kWindowBytes) return false;
  const uint64_t end = address + bytes;
  do {
    const Range* range = locate(address);
    if (range == nullptr || range->access == 0) return false;
    address = range->address + round_up(range->bytes, range->on_host() ? 1 : Heap::kAlignment);
  } while (address < end);
  return true;
}

bool Memory::occupied(uint64_t address, uint64_t bytes) const {
  auto next = ranges_.lower_bound(address);
  if (next != ranges_.end() && next->first < address + bytes) return true;
  return next != ranges_.begin() && std::prev(next)->second.address + std::prev(next)->second.bytes > address;
}

CUresult Memory::set_sync_memops(uint64_t address, bool on) {
  const std::unique_lock lock(mu_);
  const Range* range = locate(address);
  if (range == nullptr || range->kind == RangeKind::kManaged || range->on_host()) return CUDA_ERROR_INVALID_VALUE;
  ranges_[range->address].sync_memops = on;
  return CUDA_SUCCESS;
}

// 0 when the window is full.
uint64_t Memory::place_backing(const std::shared_ptr<Backing>& backing, const Views::Place& how) {
  const uint64_t address =
      window_.take(backing->bytes, {.from = own_base(backing->device), .to = kImageBase, .alignment = kChunkBytes});
  if (address == 0) return 0;
  Views::Place place = how;
  place.host = backing->host;
  place.bytes = backing->bytes;
  place.owner = backing->device.index;
  views_.add(address, place);
  return address;
}

CUresult Memory::allocate_large(Context& context, uint64_t bytes, uint64_t* address) {
  auto backing = Backing::make(context.device, round_up(bytes, kChunkBytes));
  if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t place = place_backing(backing, {});
  if (place == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  add({.address = place,
       .bytes = bytes,
       .kind = RangeKind::kDevice,
       .device = &context.device,
       .context = &context,
       .backing = std::move(backing)});
  *address = place;
  return CUDA_SUCCESS;
}

CUresult Memory::allocate_small(Context& context, uint64_t bytes, uint64_t* address) {
  Heap& heap = heaps_[&context.device];
  uint64_t place = heap.take(bytes);
  if (place == 0) {
    auto backing = Backing::make(context.device, kChunkBytes);
    if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    const uint64_t slab = place_backing(backing, {});
    if (slab == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    heap.add_slab(slab, std::move(backing));
    place = heap.take(bytes);
  }
  uint64_t start = 0;
  const std::shared_ptr<Backing>& backing = heap.slab_of(place, &start).backing;
  add({.address = place,
       .bytes = bytes,
       .kind = RangeKind::kDevice,
       .device = &context.device,
       .context = &context,
       .backing = backing,
       .backing_offset = place - start});
  *address = place;
  return CUDA_SUCCESS;
}

CUresult Memory::allocate(Context& context, uint64_t bytes, uint64_t* address) {
  if (bytes > context.device.memory_bytes || simulation().allocation_fails(context.device)) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const std::unique_lock lock(mu_);
  const auto attempt = [&] {
    return bytes <= kSmallBytesMax ? allocate_small(context, bytes, address) : allocate_large(context, bytes, address);
  };
  CUresult result = attempt();
  if (result == CUDA_ERROR_OUT_OF_MEMORY && !quarantine_.empty()) {
    drop_quarantine(0);
    result = attempt();
  }
  if (Checker* checker = simulation().checker(); checker != nullptr && result == CUDA_SUCCESS) {
    checker->allocated(*address, bytes);
  }
  return result;
}

// Freed memory that is kept, so that its use is seen instead of somebody else's memory.
bool Memory::keep_freed(Range* range) {
  if (!simulation().quarantines()) return false;
  simulation().freed(range->address, range->bytes);
  range->access = 0;
  quarantine_.push_back(range->address);
  drop_quarantine(kQuarantineMax);
  return true;
}

void Memory::drop_quarantine(size_t keep) {
  while (quarantine_.size() > keep) {
    const auto found = ranges_.find(quarantine_.front());
    quarantine_.pop_front();
    if (found == ranges_.end() || found->second.usable() || found->second.kind != RangeKind::kDevice) continue;
    drop(found);
  }
}

std::vector<Range> Memory::device_ranges(const Device& device) const {
  const std::shared_lock lock(mu_);
  std::vector<Range> out;
  for (const auto& [address, range] : ranges_) {
    if (range.device == &device && range.usable() && range.on_device()) out.push_back(range);
  }
  return out;
}

CUresult Memory::allocate_pinned(Context& context, uint64_t bytes, unsigned flags, void** address) {
  if (bytes > kWindowBytes) return CUDA_ERROR_OUT_OF_MEMORY;
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  const auto at = reinterpret_cast<uint64_t>(pages);
  const std::unique_lock lock(mu_);
  views_.host_pages().add(at, bytes);
  add({.address = at,
       .bytes = bytes,
       .kind = RangeKind::kPinned,
       .device = &context.device,
       .context = &context,
       .host_flags = flags});
  *address = pages;
  return CUDA_SUCCESS;
}

CUresult Memory::allocate_managed(Context& context, uint64_t bytes, unsigned flags, uint64_t* address) {
  if (bytes > kWindowBytes) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t rounded = round_up(bytes, kChunkBytes);
  const std::unique_lock lock(mu_);
  const uint64_t place = window_.take(
      rounded, {.address = 0, .from = own_base(context.device), .to = kImageBase, .alignment = kChunkBytes});
  auto backing = place == 0 ? nullptr : Backing::make_at(context.device, place, rounded);
  if (backing == nullptr) {
    window_.give(place);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  views_.add(place, {backing->host, rounded, context.device.index, false, kAllDevices});
  add({.address = place,
       .bytes = bytes,
       .kind = RangeKind::kManaged,
       .device = &context.device,
       .context = &context,
       .host_flags = flags,
       .backing = std::move(backing),
       .advice = std::make_shared<tide::composed::Advice>(bytes)});
  *address = place;
  return CUDA_SUCCESS;
}

CUresult Memory::register_host(Context& context, void* address, uint64_t bytes, unsigned flags) {
  const auto at = reinterpret_cast<uint64_t>(address);
  if (at + bytes < at) return CUDA_ERROR_INVALID_VALUE;
  const std::unique_lock lock(mu_);
  if (occupied(at, bytes)) return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  views_.host_pages().add(at, bytes);
  add({.address = at,
       .bytes = bytes,
       .kind = RangeKind::kRegistered,
       .device = &context.device,
       .context = &context,
       .host_flags = flags});
  return CUDA_SUCCESS;
}

// Gives back slabs of which nothing is used while more than `keep` bytes are reserved.
void Memory::drop_slab(Heap& heap, uint64_t keep) {
  while (heap.reserved() > keep) {
    const uint64_t slab = heap.drop_unused();
    if (slab == 0) return;
    views_.remove(slab);
    window_.give(slab);
  }
}

void Memory::drop(std::map<uint64_t, Range>::iterator found) {
  Range range = std::move(found->second);
  ranges_.erase(found);
  switch (range.kind) {
    case RangeKind::kPinned:
    case RangeKind::kRegistered:
      views_.host_pages().remove(range.address, range.bytes);
      if (range.kind == RangeKind::kPinned) munmap(reinterpret_cast<void*>(range.address), range.bytes);
      return;
    case RangeKind::kPooled:
      range.backing = nullptr;
      range.pool->heap.give(range.address, range.bytes);
      drop_slab(range.pool->heap, range.pool->destroyed ? 0 : range.pool->release_threshold.load());
      return;
    case RangeKind::kDevice:
      if (range.bytes <= kSmallBytesMax) {
        Heap& heap = heaps_[range.device];
        range.backing = nullptr;
        heap.give(range.address, range.bytes);
        drop_slab(heap, 0);
        return;
      }
      break;
    case RangeKind::kImported:
      std::erase_if(imported_, [&](const auto& item) { return item.second == range.address; });
      break;
    default:
      break;
  }
  views_.remove(range.address);
  range.backing = nullptr;  // a managed one puts the window's pages back
  if (range.owns_addresses) window_.give(range.address);
}

CUresult Memory::free_device(uint64_t address) {
  const std::unique_lock lock(mu_);
  const Range* range = locate(address);
  if (range == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const auto found = ranges_.find(range->address);
  switch (range->kind) {
    case RangeKind::kImported:  // several pointers of a pool may lie in it
      if (range->pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
      if (--found->second.opens == 0) drop(found);
      return CUDA_SUCCESS;
    case RangeKind::kDevice:
    case RangeKind::kManaged:
    case RangeKind::kPooled:
      if (range->address != address || !range->usable()) return CUDA_ERROR_INVALID_VALUE;
      if (range->kind == RangeKind::kDevice && keep_freed(&found->second)) return CUDA_SUCCESS;
      drop(found);
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult Memory::free_host(void* address) {
  const std::unique_lock lock(mu_);
  const auto found = ranges_.find(reinterpret_cast<uint64_t>(address));
  if (found == ranges_.end() || found->second.kind != RangeKind::kPinned) return CUDA_ERROR_INVALID_VALUE;
  drop(found);
  return CUDA_SUCCESS;
}

CUresult Memory::unregister_host(void* address) {
  const std::unique_lock lock(mu_);
  const auto found = ranges_.find(reinterpret_cast<uint64_t>(address));
  if (found == ranges_.end()) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  if (found->second.kind != RangeKind::kRegistered) return CUDA_ERROR_INVALID_VALUE;
  drop(found);
  return CUDA_SUCCESS;
}

CUresult Memory::place_image(Device& device, Context* context, uint64_t bytes, uint64_t wanted, Range* image) {
  const bool managed = context == nullptr;
  const uint64_t rounded = round_up(bytes, kChunkBytes);
  const std::unique_lock lock(mu_);
  const bool inside_reservation = wanted != 0 && window_.taken(wanted, rounded);
  if (inside_reservation && occupied(wanted, rounded)) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t place =
      inside_reservation
          ? wanted
          : window_.take(rounded, {.address = wanted, .from = kImageBase, .to = kWindowEnd, .alignment = kChunkBytes});
  if (place == 0) return wanted != 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
  auto backing = managed ? Backing::make_at(device, place, rounded) : Backing::make(device, rounded);
  if (backing == nullptr) {
    if (!inside_reservation) window_.give(place);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  backing->clear();  // as a driver does
  views_.add(place, {backing->host, rounded, device.index, !managed, kAllDevices});
  Range range{.address = place,
              .bytes = rounded,
              .kind = RangeKind::kImage,
              .device = &device,
              .context = context,
              .backing = std::move(backing),
              .owns_addresses = !inside_reservation};
  if (managed) range.advice = std::make_shared<tide::composed::Advice>(rounded);
  *image = range;
  add(std::move(range));
  return CUDA_SUCCESS;
}

void Memory::free_image(uint64_t address) {
  const std::unique_lock lock(mu_);
  const auto found = ranges_.find(address);
  if (found != ranges_.end() && found->second.kind == RangeKind::kImage) drop(found);
}

void Memory::free_all_of(Context& context) {
  const std::unique_lock lock(mu_);
  std::vector<uint64_t> addresses;
  for (const auto& [address, range] : ranges_) {
    if (range.context == &context) addresses.push_back(address);
  }
  for (const uint64_t address : addresses) drop(ranges_.find(address));
}

}  // namespace softgpu
