#include "softgpu/exec/tensor_map.h"

#include <bit>
#include <cstring>

#include "softgpu/exec/async.h"
#include "softgpu/exec/handlers.h"

namespace softgpu {
namespace {

// The numbers that `tensormap.replace` gives to types of elements.
constexpr TensorElement kElements[] = {
    TensorElement::kU8,   TensorElement::kU16,  TensorElement::kU32,    TensorElement::kS32,    TensorElement::kU64,
    TensorElement::kS64,  TensorElement::kF16,  TensorElement::kF32,    TensorElement::kF32Ftz, TensorElement::kF64,
    TensorElement::kBf16, TensorElement::kTf32, TensorElement::kTf32Ftz};

bool set_choice(TensorMap* map, TensorMapField field, uint64_t value) {
  switch (field) {
    case TensorMapField::kType:
      if (value >= std::size(kElements)) return false;
      map->type = kElements[value];
      map->element_bytes = bytes_of(map->type);
      return true;
    case TensorMapField::kSwizzle:
      map->swizzle = static_cast<Swizzle>(value);
      return value <= static_cast<uint64_t>(Swizzle::k128);
    case TensorMapField::kFill:
      map->outside = value == 0 ? 0 : 0x7fff;
      return value <= 1;
    default:  // no interleaving, pieces of 16 bytes
      return value == 0;
  }
}

bool set_field(TensorMap* map, TensorMapField field, uint32_t d, uint64_t value) {
  switch (field) {
    case TensorMapField::kAddress:
      map->address = value;
      return value % 16 == 0;
    case TensorMapField::kRank:
      map->rank = static_cast<uint8_t>(value + 1);
      return value < 5;
    case TensorMapField::kBox:
      map->box[d] = static_cast<uint16_t>(value);
      return value >= 1 && value <= 256;
    case TensorMapField::kLength:
      map->last[d] = static_cast<uint32_t>(value - 1);
      return true;
    case TensorMapField::kStride:
      if (d < 4) map->strides[d] = value;
      return d < 4 && value % 16 == 0;
    case TensorMapField::kStep:
      map->steps[d] = static_cast<uint8_t>(value);
      return value >= 1 && value <= 8;
    default:
      return set_choice(map, field, value);
  }
}

// x: the field, target: its dimension, b: the value, of `vec` bytes.
void replace(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t address = memory_address(op, w, lane);
    std::byte* p = memory_at(w, lane, address, sizeof(TensorMap), 64);
    if (p == nullptr) return;
    TensorMap map;
    std::memcpy(&map, p, sizeof(map));
    const uint64_t value = op.vec == 8 ? lanes<uint64_t>(w, op.b)[lane] : lanes<uint32_t>(w, op.b)[lane];
    if (map.magic != TensorMap::kMagic || !set_field(&map, static_cast<TensorMapField>(op.x), op.target, value)) {
      return raise(w, FaultKind::kIllegalInstruction, address, lane);
    }
    std::memcpy(p, &map, sizeof(map));
  }
}

constexpr HandlerRow kRows[] = {{"tensormap.replace", replace}};

}  // namespace

HandlerRows tensor_map_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
