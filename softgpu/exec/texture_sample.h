#pragma once

// Sampling as the CUDA programming guide's appendix on texture fetching describes it: weights of linear filtering are
// fixed-point numbers of 8 fractional bits.

#include <array>
#include <cstdint>

#include "softgpu/exec/texture.h"
#include "softgpu/exec/texture_ops.h"
#include "softgpu/exec/warp.h"

namespace softgpu {

// Floats (as bits) where the texture reads floats, integers otherwise. Missing channels are 0, the fourth is 1.
using Texel = std::array<uint32_t, 4>;

// Coordinates of one lane; of three, those that the geometry has. `lod` is the level asked for, before bias and clamps.
struct SamplePoint {
  std::array<float, 3> at{};
  std::array<int32_t, 3> index{};  // instead of `at`: texels, never filtered
  std::array<float, 3> dx{}, dy{};
  uint32_t layer = 0;
  float lod = 0;
};

struct SampleSource {
  const Texture& texture;
  const Sampler& sampler;
  const Warp& warp;
  uint32_t lane;
  uint64_t bad_address = 0;  // of the first texel that lies in no memory; the sample is then meaningless
  bool failed = false;
};

// The texels of all lanes of `mask` at once where that is a nearest one of a plain texture, the most common case;
// raises a fault where one lies in no memory. False: it is something else, and nothing was done.
bool sample_plain(const Texture& texture, const TextureOp& op, Warp& warp, uint32_t mask, Texel* out);
Texel sample(SampleSource* source, const TextureOp& op, const SamplePoint& point);
// One component of the four texels that a linear filter would use, anticlockwise from the lower left.
Texel gather(SampleSource* source, const TextureOp& op, const SamplePoint& point);

// The surface that a handle means, or null with the fault raised.
const Texture* find_surface(Warp& warp, uint32_t lane, uint64_t handle);

Texel decode_texel(const Texture& texture, const std::byte* from);

}  // namespace softgpu
