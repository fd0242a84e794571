#pragma once

// CUDA arrays and mipmapped arrays: device memory whose layout is ours. Rows lie behind each other without gaps, slices
// (depth, layers, faces) behind each other, levels at multiples of 512 bytes.

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "softgpu/driver/context.h"
#include "softgpu/exec/texture.h"

namespace softgpu {

// What an element of an array is; false for formats that are not supported (block compression, video).
struct ElementFormat {
  TexelFormat texel = TexelFormat::kU8;
  uint8_t channels = 1;
  bool normalized = false;  // always read as a fraction, whatever the texture says

  uint32_t bytes() const { return bytes_of(texel) * channels; }
};
bool element_format(CUarray_format format, unsigned channels, ElementFormat* out);

// Device memory that goes when the last array of it does.
struct ArrayStorage {
  ArrayStorage(uint64_t at, uint64_t size) : address(at), bytes(size) {}
  ~ArrayStorage();
  ArrayStorage(const ArrayStorage&) = delete;
  ArrayStorage& operator=(const ArrayStorage&) = delete;

  const uint64_t address, bytes;
};

struct Array {
  Context* context = nullptr;
  CUarray handle = nullptr;
  CUDA_ARRAY3D_DESCRIPTOR what{};
  ElementFormat format;
  TextureLevel level;  // depth: of slices, whatever they are
  std::shared_ptr<ArrayStorage> storage;
  bool of_mipmap = false;  // not to be destroyed by itself

  bool solid() const;
  uint64_t row_bytes() const { return uint64_t{level.width} * format.bytes(); }
  uint64_t bytes() const { return level.slice * level.depth; }
};

struct MipmappedArray {
  Context* context = nullptr;
  CUmipmappedArray handle = nullptr;
  CUDA_ARRAY3D_DESCRIPTOR what{};
  std::vector<std::shared_ptr<Array>> levels;
};

CUresult create_array(Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, CUarray* array);
CUresult create_mipmap(Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, unsigned levels,
                       CUmipmappedArray* mipmap);

}  // namespace softgpu
