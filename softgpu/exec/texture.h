#pragma once

// Textures and surfaces as running kernels see them: what an object's 64-bit handle means. The driver half describes
// them; handlers look them up without locks.
//
// A handle is a slot of the table with the slot's generation above it, so a handle that outlives its object is found
// out. Handles are small numbers, never addresses of the device window.

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

namespace softgpu {

enum class TexelFormat : uint8_t { kU8, kU16, kU32, kS8, kS16, kS32, kF16, kF32 };
uint32_t bytes_of(TexelFormat format);

enum class AddressMode : uint8_t { kWrap, kClamp, kMirror, kBorder };

inline constexpr uint32_t kLevelsMax = 18;  // of 131072 texels

// One mipmap level: texels lie in rows, rows in slices (layers, faces or depth).
struct TextureLevel {
  uint64_t address = 0;
  uint64_t pitch = 0, slice = 0;  // bytes
  uint32_t width = 1, height = 1, depth = 1;
};

struct Sampler {
  std::array<AddressMode, 3> address{AddressMode::kClamp, AddressMode::kClamp, AddressMode::kClamp};
  bool linear = false;      // between texels
  bool linear_mip = false;  // between levels
  bool normalized_coordinates = false;
  bool seamless = false;  // filtering goes over the edges of a cube
  float bias = 0, lod_min = 0, lod_max = 0;
  std::array<float, 4> border{};
};

// A texture or surface object. Never changes once it is in a table.
struct Texture {
  TexelFormat format = TexelFormat::kU8;
  uint8_t channels = 1;
  bool linear_memory = false;  // no array behind it: reads outside give zero
  bool normalized = false;     // integers of 8 or 16 bits read as [0, 1] or [-1, 1]
  bool srgb = false;
  bool layered = false;
  bool cube = false;
  bool solid = false;  // three dimensions: depth counts texels and not layers
  Sampler sampler;
  uint32_t levels = 1;
  std::array<TextureLevel, kLevelsMax> level;

  uint32_t texel_bytes() const { return bytes_of(format) * channels; }
  bool reads_floats() const { return normalized || format == TexelFormat::kF16 || format == TexelFormat::kF32; }
};

// Threads: any; find() takes no lock. What it returns stays until the owner lets go of what remove() returned, which it
// must not do while kernels run that could have found it.
class TextureTable {
 public:
  ~TextureTable();
  // 0 when the table is full. `wanted` 0: any free handle; otherwise that one, or 0 when it is taken or impossible.
  uint64_t add(std::unique_ptr<const Texture> texture, uint64_t wanted);
  std::unique_ptr<const Texture> remove(uint64_t handle);

  const Texture* find(uint64_t handle) const {
    const uint64_t slot = handle & (kSlots - 1);
    const Chunk* chunk = chunks_[slot / kChunkSlots].load(std::memory_order_acquire);
    if (chunk == nullptr) return nullptr;
    const Slot& s = (*chunk)[slot % kChunkSlots];
    const Texture* texture = s.texture.load(std::memory_order_acquire);
    return s.handle.load(std::memory_order_relaxed) == handle ? texture : nullptr;
  }

 private:
  struct Slot {
    std::atomic<const Texture*> texture{nullptr};
    std::atomic<uint64_t> handle{0};
  };
  static constexpr uint64_t kChunkSlots = 1024;
  static constexpr uint64_t kSlots = uint64_t{1} << 20;
  static constexpr uint64_t kGenerations = uint64_t{1} << 24;  // so that a handle lies below every device address
  using Chunk = std::array<Slot, kChunkSlots>;

  Slot* slot_of(uint64_t handle);  // requires mu_

  std::array<std::atomic<Chunk*>, kSlots / kChunkSlots> chunks_{};
  std::mutex mu_;
  uint64_t next_ = 1;          // slots from here on were never used, but by `wanted`; guarded by mu_
  std::deque<uint64_t> free_;  // handles for reuse, their generation advanced; guarded by mu_
};

struct TextureTables {
  TextureTable textures, surfaces;
};

}  // namespace softgpu
