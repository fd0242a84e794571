// Loads, stores, atomics and what only concerns caches.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Space;
using ptx::Type;

// Order, scope and cache words. Loads and stores of x86 are strong enough for the first; the rest has no meaning here.
bool KernelLowering::take_memory_words() {
  static constexpr std::string_view kWords[] = {
      "weak",    "volatile", "relaxed", "acquire", "release", "acq_rel", "sc", "mmio", "gpu", "sys",     "cta",
      "cluster", "nc",       "ca",      "cg",      "cs",      "cv",      "lu", "wb",   "wt",  "unified", "noftz"};
  bool hint = false;
  std::erase_if(modifiers_, [&](std::string_view m) {
    hint = hint || m == "L2::cache_hint";
    return m.starts_with("L1::") || m.starts_with("L2::") || m.starts_with("level::") ||
           std::find(std::begin(kWords), std::end(kWords), m) != std::end(kWords);
  });
  return hint;
}

void KernelLowering::note_access(Access::Kind kind, bool shared, uint32_t bytes, uint32_t register_bytes) {
  static constexpr std::string_view kStrong[] = {"volatile", "relaxed", "acquire", "release", "acq_rel", "sc", "mmio"};
  Access access;
  access.op = static_cast<uint32_t>(code_->ops.size() - 1);
  access.kind = kind;
  access.shared = shared;
  access.strong = std::any_of(in_->modifiers.begin(), in_->modifiers.end(), [](std::string_view m) {
    return std::find(std::begin(kStrong), std::end(kStrong), m) != std::end(kStrong);
  });
  access.bytes = static_cast<uint8_t>(bytes);
  access.register_bytes = static_cast<uint8_t>(register_bytes);
  code_->accesses.push_back(access);
}

// Reads `[base + offset]` into a, y and imm; *space gets the name that handlers use.
bool KernelLowering::address(const Operand& o, std::string* space, MicroOp* op) {
  if (o.kind != Operand::Kind::kAddress) return fail("expected an address");
  if (o.parts.size() != 1) return unsupported();
  const Operand& base = o.parts[0];
  op->imm = o.offset;
  if (base.kind == Operand::Kind::kInteger) {
    op->imm += static_cast<int64_t>(base.bits);
    return true;
  }
  if (base.kind == Operand::Kind::kRegister) {
    const uint32_t width = register_width(base);
    if (width != 4 && width != 8) return fail("the address has the wrong size");
    op->a = register_offset(base.reg);
    op->y = width == 8 ? 2 : 1;
    return true;
  }
  uint64_t bits = 0;
  bool in_image = false;
  if (!symbol_address(base, &bits, &in_image)) return false;
  if (in_image) {
    Operand symbol = base;
    symbol.offset = 0;
    op->y = 2;
    return source(symbol, Type::kU64, &op->a);
  }
  // A symbol names its own space when the instruction does not.
  if (*space == "generic") {
    const Space own =
        base.kind == Operand::Kind::kVariable ? instance_->function->variables[base.reg].space : Space::kShared;
    if (own == Space::kShared) *space = "shared";
    if (own == Space::kLocal) *space = "local";
  }
  if (is_framed(base)) {
    op->a = instance_->frame;
    op->y = 1;
  }
  op->imm += static_cast<int64_t>(bits);
  return true;
}

namespace {

// The handlers' name of a state space. `.param` is the kernel's parameters or a call's arguments.
std::string space_name(std::string_view space) {
  if (space == "shared::cluster") return "generic";  // with the window added to the address
  if (space.starts_with("shared")) return "shared";
  if (space == "local") return "local";
  return "generic";
}

}  // namespace

bool KernelLowering::data_operands(const Operand& o, Type type, bool load, MicroOp* op, std::string* width) {
  const size_t n = o.kind == Operand::Kind::kVector ? o.parts.size() : 1;
  if (n != 1 && n != 2 && n != 4) return unsupported();
  op->vec = static_cast<uint8_t>(n);
  uint32_t regs[4] = {};
  uint32_t wide = 0;
  for (size_t i = 0; i < n; ++i)
    wide = std::max(wide, register_width(o.kind == Operand::Kind::kVector ? o.parts[i] : o));
  if (wide == 0) wide = width_of(type);
  for (size_t i = 0; i < n; ++i) {
    const Operand& part = o.kind == Operand::Kind::kVector ? o.parts[i] : o;
    if (load ? !dest(part, wide, &regs[i]) : !source(part, type, wide, &regs[i])) return false;
  }
  op->dst = regs[0];
  op->b = regs[1];
  op->c = regs[2];
  op->d = regs[3];
  *width = std::to_string(8 * wide);
  return true;
}

namespace {

// The memory type that a handler is named by: signed only where it widens.
std::string memory_name(Type type, const std::string& width) {
  const uint32_t bits = 8 * ptx::bytes_of(type);
  const bool widens = std::to_string(bits) != width;
  return (ptx::is_signed(type) && !ptx::is_float(type) && widens ? "s" : "u") + std::to_string(bits);
}

}  // namespace

// Raises a fault unless the address is a multiple of `bytes`.
void KernelLowering::check_alignment(const MicroOp& op, uint32_t bytes) {
  MicroOp& check = emit(find("align"), 0, op.a);
  check.imm = op.imm;
  check.y = op.y;
  check.target = bytes;
}

// Eight elements are two accesses of four. The address is kept where the first of them may overwrite it.
bool KernelLowering::wide_vector(const Operand& o, Type type, bool load, const std::string& place, MicroOp op) {
  const uint32_t bytes = ptx::bytes_of(type);
  check_alignment(op, 8 * bytes);
  if (load && op.y != 0) {
    const uint32_t kept = temporary(op.y == 2 ? 8 : 4);
    if (!emit_named(op.y == 2 ? "mov.b64" : "mov.b32", kept, op.a)) return false;
    op.a = kept;
  }
  for (size_t half = 0; half < 2; ++half) {
    Operand part;
    part.kind = Operand::Kind::kVector;
    part.parts.assign(o.parts.begin() + static_cast<ptrdiff_t>(4 * half),
                      o.parts.begin() + static_cast<ptrdiff_t>(4 * half + 4));
    std::string width;
    if (!data_operands(part, type, load, &op, &width)) return false;
    const Handler fn = find((load ? "ld." : "st.") + place + "." +
                            (load ? memory_name(type, width) : "u" + std::to_string(8 * bytes)) + "." + width);
    if (fn == nullptr) return unsupported();
    MicroOp& out = emit(fn, op.dst, op.a, op.b, op.c);
    out.d = op.d;
    out.imm = op.imm + static_cast<int64_t>(4 * half * bytes);
    out.vec = op.vec;
    out.y = op.y;
  }
  return true;
}

bool KernelLowering::lower_ld() {
  take_memory_words();
  const std::string_view space = take_one_of(
      {"global", "const", "shared", "shared::cta", "shared::cluster", "local", "param", "param::entry", "param::func"});
  take_one_of({"v2", "v4", "v8"});
  const Type type = take_type();
  if (type == Type::kNone || !done()) return unsupported();
  MicroOp op;
  std::string place = space_name(space);
  const Operand& from = at(1);
  const bool param = space.starts_with("param");
  const bool own = param && from.kind == Operand::Kind::kAddress && from.parts[0].kind == Operand::Kind::kVariable;
  if (param) {
    // Parameters of a called function, and results of a call, lie in local memory.
    bool entry = instance_->function->entry;
    if (own) {
      const auto& f = *instance_->function;
      entry = entry && from.parts[0].reg < f.params.size();
    }
    place = entry ? "kparam" : "local";
  }
  std::string width;
  if (!address(from, &place, &op)) return false;
  if (at(0).kind == Operand::Kind::kVector && at(0).parts.size() == 8) return wide_vector(at(0), type, true, place, op);
  if (!data_operands(at(0), type, true, &op, &width)) return false;
  if (space == "shared::cluster" && place == "generic") op.imm += static_cast<int64_t>(kSharedWindow);
  const Handler fn = find("ld." + place + "." + memory_name(type, width) + "." + width);
  if (fn == nullptr) return unsupported();
  MicroOp& out = emit(fn, op.dst, op.a, op.b, op.c);
  out.d = op.d;
  out.imm = op.imm;
  out.vec = op.vec;
  out.y = op.y;
  if (place == "generic" || place == "shared") {
    note_access(Access::Kind::kLoad, place == "shared", ptx::bytes_of(type) * op.vec, 0);
  }
  return true;
}

bool KernelLowering::lower_st() {
  if (take("bulk")) return lower_st_bulk();
  take_memory_words();
  const bool async = take("async") && take("mbarrier::complete_tx::bytes");
  const std::string_view space =
      take_one_of({"global", "shared", "shared::cta", "shared::cluster", "local", "param", "param::func"});
  take_one_of({"v2", "v4", "v8"});
  const Type type = take_type();
  if (type == Type::kNone || !done()) return unsupported();
  MicroOp op;
  std::string place = space.starts_with("param") ? "local" : space_name(space);
  std::string width;
  if (!address(at(0), &place, &op)) return false;
  if (at(1).kind == Operand::Kind::kVector && at(1).parts.size() == 8)
    return wide_vector(at(1), type, false, place, op);
  if (!data_operands(at(1), type, false, &op, &width)) return false;
  if (space == "shared::cluster" && place == "generic") op.imm += static_cast<int64_t>(kSharedWindow);
  const Handler fn = find("st." + place + ".u" + std::to_string(8 * ptx::bytes_of(type)) + "." + width);
  if (fn == nullptr) return unsupported();
  MicroOp& out = emit(fn, op.dst, op.a, op.b, op.c);
  out.d = op.d;
  out.imm = op.imm;
  out.vec = op.vec;
  out.y = op.y;
  if (place == "generic" || place == "shared") {
    note_access(Access::Kind::kStore, place == "shared", ptx::bytes_of(type) * op.vec,
                static_cast<uint32_t>(std::stoul(width)) / 8);
  }
  if (async) return lower_bytes_arrive(at(2), op.vec * ptx::bytes_of(type));
  return true;
}

bool KernelLowering::lower_atom() { return lower_atomic(false); }
bool KernelLowering::lower_red() { return lower_atomic(true); }

bool KernelLowering::lower_atomic(bool reduction) {
  take_memory_words();
  const bool async = take("async") && take("mbarrier::complete_tx::bytes");
  const std::string_view space = take_one_of({"global", "shared", "shared::cta", "shared::cluster"});
  const std::string_view what = take_one_of({"add", "and", "or", "xor", "min", "max", "inc", "dec", "exch", "cas"});
  const std::string_view vector = take_one_of({"v2", "v4", "v8"});
  const Type type = take_type();
  if (type == Type::kNone || what.empty() || !done()) return unsupported();
  if (!vector.empty()) return lower_atomic_vector(what, type, reduction, static_cast<size_t>(vector[1] - '0'));
  const size_t first = reduction ? 0 : 1;
  const uint32_t width = width_of(type);
  MicroOp op;
  std::string place = space_name(space);
  uint32_t dst = 0, b = 0, c = 0;
  if (!address(at(first), &place, &op) || !source(at(first + 1), type, &b)) return false;
  if (space == "shared::cluster" && place == "generic") op.imm += static_cast<int64_t>(kSharedWindow);
  if (what == "cas" && !source(at(first + 2), type, &c)) return false;
  if (reduction || at(0).kind == Operand::Kind::kSink) {
    dst = temporary(width);
  } else if (!dest(at(0), width, &dst)) {
    return false;
  }
  // Bitwise operations and exchanges do not look at the type; the others do.
  static constexpr std::string_view kByBits[] = {"and", "or", "xor", "exch", "cas"};
  const bool by_bits = std::find(std::begin(kByBits), std::end(kByBits), what) != std::end(kByBits);
  const std::string name = by_bits ? "b" + std::to_string(8 * width)
                           : ptx::is_float(type)
                               ? name_of(type)
                               : (ptx::is_signed(type) && what != "add" ? "s" : "u") + std::to_string(8 * width);
  const Handler fn = find("atom." + std::string(what) + "." + name);
  if (fn == nullptr) return unsupported();
  MicroOp& out = emit(fn, dst, op.a, b, c);
  out.imm = op.imm;
  out.y = op.y;
  out.x = place == "shared" ? 1 : 0;
  note_access(Access::Kind::kAtomic, place == "shared", width, 0);
  if (async) return lower_bytes_arrive(at(first + 2), width);
  return true;
}

// Each element is an atomic operation of its own: that is all PTX promises.
bool KernelLowering::lower_atomic_vector(std::string_view what, Type type, bool reduction, size_t elements) {
  const size_t first = reduction ? 0 : 1;
  MicroOp op;
  std::string place = "generic";
  const Handler fn = find("atom." + std::string(what) + "." + name_of(type));
  const Operand& data = at(first + 1);
  if (fn == nullptr || data.kind != Operand::Kind::kVector || data.parts.size() != elements) return unsupported();
  if (!reduction && (at(0).kind != Operand::Kind::kVector || at(0).parts.size() != elements)) return unsupported();
  if (!address(at(first), &place, &op)) return false;
  const uint32_t width = width_of(type);
  check_alignment(op, static_cast<uint32_t>(elements) * width);
  for (size_t i = 0; i < elements; ++i) {
    uint32_t dst = temporary(width), b = 0;
    if (!source(data.parts[i], type, &b) || (!reduction && !dest(at(0).parts[i], width, &dst))) return false;
    MicroOp& out = emit(fn, dst, op.a, b);
    out.imm = op.imm + static_cast<int64_t>(i * width);
    out.y = op.y;
  }
  return true;
}

bool KernelLowering::lower_nothing() { return true; }

bool KernelLowering::lower_fence() {
  emit(find("fence"));
  note_access(Access::Kind::kFence, false, 0, 0);
  return true;
}

bool KernelLowering::lower_createpolicy() {
  uint32_t dst = 0;
  return dest(at(0), 8, &dst) && emit_named("mov.b64", dst, constant(0, 8));
}

bool KernelLowering::lower_prefetch() { return true; }

}  // namespace softgpu
