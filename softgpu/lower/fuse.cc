// Operations that run faster together. The operations stay as they are, so that a turn may end between any two of them;
// the first of a row also gets a handler for all of it, which a warp takes when its turn is long enough.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {
namespace {

constexpr uint32_t kSkippedMost = 24;  // operations; a longer piece runs as a group of its own

bool unguarded(const MicroOp& op) { return op.guard == kTruePredicate && op.guard_xor == 0; }

// `if (lane == 0) ...`: a branch over a few operations that only fall through.
bool skips(const std::vector<MicroOp>& ops, uint32_t branch) {
  const uint32_t target = ops[branch].target;
  if (target <= branch || target > branch + 1 + kSkippedMost) return false;
  return std::all_of(ops.begin() + branch + 1, ops.begin() + target,
                     [](const MicroOp& op) { return op.flow == Flow::kPlain; });
}

}  // namespace

void KernelLowering::fuse(const Instance& instance) {
  mark_skips();
  fuse_reductions(instance);
}

void KernelLowering::mark_skips() {
  for (const auto& [op, statement] : fixups_) {
    if (code_->ops[op].flow == Flow::kBranch && skips(code_->ops, op)) code_->ops[op].x = 1;
  }
}

// The handler for a shuffle at `op` and the operation behind it that takes the shuffled value and what was shuffled;
// null where it is something else.
Handler KernelLowering::reduction_at(uint32_t op) const {
  if (op + 1 >= code_->ops.size()) return nullptr;
  const MicroOp &shuffle = code_->ops[op], &reduce = code_->ops[op + 1];
  if (!unguarded(shuffle) || !unguarded(reduce) || shuffle.e != kSinkPredicate) return nullptr;
  const bool joins =
      (reduce.a == shuffle.dst && reduce.b == shuffle.a) || (reduce.b == shuffle.dst && reduce.a == shuffle.a);
  if (!joins || shuffle.dst == shuffle.a || reduce.flow != Flow::kPlain) return nullptr;
  static constexpr const char* kShuffles[] = {"shfl.bfly", "shfl.down"};
  static constexpr const char* kOperations[] = {"add.u32", "add.s32", "add.f32", "min.u32", "min.s32", "min.f32",
                                                "max.u32", "max.s32", "max.f32", "and.b32", "or.b32",  "xor.b32"};
  for (const std::string name : kShuffles) {
    if (shuffle.fn == nullptr || shuffle.fn != find(name + ".whole")) continue;
    for (const char* operation : kOperations) {
      if (reduce.fn == find(operation)) return find(name + "+" + operation);
    }
  }
  return nullptr;
}

// From the last operation to the first, because each row goes on with the one behind it.
void KernelLowering::fuse_reductions(const Instance& instance) {
  const uint32_t begin = code_->functions[instance.code].entry;
  std::vector<MicroOp>& ops = code_->ops;
  uint32_t end = 0;  // of the row that begins at `row`
  uint32_t row = 0;
  for (auto op = static_cast<uint32_t>(ops.size()); op-- > begin;) {
    const Handler fused = reduction_at(op);
    if (fused == nullptr) continue;
    const bool goes_on = row == op + 2 && ops[row].fused == fused && ops[row].a == ops[op + 1].dst;
    if (!goes_on && end != 0) mark_unwanted(instance, row, end);
    if (!goes_on) end = op + 2;
    row = op;
    ops[op].fused = fused;
    ops[op].target = end - op;
  }
  if (end != 0) mark_unwanted(instance, row, end);
}

// Results that the row itself overwrites, or that nothing reads behind it.
void KernelLowering::mark_unwanted(const Instance& instance, uint32_t begin, uint32_t end) {
  const auto statement_of = [&](uint32_t op) {
    const auto after = std::upper_bound(instance.first_op.begin(), instance.first_op.end(), op);
    return static_cast<uint32_t>(after - instance.first_op.begin()) - 1;
  };
  const uint32_t last = statement_of(end - 1);
  for (uint32_t op = begin; op < end; ++op) {
    const uint32_t dst = code_->ops[op].dst;
    bool unwanted = false;
    for (uint32_t later = op + 1; later < end; ++later) unwanted = unwanted || code_->ops[later].dst == dst;
    const uint32_t statement = statement_of(op);
    if (statement < instance.function->body.size()) {
      const Operand& to = instance.function->body[statement].operands[0];
      const Operand& reg = to.kind == Operand::Kind::kPair ? to.parts[0] : to;
      unwanted = unwanted || (reg.kind == Operand::Kind::kRegister && instance.registers[reg.reg] == dst &&
                              instance.last_use[reg.reg] <= last);
    }
    code_->ops[op].y = unwanted ? 1 : 0;
  }
}

}  // namespace softgpu
