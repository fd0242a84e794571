// Calls: arguments, results, and the frames of functions that may be active more than once in a lane. Such a function
// has one set of registers like any other; what an outer activation holds there is kept aside while an inner one runs.

#include <algorithm>
#include <bit>
#include <cstring>

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"

namespace softgpu {

uint64_t warp_local_bytes(const Warp& warp) { return warp.block->memory.local_bytes; }

namespace {

constexpr uint32_t kStackAlign = 16;

uint32_t* stack_end(Warp& w) { return lanes<uint32_t>(w, w.block->code->stack_slot); }

// Registers of one lane to the end of its saved ones.
void save(Warp& w, const FunctionCode& f, uint32_t lane) {
  if (w.stacks == nullptr) w.stacks = std::make_unique<LaneStacks>();
  std::vector<std::byte>& to = w.stacks->saved[lane];
  for (const FunctionCode::Saved& r : f.saved) {
    const size_t at = to.size();
    if (r.width == 0) {
      to.push_back(static_cast<std::byte>(predicate(w, r.offset) >> lane & 1));
      continue;
    }
    to.resize(at + r.width);
    std::memcpy(to.data() + at, w.regs + r.offset + lane * r.width, r.width);
  }
}

void restore(Warp& w, const FunctionCode& f, uint32_t lane) {
  std::vector<std::byte>& from = w.stacks->saved[lane];
  for (size_t i = f.saved.size(); i-- > 0;) {
    const FunctionCode::Saved& r = f.saved[i];
    if (r.width == 0) {
      set_predicate(w, r.offset, uint32_t{1} << lane, from.back() == std::byte{0} ? 0 : ~uint32_t{0});
      from.pop_back();
      continue;
    }
    std::memcpy(w.regs + r.offset + lane * r.width, from.data() + from.size() - r.width, r.width);
    from.resize(from.size() - r.width);
  }
}

// Takes `bytes` of the lane's stack; ~0 after a fault.
uint32_t push(Warp& w, uint32_t lane, uint64_t bytes, uint64_t align) {
  const uint64_t begin = (stack_end(w)[lane] + align - 1) / align * align;
  const uint64_t room = w.block->memory.local_bytes;
  if (begin > room || bytes > room - begin) {
    raise(w, FaultKind::kStackOverflow, kLocalWindow + begin, lane);
    return ~uint32_t{0};
  }
  stack_end(w)[lane] = static_cast<uint32_t>(begin + bytes);
  return static_cast<uint32_t>(begin);
}

// A return is under way: imm is the function that the lanes leave.
void call_returning(const MicroOp& op, Warp& w, uint32_t mask) {
  uint32_t* returned = lanes<uint32_t>(w, w.block->code->returned_slot);
  for (uint32_t m = mask; m != 0; m &= m - 1) returned[std::countr_zero(m)] = static_cast<uint32_t>(op.imm);
}

// After a call: imm says where its results go.
void call_results(const MicroOp& op, Warp& w, uint32_t mask) {
  const KernelCode& code = *w.block->code;
  const CallSite& site = code.sites[static_cast<size_t>(op.imm)];
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const FunctionCode& f = code.functions[lanes<uint32_t>(w, code.returned_slot)[lane]];
    uint32_t frame = 0;
    if (f.frame_slot != 0) {
      frame = lanes<uint32_t>(w, f.frame_slot)[lane];
      stack_end(w)[lane] = frame;
      restore(w, f, lane);
    }
    const std::byte* from = w.local + lane * w.block->memory.local_bytes + frame;
    for (size_t i = 0; i < site.copies.size() && i < f.returns.size(); ++i) {
      std::memmove(call_place(w, lane, site, site.copies[i].from), from + f.returns[i],
                   std::min(site.copies[i].bytes, f.return_bytes[i]));
    }
  }
}

// dst: 4 or 8 bytes (x) of the lane's local address; b: bytes; imm: alignment.
void allocate(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t bytes = op.x == 8 ? lanes<uint64_t>(w, op.b)[lane] : lanes<uint32_t>(w, op.b)[lane];
    const uint32_t at = push(w, lane, bytes, static_cast<uint64_t>(op.imm));
    if (at == ~uint32_t{0}) return;
    if (op.x == 8) {
      lanes<uint64_t>(w, op.dst)[lane] = at;
    } else {
      lanes<uint32_t>(w, op.dst)[lane] = at;
    }
  }
}

void stack_save(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    if (op.x == 8) {
      lanes<uint64_t>(w, op.dst)[lane] = stack_end(w)[lane];
    } else {
      lanes<uint32_t>(w, op.dst)[lane] = stack_end(w)[lane];
    }
  }
}

void stack_restore(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    const uint64_t end = op.x == 8 ? lanes<uint64_t>(w, op.a)[lane] : lanes<uint32_t>(w, op.a)[lane];
    if (end > w.block->memory.local_bytes) return raise(w, FaultKind::kIllegalAddress, kLocalWindow + end, lane);
    stack_end(w)[lane] = static_cast<uint32_t>(end);
  }
}

constexpr HandlerRow kRows[] = {
    {"call.returning", call_returning}, {"call.results", call_results},  {"alloca", allocate},
    {"stacksave", stack_save},          {"stackrestore", stack_restore},
};

}  // namespace

HandlerRows call_rows() { return {kRows, std::size(kRows)}; }

bool enter_function(Warp& w, const MicroOp& op, uint32_t mask, uint32_t callee, uint32_t back) {
  const KernelCode& code = *w.block->code;
  const FunctionCode& f = code.functions[callee];
  const CallSite& site = code.sites[static_cast<size_t>(op.imm)];
  const auto first = static_cast<uint32_t>(std::countr_zero(mask));
  if (site.copies.size() != f.params.size()) {
    raise(w, FaultKind::kInvalidPc, callee, first);
    return false;
  }
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(m));
    uint32_t frame = 0;
    if (f.frame_slot != 0) {
      frame = push(w, lane, f.frame_bytes, kStackAlign);
      if (frame == ~uint32_t{0}) return false;
      save(w, f, lane);
    }
    std::byte* to = w.local + lane * w.block->memory.local_bytes + frame;
    for (size_t i = 0; i < site.copies.size(); ++i) {
      std::memmove(to + f.params[i], call_place(w, lane, site, site.copies[i].from),
                   std::min(site.copies[i].bytes, f.param_bytes[i]));
    }
    if (f.frame_slot != 0) lanes<uint32_t>(w, f.frame_slot)[lane] = frame;
    lanes<uint32_t>(w, f.return_slot)[lane] = back;
  }
  return true;
}

}  // namespace softgpu
