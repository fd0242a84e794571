#include "softgpu/exec/multimem.h"

#include <bit>
#include <cstring>

#include "softgpu/exec/async.h"
#include "softgpu/exec/handlers.h"
#include "softgpu/mem/address_space.h"

#define SOFTGPU_ISA isa_base
#include "softgpu/exec/small_floats.h"

namespace softgpu {
namespace {

using namespace isa_base;

using Members = std::byte * [Multicast::kMost];

float widened(MultimemOp::Sum sum, const std::byte* p) {
  uint16_t v = 0;
  std::memcpy(&v, p, sizeof(v));
  return sum == MultimemOp::Sum::kHalfInFloat ? from_half(v) : from_bf16(v);
}

// The element at `offset` of all members, added up in single precision and rounded once.
void sum_in_float(const MultimemOp& x, const Members& members, size_t count, uint32_t offset, std::byte* out) {
  float total = widened(x.sum, members[0] + offset);
  for (size_t i = 1; i < count; ++i) total += widened(x.sum, members[i] + offset);
  const uint16_t v = x.sum == MultimemOp::Sum::kHalfInFloat ? to_half(total) : to_bf16(total);
  std::memcpy(out, &v, sizeof(v));
}

void reduce_load(const MultimemOp& x, Warp& w, uint32_t lane, const Members& members, size_t count) {
  for (uint32_t r = 0; r < x.count; ++r) {
    alignas(8) std::byte value[8];
    for (uint32_t e = 0; e < x.register_bytes; e += x.element_bytes) {
      const uint32_t offset = r * x.register_bytes + e;
      if (x.sum != MultimemOp::Sum::kOwn) {
        sum_in_float(x, members, count, offset, value + e);
        continue;
      }
      std::memcpy(value + e, members[0] + offset, x.element_bytes);
      for (size_t i = 1; i < count; ++i) x.reduce(value + e, members[i] + offset);
    }
    std::memcpy(w.regs + x.regs[r] + lane * x.register_bytes, value, x.register_bytes);
  }
}

void change_all(const MultimemOp& x, Warp& w, uint32_t lane, const Members& members, size_t count) {
  for (uint32_t r = 0; r < x.count; ++r) {
    const std::byte* value = w.regs + x.regs[r] + lane * x.register_bytes;
    for (size_t i = 0; i < count; ++i) {
      std::byte* to = members[i] + r * x.register_bytes;
      if (x.kind == MultimemOp::Kind::kStore) {
        std::memcpy(to, value, x.register_bytes);
        continue;
      }
      for (uint32_t e = 0; e < x.register_bytes; e += x.element_bytes) x.reduce(to + e, value + e);
    }
  }
}

void multimem(const MicroOp& op, Warp& w, uint32_t mask) {
  const MultimemOp& x = w.block->code->multimem_ops[op.target];
  const uint64_t bytes = uint64_t{x.register_bytes} * x.count;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t address = value_of(x.address, w, lane);
    if (address % bytes != 0) return raise(w, FaultKind::kMisalignedAddress, address, lane);
    Members members;
    const size_t count = w.block->memory.space->multicast().find(address, bytes, members);
    if (count == 0) return raise(w, FaultKind::kIllegalAddress, address, lane);
    if (x.kind == MultimemOp::Kind::kReduceLoad) {
      reduce_load(x, w, lane, members, count);
    } else {
      change_all(x, w, lane, members, count);
    }
  }
}

constexpr HandlerRow kRows[] = {{"multimem", multimem}};

}  // namespace

HandlerRows multimem_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
