// Bulk copies, tensor maps, and what blocks of a cluster do with each other.

#include <algorithm>

#include "softgpu/exec/tensor_map.h"
#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

bool KernelLowering::bulk_address(const Operand& o, std::string_view space, AddressOperand* out) {
  MicroOp op;
  std::string place = "generic";
  if (space.starts_with("shared")) {
    if (!shared_address(o, space, &op)) return false;
  } else if (!address(o, &place, &op)) {
    return false;
  }
  *out = {op.a, op.y, op.imm};
  return true;
}

// cp.async.bulk and cp.reduce.async.bulk.
bool KernelLowering::lower_bulk() {
  const bool reduces = take("reduce");
  if (!take("async") || !take("bulk")) return unsupported();
  // These copies are made at once; what follows in the program sees them.
  if (take("commit_group")) return done();
  if (take("wait_group")) return take("read"), done();
  if (take("prefetch")) return true;
  if (take("tensor")) return lower_bulk_tensor(reduces);
  BulkCopy x;
  std::vector<std::string_view> spaces;
  for (const std::string_view m : modifiers_) {
    if (m == "global" || m.starts_with("shared")) spaces.push_back(m);
  }
  if (spaces.size() != 2) return unsupported();
  std::erase_if(modifiers_, [](std::string_view m) { return m == "global" || m.starts_with("shared"); });
  const bool cached = std::find(modifiers_.begin(), modifiers_.end(), "L2::cache_hint") != modifiers_.end();
  x.masked = take("cp_mask");
  if (!bulk_words(reduces, &x)) return false;
  x.to_shared = spaces[0] != "global";
  if (x.to_shared != x.has_barrier || (x.masked && (x.to_shared || reduces))) return unsupported();
  uint32_t size = 0;
  if (!bulk_address(at(0), spaces[0], &x.to) || !bulk_address(at(1), spaces[1], &x.from)) return false;
  if (!source(at(2), Type::kU32, &size)) return false;
  x.size = size;
  if (x.has_barrier && !bulk_address(at(3), "shared", &x.barrier)) return false;
  if (x.multicast && !source(at(4), Type::kU16, 2, &x.blocks)) return false;
  if (x.masked && !source(at(cached ? 4 : 3), Type::kU16, 2, &x.mask)) return false;
  return emit_bulk(x);
}

// How the copy says that it is done, and what a reduction computes.
bool KernelLowering::bulk_words(bool reduces, BulkCopy* x) {
  take_memory_words();
  x->has_barrier = take("mbarrier::complete_tx::bytes");
  if (x->has_barrier == take("bulk_group")) return unsupported();
  x->multicast = take("multicast::cluster");
  if (!reduces) return done();
  const std::string_view what = take_one_of({"add", "min", "max", "inc", "dec", "and", "or", "xor"});
  if (modifiers_.size() != 1) return unsupported();
  x->reduce = reduction_of(what, modifiers_[0], &x->element_bytes);
  return x->reduce != nullptr || unsupported();
}

bool KernelLowering::emit_bulk(const BulkCopy& x) {
  code_->bulk_copies.push_back(x);
  emit(find("cp.async.bulk")).target = static_cast<uint32_t>(code_->bulk_copies.size() - 1);
  return true;
}

// What a reduction computes on elements of each type; which one it is says the tensor map.
bool KernelLowering::tensor_reduction(BulkCopy* x) {
  const std::string_view what = take_one_of({"add", "min", "max", "inc", "dec", "and", "or", "xor"});
  if (what.empty()) return unsupported();
  const bool bits = what == "and" || what == "or" || what == "xor";
  x->reduces_tensor = true;
  for (uint8_t t = 0; t < x->reduce_types.size(); ++t) {
    const auto type = static_cast<TensorElement>(t);
    const std::string_view name = reduced_as(type);
    if (name.empty() || (bits && (name[0] == 'f' || name[0] == 'b'))) continue;
    const std::string by_bits = "b" + std::to_string(8 * bytes_of(type));
    uint8_t bytes = 0;
    x->reduce_types[t] = reduction_of(what, bits ? by_bits : name, &bytes);
  }
  return true;
}

bool KernelLowering::tensor_place(const Operand& tensor, BulkCopy* x) {
  if (tensor.kind != Operand::Kind::kAddress || tensor.parts.size() != 2) return fail("expected a tensor map");
  const Operand& where = tensor.parts[1];
  const bool list = where.kind == Operand::Kind::kVector;
  const size_t count = x->rows ? 5 : x->rank;
  if ((list ? where.parts.size() : 1) != count) return fail("wrong number of coordinates");
  for (size_t d = 0; d < count; ++d) {
    if (!source(list ? where.parts[d] : where, Type::kS32, &x->coordinates[d])) return false;
  }
  Operand map = tensor;
  map.parts.resize(1);
  return bulk_address(map, "generic", &x->map);
}

bool KernelLowering::lower_bulk_tensor(bool reduces) {
  BulkCopy x;
  const std::string_view dimensions = take_one_of({"1d", "2d", "3d", "4d", "5d"});
  const std::string_view mode = take_one_of({"tile", "tile::gather4", "tile::scatter4", "im2col", "im2col_no_offs"});
  take_one_of({"cta_group::1", "cta_group::2"});  // any block of the cluster may hear of the copy
  const std::string_view shared = take_one_of({"shared::cluster", "shared::cta"});
  if (dimensions.empty() || shared.empty() || !take("global")) return unsupported();
  if (reduces && !tensor_reduction(&x)) return false;
  if (!bulk_words(false, &x)) return unsupported();
  x.rank = static_cast<uint8_t>(dimensions[0] - '0');
  x.rows = mode == "tile::gather4" || mode == "tile::scatter4";
  x.pixels = mode.starts_with("im2col");
  x.to_shared = x.has_barrier;
  x.kind = x.to_shared ? BulkCopy::Kind::kTensorLoad : BulkCopy::Kind::kTensorStore;
  if ((x.to_shared && (reduces || mode == "tile::scatter4")) || (!x.to_shared && mode == "tile::gather4") ||
      (x.rows && x.rank != 2) || (x.pixels && x.rank < 3)) {
    return unsupported();
  }
  if (!tensor_place(at(x.to_shared ? 1 : 0), &x)) return false;
  if (!bulk_address(at(x.to_shared ? 0 : 1), shared, x.to_shared ? &x.to : &x.from)) return false;
  if (x.has_barrier && !bulk_address(at(2), "shared", &x.barrier)) return false;
  size_t next = 3;
  if (mode == "im2col") {
    const Operand& offsets = at(next++);
    const bool list = offsets.kind == Operand::Kind::kVector;
    if ((list ? offsets.parts.size() : 1) != x.rank - 2u) return fail("wrong number of offsets");
    for (uint32_t d = 0; d + 2 < x.rank; ++d) {
      if (!source(list ? offsets.parts[d] : offsets, Type::kU16, 2, &x.offsets[d])) return false;
    }
  }
  if (x.multicast && !source(at(next), Type::kU16, 2, &x.blocks)) return false;
  return emit_bulk(x);
}

bool KernelLowering::lower_barrier_cluster() {
  const bool wait = take("wait");
  const bool arrive = take("arrive");
  take_memory_words();
  take("aligned");
  if (!done() || wait == arrive) return unsupported();
  if (cluster_phase_ == 0) cluster_phase_ = allocate(4);
  if (arrive) return emit_named("cluster.arrive", cluster_phase_);
  const uint32_t waiting = waiting_lanes();
  const auto again = static_cast<uint32_t>(code_->ops.size());
  emit(find("cluster.wait"), 0, cluster_phase_).e = waiting;
  yield_lanes(waiting);
  MicroOp& back = emit(nullptr);
  back.flow = Flow::kBranch;
  back.guard = waiting;
  back.guard_xor = 0;
  back.target = again;
  return true;
}

bool KernelLowering::lower_mapa() {
  take("shared::cluster");
  const Type type = take_type();
  const uint32_t width = width_of(type);
  if ((width != 4 && width != 8) || !done()) return unsupported();
  uint32_t dst = 0, a = 0, rank = 0;
  return dest(at(0), width, &dst) && source(at(1), type, &a) && source(at(2), Type::kU32, &rank) &&
         emit_named("mapa." + std::to_string(8 * width), dst, a, rank);
}

bool KernelLowering::lower_getctarank() {
  take("shared::cluster");
  const Type type = take_type();
  if (!done()) return unsupported();
  uint32_t dst = 0, a = 0;
  return dest(at(0), 4, &dst) && source(at(1), type, &a) &&
         emit_named("getctarank." + std::to_string(8 * width_of(type)), dst, a, special32(Special::kClusterCtarank));
}

// st.async and red.async: as without `async`; then the barrier hears of the bytes.
bool KernelLowering::lower_bytes_arrive(const Operand& barrier, uint32_t bytes) {
  MicroOp to;
  if (!shared_address(barrier, "shared", &to)) return false;
  MicroOp& op = emit(find("mbarrier.bytes"), 0, to.a);
  op.imm = to.imm;
  op.y = to.y;
  op.target = bytes;
  return true;
}

}  // namespace softgpu
