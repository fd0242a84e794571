#include "server/staging.h"

#include <algorithm>
#include <cstdlib>

namespace tide {
namespace {
constexpr uint64_t kSlabBytes = 4u << 20;  // what is pinned at once; pinning is slow
}

void Staging::start(const Driver& driver, Contexts& contexts, uint64_t limit) {
  driver_ = &driver;
  contexts_ = &contexts;
  limit_ = limit;
}

Staging::Piece Staging::take(uint64_t bytes, bool beyond) {
  for (Class& c : classes_) {
    if (bytes > c.size) continue;
    if (c.free.empty() && !grow(&c, beyond)) continue;  // a larger class may have one
    Piece piece{c.free.back(), c.size};
    c.free.pop_back();
    in_use_ += c.size;
    return piece;
  }
  return {};
}

void Staging::give_back(Piece piece) {
  for (Class& c : classes_) {
    if (c.size != piece.size) continue;
    c.free.push_back(piece.data);
    in_use_ -= c.size;
  }
}

std::span<const std::byte> Staging::slab_of(const std::byte* at) const {
  const auto behind = std::upper_bound(slabs_.begin(), slabs_.end(), at);
  return behind == slabs_.begin() ? std::span<const std::byte>{} : std::span(behind[-1], kSlabBytes);
}

bool Staging::grow(Class* c, bool beyond) {
  if (c->reserved + kSlabBytes > limit_ / 4 * c->share && !beyond) return false;
  void* slab = nullptr;
  contexts_->use(0);
  if (driver_->cuMemHostAlloc == nullptr ||
      driver_->cuMemHostAlloc(&slab, kSlabBytes, CU_MEMHOSTALLOC_PORTABLE) != CUDA_SUCCESS) {
    slab = aligned_alloc(4096, kSlabBytes);
  }
  if (slab == nullptr) return false;
  auto* const start = static_cast<std::byte*>(slab);
  c->reserved += kSlabBytes;
  slabs_.insert(std::upper_bound(slabs_.begin(), slabs_.end(), start), start);
  for (uint64_t at = 0; at < kSlabBytes; at += c->size) c->free.push_back(start + at);
  return true;
}

}  // namespace tide
