#include "softgpu/driver/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/log.h"
#include "softgpu/driver/device.h"

namespace softgpu {
namespace {

constexpr uint64_t kSmallBytesMax = 1u << 20;  // above it an allocation gets chunks of its own
constexpr uint64_t kAlignment = 512;

// The driver's own choices lie in the upper half of the window, so that the lower half is free for those who ask for an
// address.
constexpr uint64_t kOwnBase = kWindowBase + kWindowBytes / 2;
constexpr uint64_t kOwnBytes = 128ull << 30;  // a device
constexpr uint64_t kImageBase = kWindowBase + kWindowBytes / 4 * 3;
constexpr uint64_t kWindowEnd = kWindowBase + kWindowBytes;

uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

bool in_window(uint64_t address) { return address - kWindowBase < kWindowBytes; }

void* map_pages(uint64_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

bool hold_addresses(uint64_t address, uint64_t bytes) {
  void* at = reinterpret_cast<void*>(address);
  void* got = mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == at) return true;
  if (got != MAP_FAILED) munmap(got, bytes);
  return false;
}

}  // namespace

std::shared_ptr<Backing> Backing::make(Device& device, uint64_t bytes) {
  if (!device.take(bytes)) return nullptr;
  // Aligned to a chunk so that huge pages can lie behind it.
  auto* pages = static_cast<std::byte*>(map_pages(bytes + kChunkBytes));
  if (pages == nullptr) {
    device.give(bytes);
    return nullptr;
  }
  const auto start = reinterpret_cast<uint64_t>(pages);
  const uint64_t aligned = round_up(start, kChunkBytes);
  if (aligned != start) munmap(pages, aligned - start);
  const uint64_t tail = start + bytes + kChunkBytes - (aligned + bytes);
  if (tail != 0) munmap(reinterpret_cast<void*>(aligned + bytes), tail);
  // Large kernels walk all of it; without huge pages they mostly wait for page tables. Only a wish.
  madvise(reinterpret_cast<void*>(aligned), bytes, MADV_HUGEPAGE);
  return std::shared_ptr<Backing>(new Backing(device, reinterpret_cast<std::byte*>(aligned), bytes));
}

Backing::~Backing() {
  munmap(host, bytes);
  device.give(bytes);
}

Memory::Memory() : window_held_(hold_addresses(kWindowBase, kWindowBytes)) {}

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
    if (range == nullptr || !range->accessible) return false;
    address = range->address + round_up(range->bytes, range->on_device() ? kAlignment : 1);
  } while (address < end);
  return true;
}

bool Memory::reserved(uint64_t address, uint64_t bytes) const {
  auto after = reservations_.upper_bound(address);
  if (after == reservations_.begin()) return false;
  const auto& [start, length] = *std::prev(after);
  return address - start < length && bytes <= length - (address - start);
}

bool Memory::occupied(uint64_t address, uint64_t bytes) const {
  auto next = ranges_.lower_bound(address);
  if (next != ranges_.end() && next->first < address + bytes) return true;
  return next != ranges_.begin() && std::prev(next)->second.address + std::prev(next)->second.bytes > address;
}

// 0 when there is no place. `wanted` 0: the first place in [from, to).
uint64_t Memory::take_window(uint64_t wanted, uint64_t from, uint64_t to, uint64_t bytes, uint64_t alignment) {
  uint64_t address = wanted != 0 ? wanted : round_up(from, alignment);
  const uint64_t end = wanted != 0 ? wanted + bytes : to;
  auto next = reservations_.lower_bound(address);
  if (next != reservations_.begin()) {
    const auto& [start, length] = *std::prev(next);
    if (start + length > address) {
      if (wanted != 0) return 0;
      address = round_up(start + length, alignment);
    }
  }
  while (next != reservations_.end() && next->first < address + bytes) {
    if (wanted != 0) return 0;
    address = round_up(std::max(address, next->first + next->second), alignment);
    ++next;
  }
  if (wanted == 0 && (bytes > end - from || address > end - bytes)) return 0;
  if (!window_held_ && !hold_addresses(address, bytes)) {
    tide::log(
        tide::LogLevel::kError,
        "the device addresses from %#llx on are in use in this process; the software GPU cannot place memory there",
        static_cast<unsigned long long>(address));
    return 0;
  }
  reservations_[address] = bytes;
  return address;
}

void Memory::give_window(uint64_t address) {
  const auto found = reservations_.find(address);
  if (!window_held_) munmap(reinterpret_cast<void*>(address), found->second);
  reservations_.erase(found);
}

CUresult Memory::allocate_large(Context& context, uint64_t bytes, uint64_t* address) {
  const uint64_t rounded = round_up(bytes, kChunkBytes);
  auto backing = Backing::make(context.device, rounded);
  if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t base = kOwnBase + static_cast<uint64_t>(context.device.index) * kOwnBytes;
  const uint64_t place = take_window(0, base, kImageBase, rounded, kChunkBytes);
  if (place == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  space_.map(place, backing->host, rounded);
  Range range{
      .address = place, .bytes = bytes, .kind = RangeKind::kDevice, .device = &context.device, .context = &context};
  range.backing = std::move(backing);
  add(std::move(range));
  *address = place;
  return CUDA_SUCCESS;
}

CUresult Memory::allocate_small(Context& context, uint64_t bytes, uint64_t* address) {
  Heap& heap = heaps_[&context.device];
  const uint64_t rounded = round_up(bytes, kAlignment);
  auto fit = std::find_if(heap.free.begin(), heap.free.end(), [&](const auto& f) { return f.second >= rounded; });
  if (fit == heap.free.end()) {
    auto backing = Backing::make(context.device, kChunkBytes);
    if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    const uint64_t base = kOwnBase + static_cast<uint64_t>(context.device.index) * kOwnBytes;
    const uint64_t chunk = take_window(0, base, kImageBase, kChunkBytes, kChunkBytes);
    if (chunk == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    space_.map(chunk, backing->host, kChunkBytes);
    heap.chunks[chunk] = std::move(backing);
    fit = heap.free.emplace(chunk, kChunkBytes).first;
  }
  *address = fit->first;
  const uint64_t left = fit->second - rounded;
  heap.free.erase(fit);
  if (left != 0) heap.free.emplace(*address + rounded, left);
  add({.address = *address,
       .bytes = bytes,
       .kind = RangeKind::kDevice,
       .device = &context.device,
       .context = &context});
  return CUDA_SUCCESS;
}

void Memory::free_small(const Range& range) {
  Heap& heap = heaps_[range.device];
  uint64_t start = range.address;
  uint64_t bytes = round_up(range.bytes, kAlignment);
  auto next = heap.free.lower_bound(start);
  // Pieces of neighbouring chunks stay apart, so that a chunk can go.
  if (next != heap.free.end() && next->first == start + bytes && next->first % kChunkBytes != 0) {
    bytes += next->second;
    next = heap.free.erase(next);
  }
  if (next != heap.free.begin() && start % kChunkBytes != 0) {
    const auto before = std::prev(next);
    if (before->first + before->second == start) {
      start = before->first;
      bytes += before->second;
      heap.free.erase(before);
    }
  }
  if (bytes == kChunkBytes) {
    space_.unmap(start, kChunkBytes);
    heap.chunks.erase(start);
    give_window(start);
  } else {
    heap.free.emplace(start, bytes);
  }
}

CUresult Memory::allocate(Context& context, uint64_t bytes, uint64_t* address) {
  if (bytes > context.device.memory_bytes) return CUDA_ERROR_OUT_OF_MEMORY;
  const std::unique_lock lock(mu_);
  return bytes <= kSmallBytesMax ? allocate_small(context, bytes, address) : allocate_large(context, bytes, address);
}

CUresult Memory::allocate_host(Context& context, uint64_t bytes, unsigned flags, RangeKind kind, void** address) {
  if (bytes > kWindowBytes) return CUDA_ERROR_OUT_OF_MEMORY;
  void* pages = map_pages(bytes);
  if (pages == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  const auto at = reinterpret_cast<uint64_t>(pages);
  const std::unique_lock lock(mu_);
  space_.add_host_range(at, bytes);
  add({.address = at,
       .bytes = bytes,
       .kind = kind,
       .device = &context.device,
       .context = &context,
       .host_flags = flags});
  *address = pages;
  return CUDA_SUCCESS;
}

CUresult Memory::register_host(Context& context, void* address, uint64_t bytes, unsigned flags) {
  const auto at = reinterpret_cast<uint64_t>(address);
  const std::unique_lock lock(mu_);
  if (occupied(at, bytes)) return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  space_.add_host_range(at, bytes);
  add({.address = at,
       .bytes = bytes,
       .kind = RangeKind::kRegistered,
       .device = &context.device,
       .context = &context,
       .host_flags = flags});
  return CUDA_SUCCESS;
}

void Memory::drop(std::map<uint64_t, Range>::iterator found) {
  const Range range = std::move(found->second);
  ranges_.erase(found);
  if (!range.on_device()) {
    space_.remove_host_range(range.address);
    if (range.kind != RangeKind::kRegistered) munmap(reinterpret_cast<void*>(range.address), range.bytes);
  } else if (range.kind == RangeKind::kDevice && range.backing == nullptr) {
    free_small(range);
  } else {
    space_.unmap(range.address, range.backing->bytes);
    if (range.owns_addresses) give_window(range.address);
  }
}

CUresult Memory::free_device(uint64_t address) {
  const std::unique_lock lock(mu_);
  const auto found = ranges_.find(address);
  if (found == ranges_.end()) return CUDA_ERROR_INVALID_VALUE;
  if (found->second.kind != RangeKind::kDevice && found->second.kind != RangeKind::kManaged) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  drop(found);
  return CUDA_SUCCESS;
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

CUresult Memory::place_image(Context& context, uint64_t bytes, uint64_t wanted, Range* image) {
  const uint64_t rounded = round_up(bytes, kChunkBytes);
  const std::unique_lock lock(mu_);
  const bool inside_reservation = wanted != 0 && reserved(wanted, rounded);
  if (inside_reservation && occupied(wanted, rounded)) return CUDA_ERROR_INVALID_VALUE;
  auto backing = Backing::make(context.device, rounded);
  if (backing == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t place =
      inside_reservation ? wanted : take_window(wanted, kImageBase, kWindowEnd, rounded, kChunkBytes);
  if (place == 0) return wanted != 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
  space_.map(place, backing->host, rounded);
  Range range{
      .address = place, .bytes = rounded, .kind = RangeKind::kImage, .device = &context.device, .context = &context};
  range.backing = std::move(backing);
  range.owns_addresses = !inside_reservation;
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

CUresult Memory::reserve(uint64_t wanted, uint64_t bytes, uint64_t alignment, uint64_t* address) {
  const std::unique_lock lock(mu_);
  if (wanted != 0 && (!in_window(wanted) || bytes > kWindowEnd - wanted)) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t place = take_window(wanted, kWindowBase, kWindowEnd, bytes, std::max(alignment, kChunkBytes));
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
  const auto found = reservations_.find(address);
  if (found == reservations_.end() || found->second != bytes || occupied(address, bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  give_window(address);
  return CUDA_SUCCESS;
}

CUresult Memory::map(uint64_t address, uint64_t bytes, const std::shared_ptr<Backing>& backing) {
  const std::unique_lock lock(mu_);
  if (!reserved(address, bytes) || occupied(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  Range range{.address = address, .bytes = bytes, .kind = RangeKind::kMapped, .device = &backing->device};
  range.backing = backing;
  range.accessible = false;
  add(std::move(range));
  return CUDA_SUCCESS;
}

CUresult Memory::unmap(uint64_t address, uint64_t bytes) {
  const std::unique_lock lock(mu_);
  const uint64_t end = address + bytes;
  // All of it must be whole mappings.
  for (uint64_t at = address; at < end;) {
    const auto found = ranges_.find(at);
    if (found == ranges_.end() || found->second.kind != RangeKind::kMapped) return CUDA_ERROR_INVALID_VALUE;
    at += found->second.bytes;
    if (at > end) return CUDA_ERROR_INVALID_VALUE;
  }
  space_.unmap(address, bytes);
  ranges_.erase(ranges_.lower_bound(address), ranges_.lower_bound(end));
  return CUDA_SUCCESS;
}

CUresult Memory::set_access(uint64_t address, uint64_t bytes, bool accessible) {
  const std::unique_lock lock(mu_);
  const uint64_t end = address + bytes;
  for (uint64_t at = address; at < end;) {
    const auto found = ranges_.find(at);
    if (found == ranges_.end() || found->second.kind != RangeKind::kMapped) return CUDA_ERROR_INVALID_VALUE;
    at += found->second.bytes;
    if (at > end) return CUDA_ERROR_INVALID_VALUE;
  }
  for (auto i = ranges_.find(address); i != ranges_.end() && i->first < end; ++i) {
    i->second.accessible = accessible;
    if (accessible) {
      space_.map(i->first, i->second.backing->host, i->second.bytes);
    } else {
      space_.unmap(i->first, i->second.bytes);
    }
  }
  return CUDA_SUCCESS;
}

namespace {

// Host memory behind the beginning of [address, address + *bytes); shortens *bytes to what is contiguous.
std::byte* resolve(const AddressSpace& space, uint64_t address, uint64_t* bytes) {
  if (!in_window(address)) return reinterpret_cast<std::byte*>(address);
  std::byte* host = space.translate(address, *bytes);
  if (host != nullptr) return host;
  *bytes = std::min(*bytes, kChunkBytes - address % kChunkBytes);
  return space.translate(address, *bytes);
}

}  // namespace

bool Memory::copy(uint64_t destination, uint64_t source, uint64_t bytes) {
  while (bytes > 0) {
    uint64_t piece = bytes;
    resolve(space_, destination, &piece);
    std::byte* const from = resolve(space_, source, &piece);
    std::byte* const to = resolve(space_, destination, &piece);
    if (from == nullptr || to == nullptr) return false;
    std::memmove(to, from, piece);
    destination += piece;
    source += piece;
    bytes -= piece;
  }
  return true;
}

bool Memory::fill(uint64_t address, uint32_t pattern, unsigned width, uint64_t count) {
  uint64_t bytes = count * width;
  while (bytes > 0) {
    uint64_t piece = bytes;
    std::byte* const to = resolve(space_, address, &piece);
    if (to == nullptr) return false;
    switch (width) {
      case 1:
        std::memset(to, static_cast<int>(pattern & 0xff), piece);
        break;
      case 2:
        std::fill_n(reinterpret_cast<uint16_t*>(to), piece / 2, static_cast<uint16_t>(pattern));
        break;
      default:
        std::fill_n(reinterpret_cast<uint32_t*>(to), piece / 4, pattern);
        break;
    }
    address += piece;
    bytes -= piece;
  }
  return true;
}

}  // namespace softgpu
