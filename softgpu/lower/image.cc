#include "softgpu/lower/image.h"

#include <algorithm>
#include <cstring>

#include "softgpu/exec/warp.h"

namespace softgpu {

namespace {

OpaqueKind opaque_kind(ptx::Type type) {
  switch (type) {
    case ptx::Type::kTexref:
      return OpaqueKind::kTexture;
    case ptx::Type::kSurfref:
      return OpaqueKind::kSurface;
    case ptx::Type::kSamplerref:
      return OpaqueKind::kSampler;
    default:
      return OpaqueKind::kNone;
  }
}

}  // namespace

bool ImageLayout::build(const ptx::Module& module, std::string* error) {
  offsets_.assign(module.variables.size(), -1);
  for (size_t i = 0; i < module.variables.size(); ++i) {
    const ptx::Variable& v = module.variables[i];
    if (v.space == ptx::Space::kShared || v.external) continue;
    const uint64_t align = std::max<uint32_t>(v.align, 1);
    bytes_ = (bytes_ + align - 1) / align * align;
    offsets_[i] = static_cast<int64_t>(bytes_);
    const bool constant = v.space == ptx::Space::kConst;
    globals_.push_back({std::string(v.name), bytes_, v.bytes, constant, v.managed, opaque_kind(v.type)});
    bytes_ += v.bytes;
    if (constant) constant_bytes_ += v.bytes;
  }
  constexpr uint64_t kMost = uint64_t{2} << 30;
  if (bytes_ > kMost) {
    *error = "the module's variables take " + std::to_string(bytes_) + " bytes: more than 2 GiB are not supported";
    return false;
  }
  initial_.assign(bytes_, std::byte{0});
  for (size_t i = 0; i < module.variables.size(); ++i) {
    if (offsets_[i] < 0) continue;
    if (!initialise(module, module.variables[i], static_cast<uint64_t>(offsets_[i]), error)) return false;
  }
  return true;
}

bool ImageLayout::initialise(const ptx::Module& module, const ptx::Variable& v, uint64_t at, std::string* error) {
  const uint32_t size = ptx::bytes_of(v.type);
  for (const ptx::Initial& value : v.initial) {
    if (value.symbol.empty()) {
      std::memcpy(&initial_[at], &value.bits, std::min<uint32_t>(size, 8));
    } else if (const int64_t var = module.find_variable(v.unit, value.symbol); var >= 0) {
      const int64_t target = offsets_[static_cast<size_t>(var)];
      const bool shared = module.variables[static_cast<size_t>(var)].space == ptx::Space::kShared;
      if (target < 0 && !shared) {
        *error = "line " + std::to_string(v.line) + ": symbol '" + std::string(value.symbol) + "' is not defined";
        return false;
      }
      relocations_.push_back(
          {at, size, (shared ? 0 : static_cast<uint64_t>(target)) + value.bits, !shared, value.mask});
    } else if (const int64_t f = module.find_function(v.unit, value.symbol); f >= 0) {
      relocations_.push_back({at, size, kCodeWindow + 16 * static_cast<uint64_t>(f) + value.bits, false, value.mask});
    } else {
      *error = "line " + std::to_string(v.line) + ": symbol '" + std::string(value.symbol) + "' is not defined";
      return false;
    }
    at += size;
  }
  return true;
}

bool ImageLayout::offset_of(uint32_t variable, uint64_t* out) const {
  if (offsets_[variable] < 0) return false;
  *out = static_cast<uint64_t>(offsets_[variable]);
  return true;
}

void ImageLayout::fill(uint64_t image_address, std::byte* host) const {
  if (bytes_ != 0) std::memcpy(host, initial_.data(), bytes_);
  for (const Relocation& r : relocations_) {
    uint64_t value = r.value + (r.to_image ? image_address : 0);
    if (r.mask != ~uint64_t{0} && r.mask != 0) value = (value & r.mask) >> __builtin_ctzll(r.mask);
    std::memcpy(host + r.offset, &value, std::min<uint32_t>(r.bytes, 8));
  }
}

}  // namespace softgpu
