// Video instructions: on one value of 8, 16 or 32 bits, and on two or four packed ones. The arithmetic is done in 64
// bits (vmad: 128), which holds every intermediate value that PTX speaks of.

#include <algorithm>
#include <bit>
#include <cstring>

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"

namespace softgpu {
namespace {

using What = Video::What;
using Then = Video::Then;

int64_t bits_of(uint32_t v, uint32_t from, uint32_t bits, bool is_signed) {
  const uint32_t shifted = v << (32 - bits - from);
  return is_signed ? static_cast<int32_t>(shifted) >> (32 - bits) : static_cast<int64_t>(shifted >> (32 - bits));
}

uint32_t width_of(uint32_t part) { return part == 0 ? 32 : part < 5 ? 8 : 16; }
uint32_t place_of(uint32_t part) { return part == 0 ? 0 : part < 5 ? 8 * (part - 1) : 16 * (part - 5); }

int64_t select(uint32_t v, uint32_t part, bool is_signed) {
  return bits_of(v, place_of(part), width_of(part), is_signed);
}

int64_t compute(Video v, int64_t a, int64_t b) {
  switch (static_cast<What>(v.what)) {
    case What::kAdd:
      return a + b;
    case What::kSubtract:
      return a - b;
    case What::kAverage:
      return (a + b + (a + b >= 0 ? 1 : 0)) >> 1;
    case What::kDifference:
      return a < b ? b - a : a - b;
    case What::kMinimum:
      return std::min(a, b);
    case What::kMaximum:
      return std::max(a, b);
    case What::kShiftLeft:
    case What::kShiftRight: {
      const int64_t n = v.wrap != 0 ? b & 31 : std::min<int64_t>(b, 32);
      return static_cast<What>(v.what) == What::kShiftLeft ? static_cast<int64_t>(static_cast<uint64_t>(a) << n)
                                                           : a >> n;
    }
    case What::kEqual:
      return a == b ? 1 : 0;
    case What::kNotEqual:
      return a != b ? 1 : 0;
    case What::kLess:
      return a < b ? 1 : 0;
    case What::kLessEqual:
      return a <= b ? 1 : 0;
    case What::kGreater:
      return a > b ? 1 : 0;
    case What::kGreaterEqual:
      return a >= b ? 1 : 0;
    case What::kMultiplyAdd:
      break;
  }
  return 0;
}

int64_t saturate(int64_t v, uint32_t bits, bool is_signed) {
  const int64_t low = is_signed ? -(int64_t{1} << (bits - 1)) : 0;
  const int64_t high = (int64_t{1} << (is_signed ? bits - 1 : bits)) - 1;
  return std::clamp(v, low, high);
}

uint32_t multiply_add(Video v, uint32_t a, uint32_t b, uint32_t c) {
  const bool is_signed = v.signed_a != 0 || v.signed_b != 0 || v.negate_product != 0 || v.negate_c != 0;
  __int128 product = static_cast<__int128>(select(a, v.part_a, v.signed_a != 0)) * select(b, v.part_b, v.signed_b != 0);
  if (v.negate_product != 0) product = -product;
  const int64_t addend = is_signed ? static_cast<int64_t>(static_cast<int32_t>(c)) : static_cast<int64_t>(c);
  __int128 sum = product + (v.negate_c != 0 ? -addend : addend) + (v.plus_one != 0 ? 1 : 0);
  sum >>= v.shift;
  if (v.saturate == 0) return static_cast<uint32_t>(sum);
  const __int128 low = is_signed ? INT32_MIN : 0, high = is_signed ? INT32_MAX : static_cast<__int128>(UINT32_MAX);
  return static_cast<uint32_t>(std::clamp(sum, low, high));
}

uint32_t scalar(Video v, uint32_t a, uint32_t b, uint32_t c) {
  if (static_cast<What>(v.what) == What::kMultiplyAdd) return multiply_add(v, a, b, c);
  const uint32_t bits = width_of(v.part_d);
  int64_t r = compute(v, select(a, v.part_a, v.signed_a != 0), select(b, v.part_b, v.signed_b != 0));
  if (v.saturate != 0) r = saturate(r, bits, v.signed_d != 0);
  const int64_t addend = bits_of(c, 0, 32, v.signed_d != 0);
  switch (static_cast<Then>(v.then)) {
    case Then::kAdd:
      return static_cast<uint32_t>(r) + c;
    case Then::kMinimum:
      return static_cast<uint32_t>(std::min(r, addend));
    case Then::kMaximum:
      return static_cast<uint32_t>(std::max(r, addend));
    case Then::kMerge:
      break;
  }
  if (v.part_d == 0) return static_cast<uint32_t>(r);
  const uint32_t mask = ((uint32_t{1} << bits) - 1) << place_of(v.part_d);
  return (c & ~mask) | (static_cast<uint32_t>(r) << place_of(v.part_d) & mask);
}

// Element `which` of a and b together, a's first.
int64_t element(uint32_t a, uint32_t b, uint32_t which, uint32_t count, bool is_signed) {
  const uint32_t bits = 32 / count;
  return bits_of(which < count ? a : b, bits * (which % count), bits, is_signed);
}

uint32_t packed(Video v, uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t count = v.elements, bits = 32 / count;
  uint32_t out = static_cast<Then>(v.then) == Then::kAdd ? c : 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t mask = ((uint32_t{1} << bits) - 1) << (bits * i);
    if ((v.write >> i & 1) == 0) {
      if (static_cast<Then>(v.then) == Then::kMerge) out |= c & mask;
      continue;
    }
    int64_t r = compute(v, element(a, b, v.pick_a >> (3 * i) & 7, count, v.signed_a != 0),
                        element(a, b, v.pick_b >> (3 * i) & 7, count, v.signed_b != 0));
    if (v.saturate != 0) r = saturate(r, bits, v.signed_d != 0);
    if (static_cast<Then>(v.then) == Then::kAdd) {
      out += static_cast<uint32_t>(r);
    } else {
      out |= static_cast<uint32_t>(r) << (bits * i) & mask;
    }
  }
  return out;
}

template <uint32_t (*F)(Video, uint32_t, uint32_t, uint32_t)>
void run(const MicroOp& op, Warp& w, uint32_t mask) {
  Video v;
  std::memcpy(&v, &op.imm, sizeof(v));
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    lanes<uint32_t>(w, op.dst)[lane] =
        F(v, lanes<uint32_t>(w, op.a)[lane], lanes<uint32_t>(w, op.b)[lane], lanes<uint32_t>(w, op.c)[lane]);
  }
}

constexpr HandlerRow kRows[] = {{"video.scalar", run<scalar>}, {"video.packed", run<packed>}};

}  // namespace

HandlerRows video_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
