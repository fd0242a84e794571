#pragma once

// The vGPU's arrays and mipmapped arrays by the numbers that the client chose, and its texture and surface objects.
// Their memory is the driver's: it is counted against the quota, not placed by us. One thread.

#include <cstdint>
#include <map>
#include <vector>

#include "server/contexts.h"
#include "server/memory.h"

namespace tide {

struct ArrayEntry {
  uint32_t context = 0;
  CUDA_ARRAY3D_DESCRIPTOR what = {};
  uint32_t element_bytes = 0;
  uint64_t bytes = 0;
  CUmipmappedArray mipmap = nullptr;
  std::vector<CUarray> levels;
};

// Rows and slices of one level, whatever the slices are.
struct LevelExtent {
  uint64_t width = 1, height = 1, depth = 1;
};
LevelExtent level_extent(const CUDA_ARRAY3D_DESCRIPTOR& what, uint32_t level);

class Arrays {
 public:
  Arrays(const DriverLibrary& library, Contexts& contexts, Memory& memory)
      : library_(library), contexts_(contexts), memory_(memory) {}

  // `levels` 0: not mipmapped. Zeros, since another tenant's contents may be there: waits until they are.
  CUresult create(uint32_t number, uint32_t context, const CUDA_ARRAY3D_DESCRIPTOR& what, uint32_t levels);
  // Requires: nothing that may use it is under way.
  CUresult destroy(uint32_t number);
  void forget_context(uint32_t context);
  const ArrayEntry* find(uint32_t number) const;
  // number | level << 32; null where there is none.
  CUarray array(uint64_t reference) const;
  const std::map<uint32_t, ArrayEntry>& all() const { return arrays_; }

  // `wanted` 0: whatever the driver gives. Fails where it gives another one.
  CUresult create_texture(uint32_t context, bool surface, uint64_t wanted, uint32_t array,
                          const CUDA_RESOURCE_DESC& resource, const CUDA_TEXTURE_DESC& what,
                          const CUDA_RESOURCE_VIEW_DESC* view, uint64_t* handle);
  CUresult destroy_texture(bool surface, uint64_t handle);
  // The keys of the objects that show an array.
  std::vector<uint64_t> textures_of(uint32_t array) const;
  static uint64_t texture_key(bool surface, uint64_t handle) { return handle | uint64_t{surface} << 63; }

 private:
  struct Texture {
    uint32_t context = 0;
    uint32_t array = 0;
  };
  CUresult make(ArrayEntry* entry, uint32_t levels);
  CUresult clear(const ArrayEntry& entry);

  const DriverLibrary& library_;
  Contexts& contexts_;
  Memory& memory_;
  std::map<uint32_t, ArrayEntry> arrays_;
  std::map<uint64_t, Texture> textures_;  // by key
};

}  // namespace tide
