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
  if (x.masked) {
    const uint32_t mask = lanes<uint16_t>(w, x.mask)[lane];
    for (uint32_t i = 0; i < size; ++i) {
      if ((mask >> (i % 16) & 1) != 0) to[i] = from[i];
    }
  } else if (x.reduce == nullptr) {
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

// The elements that a copy moves, in the order in which they lie in shared memory.
class Box {
 public:
  Box(const BulkCopy& x, Warp& w, uint32_t lane, const TensorMap& map) : x_(x), map_(map) {
    for (uint32_t d = 0; d < 5; ++d) {
      if (x.coordinates[d] != 0) begin_[d] = static_cast<int32_t>(lanes<uint32_t>(w, x.coordinates[d])[lane]);
    }
    for (uint32_t d = 0; d < 3; ++d) {
      if (x.offsets[d] != 0) offset_[d] = lanes<uint16_t>(w, x.offsets[d])[lane];
    }
    const bool whole = !x.rows && !x.pixels;
    for (uint32_t d = 0; d < (whole ? map.rank : 1u); ++d) {
      length_[d] = (map.box[d] + map.steps[d] - 1u) / map.steps[d];
      elements_ *= length_[d];
    }
    if (x.rows) elements_ *= 4;
    if (x.pixels) elements_ *= map.pixels;
    place_ = begin_;
  }

  uint32_t elements() const { return elements_; }

  // Where element i is in the tensor; elements are asked for one after the other. False outside of it.
  bool find(uint32_t i, uint64_t* address) {
    if (x_.pixels) {
      find_pixel(i);
    } else if (x_.rows) {
      place_[0] = begin_[0] + static_cast<int64_t>(i % length_[0]) * map_.steps[0];
      place_[1] = begin_[1 + i / length_[0]];
    } else {
      for (uint32_t d = 0; d < map_.rank; ++d) {
        place_[d] = begin_[d] + static_cast<int64_t>(i % length_[d]) * map_.steps[d];
        i /= length_[d];
      }
    }
    bool inside = true;
    *address = map_.address;
    for (uint32_t d = 0; d < map_.rank; ++d) {
      const int64_t at = place_[d] + (x_.pixels && d > 0 && d + 1 < map_.rank ? offset_[d - 1] : 0);
      inside = inside && at >= 0 && at <= int64_t{map_.last[d]};
      *address += static_cast<uint64_t>(at) * (d == 0 ? map_.element_bytes : map_.strides[d - 1]);
    }
    return inside;
  }

 private:
  // Pixels follow each other through the part of the image between the corners, then through the next image.
  void find_pixel(uint32_t i) {
    const uint32_t channel = i % length_[0];
    place_[0] = begin_[0] + static_cast<int64_t>(channel) * map_.steps[0];
    if (i == 0 || channel != 0) return;
    for (uint32_t d = 1; d + 1 < map_.rank; ++d) {
      place_[d] += map_.steps[d];
      if (place_[d] <= int64_t{map_.last[d]} + map_.upper[d - 1]) return;
      place_[d] = map_.lower[d - 1];
    }
    ++place_[map_.rank - 1u];
  }

  const BulkCopy& x_;
  const TensorMap& map_;
  std::array<int64_t, 5> begin_{}, place_{};
  std::array<int64_t, 3> offset_{};
  std::array<uint32_t, 5> length_{1, 1, 1, 1, 1};  // elements that are taken
  uint32_t elements_ = 1;
};

void fill_outside(const TensorMap& map, std::byte* to) {
  std::memset(to, 0, map.element_bytes);
  for (uint32_t b = 0; map.outside != 0 && b + 2 <= map.element_bytes; b += 2) std::memcpy(to + b, &map.outside, 2);
}

// Moves the elements of the box, one after the other.
void move_box(const BulkCopy& x, Warp& w, uint32_t lane, const TensorMap& map, const Target& target) {
  Box box(x, w, lane, map);
  const uint32_t size = map.element_bytes;
  const uint64_t shared = x.to_shared ? target.to : value_of(x.from, w, lane);
  const uint64_t bytes = uint64_t{box.elements()} * size;
  const ReduceElement reduce = x.reduces_tensor ? x.reduce_types[static_cast<uint8_t>(map.type)] : nullptr;
  if (x.reduces_tensor && reduce == nullptr) return raise(w, FaultKind::kIllegalInstruction, map.address, lane);
  // Room for the last element, whose place the swizzle may move within its piece of 128 bytes.
  if (memory_at(w, lane, shared, bytes, map.swizzle == Swizzle::kNone ? 16 : 128) == nullptr) return;
  for (uint32_t i = 0; i < box.elements(); ++i) {
    uint64_t at = 0;
    const bool inside = box.find(i, &at);
    std::byte* here = translate_generic(w, lane, swizzled(shared + uint64_t{i} * size, map.swizzle), size);
    if (here == nullptr) return raise(w, FaultKind::kIllegalAddress, shared, lane);
    if (!inside) {
      if (x.to_shared) fill_outside(map, here);
      continue;
    }
    std::byte* there = memory_at(w, lane, at, size, 1);
    if (there == nullptr) return;
    if (x.to_shared) {
      std::memcpy(here, there, size);
    } else if (reduce != nullptr) {
      reduce(there, here);
    } else {
      std::memcpy(there, here, size);
    }
  }
  if (x.has_barrier) arrive_bytes(w, lane, target.barrier, static_cast<uint32_t>(bytes));
}

bool fits(const BulkCopy& x, const TensorMap& map) {
  if (map.magic != TensorMap::kMagic || map.image_to_column != x.pixels) return false;
  return x.rows ? map.rank == 2 : map.rank == x.rank;
}

void bulk_copy(const MicroOp& op, Warp& w, uint32_t mask) {
  const BulkCopy& x = w.block->code->bulk_copies[op.target];
  if (x.by_one_lane) mask &= ~mask + 1;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    TensorMap map;
    if (x.kind != BulkCopy::Kind::kLine) {
      const uint64_t address = value_of(x.map, w, lane);
      const std::byte* p = memory_at(w, lane, address, sizeof(map), 64);
      if (p == nullptr) return;
      std::memcpy(&map, p, sizeof(map));
      if (!fits(x, map)) {
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

// Zeroes; b: how many bytes, a number of `vec` bytes.
void store_bulk(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t bytes = op.vec == 8 ? lanes<uint64_t>(w, op.b)[lane] : lanes<uint32_t>(w, op.b)[lane];
    const uint64_t address = memory_address(op, w, lane);
    if (bytes % 8 != 0) return raise(w, FaultKind::kMisalignedAddress, bytes, lane);
    std::byte* p = memory_at(w, lane, address, bytes, 8);
    if (p == nullptr) return;
    std::memset(p, 0, bytes);
  }
}

constexpr HandlerRow kRows[] = {
    {"cp.async.bulk", bulk_copy}, {"mbarrier.bytes", bytes_arrive}, {"st.bulk", store_bulk}};

}  // namespace

uint64_t value_of(const AddressOperand& a, Warp& w, uint32_t lane) {
  const auto offset = static_cast<uint64_t>(a.offset);
  return offset + (a.form == 2 ? lanes<uint64_t>(w, a.reg)[lane] : a.form == 1 ? lanes<uint32_t>(w, a.reg)[lane] : 0);
}

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
