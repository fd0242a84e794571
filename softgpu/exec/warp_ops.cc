// Votes, matches and reductions over the lanes of a warp. In every handler d holds the membermask.

#include <bit>
#include <cmath>
#include <cstring>

#include "softgpu/exec/handlers.h"
#include "softgpu/exec/warp.h"

namespace softgpu {
namespace {

// Calls f(members present, lanes of that membermask) once for each membermask among the lanes.
template <class F>
void for_each_membership(const MicroOp& op, Warp& w, uint32_t mask, F f) {
  const uint32_t* members = lanes<uint32_t>(w, op.d);
  uint32_t left = mask;
  while (left != 0) {
    const uint32_t wanted = members[std::countr_zero(left)];
    uint32_t same = 0;
    for (uint32_t m = left; m != 0; m &= m - 1) {
      if (members[std::countr_zero(m)] == wanted) same |= m & -m;
    }
    f(wanted & mask, same);
    left &= ~same;
  }
}

enum class Vote { kAll, kAny, kUni, kBallot };

template <Vote Mode>
void vote(const MicroOp& op, Warp& w, uint32_t mask) {
  const uint32_t p = predicate(w, op.a);
  for_each_membership(op, w, mask, [&](uint32_t present, uint32_t to) {
    const uint32_t yes = p & present;
    if (Mode == Vote::kBallot) {
      for (uint32_t m = to; m != 0; m &= m - 1) lanes<uint32_t>(w, op.dst)[std::countr_zero(m)] = yes;
      return;
    }
    const bool r = Mode == Vote::kAll ? yes == present : Mode == Vote::kAny ? yes != 0 : yes == present || yes == 0;
    set_predicate(w, op.dst, to, r ? ~uint32_t{0} : 0);
  });
}

template <class T>
void match_any(const MicroOp& op, Warp& w, uint32_t mask) {
  T value[32];
  std::memcpy(value, w.regs + op.a, sizeof(value));
  for_each_membership(op, w, mask, [&](uint32_t present, uint32_t to) {
    for (uint32_t m = to; m != 0; m &= m - 1) {
      const int lane = std::countr_zero(m);
      uint32_t equal = 0;
      for (uint32_t n = present; n != 0; n &= n - 1) {
        if (value[std::countr_zero(n)] == value[lane]) equal |= n & -n;
      }
      lanes<uint32_t>(w, op.dst)[lane] = equal;
    }
  });
}

template <class T>
void match_all(const MicroOp& op, Warp& w, uint32_t mask) {
  T value[32];
  std::memcpy(value, w.regs + op.a, sizeof(value));
  for_each_membership(op, w, mask, [&](uint32_t present, uint32_t to) {
    bool equal = true;
    for (uint32_t n = present; n != 0; n &= n - 1)
      equal &= value[std::countr_zero(n)] == value[std::countr_zero(present)];
    for (uint32_t m = to; m != 0; m &= m - 1) lanes<uint32_t>(w, op.dst)[std::countr_zero(m)] = equal ? present : 0;
    set_predicate(w, op.e, to, equal ? ~uint32_t{0} : 0);
  });
}

template <class T, T (*F)(T, T)>
void reduce(const MicroOp& op, Warp& w, uint32_t mask) {
  T value[32];
  std::memcpy(value, w.regs + op.a, sizeof(value));
  for_each_membership(op, w, mask, [&](uint32_t present, uint32_t to) {
    T r = value[std::countr_zero(present)];
    for (uint32_t n = present & (present - 1); n != 0; n &= n - 1) r = F(r, value[std::countr_zero(n)]);
    for (uint32_t m = to; m != 0; m &= m - 1) lanes<T>(w, op.dst)[std::countr_zero(m)] = r;
  });
}

uint32_t r_add(uint32_t a, uint32_t b) { return a + b; }
uint32_t r_and(uint32_t a, uint32_t b) { return a & b; }
uint32_t r_or(uint32_t a, uint32_t b) { return a | b; }
uint32_t r_xor(uint32_t a, uint32_t b) { return a ^ b; }
template <class T>
T r_min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
T r_max(T a, T b) {
  return a > b ? a : b;
}

// Of floats: with Nan any NaN decides, else only if there is nothing else; with Abs of their magnitudes.
template <bool Less, bool Abs, bool Nan>
float r_float(float a, float b) {
  if (Abs) a = std::fabs(a), b = std::fabs(b);
  const float nan = std::bit_cast<float>(0x7fffffff);
  if (a != a || b != b) return Nan || (a != a && b != b) ? nan : a != a ? b : a;
  if (a == b) return std::signbit(a) == Less ? a : b;
  return (a < b) == Less ? a : b;
}
template <bool Less, bool Abs, bool Nan>
void reduce_float(const MicroOp& op, Warp& w, uint32_t mask) {
  float value[32];
  std::memcpy(value, w.regs + op.a, sizeof(value));
  for_each_membership(op, w, mask, [&](uint32_t present, uint32_t to) {
    // The first against itself, for what happens to a single value.
    float r = r_float<Less, Abs, Nan>(value[std::countr_zero(present)], value[std::countr_zero(present)]);
    for (uint32_t n = present & (present - 1); n != 0; n &= n - 1) {
      r = r_float<Less, Abs, Nan>(r, value[std::countr_zero(n)]);
    }
    for (uint32_t m = to; m != 0; m &= m - 1) lanes<float>(w, op.dst)[std::countr_zero(m)] = r;
  });
}

void activemask(const MicroOp& op, Warp& w, uint32_t mask) {
  for (uint32_t m = mask; m != 0; m &= m - 1) lanes<uint32_t>(w, op.dst)[std::countr_zero(m)] = mask;
}

void elect(const MicroOp& op, Warp& w, uint32_t mask) {
  for_each_membership(op, w, mask, [&](uint32_t present, uint32_t to) {
    const auto leader = static_cast<uint32_t>(std::countr_zero(present));
    for (uint32_t m = to; m != 0; m &= m - 1) lanes<uint32_t>(w, op.dst)[std::countr_zero(m)] = leader;
    set_predicate(w, op.e, to, uint32_t{1} << leader);
  });
}

constexpr HandlerRow kRows[] = {
    {"vote.all", vote<Vote::kAll>},
    {"vote.any", vote<Vote::kAny>},
    {"vote.uni", vote<Vote::kUni>},
    {"vote.ballot", vote<Vote::kBallot>},
    {"match.any.b32", match_any<uint32_t>},
    {"match.any.b64", match_any<uint64_t>},
    {"match.all.b32", match_all<uint32_t>},
    {"match.all.b64", match_all<uint64_t>},
    {"redux.add", reduce<uint32_t, r_add>},
    {"redux.and", reduce<uint32_t, r_and>},
    {"redux.or", reduce<uint32_t, r_or>},
    {"redux.xor", reduce<uint32_t, r_xor>},
    {"redux.min.u32", reduce<uint32_t, r_min<uint32_t>>},
    {"redux.max.u32", reduce<uint32_t, r_max<uint32_t>>},
    {"redux.min.s32", reduce<int32_t, r_min<int32_t>>},
    {"redux.max.s32", reduce<int32_t, r_max<int32_t>>},
    {"redux.min.f32", reduce_float<true, false, false>},
    {"redux.max.f32", reduce_float<false, false, false>},
    {"redux.min.abs.f32", reduce_float<true, true, false>},
    {"redux.max.abs.f32", reduce_float<false, true, false>},
    {"redux.min.nan.f32", reduce_float<true, false, true>},
    {"redux.max.nan.f32", reduce_float<false, false, true>},
    {"redux.min.abs.nan.f32", reduce_float<true, true, true>},
    {"redux.max.abs.nan.f32", reduce_float<false, true, true>},
    {"activemask", activemask},
    {"elect", elect},
};

}  // namespace

HandlerRows warp_rows() { return {kRows, std::size(kRows)}; }

}  // namespace softgpu
