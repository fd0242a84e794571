#include "softgpu/lower/liveness.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace softgpu {
namespace {

using ptx::Function;
using ptx::Instruction;
using ptx::Operand;

constexpr std::string_view kWithoutResult[] = {
    "st",  "red",     "prefetch", "prefetchu", "membar", "fence",   "exit",          "ret",  "cp",   "bra",
    "brx", "barrier", "call",     "nanosleep", "trap",   "discard", "applypriority", "sust", "sured"};

bool has_result(const Instruction& in) {
  if (in.operands.empty() || in.operands[0].kind == Operand::Kind::kAddress) return false;
  const bool barrier = in.opcode == "bar" || in.opcode == "barrier";
  if (barrier) return std::find(in.modifiers.begin(), in.modifiers.end(), "red") != in.modifiers.end();
  return std::find(std::begin(kWithoutResult), std::end(kWithoutResult), in.opcode) == std::end(kWithoutResult);
}

template <class F>
void for_each_register(const Operand& o, F f) {
  if (o.kind == Operand::Kind::kRegister) f(o.reg);
  for (const Operand& part : o.parts) for_each_register(part, f);
}

template <class F>
void for_each_use(const Instruction& in, F f) {
  if (in.guard >= 0) f(static_cast<uint32_t>(in.guard));
  for (size_t i = has_result(in) ? 1 : 0; i < in.operands.size(); ++i) for_each_register(in.operands[i], f);
}

template <class F>
void for_each_result(const Instruction& in, F f) {
  if (has_result(in) && !in.operands.empty()) for_each_register(in.operands[0], f);
}

bool ends_block(const Instruction& in) {
  return in.opcode == "bra" || in.opcode == "brx" || in.opcode == "ret" || in.opcode == "exit" || in.opcode == "trap";
}

using Bits = std::vector<uint64_t>;

bool test(const Bits& b, uint32_t i) { return (b[i / 64] >> (i % 64) & 1) != 0; }
void set(Bits* b, uint32_t i) { (*b)[i / 64] |= uint64_t{1} << (i % 64); }

struct BasicBlock {
  uint32_t begin = 0, end = 0;  // statements
  std::vector<uint32_t> next;
  Bits used, written;  // before any write; without a guard
  Bits in, out;
};

class Analysis {
 public:
  explicit Analysis(const Function& f) : f_(f), words_((f.registers.size() + 63) / 64) {}

  std::vector<LiveRange> run() {
    split();
    for (BasicBlock& b : blocks_) summarise(&b);
    while (propagate()) {
    }
    return ranges();
  }

 private:
  void split() {
    const auto n = static_cast<uint32_t>(f_.body.size());
    std::vector<bool> leader(n + 1, false);
    if (n > 0) leader[0] = true;
    for (uint32_t i = 0; i < n; ++i) {
      if (!ends_block(f_.body[i])) continue;
      leader[i + 1] = true;
      for (const uint32_t t : targets(f_.body[i])) leader[t] = true;
    }
    block_of_.assign(n + 1, 0);
    for (uint32_t i = 0; i < n; ++i) {
      if (leader[i]) {
        blocks_.emplace_back();
        blocks_.back().begin = i;
      }
      block_of_[i] = static_cast<uint32_t>(blocks_.size() - 1);
      blocks_.back().end = i + 1;
    }
    for (BasicBlock& b : blocks_) {
      const Instruction& last = f_.body[b.end - 1];
      for (const uint32_t t : targets(last)) {
        if (t < n) b.next.push_back(block_of_[t]);
      }
      const bool falls = !ends_block(last) || last.guard >= 0;
      if (falls && b.end < n) b.next.push_back(block_of_[b.end]);
    }
  }

  std::vector<uint32_t> targets(const Instruction& in) const {
    std::vector<uint32_t> out;
    if (in.opcode == "bra" && in.operands.size() == 1 && in.operands[0].kind == Operand::Kind::kLabel) {
      out.push_back(static_cast<uint32_t>(in.operands[0].bits));
    }
    if (in.opcode == "brx" && in.operands.size() == 2) {
      const auto table = f_.tables.find(in.operands[1].name);
      if (table != f_.tables.end()) {
        for (const Operand& o : table->second) out.push_back(static_cast<uint32_t>(o.bits));
      }
    }
    return out;
  }

  void summarise(BasicBlock* b) const {
    b->used.assign(words_, 0);
    b->written = b->in = b->out = b->used;
    for (uint32_t i = b->begin; i < b->end; ++i) {
      const Instruction& in = f_.body[i];
      for_each_use(in, [&](uint32_t r) {
        if (!test(b->written, r)) set(&b->used, r);
      });
      if (in.guard >= 0) continue;
      for_each_result(in, [&](uint32_t r) { set(&b->written, r); });
    }
  }

  bool propagate() {
    bool changed = false;
    for (size_t i = blocks_.size(); i-- > 0;) {
      BasicBlock& b = blocks_[i];
      for (const uint32_t n : b.next) {
        for (size_t w = 0; w < words_; ++w) b.out[w] |= blocks_[n].in[w];
      }
      for (size_t w = 0; w < words_; ++w) {
        const uint64_t in = b.used[w] | (b.out[w] & ~b.written[w]);
        changed |= in != b.in[w];
        b.in[w] = in;
      }
    }
    return changed;
  }

  std::vector<LiveRange> ranges() const {
    std::vector<LiveRange> out(f_.registers.size());
    const auto include = [&](uint32_t r, uint32_t at) {
      out[r].first = std::min(out[r].first, at);
      out[r].last = std::max(out[r].last, at);
    };
    for (const BasicBlock& b : blocks_) {
      for (uint32_t i = b.begin; i < b.end; ++i) {
        for_each_use(f_.body[i], [&](uint32_t r) { include(r, i); });
        for_each_result(f_.body[i], [&](uint32_t r) { include(r, i); });
      }
      include_all(b.in, [&](uint32_t r) { include(r, b.begin); });
      include_all(b.out, [&](uint32_t r) { include(r, b.end - 1); });
    }
    return out;
  }

  template <class F>
  static void include_all(const Bits& bits, F f) {
    for (size_t w = 0; w < bits.size(); ++w) {
      for (uint64_t left = bits[w]; left != 0; left &= left - 1) {
        f(static_cast<uint32_t>(w * 64 + static_cast<size_t>(__builtin_ctzll(left))));
      }
    }
  }

  const Function& f_;
  size_t words_;
  std::vector<BasicBlock> blocks_;
  std::vector<uint32_t> block_of_;
};

}  // namespace

// How many of the first registers are results, or results and parameters.
static size_t register_parameters(const Function& f, bool all) {
  const size_t count = f.returns.size() + (all ? f.params.size() : 0);
  size_t out = 0;
  for (size_t i = 0; i < count && i < f.variables.size(); ++i) {
    out += f.variables[i].space == ptx::Space::kRegister ? 1 : 0;
  }
  return f.entry ? 0 : out;
}

std::vector<uint32_t> writes(const Function& function) {
  std::vector<uint32_t> out(function.registers.size(), 0);
  for (const Instruction& in : function.body) {
    for_each_result(in, [&](uint32_t r) { ++out[r]; });
    if (in.opcode != "call" || in.operands.empty() || in.operands[0].kind != Operand::Kind::kList) continue;
    for_each_register(in.operands[0], [&](uint32_t r) { ++out[r]; });
  }
  // Parameters that are registers are written by the caller.
  const auto outer = static_cast<uint32_t>(register_parameters(function, true));
  for (uint32_t r = 0; r < outer; ++r) out[r] += 2;
  return out;
}

std::vector<bool> unread_registers(const Function& function) {
  std::vector<bool> out(function.registers.size(), true);
  for (const Instruction& in : function.body) {
    for_each_use(in, [&](uint32_t r) { out[r] = false; });
  }
  const auto outer = static_cast<uint32_t>(register_parameters(function, true));
  for (uint32_t r = 0; r < outer; ++r) out[r] = false;
  return out;
}

std::vector<LiveRange> live_ranges(const Function& function) {
  std::vector<LiveRange> out = Analysis(function).run();
  // Results are wanted wherever the function returns.
  const size_t results = register_parameters(function, false);
  for (size_t r = 0; r < results; ++r) out[r] = {0, static_cast<uint32_t>(function.body.size())};
  return out;
}

}  // namespace softgpu
