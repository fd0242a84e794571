// Modifiers, operands and the emission of micro-ops.

#include <algorithm>
#include <cstring>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Space;

bool KernelLowering::take(std::string_view word) {
  const auto at = std::find(modifiers_.begin(), modifiers_.end(), word);
  if (at == modifiers_.end()) return false;
  modifiers_.erase(at);
  return true;
}

std::string_view KernelLowering::take_one_of(std::initializer_list<std::string_view> words) {
  for (const std::string_view word : words) {
    if (take(word)) return word;
  }
  return {};
}

ptx::Type KernelLowering::take_type() {
  for (auto at = modifiers_.begin(); at != modifiers_.end(); ++at) {
    const Type type = ptx::type_of(*at);
    if (type != Type::kNone) {
      modifiers_.erase(at);
      return type;
    }
  }
  return Type::kNone;
}

bool KernelLowering::done() { return modifiers_.empty() || unsupported(); }

std::string KernelLowering::spelling() const {
  std::string out(in_->opcode);
  for (const std::string_view m : in_->modifiers) out.append(".").append(m);
  return out;
}

bool KernelLowering::fail(const std::string& what) {
  *error_ =
      "kernel " + info_->name + ", line " + std::to_string(in_->line) + ": instruction '" + spelling() + "': " + what;
  return false;
}

bool KernelLowering::unsupported() {
  missing_ = true;
  *error_ = "kernel " + info_->name + ", line " + std::to_string(in_->line) + ": instruction '" + spelling() +
            "' is not supported";
  return false;
}

const ptx::Operand& KernelLowering::at(size_t i) const {
  static const Operand kMissing;
  return i < in_->operands.size() ? in_->operands[i] : kMissing;
}

uint32_t KernelLowering::width_of(Type type) {
  if (type == Type::kPred) return 0;
  return std::max<uint32_t>(ptx::bytes_of(type), 2);
}

// Bytes of a lane; 0 for predicates and for what is no register.
uint32_t KernelLowering::register_width(const Operand& o) const {
  return o.kind == Operand::Kind::kRegister ? width_of(instance_->function->registers[o.reg]) : 0;
}

uint32_t KernelLowering::allocate(uint32_t width) {
  const uint32_t at = next_;
  next_ += width * 32;
  return at;
}

uint32_t KernelLowering::allocate_predicate() {
  if (predicates_left_ == 0) {
    next_predicate_ = next_;
    next_ += 64;
    predicates_left_ = 16;
  }
  --predicates_left_;
  const uint32_t at = next_predicate_;
  next_predicate_ += 4;
  return at;
}

uint32_t KernelLowering::temporary(uint32_t width) {
  std::vector<uint32_t>& pool = temporaries_[width];
  const size_t i = temporaries_used_[width]++;
  if (i == pool.size()) pool.push_back(width == 0 ? allocate_predicate() : allocate(width));
  return pool[i];
}

uint32_t KernelLowering::temporary_predicate() { return temporary(0); }

uint32_t KernelLowering::register_offset(uint32_t reg) {
  uint32_t& offset = instance_->registers[reg];
  if (offset == 0) {
    const uint32_t width = width_of(instance_->function->registers[reg]);
    offset = own(width);
  }
  return offset;
}

uint32_t KernelLowering::constant(uint64_t bits, uint32_t width) {
  if (width < 8) bits &= (uint64_t{1} << (8 * width)) - 1;
  const auto [at, fresh] = constants_.emplace(std::make_pair(width, bits), 0);
  if (fresh) {
    at->second = allocate(width);
    code_->constants.push_back({at->second, width, bits});
  }
  return at->second;
}

// Whether a constant lies at that place.
bool KernelLowering::constant_at(uint32_t offset, uint64_t* bits) const {
  const auto at = std::find_if(code_->constants.begin(), code_->constants.end(),
                               [&](const ConstantSlot& c) { return c.offset == offset; });
  if (at == code_->constants.end()) return false;
  *bits = at->bits;
  return true;
}

uint32_t KernelLowering::special32(Special which) {
  const auto [at, fresh] = specials_.emplace(static_cast<uint32_t>(which), 0);
  if (fresh) {
    at->second = allocate(4);
    code_->specials.push_back({which, at->second});
  }
  return at->second;
}

namespace {

struct SpecialName {
  std::string_view name;
  Special which;
};

constexpr SpecialName kSpecials[] = {
    {"%tid.x", Special::kTidX},
    {"%tid.y", Special::kTidY},
    {"%tid.z", Special::kTidZ},
    {"%ntid.x", Special::kNtidX},
    {"%ntid.y", Special::kNtidY},
    {"%ntid.z", Special::kNtidZ},
    {"%ctaid.x", Special::kCtaidX},
    {"%ctaid.y", Special::kCtaidY},
    {"%ctaid.z", Special::kCtaidZ},
    {"%nctaid.x", Special::kNctaidX},
    {"%nctaid.y", Special::kNctaidY},
    {"%nctaid.z", Special::kNctaidZ},
    {"%laneid", Special::kLaneId},
    {"%warpid", Special::kWarpId},
    {"%nwarpid", Special::kNwarpId},
    {"%smid", Special::kSmId},
    {"%nsmid", Special::kNsmId},
    {"%gridid", Special::kGridId},
    {"%lanemask_eq", Special::kLaneMaskEq},
    {"%lanemask_lt", Special::kLaneMaskLt},
    {"%lanemask_le", Special::kLaneMaskLe},
    {"%lanemask_gt", Special::kLaneMaskGt},
    {"%lanemask_ge", Special::kLaneMaskGe},
    {"%dynamic_smem_size", Special::kDynamicShared},
    {"%total_smem_size", Special::kTotalShared},
    {"%envreg1", Special::kEnvreg1},
    {"%envreg2", Special::kEnvreg2},
};

struct FixedName {
  std::string_view name;
  uint32_t value;
};

constexpr FixedName kFixed[] = {
    {"WARP_SZ", 32},
    {"%tid.w", 0},
    {"%ntid.w", 1},
    {"%ctaid.w", 0},
    {"%nctaid.w", 1},
    {"%reserved_smem_offset_begin", 0},
    {"%reserved_smem_offset_0", 0},
    {"%reserved_smem_offset_1", kReservedSharedUser},
    {"%reserved_smem_offset_end", kReservedSharedBytes},
    {"%reserved_smem_offset_cap", kReservedSharedBytes},
};

struct ClusterName {
  std::string_view name;
  Special which;
};

constexpr ClusterName kClusters[] = {
    {"%cluster_ctaid.x", Special::kClusterCtaidX},   {"%cluster_ctaid.y", Special::kClusterCtaidY},
    {"%cluster_ctaid.z", Special::kClusterCtaidZ},   {"%cluster_ctarank", Special::kClusterCtarank},
    {"%cluster_nctaid.x", Special::kClusterNctaidX}, {"%cluster_nctaid.y", Special::kClusterNctaidY},
    {"%cluster_nctaid.z", Special::kClusterNctaidZ}, {"%cluster_nctarank", Special::kClusterNctarank},
    {"%clusterid.x", Special::kClusterIdX},          {"%clusterid.y", Special::kClusterIdY},
    {"%clusterid.z", Special::kClusterIdZ},          {"%nclusterid.x", Special::kNclusterIdX},
    {"%nclusterid.y", Special::kNclusterIdY},        {"%nclusterid.z", Special::kNclusterIdZ},
};

}  // namespace

bool KernelLowering::is_special(std::string_view name) {
  const auto has = [&](const auto& table) {
    return std::any_of(std::begin(table), std::end(table), [&](const auto& row) { return row.name == name; });
  };
  static constexpr std::string_view kOthers[] = {"%clock64",
                                                 "%clock",
                                                 "%clock_hi",
                                                 "%globaltimer",
                                                 "%globaltimer_lo",
                                                 "%globaltimer_hi",
                                                 "%aggr_smem_size",
                                                 "%tid",
                                                 "%ntid",
                                                 "%ctaid",
                                                 "%nctaid",
                                                 "%is_explicit_cluster",
                                                 "%clusterid",
                                                 "%nclusterid",
                                                 "%cluster_ctaid",
                                                 "%cluster_nctaid",
                                                 "%current_graph_exec"};
  return has(kSpecials) || has(kClusters) || has(kFixed) || name.starts_with("%envreg") || name.starts_with("%pm") ||
         std::find(std::begin(kOthers), std::end(kOthers), name) != std::end(kOthers);
}

bool KernelLowering::special(std::string_view name, uint32_t* offset, uint32_t* width) {
  *width = 4;
  for (const SpecialName& row : kSpecials) {
    if (row.name == name) return *offset = special32(row.which), true;
  }
  for (const ClusterName& row : kClusters) {
    if (row.name == name) return *offset = special32(row.which), true;
  }
  for (const FixedName& row : kFixed) {
    if (row.name == name) return *offset = constant(row.value, 4), true;
  }
  if (name.starts_with("%envreg")) return *offset = constant(0, 4), true;
  if (name == "%aggr_smem_size") return *offset = special32(Special::kTotalShared), true;
  if (name == "%current_graph_exec") return *width = 8, *offset = constant(0, 8), true;
  const bool wide = name == "%clock64" || name == "%globaltimer";
  if (wide || name == "%clock" || name == "%clock_hi" || name == "%globaltimer_lo" || name == "%globaltimer_hi") {
    *width = wide ? 8 : 4;
    *offset = temporary(*width);
    return emit_named(std::string(name.substr(1)), *offset);
  }
  if (name.starts_with("%pm")) return *offset = constant(0, 4), true;
  missing_ = true;
  return fail("special register '" + std::string(name) + "' is not supported");
}

// An immediate as the bits of `type`.
uint64_t KernelLowering::immediate(const Operand& o, Type type) const {
  if (o.kind == Operand::Kind::kReal && (type == Type::kF32 || width_of(type) == 4)) {
    double d = 0;
    std::memcpy(&d, &o.bits, 8);
    const auto f = static_cast<float>(d);
    uint32_t bits = 0;
    std::memcpy(&bits, &f, 4);
    return bits;
  }
  if (o.kind == Operand::Kind::kReal32 && type == Type::kF64) {
    float f = 0;
    std::memcpy(&f, &o.bits, 4);
    const double d = f;
    uint64_t bits = 0;
    std::memcpy(&bits, &d, 8);
    return bits;
  }
  return o.bits;
}

// The value of a symbol's address: a number, or an offset in the image.
bool KernelLowering::symbol_address(const Operand& o, uint64_t* bits, bool* in_image) {
  *in_image = false;
  if (o.kind == Operand::Kind::kVariable) {
    *bits = instance_->variables[o.reg] + static_cast<uint64_t>(o.offset);
    return true;
  }
  const uint32_t unit = instance_->function->unit;
  if (const int64_t v = module_.find_variable(unit, o.name); v >= 0) {
    const auto index = static_cast<uint32_t>(v);
    if (const auto shared = shared_of_.find(index); shared != shared_of_.end()) {
      *bits = shared->second + static_cast<uint64_t>(o.offset);
      return true;
    }
    if (!image_.offset_of(index, bits)) return fail("symbol '" + std::string(o.name) + "' is not defined");
    *bits += static_cast<uint64_t>(o.offset);
    *in_image = true;
    return true;
  }
  if (const int64_t f = module_.find_function(unit, o.name); f >= 0) {
    *bits = kCodeWindow + 16 * static_cast<uint64_t>(f);
    return true;
  }
  return fail("unknown symbol '" + std::string(o.name) + "'");
}

bool KernelLowering::source(const Operand& o, Type type, uint32_t width, uint32_t* out) {
  if (o.negated) return fail("operand '" + std::string(o.name) + "' cannot be negated");
  switch (o.kind) {
    case Operand::Kind::kRegister:
      if (register_width(o) != width) return fail("operand '" + std::string(o.name) + "' has the wrong size");
      *out = register_offset(o.reg);
      return true;
    case Operand::Kind::kInteger:
    case Operand::Kind::kReal:
    case Operand::Kind::kReal32:
      *out = constant(immediate(o, type), width);
      return true;
    case Operand::Kind::kSpecial: {
      uint32_t have = 0;
      if (!special(o.name, out, &have)) return false;
      if (have == width) return true;
      const uint32_t wide = temporary(width);
      if (!emit_named("cvt." + std::to_string(8 * width) + (have == 8 ? ".u64" : ".u32"), wide, *out)) return false;
      *out = wide;
      return true;
    }
    case Operand::Kind::kVariable:
    case Operand::Kind::kSymbol: {
      uint64_t bits = 0;
      bool in_image = false;
      if (!symbol_address(o, &bits, &in_image)) return false;
      if (is_framed(o)) {
        if (width != 4 && width != 8) return fail("the address of '" + std::string(o.name) + "' needs 32 bits");
        uint32_t frame = instance_->frame;
        *out = temporary(width);
        if (width == 8 && !emit_named("cvt.64.u32", frame = temporary(8), instance_->frame)) return false;
        return emit_named(width == 8 ? "add.u64" : "add.u32", *out, frame, constant(bits, width));
      }
      if (!in_image || width != 8) {
        if (in_image) return fail("the address of '" + std::string(o.name) + "' needs 64 bits");
        *out = constant(bits, width);
        return true;
      }
      const auto [slot, fresh] = image_slots_.emplace(bits, 0);
      if (fresh) {
        slot->second = allocate(8);
        code_->image_slots.push_back({slot->second, bits});
      }
      *out = slot->second;
      return true;
    }
    default:
      return fail("an operand is missing or of the wrong kind");
  }
}

bool KernelLowering::predicate_source(const Operand& o, uint32_t* out) {
  if (o.kind == Operand::Kind::kSpecial && o.name == "%is_explicit_cluster") {
    *out = temporary_predicate();
    return emit_named("setp.ne.u32", *out, special32(Special::kExplicitCluster), constant(0, 4));
  }
  if (o.kind == Operand::Kind::kInteger) {
    const bool value = (o.bits != 0) != o.negated;
    *out = kTruePredicate;
    if (value) return true;
    *out = allocate_predicate();  // nothing ever sets it
    return true;
  }
  if (o.kind != Operand::Kind::kRegister || register_width(o) != 0) return fail("expected a predicate");
  *out = register_offset(o.reg);
  if (!o.negated) return true;
  const uint32_t inverse = temporary_predicate();
  if (!emit_named("not.pred", inverse, *out)) return false;
  *out = inverse;
  return true;
}

bool KernelLowering::dest(const Operand& o, uint32_t width, uint32_t* out) {
  if (o.kind == Operand::Kind::kSink) {
    *out = temporary(width);
    return true;
  }
  if (o.kind != Operand::Kind::kRegister || register_width(o) != width) {
    return fail("destination '" + std::string(o.name) + "' has the wrong size");
  }
  *out = register_offset(o.reg);
  return true;
}

bool KernelLowering::predicate_dest(const Operand& o, uint32_t* out) {
  if (o.kind == Operand::Kind::kSink) {
    *out = kSinkPredicate;
    return true;
  }
  if (o.kind != Operand::Kind::kRegister || register_width(o) != 0) return fail("expected a predicate");
  // Shuffles mostly give a predicate that nobody asked for.
  *out = o.reg < instance_->unread.size() && instance_->unread[o.reg] ? kSinkPredicate : register_offset(o.reg);
  return true;
}

Handler KernelLowering::find(const std::string& name) const {
  const auto at = handlers_.find(name);
  return at == handlers_.end() ? nullptr : at->second;
}

MicroOp& KernelLowering::emit(Handler fn, uint32_t dst, uint32_t a, uint32_t b, uint32_t c) {
  MicroOp op;
  op.fn = fn;
  op.dst = dst;
  op.a = a;
  op.b = b;
  op.c = c;
  op.e = kSinkPredicate;
  op.guard = guard_;
  op.guard_xor = guard_xor_;
  code_->ops.push_back(op);
  code_->lines.push_back(in_->line);
  code_->text_of.push_back(static_cast<uint32_t>(code_->texts.size() - 1));
  return code_->ops.back();
}

bool KernelLowering::emit_named(const std::string& name, uint32_t dst, uint32_t a, uint32_t b, uint32_t c) {
  const Handler fn = find(name);
  if (fn == nullptr) return unsupported();
  emit(fn, dst, a, b, c);
  return true;
}

}  // namespace softgpu
