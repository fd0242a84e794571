#include "softgpu/exec/texture_sample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#define SOFTGPU_ISA isa_base
#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu {
namespace {

using isa_base::from_half;

using Color = std::array<float, 4>;

const std::array<float, 256> kLinearOfSrgb = [] {
  std::array<float, 256> out{};
  for (int i = 0; i < 256; ++i) {
    const double v = i / 255.0;
    out[static_cast<size_t>(i)] = static_cast<float>(v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4));
  }
  return out;
}();

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

template <class T>
T read(const std::byte* from, uint32_t channel) {
  T value;
  std::memcpy(&value, from + channel * sizeof(T), sizeof(T));
  return value;
}

uint32_t decode_channel(const Texture& t, const std::byte* from, uint32_t c) {
  switch (t.format) {
    case TexelFormat::kU8: {
      const auto v = read<uint8_t>(from, c);
      if (t.srgb && c < 3) return bits_of(kLinearOfSrgb[v]);
      return t.normalized ? bits_of(static_cast<float>(v) / 255.0f) : v;
    }
    case TexelFormat::kS8: {
      const auto v = read<int8_t>(from, c);
      return t.normalized ? bits_of(std::max(static_cast<float>(v) / 127.0f, -1.0f)) : static_cast<uint32_t>(v);
    }
    case TexelFormat::kU16: {
      const auto v = read<uint16_t>(from, c);
      return t.normalized ? bits_of(static_cast<float>(v) / 65535.0f) : v;
    }
    case TexelFormat::kS16: {
      const auto v = read<int16_t>(from, c);
      return t.normalized ? bits_of(std::max(static_cast<float>(v) / 32767.0f, -1.0f)) : static_cast<uint32_t>(v);
    }
    case TexelFormat::kF16:
      return bits_of(static_cast<float>(from_half(read<uint16_t>(from, c))));
    default:
      return read<uint32_t>(from, c);
  }
}

Texel border_of(const SampleSource& s) {
  Texel out{};
  for (size_t c = 0; c < 4; ++c) {
    const float v = s.sampler.border[c];
    out[c] = s.texture.reads_floats() ? bits_of(v) : static_cast<uint32_t>(static_cast<int64_t>(v));
  }
  return out;
}

// Modes that need normalised coordinates are `clamp` without them.
AddressMode mode_of(const SampleSource& s, const TextureOp& op, size_t axis) {
  if (op.geometry == Geometry::kCube) return AddressMode::kClamp;
  const AddressMode mode = s.sampler.address[axis];
  const bool periodic = mode == AddressMode::kWrap || mode == AddressMode::kMirror;
  const bool usable = s.sampler.normalized_coordinates && !op.integer_coordinates;
  return periodic && !usable ? AddressMode::kClamp : mode;
}

// False: outside, where the border is.
bool place(AddressMode mode, int64_t i, uint32_t size, uint32_t* out) {
  const auto n = static_cast<int64_t>(size);
  if (i >= 0 && i < n) {
    *out = static_cast<uint32_t>(i);
    return true;
  }
  switch (mode) {
    case AddressMode::kWrap:
      i = (i % n + n) % n;
      break;
    case AddressMode::kMirror:
      i = (i % (2 * n) + 2 * n) % (2 * n);
      if (i >= n) i = 2 * n - 1 - i;
      break;
    case AddressMode::kClamp:
      i = std::clamp<int64_t>(i, 0, n - 1);
      break;
    case AddressMode::kBorder:
      if (i < 0 || i >= n) return false;
      break;
  }
  *out = static_cast<uint32_t>(i);
  return true;
}

// A coordinate in texels.
double scaled(const SampleSource& s, AddressMode mode, float x, uint32_t size) {
  if (std::isnan(x)) x = 0;
  if (s.sampler.normalized_coordinates) {
    const float whole = std::floor(x);
    if (mode == AddressMode::kWrap || mode == AddressMode::kMirror) {
      if (std::isinf(x)) return 0;
      x -= whole;
      const bool odd = std::floor(whole * 0.5f) * 2 != whole;
      if (mode == AddressMode::kMirror && odd) x = 1 - x;
    }
    x *= static_cast<float>(size);
  }
  return std::clamp(static_cast<double>(x), -1073741824.0, 1073741824.0);
}

using Index = std::array<int64_t, 3>;

uint32_t axes_of(const TextureOp& op) {
  return op.geometry == Geometry::k1d ? 1 : op.geometry == Geometry::k3d ? 3 : 2;
}

Texel texel_at(SampleSource* s, const TextureLevel& level, uint32_t x, uint32_t y, uint32_t z) {
  const uint64_t bytes = s->texture.texel_bytes();
  const uint64_t address = level.address + std::min(z, level.depth - 1) * level.slice + y * level.pitch + x * bytes;
  const std::byte* from = translate_generic(s->warp, s->lane, address, bytes);
  if (from == nullptr) {
    if (!s->failed) s->bad_address = address;
    s->failed = true;
    return {};
  }
  return decode_texel(s->texture, from);
}

// Where a cube is looked at: a face and coordinates on it in [0, 1].
struct CubePoint {
  uint32_t face;
  float s, t;
};

// The axis of the largest component, and the signed components along the face's own axes.
struct CubeAxes {
  uint32_t face;
  float m, s, t;  // m > 0
};

CubeAxes cube_axes(float x, float y, float z) {
  const float ax = std::fabs(x), ay = std::fabs(y), az = std::fabs(z);
  if (ax >= ay && ax >= az) return x >= 0 ? CubeAxes{0, ax, -z, -y} : CubeAxes{1, ax, z, -y};
  if (ay >= az) return y >= 0 ? CubeAxes{2, ay, x, z} : CubeAxes{3, ay, x, -z};
  return z >= 0 ? CubeAxes{4, az, x, -y} : CubeAxes{5, az, -x, -y};
}

CubePoint on_cube(float x, float y, float z) {
  const CubeAxes a = cube_axes(x, y, z);
  if (a.m == 0) return {a.face, 0.5f, 0.5f};
  return {a.face, (a.s / a.m + 1) * 0.5f, (a.t / a.m + 1) * 0.5f};
}

std::array<float, 3> cube_direction(uint32_t face, float s, float t) {
  switch (face) {
    case 0:
      return {1, -t, -s};
    case 1:
      return {-1, -t, s};
    case 2:
      return {s, 1, t};
    case 3:
      return {s, -1, -t};
    case 4:
      return {s, -t, 1};
    default:
      return {-s, -t, -1};
  }
}

// The texel of a neighbouring face that lies behind an edge.
Texel texel_over_edge(SampleSource* s, const TextureLevel& level, uint32_t cube, uint32_t face, int64_t i, int64_t j) {
  const auto n = static_cast<float>(level.width);
  const auto along = [&](int64_t k) { return (2 * static_cast<float>(k) + 1) / n - 1; };
  const auto d = cube_direction(face, along(i), along(j));
  const CubePoint p = on_cube(d[0], d[1], d[2]);
  const auto index = [&](float v) { return static_cast<uint32_t>(std::clamp(std::floor(v * n), 0.0f, n - 1)); };
  return texel_at(s, level, index(p.s), index(p.t), cube * 6 + p.face);
}

Texel cube_texel(SampleSource* s, const TextureLevel& level, uint32_t slice, int64_t i, int64_t j) {
  const auto n = static_cast<int64_t>(level.width);
  const auto inside = [&](int64_t k) { return std::clamp<int64_t>(k, 0, n - 1); };
  const bool out_i = inside(i) != i, out_j = inside(j) != j;
  const auto own = [&] {
    return texel_at(s, level, static_cast<uint32_t>(inside(i)), static_cast<uint32_t>(inside(j)), slice);
  };
  if (!s->sampler.seamless || (!out_i && !out_j)) return own();
  const uint32_t cube = slice / 6, face = slice % 6;
  if (!out_i || !out_j) return texel_over_edge(s, level, cube, face, i, j);
  // Three faces meet in a corner; what would be the fourth is their mean.
  const Texel a = own(), b = texel_over_edge(s, level, cube, face, i, inside(j)),
              c = texel_over_edge(s, level, cube, face, inside(i), j);
  if (!s->texture.reads_floats()) return a;
  Texel out{};
  for (size_t k = 0; k < 4; ++k) {
    const auto f = [&](const Texel& t) { return std::bit_cast<float>(t[k]); };
    out[k] = bits_of((f(a) + f(b) + f(c)) / 3.0f);
  }
  return out;
}

Texel indexed(SampleSource* s, const TextureOp& op, const TextureLevel& level, const Index& i, uint32_t slice) {
  if (op.geometry == Geometry::kCube) return cube_texel(s, level, slice, i[0], i[1]);
  const uint32_t sizes[] = {level.width, level.height, level.depth};
  std::array<uint32_t, 3> at{0, 0, slice};
  for (uint32_t axis = 0; axis < axes_of(op); ++axis) {
    if (s->texture.linear_memory && (i[axis] < 0 || i[axis] >= sizes[axis])) return {};
    if (!place(mode_of(*s, op, axis), i[axis], sizes[axis], &at[axis])) return border_of(*s);
  }
  return texel_at(s, level, at[0], at[1], at[2]);
}

// The coordinates in texels, on the slice that the layer or the direction chooses.
std::array<double, 3> in_texels(const SampleSource& s, const TextureOp& op, const TextureLevel& level,
                                const SamplePoint& p, uint32_t* slice) {
  *slice = op.layer != 0 ? std::min(p.layer, level.depth - 1) : 0;
  if (op.geometry == Geometry::kCube) {
    const CubePoint c = on_cube(p.at[0], p.at[1], p.at[2]);
    const uint32_t cubes = std::max(level.depth / 6, 1u);
    *slice = (op.layer != 0 ? std::min(p.layer, cubes - 1) * 6 : 0) + c.face;
    const auto n = static_cast<double>(level.width);
    return {static_cast<double>(c.s) * n, static_cast<double>(c.t) * n, 0};
  }
  const uint32_t sizes[] = {level.width, level.height, level.depth};
  std::array<double, 3> out{};
  for (uint32_t axis = 0; axis < axes_of(op); ++axis) {
    out[axis] = scaled(s, mode_of(s, op, axis), p.at[axis], sizes[axis]);
  }
  return out;
}

// Of a linear filter: the lower texel, and the weight of the upper one in 256ths.
int64_t lower_texel(double x, uint32_t* weight) {
  const auto fixed = static_cast<int64_t>(std::floor((x - 0.5) * 256 + 0.5));
  *weight = static_cast<uint32_t>(fixed & 255);
  return fixed >> 8;
}

// The weighted mean of a linear filter's corners. `fetch(index, texel)` reads one; false when it could not. `x`: in
// texels.
template <size_t N, class Fetch>
bool mean_of_corners(uint32_t axes, const std::array<double, N>& x, Fetch fetch, Texel* out) {
  std::array<int64_t, N> low{};
  std::array<uint32_t, N> weight{};
  for (uint32_t axis = 0; axis < axes; ++axis) low[axis] = lower_texel(x[axis], &weight[axis]);
  Color sum{};
  for (uint32_t corner = 0; corner < 1u << axes; ++corner) {
    auto i = low;
    float share = 1;
    for (uint32_t axis = 0; axis < axes; ++axis) {
      const bool upper = (corner >> axis & 1) != 0;
      i[axis] += upper;
      share *= static_cast<float>(upper ? weight[axis] : 256 - weight[axis]) / 256.0f;
    }
    if (share == 0) continue;
    Texel texel;
    if (!fetch(i, &texel)) return false;
    for (size_t c = 0; c < 4; ++c) sum[c] += share * std::bit_cast<float>(texel[c]);
  }
  *out = {bits_of(sum[0]), bits_of(sum[1]), bits_of(sum[2]), bits_of(sum[3])};
  return true;
}

Texel filtered(SampleSource* s, const TextureOp& op, const TextureLevel& level, const std::array<double, 3>& at,
               uint32_t slice) {
  Texel mean{};
  const auto fetch = [&](const Index& i, Texel* texel) {
    *texel = indexed(s, op, level, i, slice);
    return true;
  };
  mean_of_corners(axes_of(op), at, fetch, &mean);
  return mean;
}

Texel sample_level(SampleSource* s, const TextureOp& op, uint32_t number, const SamplePoint& p) {
  const TextureLevel& level = s->texture.level[number];
  if (op.integer_coordinates) {
    const uint32_t slice = op.layer != 0 ? std::min(p.layer, level.depth - 1) : 0;
    return indexed(s, op, level, {p.index[0], p.index[1], p.index[2]}, slice);
  }
  uint32_t slice = 0;
  const auto at = in_texels(*s, op, level, p, &slice);
  if (s->sampler.linear && s->texture.reads_floats() && !s->texture.linear_memory) {
    return filtered(s, op, level, at, slice);
  }
  Index i{};
  for (size_t axis = 0; axis < 3; ++axis) i[axis] = static_cast<int64_t>(std::floor(at[axis]));
  return indexed(s, op, level, i, slice);
}

// How far one step of the derivatives goes on the face, as lengths in face coordinates.
void cube_gradient(const SamplePoint& p, const std::array<float, 3>& d, double* ds, double* dt) {
  const CubeAxes a = cube_axes(p.at[0], p.at[1], p.at[2]);
  if (a.m == 0) return;
  const auto unit = cube_direction(a.face, 0, 0);
  const auto s_axis = cube_direction(a.face, 1, 0), t_axis = cube_direction(a.face, 0, 1);
  double dm = 0, da = 0, db = 0;
  for (size_t k = 0; k < 3; ++k) {
    dm += static_cast<double>(d[k]) * static_cast<double>(unit[k]);
    da += static_cast<double>(d[k]) * static_cast<double>(s_axis[k] - unit[k]);
    db += static_cast<double>(d[k]) * static_cast<double>(t_axis[k] - unit[k]);
  }
  const double m = a.m;
  *ds = (da * m - static_cast<double>(a.s) * dm) / (2 * m * m);
  *dt = (db * m - static_cast<double>(a.t) * dm) / (2 * m * m);
}

// The level at which the longer derivative spans one texel.
float lod_of_gradient(const SampleSource& s, const TextureOp& op, const SamplePoint& p) {
  const TextureLevel& base = s.texture.level[0];
  const double sizes[] = {static_cast<double>(base.width), static_cast<double>(base.height),
                          static_cast<double>(base.depth)};
  double longest = 0;
  for (const auto* d : {&p.dx, &p.dy}) {
    std::array<double, 3> step{static_cast<double>((*d)[0]), static_cast<double>((*d)[1]),
                               static_cast<double>((*d)[2])};
    const bool cube = op.geometry == Geometry::kCube;
    if (cube) {
      cube_gradient(p, *d, &step[0], &step[1]);
      step[2] = 0;
    }
    double square = 0;
    for (uint32_t axis = 0; axis < axes_of(op); ++axis) {
      const double length = step[axis] * (cube || s.sampler.normalized_coordinates ? sizes[axis] : 1.0);
      square += length * length;
    }
    longest = std::max(longest, square);
  }
  return longest > 0 ? static_cast<float>(0.5 * std::log2(longest)) : -126.0f;
}

}  // namespace

Texel decode_texel(const Texture& texture, const std::byte* from) {
  Texel out{0, 0, 0, texture.reads_floats() ? bits_of(1.0f) : 1};
  for (uint32_t c = 0; c < texture.channels; ++c) out[c] = decode_channel(texture, from, c);
  return out;
}

Texel sample(SampleSource* s, const TextureOp& op, const SamplePoint& p) {
  if (op.lod_mode == LodMode::kBase) return sample_level(s, op, 0, p);
  const uint32_t last = s->texture.levels - 1;
  if (op.integer_coordinates) {
    const float asked = std::clamp(p.lod, 0.0f, static_cast<float>(last));
    return sample_level(s, op, static_cast<uint32_t>(asked), p);
  }
  float lod = (op.lod_mode == LodMode::kLevel ? p.lod : lod_of_gradient(*s, op, p)) + s->sampler.bias;
  if (std::isnan(lod)) lod = 0;
  lod = std::max(std::min(lod, s->sampler.lod_max), s->sampler.lod_min);
  lod = std::clamp(lod, 0.0f, static_cast<float>(last));
  if (!s->sampler.linear_mip) return sample_level(s, op, static_cast<uint32_t>(std::floor(lod + 0.5f)), p);
  const auto fixed = static_cast<uint32_t>(std::floor(lod * 256 + 0.5f));
  const uint32_t low = fixed >> 8, weight = fixed & 255;
  const Texel a = sample_level(s, op, low, p);
  if (weight == 0 || low == last || !s->texture.reads_floats()) return a;
  const Texel b = sample_level(s, op, low + 1, p);
  Texel out{};
  const float upper = static_cast<float>(weight) / 256.0f, lower = static_cast<float>(256 - weight) / 256.0f;
  for (size_t c = 0; c < 4; ++c) {
    out[c] = bits_of(lower * std::bit_cast<float>(a[c]) + upper * std::bit_cast<float>(b[c]));
  }
  return out;
}

namespace {

// Where texels of one texture lie, with the chunk of the last one kept.
struct TexelMemory {
  Warp& warp;
  uint64_t chunk = 1;  // no chunk begins there
  const std::byte* host = nullptr;

  const std::byte* find(uint32_t lane, uint64_t address, uint64_t bytes) {
    const uint64_t begin = address & ~(kChunkBytes - 1);
    if (begin == chunk && address - begin + bytes <= kChunkBytes) return host + (address - begin);
    const std::byte* from = translate_generic(warp, lane, address, bytes);
    if (from != nullptr && address - kWindowBase < kWindowBytes) {
      chunk = begin;
      host = from - (address - begin);
    }
    return from;
  }
};

// One or two coordinates, one level, no layers: what is asked of it is found out once for a warp.
class PlainSampler {
 public:
  PlainSampler(const Texture& texture, const TextureOp& op, Warp& w)
      : texture_(texture),
        op_(op),
        level_(texture.level[0]),
        source_{texture, texture.sampler, w, 0},
        axes_(axes_of(op)),
        sizes_{level_.width, level_.height},
        modes_{mode_of(source_, op, 0), mode_of(source_, op, 1)},
        bytes_(texture.texel_bytes()),
        linear_(texture.sampler.linear && texture.reads_floats() && !texture.linear_memory),
        memory_{w} {}

  static bool serves(const TextureOp& op) {
    const bool flat = op.geometry == Geometry::k1d || op.geometry == Geometry::k2d;
    return flat && op.layer == 0 && op.sampler == 0 && op.gather < 0 && op.lod_mode == LodMode::kBase &&
           !op.integer_coordinates;
  }

  // False after a fault.
  bool sample(Warp& w, uint32_t lane, Texel* out) {
    std::array<double, 2> x{};
    for (uint32_t a = 0; a < axes_; ++a) x[a] = scaled(source_, modes_[a], lanes<float>(w, op_.at[a])[lane], sizes_[a]);
    if (linear_) return filter(lane, x, out);
    return fetch(lane, {static_cast<int64_t>(std::floor(x[0])), static_cast<int64_t>(std::floor(x[1]))}, out);
  }

  uint64_t bad_address() const { return bad_address_; }

 private:
  using At = std::array<int64_t, 2>;

  bool fetch(uint32_t lane, const At& i, Texel* out) {
    uint32_t at[2] = {0, 0};
    for (uint32_t a = 0; a < axes_; ++a) {
      if (texture_.linear_memory && (i[a] < 0 || i[a] >= sizes_[a])) return *out = {}, true;
      if (!place(modes_[a], i[a], sizes_[a], &at[a])) return *out = border_of(source_), true;
    }
    const uint64_t address = level_.address + at[1] * level_.pitch + at[0] * bytes_;
    const std::byte* from = memory_.find(lane, address, bytes_);
    bad_address_ = address;
    if (from != nullptr) *out = decode_texel(texture_, from);
    return from != nullptr;
  }

  bool filter(uint32_t lane, const std::array<double, 2>& x, Texel* out) {
    return mean_of_corners(
        axes_, x, [&](const At& i, Texel* texel) { return fetch(lane, i, texel); }, out);
  }

  const Texture& texture_;
  const TextureOp& op_;
  const TextureLevel& level_;
  const SampleSource source_;
  const uint32_t axes_;
  const std::array<uint32_t, 2> sizes_;
  const std::array<AddressMode, 2> modes_;
  const uint64_t bytes_;
  const bool linear_;
  TexelMemory memory_;
  uint64_t bad_address_ = 0;
};

}  // namespace

bool sample_plain(const Texture& texture, const TextureOp& op, Warp& w, uint32_t mask, Texel* out) {
  if (!PlainSampler::serves(op)) return false;
  PlainSampler sampler(texture, op, w);
  for (; mask != 0; mask &= mask - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(mask));
    if (sampler.sample(w, lane, &out[lane])) continue;
    raise(w, FaultKind::kIllegalAddress, sampler.bad_address(), lane);
    break;
  }
  return true;
}

Texel gather(SampleSource* s, const TextureOp& op, const SamplePoint& p) {
  const TextureLevel& level = s->texture.level[0];
  uint32_t slice = 0, unused = 0;
  const auto at = in_texels(*s, op, level, p, &slice);
  const int64_t i = lower_texel(at[0], &unused), j = lower_texel(at[1], &unused);
  const Index corners[] = {{i, j + 1, 0}, {i + 1, j + 1, 0}, {i + 1, j, 0}, {i, j, 0}};
  Texel out{};
  for (size_t k = 0; k < 4; ++k) out[k] = indexed(s, op, level, corners[k], slice)[static_cast<size_t>(op.gather)];
  return out;
}

}  // namespace softgpu
