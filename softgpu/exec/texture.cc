// tex, tld4, txq, suq and istypep.

#include <algorithm>
#include <bit>
#include <cstring>

#include "softgpu/exec/texture_sample.h"

#define SOFTGPU_ISA isa_base
#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu {
namespace {

using isa_base::to_half;

// A handle in a register is an object's, or the address of a .texref or .surfref variable, which holds one.
bool resolve_handle(const Warp& w, uint32_t lane, uint64_t* handle) {
  if (*handle - kWindowBase >= kWindowBytes) return true;
  const std::byte* from = translate_generic(w, lane, *handle, sizeof(*handle));
  if (from == nullptr) return false;
  std::memcpy(handle, from, sizeof(*handle));
  return true;
}

float float_at(Warp& w, uint32_t offset, uint32_t lane) { return offset == 0 ? 0 : lanes<float>(w, offset)[lane]; }

SamplePoint point_of(const TextureOp& op, Warp& w, uint32_t lane) {
  SamplePoint p;
  if (op.layer != 0) p.layer = lanes<uint32_t>(w, op.layer)[lane];
  for (size_t i = 0; i < 3; ++i) {
    if (op.at[i] == 0) continue;
    if (op.integer_coordinates) {
      p.index[i] = lanes<int32_t>(w, op.at[i])[lane];
    } else {
      p.at[i] = lanes<float>(w, op.at[i])[lane];
    }
    p.dx[i] = float_at(w, op.dx[i], lane);
    p.dy[i] = float_at(w, op.dy[i], lane);
  }
  if (op.lod != 0) {
    p.lod = op.integer_coordinates ? static_cast<float>(lanes<int32_t>(w, op.lod)[lane]) : float_at(w, op.lod, lane);
  }
  return p;
}

void store_result(const TextureOp& op, const Texture& texture, Warp& w, uint32_t lane, const Texel& texel) {
  if (op.result == TexelResult::k32) {
    for (size_t i = 0; i < op.results; ++i) lanes<uint32_t>(w, op.dst[i])[lane] = texel[i];
    return;
  }
  uint16_t half[4];
  for (size_t i = 0; i < 4; ++i) {
    half[i] = texture.reads_floats() ? to_half(std::bit_cast<float>(texel[i])) : static_cast<uint16_t>(texel[i]);
  }
  for (size_t i = 0; i < op.results; ++i) {
    if (op.result == TexelResult::k16) {
      lanes<uint16_t>(w, op.dst[i])[lane] = half[i];
    } else {
      lanes<uint32_t>(w, op.dst[i])[lane] = half[2 * i] | static_cast<uint32_t>(half[2 * i + 1]) << 16;
    }
  }
}

// A .samplerref as the lowering packs it (lower/texture.cc); where there is one, it replaces the texture's own.
Sampler unpack_sampler(uint64_t bits, const Sampler& own) {
  Sampler out = own;
  for (size_t i = 0; i < 3; ++i) out.address[i] = static_cast<AddressMode>(bits >> (2 * i) & 3);
  out.linear = (bits >> 6 & 1) != 0;
  out.normalized_coordinates = own.normalized_coordinates && (bits >> 7 & 1) == 0;
  return out;
}

const Texture* find_object(const TextureTable* table, Warp& w, uint32_t lane, uint64_t handle) {
  const Texture* texture = nullptr;
  if (table != nullptr && resolve_handle(w, lane, &handle)) texture = table->find(handle);
  if (texture == nullptr) raise(w, FaultKind::kIllegalAddress, handle, lane);
  return texture;
}

const TextureTable* textures_of(const Warp& w) {
  const TextureTables* tables = w.block->launch->textures;
  return tables == nullptr ? nullptr : &tables->textures;
}

const TextureTable* surfaces_of(const Warp& w) {
  const TextureTables* tables = w.block->launch->textures;
  return tables == nullptr ? nullptr : &tables->surfaces;
}

bool same_handle(const uint64_t* handles, uint32_t mask) {
  const uint64_t first = handles[std::countr_zero(mask)];
  uint64_t other = 0;
  for (uint32_t m = mask; m != 0; m &= m - 1) other |= handles[std::countr_zero(m)] ^ first;
  return other == 0;
}

// All lanes from one texture, where that goes quickly. False: nothing was done.
bool tex_together(const TextureOp& t, Warp& w, uint32_t mask) {
  const uint64_t* handles = lanes<uint64_t>(w, t.handle);
  if (!same_handle(handles, mask)) return false;
  const auto first = static_cast<uint32_t>(std::countr_zero(mask));
  const Texture* texture = find_object(textures_of(w), w, first, handles[first]);
  if (texture == nullptr) return true;  // a fault
  std::array<Texel, 32> texels;
  if (!sample_plain(*texture, t, w, mask, texels.data())) return false;
  if (w.block->fault != FaultKind::kNone) return true;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    store_result(t, *texture, w, lane, texels[lane]);
  }
  return true;
}

void tex(const MicroOp& op, Warp& w, uint32_t mask) {
  const TextureOp& t = w.block->code->texture_ops[static_cast<size_t>(op.imm)];
  if (tex_together(t, w, mask)) {
    if (t.resident != 0) set_predicate(w, t.resident, mask, ~uint32_t{0});
    return;
  }
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const Texture* texture = find_object(textures_of(w), w, lane, lanes<uint64_t>(w, t.handle)[lane]);
    if (texture == nullptr) return;
    const SamplePoint point = point_of(t, w, lane);
    Sampler own;
    if (t.sampler != 0) {
      uint64_t bits = lanes<uint64_t>(w, t.sampler)[lane];
      if (!resolve_handle(w, lane, &bits)) return raise(w, FaultKind::kIllegalAddress, bits, lane);
      own = unpack_sampler(bits, texture->sampler);
    }
    SampleSource source{*texture, t.sampler != 0 ? own : texture->sampler, w, lane};
    const Texel texel = t.gather >= 0 ? gather(&source, t, point) : sample(&source, t, point);
    if (source.failed) return raise(w, FaultKind::kIllegalAddress, source.bad_address, lane);
    store_result(t, *texture, w, lane, texel);
  }
  // Nothing here is sparse: every texel is resident.
  if (t.resident != 0) set_predicate(w, t.resident, mask, ~uint32_t{0});
}

// Numbers of the enumerations that PTX shares with OpenCL.
uint32_t channel_type(const Texture& t) {
  switch (t.format) {
    case TexelFormat::kU8:
      return t.normalized ? 0x10d2 : 0x10da;
    case TexelFormat::kU16:
      return t.normalized ? 0x10d3 : 0x10db;
    case TexelFormat::kU32:
      return 0x10dc;
    case TexelFormat::kS8:
      return t.normalized ? 0x10d0 : 0x10d7;
    case TexelFormat::kS16:
      return t.normalized ? 0x10d1 : 0x10d8;
    case TexelFormat::kS32:
      return 0x10d9;
    case TexelFormat::kF16:
      return 0x10dd;
    case TexelFormat::kF32:
      return 0x10de;
  }
  return 0;
}

uint32_t channel_order(const Texture& t) { return t.channels == 1 ? 0x10b0 : t.channels == 2 ? 0x10b2 : 0x10b5; }

uint32_t answer(const Texture& t, TextureQuery what, uint32_t number) {
  const TextureLevel& level = t.level[std::min(number, t.levels - 1)];
  switch (what) {
    case TextureQuery::kWidth:
      return level.width;
    case TextureQuery::kHeight:
      return level.height;
    case TextureQuery::kDepth:
      return t.solid ? level.depth : 1;
    case TextureQuery::kChannelType:
      return channel_type(t);
    case TextureQuery::kChannelOrder:
      return channel_order(t);
    case TextureQuery::kNormalizedCoordinates:
      return t.sampler.normalized_coordinates ? 1 : 0;
    case TextureQuery::kArraySize:
      return t.solid ? 1 : t.cube ? level.depth / 6 : level.depth;
    case TextureQuery::kLevels:
      return t.levels;
    case TextureQuery::kSamples:
      return 1;
    case TextureQuery::kFilter:
      return t.sampler.linear ? 1 : 0;
    case TextureQuery::kAddress0:
    case TextureQuery::kAddress1:
    case TextureQuery::kAddress2:
      return static_cast<uint32_t>(
          t.sampler.address[static_cast<size_t>(what) - static_cast<size_t>(TextureQuery::kAddress0)]);
    case TextureQuery::kForceUnnormalized:
      return t.sampler.normalized_coordinates ? 0 : 1;
    case TextureQuery::kMemoryLayout:
      return t.linear_memory ? 0 : 1;
  }
  return 0;
}

// x: what; y: 1 for surfaces; a: the handle; b: the level.
void query(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const TextureTable* table = op.y == 1 ? surfaces_of(w) : textures_of(w);
    const Texture* texture = find_object(table, w, lane, lanes<uint64_t>(w, op.a)[lane]);
    if (texture == nullptr) return;
    const uint32_t level = op.b != 0 ? lanes<uint32_t>(w, op.b)[lane] : 0;
    lanes<uint32_t>(w, op.dst)[lane] = answer(*texture, static_cast<TextureQuery>(op.x), level);
  }
}

// x: 0 texture, 1 surface, 2 sampler. A texture's own sampler is what a sampler reference could be here.
void istypep(const MicroOp& op, Warp& w, uint32_t mask) {
  uint32_t bits = 0;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    uint64_t handle = lanes<uint64_t>(w, op.a)[lane];
    const TextureTable* table = op.x == 1 ? surfaces_of(w) : textures_of(w);
    const bool known = resolve_handle(w, lane, &handle) && table != nullptr && table->find(handle) != nullptr;
    bits |= static_cast<uint32_t>(known && op.x != 2) << lane;
  }
  set_predicate(w, op.dst, mask, bits);
}

constexpr HandlerRow kRows[] = {{"tex", tex}, {"tex.query", query}, {"istypep", istypep}};

}  // namespace

HandlerRows texture_rows() { return {kRows, std::size(kRows)}; }

const Texture* find_surface(Warp& w, uint32_t lane, uint64_t handle) {
  return find_object(surfaces_of(w), w, lane, handle);
}

}  // namespace softgpu
