// suld, sust and sured.

#include <algorithm>
#include <bit>
#include <cstring>

#include "softgpu/exec/texture.h"
#include "softgpu/exec/texture_sample.h"

#define SOFTGPU_ISA isa_base
#include "softgpu/exec/lanes.h"
#include "softgpu/exec/small_floats.h"

namespace softgpu {
namespace {

using isa_base::to_half;

enum class Found { kFault, kOutside, kInside };

// The coordinate as the bounds mode wants it; false when it is outside and not to be clamped.
bool bound(const SurfaceOp& op, int64_t* at, int64_t size) {
  if (*at >= 0 && *at < size) return true;
  if (op.bounds != SurfaceBounds::kClamp) return false;
  *at = std::clamp<int64_t>(*at, 0, size - 1);
  return true;
}

// Where `bytes` bytes lie that a lane means; x is in units of `unit` bytes.
Found locate(const SurfaceOp& op, Warp& w, uint32_t lane, const Texture& surface, uint64_t bytes, uint64_t unit,
             std::byte** out) {
  const TextureLevel& level = surface.level[0];
  std::array<int64_t, 3> at{};
  for (size_t i = 0; i < 3; ++i) at[i] = op.at[i] != 0 ? lanes<int32_t>(w, op.at[i])[lane] : 0;
  int64_t slice = op.geometry == Geometry::k3d ? at[2] : 0;
  if (op.layer != 0) slice = lanes<uint32_t>(w, op.layer)[lane];
  const uint64_t row = level.width * uint64_t{surface.texel_bytes()};
  const auto places = static_cast<int64_t>(row / bytes);
  int64_t x = at[0] * static_cast<int64_t>(unit);
  if (x % static_cast<int64_t>(bytes) != 0) {
    raise(w, FaultKind::kMisalignedAddress, static_cast<uint64_t>(x), lane);
    return Found::kFault;
  }
  x /= static_cast<int64_t>(bytes);
  const bool inside = bound(op, &x, places) && bound(op, &at[1], level.height) && bound(op, &slice, level.depth);
  if (!inside) {
    if (op.bounds == SurfaceBounds::kZero) return Found::kOutside;
    raise(w, FaultKind::kTrap, 0, lane);
    return Found::kFault;
  }
  const uint64_t address = level.address + static_cast<uint64_t>(slice) * level.slice +
                           static_cast<uint64_t>(at[1]) * level.pitch + static_cast<uint64_t>(x) * bytes;
  *out = translate_generic(w, lane, address, bytes);
  if (*out != nullptr) return Found::kInside;
  raise(w, FaultKind::kIllegalAddress, address, lane);
  return Found::kFault;
}

std::byte* data_of(const SurfaceOp& op, Warp& w, uint32_t lane, size_t element) {
  return w.regs + op.data[element] + uint64_t{lane} * op.register_bytes;
}

void load(const MicroOp& micro, Warp& w, uint32_t mask) {
  const SurfaceOp& op = w.block->code->surface_ops[static_cast<size_t>(micro.imm)];
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const Texture* surface = find_surface(w, lane, lanes<uint64_t>(w, op.handle)[lane]);
    if (surface == nullptr) return;
    std::byte* from = nullptr;
    const Found found = locate(op, w, lane, *surface, uint64_t{op.elements} * op.element_bytes, 1, &from);
    if (found == Found::kFault) return;
    for (size_t i = 0; i < op.elements; ++i) {
      uint64_t value = 0;
      if (found == Found::kInside) std::memcpy(&value, from + i * op.element_bytes, op.element_bytes);
      std::memcpy(data_of(op, w, lane, i), &value, op.register_bytes);
    }
  }
}

// A value of sust.p as the surface's format holds it.
uint32_t encode(const SurfaceOp& op, TexelFormat format, uint32_t bits) {
  const auto real = std::bit_cast<float>(bits);
  const int64_t whole = op.float_data    ? static_cast<int64_t>(std::clamp(real, -2147483648.0f, 4294967040.0f))
                        : op.signed_data ? int64_t{static_cast<int32_t>(bits)}
                                         : int64_t{bits};
  const float value = op.float_data ? real : static_cast<float>(whole);
  switch (format) {
    case TexelFormat::kU8:
      return static_cast<uint32_t>(std::clamp<int64_t>(whole, 0, 255));
    case TexelFormat::kS8:
      return static_cast<uint32_t>(std::clamp<int64_t>(whole, -128, 127));
    case TexelFormat::kU16:
      return static_cast<uint32_t>(std::clamp<int64_t>(whole, 0, 65535));
    case TexelFormat::kS16:
      return static_cast<uint32_t>(std::clamp<int64_t>(whole, -32768, 32767));
    case TexelFormat::kU32:
      return static_cast<uint32_t>(std::clamp<int64_t>(whole, 0, 4294967295));
    case TexelFormat::kS32:
      return static_cast<uint32_t>(std::clamp<int64_t>(whole, -2147483648LL, 2147483647));
    case TexelFormat::kF16:
      return to_half(value);
    case TexelFormat::kF32:
      return std::bit_cast<uint32_t>(value);
  }
  return 0;
}

// Channels that the instruction does not give are left out; those that the surface does not have are ignored.
void store_formatted(const SurfaceOp& op, Warp& w, uint32_t lane, const Texture& surface, std::byte* to) {
  const uint32_t bytes = bytes_of(surface.format);
  for (uint32_t i = 0; i < op.elements && i < surface.channels; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, data_of(op, w, lane, i), sizeof(bits));
    bits = encode(op, surface.format, bits);
    std::memcpy(to + i * bytes, &bits, bytes);
  }
}

void store(const MicroOp& micro, Warp& w, uint32_t mask) {
  const SurfaceOp& op = w.block->code->surface_ops[static_cast<size_t>(micro.imm)];
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const Texture* surface = find_surface(w, lane, lanes<uint64_t>(w, op.handle)[lane]);
    if (surface == nullptr) return;
    const uint64_t texel = surface->texel_bytes();
    const uint64_t bytes = op.formatted ? texel : uint64_t{op.elements} * op.element_bytes;
    std::byte* to = nullptr;
    const Found found = locate(op, w, lane, *surface, bytes, op.formatted ? texel : 1, &to);
    if (found == Found::kFault) return;
    if (found == Found::kOutside) continue;
    if (op.formatted) {
      store_formatted(op, w, lane, *surface, to);
      continue;
    }
    for (size_t i = 0; i < op.elements; ++i) {
      std::memcpy(to + i * op.element_bytes, data_of(op, w, lane, i), op.element_bytes);
    }
  }
}

template <class T, class S>
T reduced(SurfaceReduction how, T old, T value) {
  switch (how) {
    case SurfaceReduction::kAdd:
      return static_cast<T>(old + value);
    case SurfaceReduction::kMin:
      return static_cast<S>(old) < static_cast<S>(value) ? old : value;
    case SurfaceReduction::kMax:
      return static_cast<S>(old) > static_cast<S>(value) ? old : value;
    case SurfaceReduction::kAnd:
      return old & value;
    case SurfaceReduction::kOr:
      return old | value;
    case SurfaceReduction::kNone:
      return old;
  }
  return old;
}

// Other blocks change the same surface at the same time.
template <class T, class S>
void reduce_at(SurfaceReduction how, std::byte* at, T value) {
  auto* p = reinterpret_cast<T*>(at);
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(p, &old, reduced<T, S>(how, old, value), false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_SEQ_CST)) {
  }
}

void reduce(const MicroOp& micro, Warp& w, uint32_t mask) {
  const SurfaceOp& op = w.block->code->surface_ops[static_cast<size_t>(micro.imm)];
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const Texture* surface = find_surface(w, lane, lanes<uint64_t>(w, op.handle)[lane]);
    if (surface == nullptr) return;
    std::byte* at = nullptr;
    const Found found = locate(op, w, lane, *surface, op.element_bytes, op.formatted ? surface->texel_bytes() : 1, &at);
    if (found == Found::kFault) return;
    if (found == Found::kOutside) continue;
    if (op.element_bytes == 8) {
      uint64_t value = 0;
      std::memcpy(&value, data_of(op, w, lane, 0), 8);
      op.signed_data ? reduce_at<uint64_t, int64_t>(op.reduction, at, value)
                     : reduce_at<uint64_t, uint64_t>(op.reduction, at, value);
    } else {
      uint32_t value = 0;
      std::memcpy(&value, data_of(op, w, lane, 0), 4);
      op.signed_data ? reduce_at<uint32_t, int32_t>(op.reduction, at, value)
                     : reduce_at<uint32_t, uint32_t>(op.reduction, at, value);
    }
  }
}

constexpr HandlerRow kRows[] = {{"suld", load}, {"sust", store}, {"sured", reduce}};

}  // namespace

HandlerRows surface_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
