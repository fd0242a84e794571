#include "softgpu/exec/bulk.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "softgpu/exec/async.h"
#include "softgpu/exec/handlers.h"
#include "softgpu/exec/tensor_map.h"

#define SOFTGPU_ISA isa_base
#include "softgpu/exec/small_floats.h"

namespace softgpu {
namespace {

using namespace isa_base;

template <class T>
T add(T a, T b) {
  return static_cast<T>(a + b);
}
template <class T>
T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T larger(T a, T b) {
  return b > a ? b : a;
}
template <class T>
T bits_and(T a, T b) {
  return a & b;
}
template <class T>
T bits_or(T a, T b) {
  return a | b;
}
template <class T>
T bits_xor(T a, T b) {
  return a ^ b;
}
uint32_t increment(uint32_t a, uint32_t b) { return a >= b ? 0 : a + 1; }
uint32_t decrement(uint32_t a, uint32_t b) { return a == 0 || a > b ? b : a - 1; }
float add_float(float a, float b) { return canon(a + b); }
double add_double(double a, double b) { return a + b; }

// Sixteen bits: through double, which rounds once.
struct HalfBits {
  static double load(uint16_t v) { return static_cast<double>(from_half(v)); }
  static uint16_t store(double v) { return to_half(v); }
};
struct BrainBits {
  static double load(uint16_t v) { return static_cast<double>(from_bf16(v)); }
  static uint16_t store(double v) { return to_bf16(v); }
};
template <class K>
uint16_t add_narrow(uint16_t a, uint16_t b) {
  return K::store(K::load(a) + K::load(b));
}
template <class K>
uint16_t smaller_narrow(uint16_t a, uint16_t b) {
  return K::load(b) < K::load(a) || K::load(a) != K::load(a) ? b : a;
}
template <class K>
uint16_t larger_narrow(uint16_t a, uint16_t b) {
  return K::load(b) > K::load(a) || K::load(a) != K::load(a) ? b : a;
}

template <class T, T (*F)(T, T)>
void change(std::byte* to, const std::byte* from) {
  T value, old, next;
  std::memcpy(&value, from, sizeof(T));
  auto* p = reinterpret_cast<T*>(to);
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do {
    next = F(old, value);
  } while (!__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

struct ReduceRow {
  std::string_view name;
  ReduceElement fn;
  uint8_t bytes;
};

#define INTEGERS(name, F)                                                                                             \
  {name ".u32", change<uint32_t, F>, 4}, {name ".s32", change<int32_t, F>, 4}, {name ".u64", change<uint64_t, F>, 8}, \
  {                                                                                                                   \
    name ".s64", change<int64_t, F>, 8                                                                                \
  }
#define BITS(name, F) \
  {name ".b32", change<uint32_t, F>, 4}, { name ".b64", change<uint64_t, F>, 8 }
#define NARROW(name, F) \
  {name ".f16", change<uint16_t, F<HalfBits>>, 2}, { name ".bf16", change<uint16_t, F<BrainBits>>, 2 }

constexpr ReduceRow kReductions[] = {
    INTEGERS("min", smaller),
    INTEGERS("max", larger),
    {"add.u32", change<uint32_t, add>, 4},
    {"add.s32", change<uint32_t, add>, 4},
    {"add.u64", change<uint64_t, add>, 8},
    {"add.s64", change<uint64_t, add>, 8},
    {"add.f32", change<float, add_float>, 4},
    {"add.f64", change<double, add_double>, 8},
    NARROW("add", add_narrow),
    NARROW("min", smaller_narrow),
    NARROW("max", larger_narrow),
    BITS("and", bits_and),
    BITS("or", bits_or),
    BITS("xor", bits_xor),
    {"inc.u32", change<uint32_t, increment>, 4},
    {"dec.u32", change<uint32_t, decrement>, 4},
};

uint64_t value_of(const AddressOperand& a, Warp& w, uint32_t lane) {
  const auto offset = static_cast<uint64_t>(a.offset);
  return offset + (a.form == 2 ? lanes<uint64_t>(w, a.reg)[lane] : a.form == 1 ? lanes<uint32_t>(w, a.reg)[lane] : 0);
}

// One lane's copy to one block of the cluster.
struct Target {
  uint64_t to = 0, barrier = 0;
};

void move_line(const BulkCopy& x, Warp& w, uint32_t lane, const Target& target) {
  const uint32_t size = lanes<uint32_t>(w, x.size)[lane];
  if (size % 16 != 0) return raise(w, FaultKind::kMisalignedAddress, size, lane);
  const uint64_t from_address = value_of(x.from, w, lane);
  std::byte* to = memory_at(w, lane, target.to, size, 16);
  const std::byte* from = memory_at(w, lane, from_address, size, 16);
  if (to == nullptr || from == nullptr) return;
  LateCopies* late = w.block->late.get();
  const bool own_barrier = x.has_barrier && (target.barrier - kSharedWindow) < w.block->memory.shared_bytes;
  if (late != nullptr && own_barrier && x.reduce == nullptr) {
    LateCopy copy;
    copy.barrier = reinterpret_cast<uint64_t*>(memory_at(w, lane, target.barrier, 8, 8));
    copy.to = to;
    copy.from = from;
    copy.bytes = copy.copied = size;
    if (copy.barrier != nullptr) late->waiting.push_back(copy);
    return;
  }
  if (x.reduce == nullptr) {
    std::memmove(to, from, size);
  } else {
    for (uint32_t i = 0; i + x.element_bytes <= size; i += x.element_bytes) x.reduce(to + i, from + i);
  }
  if (x.has_barrier) arrive_bytes(w, lane, target.barrier, size);
}

// Shared memory is swizzled by its address: sixteen-byte pieces change places within lines.
uint64_t swizzled(uint64_t address, Swizzle how) {
  const uint32_t bits = static_cast<uint32_t>(how);
  return address ^ ((address >> 7 & ((1u << bits) - 1)) << 4);
}

struct Box {
  std::array<uint32_t, 5> length{1, 1, 1, 1, 1};  // elements that are taken
  uint32_t elements = 1;
};

Box box_of(const TensorMap& map) {
  Box out;
  for (uint32_t d = 0; d < map.rank; ++d) {
    out.length[d] = (map.box[d] + map.steps[d] - 1u) / map.steps[d];
    out.elements *= out.length[d];
  }
  return out;
}

// Moves the elements of the box one line of the innermost dimension after another.
void move_box(const BulkCopy& x, Warp& w, uint32_t lane, const TensorMap& map, const Target& target) {
  const Box box = box_of(map);
  const uint32_t size = map.element_bytes;
  const uint64_t shared = x.to_shared ? target.to : value_of(x.from, w, lane);
  const uint64_t bytes = uint64_t{box.elements} * size;
  // Room for the last element, whose place the swizzle may move within its piece of 128 bytes.
  if (memory_at(w, lane, shared, bytes, map.swizzle == Swizzle::kNone ? 16 : 128) == nullptr) return;
  for (uint32_t i = 0; i < box.elements; ++i) {
    uint32_t rest = i;
    bool inside = true;
    uint64_t at = map.address;
    for (uint32_t d = 0; d < map.rank; ++d) {
      const auto begin = static_cast<int32_t>(lanes<uint32_t>(w, x.coordinates[d])[lane]);
      const int64_t place = int64_t{begin} + int64_t{rest % box.length[d]} * map.steps[d];
      rest /= box.length[d];
      inside = inside && place >= 0 && place <= int64_t{map.last[d]};
      at += static_cast<uint64_t>(place) * (d == 0 ? size : map.strides[d - 1]);
    }
    std::byte* here = translate_generic(w, lane, swizzled(shared + uint64_t{i} * size, map.swizzle), size);
    if (here == nullptr) return raise(w, FaultKind::kIllegalAddress, shared, lane);
    if (!inside) {
      if (x.to_shared) std::memset(here, 0, size);
      for (uint32_t b = 0; x.to_shared && map.outside != 0 && b + 2 <= size; b += 2) {
        std::memcpy(here + b, &map.outside, 2);
      }
      continue;
    }
    std::byte* there = memory_at(w, lane, at, size, 1);
    if (there == nullptr) return;
    if (x.to_shared) {
      std::memcpy(here, there, size);
    } else if (x.reduce != nullptr) {
      x.reduce(there, here);
    } else {
      std::memcpy(there, here, size);
    }
  }
  if (x.has_barrier) arrive_bytes(w, lane, target.barrier, static_cast<uint32_t>(bytes));
}

void bulk_copy(const MicroOp& op, Warp& w, uint32_t mask) {
  const BulkCopy& x = w.block->code->bulk_copies[op.target];
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    TensorMap map;
    if (x.kind != BulkCopy::Kind::kLine) {
      const uint64_t address = value_of(x.map, w, lane);
      const std::byte* p = memory_at(w, lane, address, sizeof(map), 64);
      if (p == nullptr) return;
      std::memcpy(&map, p, sizeof(map));
      if (map.magic != TensorMap::kMagic || map.rank != x.rank) {
        return raise(w, FaultKind::kIllegalInstruction, address, lane);
      }
    }
    const uint64_t to = x.kind == BulkCopy::Kind::kTensorStore ? 0 : value_of(x.to, w, lane);
    const uint64_t barrier = x.has_barrier ? value_of(x.barrier, w, lane) : 0;
    // To several blocks of the cluster: to the same place in each.
    uint32_t blocks = x.multicast ? lanes<uint16_t>(w, x.blocks)[lane] : 1;
    for (uint32_t rank = 0; blocks != 0; blocks >>= 1, ++rank) {
      if ((blocks & 1) == 0) continue;
      Target target{to, barrier};
      if (x.multicast) target = {with_cluster_rank(to, rank), with_cluster_rank(barrier, rank)};
      if (x.kind == BulkCopy::Kind::kLine) {
        move_line(x, w, lane, target);
      } else {
        move_box(x, w, lane, map, target);
      }
      if (w.block->fault != FaultKind::kNone) return;
    }
  }
}

// imm bytes have arrived at the barrier in a.
void bytes_arrive(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    arrive_bytes(w, lane, memory_address(op, w, lane), op.target);
  }
}

constexpr HandlerRow kRows[] = {{"cp.async.bulk", bulk_copy}, {"mbarrier.bytes", bytes_arrive}};

}  // namespace

ReduceElement reduction_of(std::string_view operation, std::string_view type, uint8_t* bytes) {
  const std::string name = std::string(operation) + "." + std::string(type);
  for (const ReduceRow& row : kReductions) {
    if (row.name != name) continue;
    *bytes = row.bytes;
    return row.fn;
  }
  return nullptr;
}

HandlerRows bulk_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
