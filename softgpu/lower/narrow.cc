// cvt from and to pairs of floats of eight bits and less, and to tf32.

#include <algorithm>

#include "softgpu/lower/kernel_lowering.h"

namespace softgpu {

using ptx::Type;

namespace {

constexpr std::string_view kNarrow[] = {"e4m3x2", "e5m2x2", "e3m2x2", "e2m3x2", "e2m1x2", "ue8m0x2", "tf32"};

}  // namespace

bool KernelLowering::is_narrow_cvt() const {
  return std::any_of(modifiers_.begin(), modifiers_.end(), [](std::string_view m) {
    return std::find(std::begin(kNarrow), std::end(kNarrow), m) != std::end(kNarrow);
  });
}

bool KernelLowering::lower_cvt_narrow() {
  const std::string_view round = take_one_of({"rn", "rna", "rz", "rp"});
  const bool finite = take("satfinite"), relu = take("relu");
  if (modifiers_.size() != 2) return unsupported();
  const std::string to(modifiers_[0]), from(modifiers_[1]);
  const std::string types = to + "." + from;
  std::string name = "cvt.";
  if (to == "tf32" || to == "ue8m0x2") {
    name += std::string(round) + "." + (finite ? "satfinite." : "");
  } else if (round != "rn" || finite != (ptx::type_of(to) == Type::kNone)) {
    return unsupported();
  }
  const Handler fn = find(name + (relu ? "relu." : "") + types);
  if (fn == nullptr) return unsupported();
  const uint32_t to_width = ptx::type_of(to) == Type::kNone && to != "tf32" ? 2 : 4;
  const uint32_t from_width = ptx::type_of(from) == Type::kNone ? 2 : 4;
  uint32_t dst = 0, a = 0, b = 0;
  if (!dest(at(0), to_width, &dst)) return false;
  if (!source(at(1), from == "f32" ? Type::kF32 : Type::kB32, from_width, &a)) return false;
  const bool two = to != "tf32" && from == "f32";
  if (count() != (two ? 3 : 2)) return unsupported();
  if (two && !source(at(2), Type::kF32, 4, &b)) return false;
  emit(fn, dst, a, b);
  return true;
}

}  // namespace softgpu
