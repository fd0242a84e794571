// Shuffles. Sources are computed for all lanes at once; the values then move as one permutation of the register.

#include "softgpu/exec/lanes.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

enum class Shuffle { kUp, kDown, kButterfly, kIndex };

// Moves value[from[i]] to d[i]; from is below 32.
LANE_FN void permute(uint32_t* d, const uint32_t* value, const uint32_t* from) {
#ifdef __AVX512F__
  const __m512i low = _mm512_loadu_si512(value), high = _mm512_loadu_si512(value + 16);
  for (int i = 0; i < 32; i += 16) {
    _mm512_store_si512(d + i, _mm512_permutex2var_epi32(low, _mm512_load_si512(from + i), high));
  }
#else
  for (int i = 0; i < 32; ++i) d[i] = value[from[i]];
#endif
}

template <Shuffle Mode>
LANE_FN int32_t source_of(uint32_t lane, uint32_t b, uint32_t segment) {
  switch (Mode) {
    case Shuffle::kUp:
      return static_cast<int32_t>(lane - b);
    case Shuffle::kDown:
      return static_cast<int32_t>(lane + b);
    case Shuffle::kButterfly:
      return static_cast<int32_t>(lane ^ b);
    case Shuffle::kIndex:
      break;
  }
  return static_cast<int32_t>((lane & segment) | (b & ~segment));
}

template <Shuffle Mode>
LANE_FN bool reaches(int32_t from, int32_t most) {
  return Mode == Shuffle::kUp ? from >= most : from <= most;
}

template <Shuffle Mode>
void shuffle(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint32_t* b = lanes<uint32_t>(w, op.b);
  const uint32_t* c = lanes<uint32_t>(w, op.c);
  alignas(64) int32_t from[32], most[32];
  alignas(64) uint32_t source[32], moved[32];
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t segment = c[i] >> 8 & 31;
    most[i] = static_cast<int32_t>((i & segment) | (c[i] & 31 & ~segment));
    from[i] = source_of<Mode>(i, b[i] & 31, segment);
    source[i] = reaches<Mode>(from[i], most[i]) ? static_cast<uint32_t>(from[i]) & 31 : i;
  }
  permute(moved, lanes<uint32_t>(w, op.a), source);
  uint32_t* d = lanes<uint32_t>(w, op.dst);
  if (mask == kAll) {
    __builtin_memcpy(d, moved, sizeof(moved));
  } else {
    // What an absent lane gives is undefined in the language; 0 is what programs that rely on it expect of hardware
    // (the reduction sample's last warp; to be confirmed on a real card).
    for (uint32_t i = 0; i < 32; ++i) moved[i] = (mask >> source[i] & 1) != 0 ? moved[i] : 0;
    blend(d, moved, mask);
  }
  if (op.e != kSinkPredicate) set_predicate(w, op.e, mask, compare_lanes<int32_t, reaches<Mode>>(from, most));
}

constexpr HandlerRow kRows[] = {
    {"shfl.up", shuffle<Shuffle::kUp>},
    {"shfl.down", shuffle<Shuffle::kDown>},
    {"shfl.bfly", shuffle<Shuffle::kButterfly>},
    {"shfl.idx", shuffle<Shuffle::kIndex>},
};

}  // namespace

HandlerRows shuffle_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
