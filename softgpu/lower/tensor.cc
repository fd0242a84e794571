// Matrix instructions: mma, wmma, ldmatrix, stmatrix, movmatrix.

#include <algorithm>
#include <charconv>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;
using Role = TensorCode::Role;

namespace {

struct ElementRow {
  std::string_view name;
  Element element;
  uint8_t bits;  // in a register
};

constexpr ElementRow kElements[] = {
    {"f16", Element::kF16, 16},  {"bf16", Element::kBf16, 16}, {"tf32", Element::kTf32, 32},
    {"f32", Element::kF32, 32},  {"f64", Element::kF64, 64},   {"s8", Element::kS8, 8},
    {"u8", Element::kU8, 8},     {"s4", Element::kS4, 4},      {"u4", Element::kU4, 4},
    {"b1", Element::kB1, 32},    {"s32", Element::kS32, 32},   {"e4m3", Element::kE4m3, 8},
    {"e5m2", Element::kE5m2, 8}, {"e3m2", Element::kE3m2, 8},  {"e2m3", Element::kE2m3, 8},
    {"e2m1", Element::kE2m1, 8},
};

uint8_t bits_of(Element element) {
  for (const ElementRow& row : kElements) {
    if (row.element == element) return row.bits;
  }
  return 32;
}

// Which shapes there are for the operands a and b.
struct ShapeRow {
  std::string_view elements;
  uint16_t m, n, k;
};

constexpr ShapeRow kMma[] = {
    {"16", 16, 8, 8},   {"16", 16, 8, 16},  {"tf32", 16, 8, 4}, {"tf32", 16, 8, 8}, {"f64", 8, 8, 4},
    {"f64", 16, 8, 4},  {"f64", 16, 8, 8},  {"f64", 16, 8, 16}, {"8", 8, 8, 16},    {"8", 16, 8, 16},
    {"8", 16, 8, 32},   {"4", 8, 8, 32},    {"4", 16, 8, 32},   {"4", 16, 8, 64},   {"b1", 8, 8, 128},
    {"b1", 16, 8, 128}, {"b1", 16, 8, 256}, {"fp8", 16, 8, 16}, {"fp8", 16, 8, 32},
};
constexpr ShapeRow kSparse[] = {
    {"16", 16, 8, 16}, {"16", 16, 8, 32}, {"tf32", 16, 8, 8}, {"tf32", 16, 8, 16}, {"8", 16, 8, 32},
    {"8", 16, 8, 64},  {"4", 16, 8, 64},  {"4", 16, 8, 128},  {"fp8", 16, 8, 64},
};
constexpr ShapeRow kWmma[] = {
    {"16", 16, 16, 16}, {"16", 8, 32, 16}, {"16", 32, 8, 16},   {"8", 16, 16, 16}, {"8", 8, 32, 16},
    {"8", 32, 8, 16},   {"4", 8, 8, 32},   {"tf32", 16, 16, 8}, {"f64", 8, 8, 4},  {"b1", 8, 8, 128},
};

std::string_view family(Element element) {
  switch (element) {
    case Element::kF16:
    case Element::kBf16:
      return "16";
    case Element::kTf32:
      return "tf32";
    case Element::kF64:
      return "f64";
    case Element::kS8:
    case Element::kU8:
      return "8";
    case Element::kS4:
    case Element::kU4:
      return "4";
    case Element::kB1:
      return "b1";
    case Element::kE4m3:
    case Element::kE5m2:
    case Element::kE3m2:
    case Element::kE2m3:
    case Element::kE2m1:
      return "fp8";
    default:
      return "";
  }
}

template <size_t N>
bool has_shape(const ShapeRow (&rows)[N], Element element, uint32_t m, uint32_t n, uint32_t k) {
  return std::any_of(std::begin(rows), std::end(rows), [&](const ShapeRow& row) {
    return row.elements == family(element) && row.m == m && row.n == n && row.k == k;
  });
}

// The accumulator's types that go with the operands.
bool accumulates(const MatrixMultiply& x) {
  const Element c = x.c.element, d = x.d.element;
  const auto either = [](Element e) { return e == Element::kF16 || e == Element::kF32; };
  const std::string_view of = family(x.a.element);
  if (x.a.element == Element::kBf16 || of == "tf32") return c == Element::kF32 && d == Element::kF32;
  if (of == "16") return either(c) && either(d);
  if (of == "fp8") return c == d && either(c);
  return c == d && c == (of == "f64" ? Element::kF64 : Element::kS32);
}

MatrixRounding rounding_of(std::string_view word) {
  if (word == "rz") return MatrixRounding::kZero;
  if (word == "rm") return MatrixRounding::kDown;
  return word == "rp" ? MatrixRounding::kUp : MatrixRounding::kNearest;
}

std::string_view multiply_name(Element element) {
  const std::string_view of = family(element);
  if (of == "f64") return "mma.f64";
  if (of == "b1") return "mma.b1";
  return of == "8" || of == "4" ? "mma.s32" : "mma.f32";
}

}  // namespace

Element KernelLowering::take_element() {
  for (auto at = modifiers_.begin(); at != modifiers_.end(); ++at) {
    for (const ElementRow& row : kElements) {
      if (row.name != *at) continue;
      modifiers_.erase(at);
      return row.element;
    }
  }
  return Element::kNone;
}

// "m16n8k16"
bool KernelLowering::take_shape(MatrixShape* out) {
  for (auto at = modifiers_.begin(); at != modifiers_.end(); ++at) {
    const char* p = at->data();
    const char* const end = p + at->size();
    bool ok = true;
    for (const auto& [letter, to] : {std::pair{'m', &out->m}, std::pair{'n', &out->n}, std::pair{'k', &out->k}}) {
      if (!ok || p == end || *p != letter) {
        ok = false;
        break;
      }
      const auto [stop, error] = std::from_chars(p + 1, end, *to);
      ok = error == std::errc() && stop != p + 1;
      p = stop;
    }
    if (!ok || p != end) continue;
    modifiers_.erase(at);
    return true;
  }
  return false;
}

bool KernelLowering::fragment(const Operand& o, Role role, uint32_t rows, uint32_t columns, bool result,
                              Fragment* out) {
  const bool list = o.kind == Operand::Kind::kVector;
  const size_t count = list ? o.parts.size() : 1;
  if (count > std::size(out->offset)) return fail("too many registers in an operand");
  const uint32_t bits = bits_of(out->element);
  out->width = bits == 64 ? 8 : 4;
  out->per = static_cast<uint8_t>(8u * out->width / bits);
  out->registers = static_cast<uint8_t>(count);
  const Type type = bits == 64 ? Type::kF64 : out->element == Element::kF32 ? Type::kF32 : Type::kB32;
  for (size_t i = 0; i < count; ++i) {
    const Operand& part = list ? o.parts[i] : o;
    if (result ? !dest(part, out->width, &out->offset[i]) : !source(part, type, out->width, &out->offset[i])) {
      return false;
    }
  }
  if (out->element == Element::kB1) (role == Role::kA ? columns : rows) /= 32;
  const auto elements = static_cast<uint32_t>(count * out->per);
  const uint32_t places = rows * columns * (role >= Role::kQuadA ? 4 : 1);
  // Half precision fragments of wmma hold their elements more than once.
  const bool again = in_->opcode == "wmma" && out->element == Element::kF16;
  if (again ? elements * 32 % places != 0 || elements == 0 : elements * 32 != places) {
    return fail("an operand has the wrong number of registers");
  }
  out->layout = code_->tensor.layout(role, rows, columns, out->per, elements);
  return true;
}

bool KernelLowering::multiply_fragments(MatrixMultiply* x) {
  const uint32_t stored = x->sparse ? x->k / 2u : x->k;
  return fragment(at(0), Role::kC, x->m, x->n, true, &x->d) && fragment(at(1), Role::kA, x->m, stored, false, &x->a) &&
         fragment(at(2), Role::kB, x->k, x->n, false, &x->b) && fragment(at(3), Role::kC, x->m, x->n, false, &x->c);
}

// m8n8k4 of half precision, made for the first tensor cores.
bool KernelLowering::quad_fragments(MatrixMultiply* x, bool row_a, bool column_b) {
  x->batches = 4;
  const auto accumulator = [](Element e) { return e == Element::kF16 ? Role::kQuadC16 : Role::kQuadC32; };
  return fragment(at(0), accumulator(x->d.element), 8, 8, true, &x->d) &&
         fragment(at(1), row_a ? Role::kQuadARow : Role::kQuadA, 8, 4, false, &x->a) &&
         fragment(at(2), column_b ? Role::kQuadBColumn : Role::kQuadB, 4, 8, false, &x->b) &&
         fragment(at(3), accumulator(x->c.element), 8, 8, false, &x->c);
}

bool KernelLowering::emit_multiply(const MatrixMultiply& x) {
  const Handler fn = find(std::string(multiply_name(x.a.element)));
  code_->tensor.multiplies.push_back(x);
  MicroOp& op = emit(fn);
  op.flow = Flow::kWarpSync;
  op.d = constant(~uint64_t{0}, 4);
  code_->ops.back().imm = reinterpret_cast<int64_t>(&code_->tensor.multiplies.back());
  return true;
}

// How the metadata of a sparse operand lies: see MatrixMultiply.
bool KernelLowering::sparse_operands(MatrixMultiply* x) {
  const uint32_t bits = bits_of(x->a.element);
  x->chunk = bits == 32 ? 2 : bits == 4 ? 8 : 4;
  x->unit = bits == 4 ? 2 : 1;
  const uint32_t metadata_bits = x->k / 2u * (bits == 32 ? 4 : bits == 4 ? 1 : 2);
  x->lanes_of_row = static_cast<uint8_t>(metadata_bits / 16);
  if (at(5).kind != Operand::Kind::kInteger) return fail("the sparsity selector is not a constant");
  if (at(5).bits * x->lanes_of_row >= 4) return fail("the sparsity selector is out of range");
  x->selector = static_cast<uint8_t>(at(5).bits);
  return source(at(4), Type::kB32, &x->metadata);
}

// The register with the factors, and {byte of it, thread of each four}.
bool KernelLowering::scale_operand(const Operand& factors, const Operand& where, MatrixMultiply::Scale* out) {
  if (where.kind != Operand::Kind::kVector || where.parts.size() != 2) return fail("expected {byte, thread}");
  return source(factors, Type::kB32, &out->factors) && source(where.parts[0], Type::kU16, 2, &out->byte) &&
         source(where.parts[1], Type::kU16, 2, &out->thread);
}

bool KernelLowering::lower_mma() {
  MatrixMultiply x;
  MatrixShape shape;
  x.sparse = !take_one_of({"sp", "sp::ordered_metadata"}).empty();
  if (!take("sync") || !take("aligned") || !take_shape(&shape)) return unsupported();
  x.saturate = take("satfinite");
  const bool and_bits = take("and");
  x.xor_bits = take("xor");
  if ((and_bits || x.xor_bits) != take("popc")) return unsupported();
  const std::string_view kind = take_one_of({"kind::f8f6f4", "kind::mxf8f6f4"});
  x.scaled = take("block_scale");
  if (x.scaled != (kind == "kind::mxf8f6f4") || (x.scaled && x.sparse)) return unsupported();
  if (x.scaled) take_one_of({"scale_vec::1X"});
  const std::string_view round = take_one_of({"rn", "rz", "rm", "rp"});
  std::vector<std::string_view> layouts;
  for (const std::string_view m : modifiers_) {
    if (m == "row" || m == "col") layouts.push_back(m);
  }
  if (layouts.size() != 2) return unsupported();
  std::erase_if(modifiers_, [](std::string_view m) { return m == "row" || m == "col"; });
  x.d.element = take_element();
  x.a.element = take_element();
  x.b.element = take_element();
  x.c.element = take_element();
  if (x.scaled && !take("ue8m0")) return unsupported();
  if (!modifiers_.empty() || count() != (x.sparse ? 6 : x.scaled ? 8 : 4) || !accumulates(x)) return unsupported();
  if (family(x.a.element) != family(x.b.element)) return unsupported();
  if (!round.empty() && round != "rn" && x.a.element != Element::kF64) return unsupported();
  x.rounding = rounding_of(round);
  x.m = static_cast<uint16_t>(shape.m);
  x.n = static_cast<uint16_t>(shape.n);
  x.k = static_cast<uint16_t>(shape.k);
  const bool row_a = layouts[0] == "row", column_b = layouts[1] == "col";
  if (!x.sparse && x.a.element == Element::kF16 && shape.m == 8 && shape.n == 8 && shape.k == 4) {
    return quad_fragments(&x, row_a, column_b) && emit_multiply(x);
  }
  const bool known =
      x.sparse ? has_shape(kSparse, x.a.element, x.m, x.n, x.k) : has_shape(kMma, x.a.element, x.m, x.n, x.k);
  if (!known || !row_a || !column_b) return unsupported();
  if (x.sparse && !sparse_operands(&x)) return false;
  if (x.scaled && (x.k != 32 || x.c.element != Element::kF32)) return unsupported();
  if (x.scaled && !(scale_operand(at(4), at(5), &x.scale_a) && scale_operand(at(6), at(7), &x.scale_b))) return false;
  return multiply_fragments(&x) && emit_multiply(x);
}

bool KernelLowering::lower_wmma() {
  if (take("load")) return lower_wmma_access(true);
  if (take("store")) return lower_wmma_access(false);
  return take("mma") ? lower_wmma_mma() : unsupported();
}

bool KernelLowering::lower_wmma_access(bool load) {
  const std::string_view which = load ? take_one_of({"a", "b", "c"}) : take_one_of({"d"});
  MatrixShape shape;
  const std::string_view layout = take_one_of({"row", "col"});
  if (which.empty() || layout.empty() || !take("sync") || !take("aligned") || !take_shape(&shape)) return unsupported();
  std::string place(take_one_of({"global", "shared", "shared::cta"}));
  MatrixAccess x;
  x.fragment.element = take_element();
  if (x.fragment.element == Element::kNone || !done()) return unsupported();
  const Role role = which == "a" ? Role::kA : which == "b" ? Role::kB : Role::kC;
  const uint32_t rows = role == Role::kB ? shape.k : shape.m, columns = role == Role::kA ? shape.k : shape.n;
  MicroOp from;
  place = place.starts_with("shared") ? "shared" : "generic";
  if (!address(at(load ? 1 : 0), &place, &from)) return false;
  if (!fragment(at(load ? 0 : 1), role, rows, columns, load, &x.fragment)) return false;
  const bool bits = x.fragment.element == Element::kB1;
  x.rows = static_cast<uint16_t>(bits && role == Role::kB ? rows / 32 : rows);
  x.columns = static_cast<uint16_t>(bits && role == Role::kA ? columns / 32 : columns);
  x.column_major = layout == "col";
  x.bits = bits_of(x.fragment.element);
  x.stride_bits = bits ? 1 : x.bits;
  // Narrower elements than bytes lie side by side along k.
  if ((bits || x.bits == 4) && x.column_major != (role == Role::kB)) return unsupported();
  uint32_t stride = constant(x.column_major ? rows : columns, 4);
  if (count() > 2 && !source(at(2), Type::kU32, &stride)) return false;
  code_->tensor.accesses.push_back(x);
  MicroOp& op = emit(find(load ? "wmma.load" : "wmma.store"), 0, from.a, stride);
  op.flow = Flow::kWarpSync;
  op.imm = from.imm + static_cast<int64_t>(place == "shared" ? kSharedWindow : 0);
  op.y = from.y;
  op.target = static_cast<uint32_t>(code_->tensor.accesses.size() - 1);
  const uint32_t all = constant(~uint64_t{0}, 4);
  code_->ops.back().d = all;
  return true;
}

bool KernelLowering::lower_wmma_mma() {
  MatrixMultiply x;
  MatrixShape shape;
  if (!take("sync") || !take("aligned") || !take_shape(&shape)) return unsupported();
  x.saturate = take("satfinite");
  const bool and_bits = take("and");
  x.xor_bits = take("xor");
  if ((and_bits || x.xor_bits) != take("popc")) return unsupported();
  take("rn");
  std::erase_if(modifiers_, [](std::string_view m) { return m == "row" || m == "col"; });
  x.d.element = take_element();
  x.a.element = take_element();
  x.b.element = take_element();
  x.c.element = take_element();
  if (x.b.element == Element::kNone) {  // half precision names only d and c
    x.c.element = x.a.element;
    x.a.element = x.b.element = Element::kF16;
  }
  if (!modifiers_.empty() || count() != 4 || !accumulates(x) || family(x.a.element) != family(x.b.element)) {
    return unsupported();
  }
  if (!has_shape(kWmma, x.a.element, shape.m, shape.n, shape.k)) return unsupported();
  x.m = static_cast<uint16_t>(shape.m);
  x.n = static_cast<uint16_t>(shape.n);
  x.k = static_cast<uint16_t>(shape.k);
  return multiply_fragments(&x) && emit_multiply(x);
}

// ldmatrix and stmatrix.
bool KernelLowering::lower_ldmatrix() {
  const bool load = in_->opcode == "ldmatrix";
  const bool transposed = take("trans");
  const std::string_view times = take_one_of({"x1", "x2", "x4"});
  std::string place(take_one_of({"shared", "shared::cta"}));
  if (!take("sync") || !take("aligned") || !take("m8n8") || !take("b16") || times.empty() || !done()) {
    return unsupported();
  }
  const Operand& list = at(load ? 0 : 1);
  const bool vector = list.kind == Operand::Kind::kVector;
  const size_t n = vector ? list.parts.size() : 1;
  if (n != static_cast<size_t>(times[1] - '0')) return fail("wrong number of registers");
  uint32_t regs[4] = {};
  for (size_t i = 0; i < n; ++i) {
    const Operand& part = vector ? list.parts[i] : list;
    if (load ? !dest(part, 4, &regs[i]) : !source(part, Type::kB32, &regs[i])) return false;
  }
  MicroOp from;
  place = place.empty() ? "generic" : "shared";
  if (!address(at(load ? 1 : 0), &place, &from)) return false;
  const uint32_t all = constant(~uint64_t{0}, 4);
  MicroOp& op = emit(find(std::string(in_->opcode)), regs[0], from.a, regs[1], regs[2]);
  op.e = regs[3];
  op.d = all;
  op.flow = Flow::kWarpSync;
  op.vec = static_cast<uint8_t>(n);
  op.x = transposed ? 1 : 0;
  op.y = from.y;
  op.imm = from.imm + static_cast<int64_t>(place == "shared" ? kSharedWindow : 0);
  return true;
}

bool KernelLowering::lower_movmatrix() {
  if (!take("sync") || !take("aligned") || !take("m8n8") || !take("trans") || !take("b16") || !done()) {
    return unsupported();
  }
  uint32_t dst = 0, a = 0;
  if (!dest(at(0), 4, &dst) || !source(at(1), Type::kB32, &a)) return false;
  const uint32_t all = constant(~uint64_t{0}, 4);
  MicroOp& op = emit(find("movmatrix"), dst, a);
  op.d = all;
  op.flow = Flow::kWarpSync;
  return true;
}

}  // namespace softgpu
