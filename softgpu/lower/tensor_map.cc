// tensormap.replace, tensormap.cp_fenceproxy, st.bulk, clusterlaunchcontrol.

#include "softgpu/exec/tensor_map.h"

#include <iterator>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

namespace {

struct FieldRow {
  std::string_view name;
  TensorMapField field;
  bool indexed;  // of one dimension
};

constexpr FieldRow kFields[] = {
    {"global_address", TensorMapField::kAddress, false},
    {"rank", TensorMapField::kRank, false},
    {"box_dim", TensorMapField::kBox, true},
    {"global_dim", TensorMapField::kLength, true},
    {"global_stride", TensorMapField::kStride, true},
    {"element_stride", TensorMapField::kStep, true},
    {"elemtype", TensorMapField::kType, false},
    {"interleave_layout", TensorMapField::kInterleave, false},
    {"swizzle_mode", TensorMapField::kSwizzle, false},
    {"swizzle_atomicity", TensorMapField::kAtomicity, false},
    {"fill_mode", TensorMapField::kFill, false},
};

}  // namespace

bool KernelLowering::lower_tensormap() {
  if (take("cp_fenceproxy")) return lower_tensormap_copy();
  if (!take("replace") || !take("tile")) return unsupported();
  const FieldRow* row = nullptr;
  for (const FieldRow& r : kFields) {
    if (take(r.name)) row = &r;
  }
  const std::string_view space = take_one_of({"global", "shared::cta"});
  if (row == nullptr || !take("b1024")) return unsupported();
  const Type type = take_type();
  if ((type != Type::kB32 && type != Type::kB64) || !done()) return unsupported();
  MicroOp to;
  uint32_t value = 0;
  if (space == "shared::cta" ? !shared_address(at(0), space, &to) : !lower_generic_address(at(0), &to)) return false;
  if (row->indexed && (at(1).kind != Operand::Kind::kInteger || at(1).bits > 4)) return fail("not a dimension");
  if (!source(at(row->indexed ? 2 : 1), type, &value)) return false;
  MicroOp& op = emit(find("tensormap.replace"), 0, to.a, value);
  op.imm = to.imm;
  op.y = to.y;
  op.x = static_cast<uint8_t>(row->field);
  op.vec = static_cast<uint8_t>(width_of(type));
  op.target = row->indexed ? static_cast<uint32_t>(at(1).bits) : 0;
  return true;
}

// Whoever reads the map afterwards sees it: everything here is in order.
bool KernelLowering::lower_tensormap_copy() {
  for (const std::string_view word : {"global", "shared::cta", "tensormap::generic", "sync", "aligned"}) {
    if (!take(word)) return unsupported();
  }
  take_memory_words();
  if (!done() || at(2).kind != Operand::Kind::kInteger || at(2).bits != sizeof(TensorMap)) return unsupported();
  BulkCopy x;
  x.size = constant(sizeof(TensorMap), 4);
  x.by_one_lane = true;
  return bulk_address(at(0), "global", &x.to) && bulk_address(at(1), "shared", &x.from) && emit_bulk(x);
}

bool KernelLowering::lower_generic_address(const Operand& o, MicroOp* op) {
  std::string place = "generic";
  if (!address(o, &place, op)) return false;
  if (place == "shared") op->imm += static_cast<int64_t>(kSharedWindow);
  return true;
}

bool KernelLowering::lower_st_bulk() {
  take("weak");
  const std::string_view space = take_one_of({"shared::cta"});
  if (!done()) return unsupported();
  MicroOp to;
  uint32_t bytes = 0;
  if (space.empty() ? !lower_generic_address(at(0), &to) : !shared_address(at(0), space, &to)) return false;
  const bool wide = at(1).kind == Operand::Kind::kRegister && register_width(at(1)) == 8;
  if (!source(at(1), wide ? Type::kU64 : Type::kU32, &bytes)) return false;
  if (at(2).kind != Operand::Kind::kInteger || at(2).bits != 0) return fail("only zeroes are stored in bulk");
  MicroOp& op = emit(find("st.bulk"), 0, to.a, bytes);
  op.imm = to.imm;
  op.y = to.y;
  op.vec = wide ? 8 : 4;
  return true;
}

// A cluster that has not begun is taken from the grid, and its blocks' numbers are the answer.
bool KernelLowering::lower_clusterlaunchcontrol() {
  if (take("try_cancel")) {
    const bool words = take("async") && take("mbarrier::complete_tx::bytes") && take("b128");
    const std::string_view space = take_one_of({"shared::cta"});
    const bool all = take("multicast::cluster::all");
    if (!words || !done()) return unsupported();
    MicroOp to, barrier;
    if (!shared_address(at(0), space.empty() ? "" : "shared", &to)) return false;
    if (!shared_address(at(1), space.empty() ? "" : "shared", &barrier)) return false;
    BulkCopy x;
    x.to = {to.a, to.y, to.imm};
    x.barrier = {barrier.a, barrier.y, barrier.imm};
    x.multicast = all;
    code_->bulk_copies.push_back(x);
    emit(find("cluster.try_cancel")).target = static_cast<uint32_t>(code_->bulk_copies.size() - 1);
    return true;
  }
  if (!take("query_cancel") || !take("b128")) return unsupported();
  uint32_t answer = 0;
  if (!source(at(1), Type::kB128, &answer)) return false;
  if (take("is_canceled")) {
    uint32_t p = 0;
    return take("pred") && done() ? predicate_dest(at(0), &p) && emit_named("cluster.cancelled", p, answer)
                                  : unsupported();
  }
  const std::string_view which =
      take_one_of({"get_first_ctaid", "get_first_ctaid::x", "get_first_ctaid::y", "get_first_ctaid::z"});
  const bool four = take("v4");
  if (which.empty() || four != (which == "get_first_ctaid") || !take("b32") || !done()) return unsupported();
  const size_t count = four ? at(0).parts.size() : 1;
  if (four && (at(0).kind != Operand::Kind::kVector || count != 4)) return fail("wrong number of registers");
  for (size_t i = 0; i < count; ++i) {
    const Operand& part = four ? at(0).parts[i] : at(0);
    if (part.kind == Operand::Kind::kSink) continue;
    uint32_t dst = 0;
    if (!dest(part, 4, &dst)) return false;
    MicroOp& op = emit(find("cluster.word"), dst, answer);
    op.x = static_cast<uint8_t>(four ? i : static_cast<size_t>(which.back() - 'x'));
  }
  return true;
}

}  // namespace softgpu
