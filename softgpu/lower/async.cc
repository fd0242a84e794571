// Asynchronous copies, mbarrier.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

// The address of something that lies in shared memory, of this block or of another of the cluster.
bool KernelLowering::shared_address(const Operand& o, std::string_view space, MicroOp* op) {
  std::string place = space.empty() ? "generic" : "shared";
  if (!address(o, &place, op)) return false;
  if (place == "shared") op->imm += static_cast<int64_t>(kSharedWindow);
  return true;
}

// cp.async; what follows `async` says which.
bool KernelLowering::lower_cp() {
  if (modifiers_.size() >= 2 && modifiers_[0] == "async" && modifiers_[1] == "bulk") return lower_bulk();
  if (modifiers_.size() >= 2 && modifiers_[0] == "reduce") return lower_bulk();
  if (!take("async")) return unsupported();
  if (take("commit_group")) return done() && emit_named("cp.async.commit", 0);
  const bool all = take("wait_all");
  if (all || take("wait_group")) {
    if (!done()) return false;
    if (!all && at(0).kind != Operand::Kind::kInteger) return fail("the number of groups is not a constant");
    emit(find("cp.async.wait")).imm = all ? -1 : static_cast<int64_t>(at(0).bits);
    return true;
  }
  if (take("mbarrier")) return lower_cp_async_arrive();
  return lower_cp_async();
}

bool KernelLowering::lower_cp_async_arrive() {
  const bool counted = take("noinc");
  const std::string_view space = take_one_of({"shared", "shared::cta"});
  if (!take("arrive") || !take("b64") || !done()) return unsupported();
  MicroOp to;
  if (!shared_address(at(0), space, &to)) return false;
  MicroOp& op = emit(find("cp.async.arrive"), 0, to.a);
  op.imm = to.imm;
  op.y = to.y;
  op.x = counted ? 1 : 0;
  return true;
}

bool KernelLowering::lower_cp_async() {
  take_memory_words();
  const bool shapes = take_one_of({"shared", "shared::cta"}).empty() || !take("global");
  if (shapes || !done() || count() < 3 || at(2).kind != Operand::Kind::kInteger) return unsupported();
  if (at(2).bits != 4 && at(2).bits != 8 && at(2).bits != 16) return fail("copies are of 4, 8 or 16 bytes");
  MicroOp to, from;
  std::string shared = "shared", global = "generic";
  if (!address(at(0), &shared, &to) || !address(at(1), &global, &from)) return false;
  uint32_t size = constant(at(2).bits, 4), ignored = 0;
  if (at(3).kind == Operand::Kind::kRegister && register_width(at(3)) == 0) {
    if (!predicate_source(at(3), &ignored)) return false;
  } else if (count() > 3 && (at(3).kind == Operand::Kind::kInteger || register_width(at(3)) == 4)) {
    if (!source(at(3), Type::kU32, &size)) return false;
  }
  MicroOp& op = emit(find("cp.async"), to.a, from.a, size);
  op.d = ignored;
  op.imm = from.imm;
  op.target = static_cast<uint32_t>(to.imm);
  op.y = from.y;
  op.x = to.y;
  op.vec = static_cast<uint8_t>(at(2).bits);
  note_access(Access::Kind::kCopy, false, op.vec, 0);
  return true;
}

bool KernelLowering::lower_mbarrier() {
  const std::string_view what = take_one_of(
      {"init", "inval", "expect_tx", "complete_tx", "arrive", "arrive_drop", "pending_count", "test_wait", "try_wait"});
  // `arrive.expect_tx` has two of these words.
  const bool arrives = what == "arrive" || what == "arrive_drop" ||
                       (what == "expect_tx" && std::any_of(modifiers_.begin(), modifiers_.end(),
                                                           [](auto m) { return m == "arrive" || m == "arrive_drop"; }));
  if (arrives) return lower_mbarrier_arrive(what);
  if (what == "test_wait" || what == "try_wait") return lower_mbarrier_wait();
  const std::string_view space = take_one_of({"shared", "shared::cta", "shared::cluster"});
  take_memory_words();
  if (what.empty() || !take("b64") || !done()) return unsupported();
  if (what == "pending_count") {
    uint32_t dst = 0, a = 0;
    return dest(at(0), 4, &dst) && source(at(1), Type::kB64, &a) && emit_named("mbarrier.pending", dst, a);
  }
  MicroOp to;
  uint32_t count = 0;
  if (!shared_address(at(0), space, &to)) return false;
  if (what != "inval" && !source(at(1), Type::kU32, &count)) return false;
  const bool transaction = what == "expect_tx" || what == "complete_tx";
  MicroOp& op = emit(find(transaction ? "mbarrier.tx" : "mbarrier." + std::string(what)), 0, to.a, count);
  op.imm = to.imm;
  op.y = to.y;
  op.x = what == "complete_tx" ? 1 : 0;
  return true;
}

bool KernelLowering::lower_mbarrier_arrive(std::string_view first) {
  bool drop = first == "arrive_drop", expects = first == "expect_tx";
  expects = take("expect_tx") || expects;
  drop = take("arrive_drop") || drop;
  take("arrive");
  const bool incomplete = take("noComplete");
  const std::string_view space = take_one_of({"shared", "shared::cta", "shared::cluster"});
  take_memory_words();
  if (!take("b64") || !done()) return unsupported();
  // Without a result where the barrier is another block's.
  const size_t where = at(0).kind == Operand::Kind::kAddress ? 0 : 1;
  uint32_t dst = 0, arrivals = constant(1, 4), bytes = constant(0, 4);
  if (where == 0) {
    dst = temporary(8);
  } else if (!dest(at(0), 8, &dst)) {
    return false;
  }
  MicroOp to;
  if (!shared_address(at(where), space, &to)) return false;
  if (count() > where + 1 && !source(at(where + 1), Type::kU32, expects ? &bytes : &arrivals)) return false;
  MicroOp& op = emit(find("mbarrier.arrive"), dst, to.a, arrivals, bytes);
  op.imm = to.imm;
  op.y = to.y;
  op.x = drop ? 1 : 0;
  op.vec = incomplete ? 0 : 1;
  return true;
}

// Both forms of waiting only look; lanes that have to wait let other warps and blocks run.
bool KernelLowering::lower_mbarrier_wait() {
  const bool parity = take("parity");
  const std::string_view space = take_one_of({"shared", "shared::cta"});
  take_memory_words();
  if (!take("b64") || !done()) return unsupported();
  uint32_t done_lanes = 0, phase = 0;
  MicroOp from;
  if (!predicate_dest(at(0), &done_lanes) || !shared_address(at(1), space, &from)) return false;
  if (!source(at(2), parity ? Type::kU32 : Type::kB64, &phase)) return false;
  const uint32_t waiting = waiting_lanes();
  MicroOp& op = emit(find("mbarrier.test"), done_lanes, from.a, phase);
  op.imm = from.imm;
  op.y = from.y;
  op.x = parity ? 1 : 0;
  op.e = waiting;
  yield_lanes(waiting);
  return true;
}

// A predicate that is false in every lane until the operation that follows sets it.
uint32_t KernelLowering::waiting_lanes() {
  const uint32_t waiting = temporary_predicate(), guard = guard_, guard_xor = guard_xor_;
  guard_ = kTruePredicate;
  guard_xor_ = 0;
  emit(find("xor.pred"), waiting, kTruePredicate, kTruePredicate);
  guard_ = guard;
  guard_xor_ = guard_xor;
  return waiting;
}

void KernelLowering::yield_lanes(uint32_t waiting) {
  MicroOp& yield = emit(nullptr);
  yield.flow = Flow::kYield;
  yield.guard = waiting;
  yield.guard_xor = 0;
}

}  // namespace softgpu
