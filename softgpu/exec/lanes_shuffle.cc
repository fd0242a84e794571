// Shuffles. Sources are computed for all lanes at once; the values then move as one permutation of the register.
// Reductions over a warp are shuffles by constant distances, each followed by one operation: such a row of them runs as
// one operation, see lower/fuse.cc.

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

#ifdef __AVX512F__
// Where lanes `lane` read from: of the whole warp, by a distance below 32 that all of them share.
template <Shuffle Mode>
LANE_FN __m512i sources(__m512i lane, uint32_t distance) {
  const __m512i by = _mm512_set1_epi32(static_cast<int>(distance)), last = _mm512_set1_epi32(31);
  if (Mode == Shuffle::kIndex) return by;
  if (Mode == Shuffle::kButterfly) return _mm512_xor_si512(lane, by);
  const __m512i from = Mode == Shuffle::kUp ? _mm512_sub_epi32(lane, by) : _mm512_add_epi32(lane, by);
  return _mm512_mask_mov_epi32(from, _mm512_cmpgt_epu32_mask(from, last), lane);  // negative is large
}

struct Pair {
  __m512i low, high;
};

LANE_FN Pair load_pair(Warp& w, uint32_t offset) {
  const uint32_t* at = lanes<uint32_t>(w, offset);
  return {_mm512_load_si512(at), _mm512_load_si512(at + 16)};
}

LANE_FN void store_pair(Warp& w, uint32_t offset, const Pair& value) {
  uint32_t* at = lanes<uint32_t>(w, offset);
  _mm512_store_si512(at, value.low);
  _mm512_store_si512(at + 16, value.high);
}

template <Shuffle Mode>
LANE_FN Pair shuffled(const Pair& value, uint32_t distance) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i low = sources<Mode>(lane, distance);
  const __m512i high = sources<Mode>(_mm512_add_epi32(lane, _mm512_set1_epi32(16)), distance);
  return {_mm512_permutex2var_epi32(value.low, low, value.high),
          _mm512_permutex2var_epi32(value.low, high, value.high)};
}

// imm is the distance; b and c are as in the plain form, for what this does not do.
template <Shuffle Mode>
void shuffle_whole(const MicroOp& op, Warp& w, uint32_t mask) {
  if (mask != kAll || op.e != kSinkPredicate) return shuffle<Mode>(op, w, mask);
  store_pair(w, op.dst, shuffled<Mode>(load_pair(w, op.a), static_cast<uint32_t>(op.imm)));
}

// The operations as the handlers of the same names do them, on 16 lanes.
LANE_FN __m512i canonical(__m512 v) {
  return _mm512_castps_si512(_mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q),
                                                _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff))));
}
LANE_FN __m512i add_f32(__m512i a, __m512i b) {
  return canonical(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}
// -0 is less than +0; a NaN loses against a number.
template <bool Less>
LANE_FN __m512i pick_f32(__m512i a, __m512i b) {
  const __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
  __m512i out = _mm512_mask_mov_epi32(b, _mm512_cmp_ps_mask(x, y, Less ? _CMP_LT_OQ : _CMP_GT_OQ), a);
  const __m512i tie = Less ? _mm512_or_si512(a, b) : _mm512_and_si512(a, b);
  out = _mm512_mask_mov_epi32(out, _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ), tie);
  out = _mm512_mask_mov_epi32(out, _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q), a);
  out = _mm512_mask_mov_epi32(out, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), b);
  return canonical(_mm512_castsi512_ps(out));
}
LANE_FN __m512i add_u32(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
LANE_FN __m512i min_u32(__m512i a, __m512i b) { return _mm512_maskz_min_epu32(0xffff, a, b); }
LANE_FN __m512i max_u32(__m512i a, __m512i b) { return _mm512_maskz_max_epu32(0xffff, a, b); }
LANE_FN __m512i min_s32(__m512i a, __m512i b) { return _mm512_maskz_min_epi32(0xffff, a, b); }
LANE_FN __m512i max_s32(__m512i a, __m512i b) { return _mm512_maskz_max_epi32(0xffff, a, b); }
LANE_FN __m512i and_b32(__m512i a, __m512i b) { return _mm512_and_si512(a, b); }
LANE_FN __m512i or_b32(__m512i a, __m512i b) { return _mm512_or_si512(a, b); }
LANE_FN __m512i xor_b32(__m512i a, __m512i b) { return _mm512_xor_si512(a, b); }

// A shuffle, an operation on its result and operand, a shuffle of what that gave, and so on: `target` operations. Of
// those, results with y set are not wanted behind the row.
template <Shuffle Mode, __m512i (*F)(__m512i, __m512i)>
void reduce_row(const MicroOp& first, Warp& w, uint32_t) {
  Pair value = load_pair(w, first.a);
  const MicroOp* const end = &first + first.target;
  for (const MicroOp* op = &first; op != end; op += 2) {
    const Pair moved = shuffled<Mode>(value, static_cast<uint32_t>(op->imm));
    if (op[0].y == 0) store_pair(w, op[0].dst, moved);
    value = {F(value.low, moved.low), F(value.high, moved.high)};
    if (op[1].y == 0) store_pair(w, op[1].dst, value);
  }
}

#define WHOLE(mode, Mode) \
  { "shfl." mode ".whole", shuffle_whole<Mode> }
#define REDUCE(name, F) \
  {"shfl.bfly+" name, reduce_row<Shuffle::kButterfly, F>}, { "shfl.down+" name, reduce_row<Shuffle::kDown, F> }
#endif

constexpr HandlerRow kRows[] = {
#ifdef __AVX512F__
    WHOLE("up", Shuffle::kUp),
    WHOLE("down", Shuffle::kDown),
    WHOLE("bfly", Shuffle::kButterfly),
    WHOLE("idx", Shuffle::kIndex),
    REDUCE("add.u32", add_u32),
    REDUCE("add.s32", add_u32),
    REDUCE("add.f32", add_f32),
    REDUCE("min.u32", min_u32),
    REDUCE("min.s32", min_s32),
    REDUCE("min.f32", pick_f32<true>),
    REDUCE("max.u32", max_u32),
    REDUCE("max.s32", max_s32),
    REDUCE("max.f32", pick_f32<false>),
    REDUCE("and.b32", and_b32),
    REDUCE("or.b32", or_b32),
    REDUCE("xor.b32", xor_b32),
#endif
    {"shfl.up", shuffle<Shuffle::kUp>},
    {"shfl.down", shuffle<Shuffle::kDown>},
    {"shfl.bfly", shuffle<Shuffle::kButterfly>},
    {"shfl.idx", shuffle<Shuffle::kIndex>},
};

}  // namespace

HandlerRows shuffle_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
