// Video instructions: vadd, vset4 and their kin.

#include <cstring>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

namespace {

using What = Video::What;
using Then = Video::Then;

template <class E>
struct Word {
  std::string_view word;
  E meaning;
};

constexpr Word<What> kOperations[] = {
    {"vadd", What::kAdd},         {"vsub", What::kSubtract},
    {"vavrg", What::kAverage},    {"vabsdiff", What::kDifference},
    {"vmin", What::kMinimum},     {"vmax", What::kMaximum},
    {"vshl", What::kShiftLeft},   {"vshr", What::kShiftRight},
    {"vmad", What::kMultiplyAdd},
};

constexpr Word<What> kComparisons[] = {
    {"eq", What::kEqual},     {"ne", What::kNotEqual}, {"lt", What::kLess},
    {"le", What::kLessEqual}, {"gt", What::kGreater},  {"ge", What::kGreaterEqual},
};

constexpr Word<Then> kSeconds[] = {{"add", Then::kAdd}, {"min", Then::kMinimum}, {"max", Then::kMaximum}};

constexpr std::string_view kParts[] = {"", "b0", "b1", "b2", "b3", "h0", "h1"};

// What follows the dot in %r1.h0.
std::string_view selector_of(const ptx::Operand& o) {
  const size_t dot = o.kind == ptx::Operand::Kind::kRegister ? o.name.find('.') : std::string_view::npos;
  return dot == std::string_view::npos ? std::string_view{} : o.name.substr(dot + 1);
}

bool part_of(const ptx::Operand& o, uint32_t* part) {
  const std::string_view selector = selector_of(o);
  for (uint32_t i = 0; i < std::size(kParts); ++i) {
    if (kParts[i] == selector) return *part = i, true;
  }
  return false;
}

// "b3210": the source of each element, the highest first; without a selector each element's own, from `first` on.
bool picks_of(const ptx::Operand& o, uint32_t count, uint32_t first, uint32_t* picks) {
  const std::string_view selector = selector_of(o);
  *picks = 0;
  for (uint32_t i = 0; i < count && selector.empty(); ++i) *picks |= (first + i) << (3 * i);
  if (selector.empty()) return true;
  if (selector.size() != count + 1 || selector[0] != (count == 2 ? 'h' : 'b')) return false;
  for (uint32_t i = 0; i < count; ++i) {
    const auto which = static_cast<uint32_t>(selector[count - i] - '0');
    if (which >= 2 * count) return false;
    *picks |= which << (3 * i);
  }
  return true;
}

// "b20": the elements of the destination that are written.
bool writes_of(const ptx::Operand& o, uint32_t count, uint32_t* write) {
  const std::string_view selector = selector_of(o);
  *write = selector.empty() ? (1u << count) - 1 : 0;
  if (selector.empty()) return true;
  if (selector[0] != (count == 2 ? 'h' : 'b')) return false;
  for (const char c : selector.substr(1)) {
    const auto which = static_cast<uint32_t>(c - '0');
    if (which >= count) return false;
    *write |= 1u << which;
  }
  return *write != 0;
}

}  // namespace

// The destination's type is left out where it has no meaning: vset's is that of its first source.
bool KernelLowering::lower_video() {
  std::string_view stem = in_->opcode;
  Video v{};
  if (stem.back() == '2' || stem.back() == '4') {
    v.elements = stem.back() == '2' ? 2 : 4;
    stem.remove_suffix(1);
  }
  const bool compares = stem == "vset", multiplies = stem == "vmad";
  for (const auto& row : kOperations) {
    if (row.word == stem) v.what = static_cast<uint64_t>(row.meaning);
  }
  bool compared = false;
  for (const auto& row : kComparisons) {
    if (compares && take(row.word)) v.what = static_cast<uint64_t>(row.meaning), compared = true;
  }
  for (const auto& row : kSeconds) {
    if (!multiplies && take(row.word)) v.then = static_cast<uint64_t>(row.meaning);
  }
  v.saturate = take("sat");
  const bool clamp = take("clamp");
  v.wrap = take("wrap");
  if (multiplies) {
    v.plus_one = take("po");
    v.shift = take("shr7") ? 7 : take("shr15") ? 15 : 0;
  }
  const Type d_type = compares ? Type::kU32 : take_type(), a_type = take_type(), b_type = take_type();
  if (b_type == Type::kNone || !done() || (compares && !compared) || (clamp && v.wrap != 0)) return unsupported();
  v.signed_d = ptx::is_signed(d_type);
  v.signed_a = ptx::is_signed(a_type);
  v.signed_b = ptx::is_signed(b_type);
  return v.elements == 0 ? emit_scalar_video(v) : emit_packed_video(v);
}

bool KernelLowering::emit_scalar_video(Video v) {
  uint32_t part_d = 0, part_a = 0, part_b = 0;
  if (!part_of(at(0), &part_d) || !part_of(at(1), &part_a) || !part_of(at(2), &part_b)) return unsupported();
  v.part_d = part_d;
  v.part_a = part_a;
  v.part_b = part_b;
  Operand a = at(1), b = at(2), c = at(3);
  const bool multiplies = static_cast<What>(v.what) == What::kMultiplyAdd;
  if (!multiplies && (a.negated || b.negated || c.negated)) return unsupported();
  v.negate_product = a.negated != b.negated;
  v.negate_c = c.negated;
  a.negated = b.negated = c.negated = false;
  // Without a third source there is nothing to merge with.
  if (count() == 3) c.kind = Operand::Kind::kInteger;
  return emit_video("video.scalar", v, a, b, c);
}

bool KernelLowering::emit_packed_video(Video v) {
  uint32_t picks_a = 0, picks_b = 0, write = 0;
  const auto elements = static_cast<uint32_t>(v.elements);
  if (!picks_of(at(1), elements, 0, &picks_a) || !picks_of(at(2), elements, elements, &picks_b) ||
      !writes_of(at(0), elements, &write)) {
    return unsupported();
  }
  v.pick_a = picks_a;
  v.pick_b = picks_b;
  v.write = write;
  return emit_video("video.packed", v, at(1), at(2), at(3));
}

bool KernelLowering::emit_video(const char* name, Video v, const Operand& a, const Operand& b, const Operand& c) {
  uint32_t dst = 0, s[3] = {};
  if (!dest(at(0), 4, &dst) || !source(a, Type::kU32, &s[0]) || !source(b, Type::kU32, &s[1]) ||
      !source(c, Type::kU32, &s[2])) {
    return false;
  }
  MicroOp& op = emit(find(name), dst, s[0], s[1], s[2]);
  std::memcpy(&op.imm, &v, sizeof(v));
  return true;
}

}  // namespace softgpu
