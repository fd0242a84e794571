// Bulk copies, tensor maps, and what blocks of a cluster do with each other.

#include <algorithm>

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
  if (take("tensor")) return reduces ? unsupported() : lower_bulk_tensor();
  BulkCopy x;
  std::vector<std::string_view> spaces;
  for (const std::string_view m : modifiers_) {
    if (m == "global" || m.starts_with("shared")) spaces.push_back(m);
  }
  if (spaces.size() != 2) return unsupported();
  std::erase_if(modifiers_, [](std::string_view m) { return m == "global" || m.starts_with("shared"); });
  if (!bulk_words(reduces, &x)) return false;
  x.to_shared = spaces[0] != "global";
  if (x.to_shared != x.has_barrier) return unsupported();
  uint32_t size = 0;
  if (!bulk_address(at(0), spaces[0], &x.to) || !bulk_address(at(1), spaces[1], &x.from)) return false;
  if (!source(at(2), Type::kU32, &size)) return false;
  x.size = size;
  if (x.has_barrier && !bulk_address(at(3), "shared", &x.barrier)) return false;
  if (x.multicast && !source(at(4), Type::kU16, 2, &x.blocks)) return false;
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

bool KernelLowering::lower_bulk_tensor() {
  BulkCopy x;
  const std::string_view dimensions = take_one_of({"1d", "2d", "3d", "4d", "5d"});
  take("tile");
  const std::string_view shared = take_one_of({"shared::cluster", "shared::cta"});
  if (dimensions.empty() || shared.empty() || !take("global") || !bulk_words(false, &x)) return unsupported();
  x.rank = static_cast<uint8_t>(dimensions[0] - '0');
  x.to_shared = x.has_barrier;
  x.kind = x.to_shared ? BulkCopy::Kind::kTensorLoad : BulkCopy::Kind::kTensorStore;
  const Operand& tensor = at(x.to_shared ? 1 : 0);
  if (tensor.kind != Operand::Kind::kAddress || tensor.parts.size() != 2) return fail("expected a tensor map");
  const Operand& where = tensor.parts[1];
  const bool list = where.kind == Operand::Kind::kVector;
  if ((list ? where.parts.size() : 1) != x.rank) return fail("wrong number of coordinates");
  for (uint32_t d = 0; d < x.rank; ++d) {
    if (!source(list ? where.parts[d] : where, Type::kS32, &x.coordinates[d])) return false;
  }
  Operand map = tensor;
  map.parts.resize(1);
  if (!bulk_address(map, "generic", &x.map)) return false;
  if (!bulk_address(at(x.to_shared ? 0 : 1), shared, x.to_shared ? &x.to : &x.from)) return false;
  if (x.has_barrier && !bulk_address(at(2), "shared", &x.barrier)) return false;
  if (x.multicast && !source(at(3), Type::kU16, 2, &x.blocks)) return false;
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
