#include "softgpu/exec/lanes.h"

namespace softgpu::SOFTGPU_ISA {
namespace {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using s128 = __int128;
using u128 = unsigned __int128;

template <class T>
struct WideOf;
template <>
struct WideOf<u16> {
  using type = u32;
};
template <>
struct WideOf<s16> {
  using type = s32;
};
template <>
struct WideOf<u32> {
  using type = u64;
};
template <>
struct WideOf<s32> {
  using type = s64;
};
template <>
struct WideOf<u64> {
  using type = u128;
};
template <>
struct WideOf<s64> {
  using type = s128;
};
template <class T>
using Wide = typename WideOf<T>::type;

template <class T>
inline constexpr u32 kBits = sizeof(T) * 8;
template <class T>
inline constexpr T kMin = static_cast<T>(T(-1) < T(0) ? T(1) << (kBits<T> - 1) : T(0));
template <class T>
inline constexpr T kMax = static_cast<T>(~kMin<T>);

template <class T>
LANE_FN T mov(T a) {
  return a;
}
template <class T>
LANE_FN T add(T a, T b) {
  return static_cast<T>(a + b);
}
template <class T>
LANE_FN T sub(T a, T b) {
  return static_cast<T>(a - b);
}
template <class T>
LANE_FN T mul_lo(T a, T b) {
  if constexpr (sizeof(T) == 8) return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b));
  return static_cast<T>(static_cast<u32>(a) * static_cast<u32>(b));
}
template <class T>
LANE_FN T mul_hi(T a, T b) {
  return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> kBits<T>);
}
template <class T>
LANE_FN Wide<T> mul_wide(T a, T b) {
  return static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b);
}
template <class T>
LANE_FN T mad_lo(T a, T b, T c) {
  return static_cast<T>(mul_lo<T>(a, b) + c);
}
template <class T>
LANE_FN T mad_hi(T a, T b, T c) {
  return static_cast<T>(mul_hi<T>(a, b) + c);
}
template <class T>
LANE_FN Wide<T> mad_wide(T a, T b, Wide<T> c) {
  using U = decltype(c);
  return static_cast<U>(static_cast<u64>(mul_wide<T>(a, b)) + static_cast<u64>(c));
}
LANE_FN s32 clamp32(s64 v) { return static_cast<s32>(v > kMax<s32> ? kMax<s32> : v < kMin<s32> ? kMin<s32> : v); }
LANE_FN s32 add_sat(s32 a, s32 b) { return clamp32(static_cast<s64>(a) + b); }
LANE_FN s32 sub_sat(s32 a, s32 b) { return clamp32(static_cast<s64>(a) - b); }
LANE_FN s32 mad_hi_sat(s32 a, s32 b, s32 c) { return clamp32(static_cast<s64>(mul_hi<s32>(a, b)) + c); }
template <class T>
LANE_FN T low24(T a) {
  return static_cast<T>(static_cast<T>(a << 8) >> 8);
}
template <class T>
LANE_FN T mul24_lo(T a, T b) {
  return static_cast<T>(Wide<T>(low24(a)) * Wide<T>(low24(b)));
}
template <class T>
LANE_FN T mul24_hi(T a, T b) {
  return static_cast<T>((Wide<T>(low24(a)) * Wide<T>(low24(b))) >> 16);
}
template <class T>
LANE_FN T mad24_lo(T a, T b, T c) {
  return static_cast<T>(u32(mul24_lo<T>(a, b)) + u32(c));
}
template <class T>
LANE_FN T mad24_hi(T a, T b, T c) {
  return static_cast<T>(u32(mul24_hi<T>(a, b)) + u32(c));
}

// Division by zero gives all ones, as hardware does; the remainder is then the dividend.
template <class T>
LANE_FN T div(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (kMin<T> != 0 && b == static_cast<T>(-1)) return static_cast<T>(0 - static_cast<u64>(a));
  return static_cast<T>(a / b);
}
template <class T>
LANE_FN T rem(T a, T b) {
  if (b == 0) return a;
  if (kMin<T> != 0 && b == static_cast<T>(-1)) return 0;
  return static_cast<T>(a % b);
}
// Of 32 bits: the quotient of two doubles is never rounded over the next integer, and vectors have that division.
template <class T>
LANE_FN T div32(T a, T b) {
  const double q = static_cast<double>(a) / static_cast<double>(b == 0 ? 1 : b);
  return b == 0 ? static_cast<T>(-1) : static_cast<T>(static_cast<s64>(q));
}
template <class T>
LANE_FN T rem32(T a, T b) {
  return b == 0 ? a : static_cast<T>(static_cast<u32>(a) - static_cast<u32>(div32<T>(a, b)) * static_cast<u32>(b));
}
template <class T>
LANE_FN T neg(T a) {
  return static_cast<T>(0 - static_cast<u64>(a));
}
template <class T>
LANE_FN T abs(T a) {
  using U = decltype(a);
  return a < 0 ? static_cast<U>(0 - static_cast<u64>(a)) : a;
}
template <class T>
LANE_FN T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
LANE_FN T max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
LANE_FN T min_relu(T a, T b) {
  return max<T>(min<T>(a, b), 0);
}
template <class T>
LANE_FN T max_relu(T a, T b) {
  return max<T>(max<T>(a, b), 0);
}
template <class T>
LANE_FN T sad(T a, T b, T c) {
  const u64 x = static_cast<u64>(a), y = static_cast<u64>(b);
  return static_cast<T>(static_cast<u64>(c) + (a < b ? y - x : x - y));
}
LANE_FN s32 mad24_hi_sat(s32 a, s32 b, s32 c) { return clamp32(static_cast<s64>(mul24_hi<s32>(a, b)) + c); }

// On both halves of a register.
template <class T, T (*F)(T, T)>
LANE_FN u32 pairs(u32 a, u32 b) {
  const auto half = [](T v) { return static_cast<u32>(static_cast<u16>(v)); };
  return half(F(static_cast<T>(a), static_cast<T>(b))) | half(F(static_cast<T>(a >> 16), static_cast<T>(b >> 16)))
                                                             << 16;
}
LANE_FN u32 add_pairs(u32 a, u32 b) { return ((a + b) & 0xffff) | ((a & 0xffff0000) + (b & 0xffff0000)); }

template <class T>
LANE_FN T op_and(T a, T b) {
  return a & b;
}
template <class T>
LANE_FN T op_or(T a, T b) {
  return a | b;
}
template <class T>
LANE_FN T op_xor(T a, T b) {
  return a ^ b;
}
template <class T>
LANE_FN T op_not(T a) {
  return static_cast<T>(~a);
}
template <class T>
LANE_FN T cnot(T a) {
  return a == 0 ? 1 : 0;
}
template <class T>
LANE_FN T shl(T a, u32 n) {
  return n >= kBits<T> ? T(0) : static_cast<T>(a << (n & (kBits<T> - 1)));
}
template <class T>
LANE_FN T shr(T a, u32 n) {
  const u32 most = kBits<T> - 1;
  if (kMin<T> == 0) return n > most ? T(0) : static_cast<T>(a >> (n & most));
  return static_cast<T>(a >> (n > most ? most : n));
}
LANE_FN u32 shf_l_wrap(u32 a, u32 b, u32 n) { return static_cast<u32>(((u64(b) << 32 | a) << (n & 31)) >> 32); }
LANE_FN u32 shf_r_wrap(u32 a, u32 b, u32 n) { return static_cast<u32>((u64(b) << 32 | a) >> (n & 31)); }
LANE_FN u32 shf_l_clamp(u32 a, u32 b, u32 n) { return n >= 32 ? a : shf_l_wrap(a, b, n); }
LANE_FN u32 shf_r_clamp(u32 a, u32 b, u32 n) { return n >= 32 ? b : shf_r_wrap(a, b, n); }

LANE_FN u32 popc32(u32 a) { return static_cast<u32>(__builtin_popcount(a)); }
LANE_FN u32 popc64(u64 a) { return static_cast<u32>(__builtin_popcountll(a)); }
LANE_FN u32 clz32(u32 a) { return a == 0 ? 32 : static_cast<u32>(__builtin_clz(a)); }
LANE_FN u32 clz64(u64 a) { return a == 0 ? 64 : static_cast<u32>(__builtin_clzll(a)); }
LANE_FN u32 brev32(u32 v) {
  v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
  v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
  v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
  return __builtin_bswap32(v);
}
LANE_FN u64 brev64(u64 v) { return u64(brev32(u32(v))) << 32 | brev32(u32(v >> 32)); }
LANE_FN u32 bfind_u32(u32 a) { return a == 0 ? ~u32(0) : 31 - clz32(a); }
LANE_FN u32 bfind_s32(s32 a) { return bfind_u32(static_cast<u32>(a < 0 ? ~a : a)); }
LANE_FN u32 bfind_u64(u64 a) { return a == 0 ? ~u32(0) : 63 - clz64(a); }
LANE_FN u32 bfind_s64(s64 a) { return bfind_u64(static_cast<u64>(a < 0 ? ~a : a)); }
LANE_FN u32 shift_amount(u32 v, u32 bits) { return v == ~u32(0) ? v : bits - 1 - v; }
LANE_FN u32 bfind_shift_u32(u32 a) { return shift_amount(bfind_u32(a), 32); }
LANE_FN u32 bfind_shift_s32(s32 a) { return shift_amount(bfind_s32(a), 32); }
LANE_FN u32 bfind_shift_u64(u64 a) { return shift_amount(bfind_u64(a), 64); }
LANE_FN u32 bfind_shift_s64(s64 a) { return shift_amount(bfind_s64(a), 64); }

template <class T>
LANE_FN T low_mask(u32 n) {
  return n >= kBits<T> ? static_cast<T>(~T(0)) : static_cast<T>((T(1) << n) - 1);
}
template <class T>
LANE_FN T bfe_u(T a, u32 pos, u32 len) {
  pos &= 255;
  len &= 255;
  return pos >= kBits<T> ? T(0) : static_cast<T>((a >> pos) & low_mask<T>(len));
}
template <class T, class U>
LANE_FN T bfe_s(T a, u32 pos, u32 len) {
  pos &= 255;
  len &= 255;
  if (len == 0) return 0;
  const u32 top = pos + len - 1 >= kBits<T> ? kBits<T> - 1 : pos + len - 1;
  const bool sign = (static_cast<U>(a) >> top & 1) != 0;
  U out = pos >= kBits<T> ? U(0) : static_cast<U>((static_cast<U>(a) >> pos) & low_mask<U>(len));
  // Bits above the field, or above the top of the source, repeat the sign.
  const u32 width = pos >= kBits<T> ? 0 : top - pos + 1;
  if (sign) out |= static_cast<U>(~low_mask<U>(width));
  return static_cast<T>(out);
}
LANE_FN s32 bfe_s32(s32 a, u32 pos, u32 len) { return bfe_s<s32, u32>(a, pos, len); }
LANE_FN s64 bfe_s64(s64 a, u32 pos, u32 len) { return bfe_s<s64, u64>(a, pos, len); }

// bfi has four sources: a into b at c, d bits.
template <class T>
void bfi(const MicroOp& op, Warp& w, uint32_t mask) {
  const T* a = lanes<T>(w, op.a);
  const T* b = lanes<T>(w, op.b);
  const u32* c = lanes<u32>(w, op.c);
  const u32* d = lanes<u32>(w, op.d);
  alignas(64) T t[32];
  for (int i = 0; i < 32; ++i) {
    const u32 pos = c[i] & 255;
    const T field = pos >= kBits<T> ? T(0) : static_cast<T>(low_mask<T>(d[i] & 255) << pos);
    const T value = pos >= kBits<T> ? T(0) : static_cast<T>(a[i] << pos);
    t[i] = static_cast<T>((b[i] & ~field) | (value & field));
  }
  blend(lanes<T>(w, op.dst), t, mask);
}

LANE_FN u32 bmsk_clamp(u32 a, u32 b) {
  if (a >= 32 || b == 0) return 0;
  return low_mask<u32>(b > 32 ? 32 : b) << a;
}
LANE_FN u32 bmsk_wrap(u32 a, u32 b) { return low_mask<u32>(b & 31) << (a & 31); }

LANE_FN u32 prmt(u32 a, u32 b, u32 selector) {
  const u64 bytes = u64(b) << 32 | a;
  u32 out = 0;
  for (int i = 0; i < 4; ++i) {
    const u32 s = selector >> (4 * i);
    u32 byte = static_cast<u32>(bytes >> (8 * (s & 7))) & 255;
    if ((s & 8) != 0) byte = (byte & 128) != 0 ? 255 : 0;
    out |= byte << (8 * i);
  }
  return out;
}
LANE_FN u32 byte_of(u64 v, u32 i) { return static_cast<u32>(v >> (8 * (i & 7))) & 255; }
LANE_FN u32 prmt_f4e(u32 a, u32 b, u32 n) { return static_cast<u32>((u64(b) << 32 | a) >> (8 * (n & 3))); }
LANE_FN u32 prmt_b4e(u32 a, u32 b, u32 n) {
  const u64 v = u64(b) << 32 | a;
  n &= 3;
  return byte_of(v, n) | byte_of(v, n + 7) << 8 | byte_of(v, n + 6) << 16 | byte_of(v, n + 5) << 24;
}
LANE_FN u32 prmt_rc8(u32 a, u32, u32 n) { return byte_of(a, n & 3) * 0x01010101u; }
LANE_FN u32 prmt_ecl(u32 a, u32, u32 n) {
  u32 out = 0;
  for (u32 i = 0; i < 4; ++i) out |= byte_of(a, i > (n & 3) ? i : (n & 3)) << (8 * i);
  return out;
}
LANE_FN u32 prmt_ecr(u32 a, u32, u32 n) {
  u32 out = 0;
  for (u32 i = 0; i < 4; ++i) out |= byte_of(a, i < (n & 3) ? i : (n & 3)) << (8 * i);
  return out;
}
LANE_FN u32 prmt_rc16(u32 a, u32, u32 n) { return (a >> (16 * (n & 1)) & 0xffff) * 0x00010001u; }

// lop3: imm is the truth table.
void lop3(const MicroOp& op, Warp& w, uint32_t mask) {
  const u32* a = lanes<u32>(w, op.a);
  const u32* b = lanes<u32>(w, op.b);
  const u32* c = lanes<u32>(w, op.c);
  const u32 table = static_cast<u32>(op.imm);
  alignas(64) u32 t[32] = {};
  for (u32 row = 0; row < 8; ++row) {
    if ((table >> row & 1) == 0) continue;
    const u32 fa = (row & 4) != 0 ? 0 : ~u32(0), fb = (row & 2) != 0 ? 0 : ~u32(0), fc = (row & 1) != 0 ? 0 : ~u32(0);
    for (int i = 0; i < 32; ++i) t[i] |= (a[i] ^ fa) & (b[i] ^ fb) & (c[i] ^ fc);
  }
  blend(lanes<u32>(w, op.dst), t, mask);
}

template <bool SA, bool SB>
LANE_FN s32 part_product(u32 a, u32 b, int i, int j) {
  const s32 x = SA ? static_cast<int8_t>(a >> (8 * i)) : static_cast<s32>(a >> (8 * i) & 255);
  const s32 y = SB ? static_cast<int8_t>(b >> (8 * j)) : static_cast<s32>(b >> (8 * j) & 255);
  return x * y;
}
template <bool SA, bool SB>
LANE_FN u32 dp4a(u32 a, u32 b, u32 c) {
  for (int i = 0; i < 4; ++i) c += static_cast<u32>(part_product<SA, SB>(a, b, i, i));
  return c;
}
template <bool SA, bool SB, int High>
LANE_FN u32 dp2a(u32 a, u32 b, u32 c) {
  for (int i = 0; i < 2; ++i) {
    const s32 x = SA ? static_cast<s16>(a >> (16 * i)) : static_cast<s32>(a >> (16 * i) & 0xffff);
    const u32 byte = b >> (8 * (i + 2 * High)) & 255;
    const s32 y = SB ? static_cast<int8_t>(byte) : static_cast<s32>(byte);
    c += static_cast<u32>(x) * static_cast<u32>(y);
  }
  return c;
}

// Carry chains: y chooses what is read and written, the carry (or borrow) lives in predicate e.
enum Carry : uint8_t { kIn = 1, kOut = 2, kSubtract = 4 };
template <class T>
void carry_add(const MicroOp& op, Warp& w, uint32_t mask) {
  T* d = lanes<T>(w, op.dst);
  const T* a = lanes<T>(w, op.a);
  const T* b = lanes<T>(w, op.b);
  const u32 carries = predicate(w, op.e);
  u32 out = 0;
  for (u32 left = mask; left != 0; left &= left - 1) {
    const int i = __builtin_ctz(left);
    const T in = (op.y & kIn) != 0 ? static_cast<T>(carries >> i & 1) : T(0);
    T sum = 0;
    bool first = false, second = false;
    if ((op.y & kSubtract) != 0) {
      first = __builtin_sub_overflow(a[i], b[i], &sum);
      second = __builtin_sub_overflow(sum, in, &sum);
    } else {
      first = __builtin_add_overflow(a[i], b[i], &sum);
      second = __builtin_add_overflow(sum, in, &sum);
    }
    d[i] = sum;
    out |= u32(first || second) << i;
  }
  if ((op.y & kOut) != 0) set_predicate(w, op.e, mask, out);
}

template <class T>
void select(const MicroOp& op, Warp& w, uint32_t mask) {
  const T* a = lanes<T>(w, op.a);
  const T* b = lanes<T>(w, op.b);
  T* d = lanes<T>(w, op.dst);
  const u32 p = predicate(w, op.c);
  alignas(64) T t[32];
  for (u32 i = 0; i < 32; ++i) t[i] = (p & (u32(1) << i)) != 0 ? a[i] : b[i];
  if (mask == kAll) {
    for (int i = 0; i < 32; ++i) d[i] = t[i];
  } else {
    blend(d, t, mask);
  }
}

// A register of two parts, the first the lowest.
template <class W, class P>
LANE_FN W pack_two(P low, P high) {
  return static_cast<W>(static_cast<W>(high) << (8 * sizeof(P)) | low);
}
template <class W, class P>
void unpack_two(const MicroOp& op, Warp& w, u32 mask) {
  const W* a = lanes<W>(w, op.a);
  alignas(64) P low[32], high[32];
  for (int i = 0; i < 32; ++i) low[i] = static_cast<P>(a[i]);
  for (int i = 0; i < 32; ++i) high[i] = static_cast<P>(a[i] >> (8 * sizeof(P)));
  if (mask == kAll) {
    __builtin_memcpy(lanes<P>(w, op.dst), low, sizeof(low));
    __builtin_memcpy(lanes<P>(w, op.b), high, sizeof(high));
  } else {
    blend(lanes<P>(w, op.dst), low, mask);
    blend(lanes<P>(w, op.b), high, mask);
  }
}

#define ROW2(name, F) \
  { name, Lanes<&F>::run }
#define PAIRS(name, F) ROW2(name ".u16x2", (pairs<u16, &F<u16>>)), ROW2(name ".s16x2", (pairs<s16, &F<s16>>))
#define SUMS ROW2("add.u16x2", add_pairs), ROW2("add.s16x2", add_pairs)
#define UNSIGNED(name, F)                                                                                         \
  {name ".u16", Lanes<&F<u16>>::run}, {name ".s16", Lanes<&F<u16>>::run}, {name ".b16", Lanes<&F<u16>>::run},     \
      {name ".u32", Lanes<&F<u32>>::run}, {name ".s32", Lanes<&F<u32>>::run}, {name ".b32", Lanes<&F<u32>>::run}, \
      {name ".u64", Lanes<&F<u64>>::run}, {name ".s64", Lanes<&F<u64>>::run}, {                                   \
    name ".b64", Lanes<&F<u64>>::run                                                                              \
  }
#define BY_SIGN(name, F)                                                                                      \
  {name ".u16", Lanes<&F<u16>>::run}, {name ".s16", Lanes<&F<s16>>::run}, {name ".u32", Lanes<&F<u32>>::run}, \
      {name ".s32", Lanes<&F<s32>>::run}, {name ".u64", Lanes<&F<u64>>::run}, {                               \
    name ".s64", Lanes<&F<s64>>::run                                                                          \
  }
#define BY_SIGN_DIVISION(name, F, F32)                                                                        \
  {name ".u16", Each<&F<u16>>::run}, {name ".s16", Each<&F<s16>>::run}, {name ".u32", Lanes<&F32<u32>>::run}, \
      {name ".s32", Lanes<&F32<s32>>::run}, {name ".u64", Each<&F<u64>>::run}, {                              \
    name ".s64", Each<&F<s64>>::run                                                                           \
  }
#define BY_SIGN_NARROW(name, F)                                                                                 \
  {name ".u16", Lanes<&F<u16>>::run}, {name ".s16", Lanes<&F<s16>>::run}, {name ".u32", Lanes<&F<u32>>::run}, { \
    name ".s32", Lanes<&F<s32>>::run                                                                            \
  }

constexpr HandlerRow kRows[] = {
    UNSIGNED("mov", mov),
    UNSIGNED("add", add),
    UNSIGNED("sub", sub),
    UNSIGNED("mul.lo", mul_lo),
    BY_SIGN("mul.hi", mul_hi),
    BY_SIGN_NARROW("mul.wide", mul_wide),
    UNSIGNED("mad.lo", mad_lo),
    BY_SIGN("mad.hi", mad_hi),
    BY_SIGN_NARROW("mad.wide", mad_wide),
    ROW2("add.sat.s32", add_sat),
    ROW2("sub.sat.s32", sub_sat),
    ROW2("mad.hi.sat.s32", mad_hi_sat),
    ROW2("mul24.lo.u32", mul24_lo<u32>),
    ROW2("mul24.lo.s32", mul24_lo<s32>),
    ROW2("mul24.hi.u32", mul24_hi<u32>),
    ROW2("mul24.hi.s32", mul24_hi<s32>),
    ROW2("mad24.lo.u32", mad24_lo<u32>),
    ROW2("mad24.lo.s32", mad24_lo<s32>),
    ROW2("mad24.hi.u32", mad24_hi<u32>),
    ROW2("mad24.hi.s32", mad24_hi<s32>),
    ROW2("mad24.hi.sat.s32", mad24_hi_sat),
    PAIRS("min", min),
    PAIRS("max", max),
    PAIRS("min.relu", min_relu),
    PAIRS("max.relu", max_relu),
    SUMS,
    BY_SIGN_DIVISION("div", div, div32),
    BY_SIGN_DIVISION("rem", rem, rem32),
    UNSIGNED("neg", neg),
    ROW2("abs.s16", abs<s16>),
    ROW2("abs.s32", abs<s32>),
    ROW2("abs.s64", abs<s64>),
    BY_SIGN("min", min),
    BY_SIGN("max", max),
    ROW2("min.relu.s32", min_relu<s32>),
    ROW2("max.relu.s32", max_relu<s32>),
    BY_SIGN("sad", sad),
    UNSIGNED("and", op_and),
    UNSIGNED("or", op_or),
    UNSIGNED("xor", op_xor),
    UNSIGNED("not", op_not),
    UNSIGNED("cnot", cnot),
    UNSIGNED("shl", shl),
    BY_SIGN("shr", shr),
    ROW2("shr.b16", shr<u16>),
    ROW2("shr.b32", shr<u32>),
    ROW2("shr.b64", shr<u64>),
    ROW2("shf.l.wrap.b32", shf_l_wrap),
    ROW2("shf.r.wrap.b32", shf_r_wrap),
    ROW2("shf.l.clamp.b32", shf_l_clamp),
    ROW2("shf.r.clamp.b32", shf_r_clamp),
    ROW2("popc.b32", popc32),
    ROW2("popc.b64", popc64),
    ROW2("clz.b32", clz32),
    ROW2("clz.b64", clz64),
    ROW2("brev.b32", brev32),
    ROW2("brev.b64", brev64),
    ROW2("bfind.u32", bfind_u32),
    ROW2("bfind.s32", bfind_s32),
    ROW2("bfind.u64", bfind_u64),
    ROW2("bfind.s64", bfind_s64),
    ROW2("bfind.shiftamt.u32", bfind_shift_u32),
    ROW2("bfind.shiftamt.s32", bfind_shift_s32),
    ROW2("bfind.shiftamt.u64", bfind_shift_u64),
    ROW2("bfind.shiftamt.s64", bfind_shift_s64),
    ROW2("bfe.u32", bfe_u<u32>),
    ROW2("bfe.u64", bfe_u<u64>),
    ROW2("bfe.s32", bfe_s32),
    ROW2("bfe.s64", bfe_s64),
    {"bfi.b32", bfi<u32>},
    {"bfi.b64", bfi<u64>},
    ROW2("bmsk.clamp.b32", bmsk_clamp),
    ROW2("bmsk.wrap.b32", bmsk_wrap),
    ROW2("prmt.b32", prmt),
    ROW2("prmt.b32.f4e", prmt_f4e),
    ROW2("prmt.b32.b4e", prmt_b4e),
    ROW2("prmt.b32.rc8", prmt_rc8),
    ROW2("prmt.b32.ecl", prmt_ecl),
    ROW2("prmt.b32.ecr", prmt_ecr),
    ROW2("prmt.b32.rc16", prmt_rc16),
    {"lop3.b32", lop3},
    {"dp4a.u32.u32", Lanes<&dp4a<false, false>>::run},
    {"dp4a.s32.s32", Lanes<&dp4a<true, true>>::run},
    {"dp4a.u32.s32", Lanes<&dp4a<false, true>>::run},
    {"dp4a.s32.u32", Lanes<&dp4a<true, false>>::run},
    {"dp2a.lo.u32.u32", Lanes<&dp2a<false, false, 0>>::run},
    {"dp2a.lo.s32.s32", Lanes<&dp2a<true, true, 0>>::run},
    {"dp2a.lo.u32.s32", Lanes<&dp2a<false, true, 0>>::run},
    {"dp2a.lo.s32.u32", Lanes<&dp2a<true, false, 0>>::run},
    {"dp2a.hi.u32.u32", Lanes<&dp2a<false, false, 1>>::run},
    {"dp2a.hi.s32.s32", Lanes<&dp2a<true, true, 1>>::run},
    {"dp2a.hi.u32.s32", Lanes<&dp2a<false, true, 1>>::run},
    {"dp2a.hi.s32.u32", Lanes<&dp2a<true, false, 1>>::run},
    {"carry.32", carry_add<u32>},
    {"carry.64", carry_add<u64>},
    ROW2("pack.64.32", (pack_two<u64, u32>)),
    ROW2("pack.32.16", (pack_two<u32, u16>)),
    {"unpack.64.32", unpack_two<u64, u32>},
    {"unpack.32.16", unpack_two<u32, u16>},
    {"selp.16", select<u16>},
    {"selp.32", select<u32>},
    {"selp.64", select<u64>},
};

}  // namespace

HandlerRows integer_rows() { return {kRows, sizeof(kRows) / sizeof(kRows[0])}; }

}  // namespace softgpu::SOFTGPU_ISA
