// vadd, vsub, vavrg, vabsdiff, vmin and vmax on two or four elements of a register.

#include <algorithm>
#include <bit>

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"

namespace softgpu {
namespace {

int64_t element(uint32_t v, uint32_t index, uint32_t bits, bool is_signed) {
  const uint32_t shifted = v << (32 - bits * (index + 1));
  return is_signed ? static_cast<int32_t>(shifted) >> (32 - bits) : static_cast<int64_t>(shifted >> (32 - bits));
}

int64_t compute(VideoOp what, int64_t a, int64_t b) {
  switch (what) {
    case VideoOp::kAdd:
      return a + b;
    case VideoOp::kSubtract:
      return a - b;
    case VideoOp::kAverage:
      return (a + b + 1) >> 1;
    case VideoOp::kDifference:
      return a < b ? b - a : a - b;
    case VideoOp::kMinimum:
      return std::min(a, b);
    case VideoOp::kMaximum:
      return std::max(a, b);
  }
  return 0;
}

int64_t saturate(int64_t v, uint32_t bits, bool is_signed) {
  const int64_t low = is_signed ? -(int64_t{1} << (bits - 1)) : 0;
  const int64_t high = (int64_t{1} << (is_signed ? bits - 1 : bits)) - 1;
  return std::clamp(v, low, high);
}

// x: VideoOp, vec: how many elements, y: VideoFlag.
void video(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint32_t bits = 32 / op.vec;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    const uint32_t a = lanes<uint32_t>(w, op.a)[lane], b = lanes<uint32_t>(w, op.b)[lane];
    uint32_t packed = 0;
    uint32_t sum = lanes<uint32_t>(w, op.c)[lane];
    for (uint32_t i = 0; i < op.vec; ++i) {
      int64_t v = compute(static_cast<VideoOp>(op.x), element(a, i, bits, (op.y & kVideoSignedA) != 0),
                          element(b, i, bits, (op.y & kVideoSignedB) != 0));
      if ((op.y & kVideoSaturate) != 0) v = saturate(v, bits, (op.y & kVideoSignedD) != 0);
      sum += static_cast<uint32_t>(v);
      packed |= (static_cast<uint32_t>(v) & ((uint32_t{1} << bits) - 1)) << (bits * i);
    }
    lanes<uint32_t>(w, op.dst)[lane] = (op.y & kVideoAdd) != 0 ? sum : packed;
  }
}

constexpr HandlerRow kRows[] = {{"video", video}};

}  // namespace

HandlerRows video_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
