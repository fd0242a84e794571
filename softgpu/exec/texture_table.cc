#include <algorithm>
#include <utility>

#include "softgpu/exec/texture.h"

namespace softgpu {

uint32_t bytes_of(TexelFormat format) {
  switch (format) {
    case TexelFormat::kU8:
    case TexelFormat::kS8:
      return 1;
    case TexelFormat::kU16:
    case TexelFormat::kS16:
    case TexelFormat::kF16:
      return 2;
    default:
      return 4;
  }
}

TextureTable::~TextureTable() {
  for (auto& chunk : chunks_) {
    const Chunk* slots = chunk.load();
    if (slots == nullptr) continue;
    for (const Slot& slot : *slots) delete slot.texture.load();
    delete slots;
  }
}

TextureTable::Slot* TextureTable::slot_of(uint64_t handle) {
  const uint64_t slot = handle & (kSlots - 1);
  std::atomic<Chunk*>& chunk = chunks_[slot / kChunkSlots];
  if (chunk.load() == nullptr) chunk.store(new Chunk, std::memory_order_release);
  return &(*chunk.load())[slot % kChunkSlots];
}

uint64_t TextureTable::add(std::unique_ptr<const Texture> texture, uint64_t wanted) {
  const std::lock_guard lock(mu_);
  uint64_t handle = wanted;
  if (wanted != 0) {
    if ((wanted & (kSlots - 1)) == 0 || wanted / kSlots >= kGenerations) return 0;
    if (slot_of(wanted)->texture.load() != nullptr) return 0;
    std::erase_if(free_, [&](uint64_t h) { return ((h ^ wanted) & (kSlots - 1)) == 0; });
  } else {
    while (next_ < kSlots && slot_of(next_)->handle.load() != 0) ++next_;  // taken by `wanted` before
    if (next_ < kSlots) {
      handle = next_++;
    } else if (!free_.empty()) {
      handle = free_.front();
      free_.pop_front();
    } else {
      return 0;
    }
  }
  Slot* slot = slot_of(handle);
  slot->handle.store(handle, std::memory_order_relaxed);
  slot->texture.store(texture.release(), std::memory_order_release);
  return handle;
}

std::unique_ptr<const Texture> TextureTable::remove(uint64_t handle) {
  const std::lock_guard lock(mu_);
  if (find(handle) == nullptr) return nullptr;
  Slot* slot = slot_of(handle);
  const uint64_t generation = (handle / kSlots + 1) % kGenerations;
  free_.push_back(generation * kSlots + (handle & (kSlots - 1)));
  return std::unique_ptr<const Texture>(slot->texture.exchange(nullptr, std::memory_order_acq_rel));
}

}  // namespace softgpu
