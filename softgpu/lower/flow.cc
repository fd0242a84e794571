// Branches, calls, barriers and what lanes of a warp do together.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

bool KernelLowering::lower_bra() {
  take("uni");
  if (!done()) return false;
  if (at(0).kind != Operand::Kind::kLabel) return fail("unknown label");
  fixups_.emplace_back(static_cast<uint32_t>(code_->ops.size()), static_cast<uint32_t>(at(0).bits));
  emit(nullptr).flow = Flow::kBranch;
  return true;
}

bool KernelLowering::lower_brx() {
  take("uni");
  if (!take("idx") || !done()) return unsupported();
  const auto table = instance_->function->tables.find(at(1).name);
  if (table == instance_->function->tables.end()) return fail("unknown table of branch targets");
  uint32_t index = 0;
  if (!source(at(0), Type::kU32, &index)) return false;
  MicroOp& op = emit(nullptr, 0, index);
  op.flow = Flow::kBranchTable;
  op.target = static_cast<uint32_t>(code_->tables.size());
  op.imm = static_cast<int64_t>(table->second.size());
  for (const Operand& o : table->second) {
    table_fixups_.emplace_back(static_cast<uint32_t>(code_->tables.size()), static_cast<uint32_t>(o.bits));
    code_->tables.push_back(0);
  }
  return true;
}

bool KernelLowering::lower_exit() {
  emit(nullptr).flow = Flow::kExit;
  return true;
}

bool KernelLowering::lower_trap() {
  emit(nullptr).flow = Flow::kTrap;
  return true;
}

bool KernelLowering::lower_nanosleep() {
  emit(nullptr).flow = Flow::kYield;
  return true;
}

// bar.sync, bar.arrive, bar.red and bar.warp.sync; `barrier` is the same with other alignment rules.
bool KernelLowering::lower_bar() {
  if (take("warp")) {
    if (!take("sync") || !done()) return unsupported();
    return warp_op(find("nothing"), 0, 0, 0, 0, kSinkPredicate, &at(0));
  }
  take("cta");
  take("aligned");
  const std::string_view what = take_one_of({"sync", "arrive", "red"});
  if (what.empty()) return unsupported();
  BarrierKind kind = what == "arrive" ? BarrierKind::kArrive : BarrierKind::kSync;
  size_t i = 0;
  uint32_t dst = 0, id = 0, expected = 0, p = kTruePredicate;
  if (what == "red") {
    const std::string_view op = take_one_of({"popc", "and", "or"});
    kind = op == "popc" ? BarrierKind::kRedPopc : op == "and" ? BarrierKind::kRedAnd : BarrierKind::kRedOr;
    take_type();
    if (op.empty() || (kind == BarrierKind::kRedPopc ? !dest(at(0), 4, &dst) : !predicate_dest(at(0), &dst)))
      return unsupported();
    i = 1;
  }
  if (!done() || !source(at(i), Type::kU32, &id)) return false;
  ++i;
  const bool has_count =
      at(i).kind == Operand::Kind::kInteger || (at(i).kind == Operand::Kind::kRegister && register_width(at(i)) == 4);
  if (has_count) {
    if (!source(at(i), Type::kU32, &expected)) return false;
    ++i;
  }
  if (what == "red" && !predicate_source(at(i), &p)) return false;
  MicroOp& op = emit(nullptr, dst, id, has_count ? expected : 0, p);
  op.flow = Flow::kBarrier;
  op.x = static_cast<uint8_t>(kind);
  return true;
}

bool KernelLowering::lower_barrier() {
  if (take("cluster")) return lower_barrier_cluster();
  return lower_bar();
}

// Runs fn when the lanes of the mask have met; without a mask at once.
bool KernelLowering::warp_op(Handler fn, uint32_t dst, uint32_t a, uint32_t b, uint32_t c, uint32_t e,
                             const Operand* mask) {
  if (fn == nullptr) return unsupported();
  uint32_t members = 0;
  if (mask == nullptr) {
    members = constant(~uint64_t{0}, 4);
  } else if (!source(*mask, Type::kU32, &members)) {
    return false;
  }
  MicroOp& op = emit(fn, dst, a, b, c);
  op.d = members;
  op.e = e;
  if (mask != nullptr) op.flow = Flow::kWarpSync;
  return true;
}

bool KernelLowering::lower_shfl() {
  const bool sync = take("sync");
  const std::string_view mode = take_one_of({"up", "down", "bfly", "idx"});
  const Type type = take_type();
  if (mode.empty() || width_of(type) != 4 || !done()) return unsupported();
  const bool pair = at(0).kind == Operand::Kind::kPair;
  uint32_t dst = 0, p = kSinkPredicate, a = 0, b = 0, c = 0;
  if (!dest(pair ? at(0).parts[0] : at(0), 4, &dst)) return false;
  if (pair && !predicate_dest(at(0).parts[1], &p)) return false;
  if (!source(at(1), type, &a) || !source(at(2), Type::kU32, &b) || !source(at(3), Type::kU32, &c)) return false;
  std::string name = "shfl." + std::string(mode);
  // Over the whole warp, by a distance that is known: c is what nvcc gives for a width of 32.
  uint64_t distance = 0, clamp = 0;
  const bool known = constant_at(b, &distance) && constant_at(c, &clamp) && (clamp & 0x1f1f) == (mode == "up" ? 0 : 31);
  if (known && find(name + ".whole") != nullptr) name += ".whole";
  if (!warp_op(find(name), dst, a, b, c, p, sync ? &at(4) : nullptr)) return false;
  if (known) code_->ops.back().imm = static_cast<int64_t>(distance & 31);
  return true;
}

bool KernelLowering::lower_vote() {
  const bool sync = take("sync");
  const std::string_view mode = take_one_of({"all", "any", "uni", "ballot"});
  take_type();
  if (mode.empty() || !done()) return unsupported();
  uint32_t dst = 0, p = 0;
  if (mode == "ballot" ? !dest(at(0), 4, &dst) : !predicate_dest(at(0), &dst)) return false;
  if (!predicate_source(at(1), &p)) return false;
  return warp_op(find("vote." + std::string(mode)), dst, p, 0, 0, kSinkPredicate, sync ? &at(2) : nullptr);
}

bool KernelLowering::lower_match() {
  take("sync");
  const std::string_view mode = take_one_of({"any", "all"});
  const Type type = take_type();
  if (mode.empty() || type == Type::kNone || !done()) return unsupported();
  const bool pair = at(0).kind == Operand::Kind::kPair;
  uint32_t dst = 0, p = kSinkPredicate, a = 0;
  if (!dest(pair ? at(0).parts[0] : at(0), 4, &dst)) return false;
  if (pair && !predicate_dest(at(0).parts[1], &p)) return false;
  if (!source(at(1), type, &a)) return false;
  return warp_op(find("match." + std::string(mode) + ".b" + std::to_string(8 * width_of(type))), dst, a, 0, 0, p,
                 &at(2));
}

bool KernelLowering::lower_redux() {
  take("sync");
  const std::string_view what = take_one_of({"add", "min", "max", "and", "or", "xor"});
  const bool magnitude = take("abs"), nan = take("NaN");
  const Type type = take_type();
  if (what.empty() || width_of(type) != 4 || !done()) return unsupported();
  uint32_t dst = 0, a = 0;
  if (!dest(at(0), 4, &dst) || !source(at(1), type, &a)) return false;
  std::string name = "redux." + std::string(what) + (magnitude ? ".abs" : "") + (nan ? ".nan" : "");
  if (ptx::is_float(type)) {
    name += ".f32";
  } else if (what == "min" || what == "max") {
    name += ptx::is_signed(type) ? ".s32" : ".u32";
  }
  return warp_op(find(name), dst, a, 0, 0, kSinkPredicate, &at(2));
}

bool KernelLowering::lower_activemask() {
  uint32_t dst = 0;
  return dest(at(0), 4, &dst) && emit_named("activemask", dst);
}

bool KernelLowering::lower_elect() {
  take("sync");
  if (!done() || at(0).kind != Operand::Kind::kPair) return unsupported();
  uint32_t dst = 0, p = 0;
  return dest(at(0).parts[0], 4, &dst) && predicate_dest(at(0).parts[1], &p) &&
         warp_op(find("elect"), dst, 0, 0, 0, p, &at(1));
}

}  // namespace softgpu
