// Integer instructions against plain C++.

#include <algorithm>
#include <bit>

#include "opcode_bench.h"

namespace softgpu {
namespace {

using s128 = __int128;
using u128 = unsigned __int128;

template <class T>
std::string name_of() {
  return (std::is_signed_v<T> ? "s" : "u") + std::to_string(8 * sizeof(T));
}

// Arithmetic in 128 bits, then cut.
template <class T, class F>
void binary(const std::string& op, F f, int d = sizeof(T)) {
  check({{op + "." + name_of<T>() + " %d, %a, %b;", d, sizeof(T), sizeof(T)}, [f](u64 a, u64 b, u64) {
           return static_cast<u64>(f(static_cast<s128>(static_cast<T>(a)), static_cast<s128>(static_cast<T>(b))));
         }});
}

template <class T>
void arithmetic() {
  constexpr int kBits = 8 * sizeof(T);
  binary<T>("add", [](s128 a, s128 b) { return a + b; });
  binary<T>("sub", [](s128 a, s128 b) { return a - b; });
  binary<T>("mul.lo", [](s128 a, s128 b) { return static_cast<u128>(a) * static_cast<u128>(b); });
  binary<T>("mul.hi", [](s128 a, s128 b) {
    if constexpr (std::is_same_v<T, u64>) return static_cast<u128>(a) * static_cast<u128>(b) >> 64;
    return static_cast<u128>(a * b >> kBits);
  });
  binary<T>("div", [](s128 a, s128 b) { return b == 0 ? s128{-1} : a / b; });
  binary<T>("rem", [](s128 a, s128 b) { return b == 0 ? a : a % b; });
  binary<T>("min", [](s128 a, s128 b) { return std::min(a, b); });
  binary<T>("max", [](s128 a, s128 b) { return std::max(a, b); });
  check({{"mad.lo." + name_of<T>() + " %d, %a, %b, %c;", sizeof(T), sizeof(T), sizeof(T), sizeof(T)},
         [](u64 a, u64 b, u64 c) { return a * b + c; }});
  check({{"sad." + name_of<T>() + " %d, %a, %b, %c;", sizeof(T), sizeof(T), sizeof(T), sizeof(T)},
         [](u64 a, u64 b, u64 c) {
           const auto x = static_cast<s128>(static_cast<T>(a)), y = static_cast<s128>(static_cast<T>(b));
           return static_cast<u64>((x < y ? y - x : x - y) + static_cast<s128>(c));
         }});
  check({{"shl.b" + std::to_string(kBits) + " %d, %a, %b;", sizeof(T), sizeof(T), 4},
         [](u64 a, u64 b, u64) { return static_cast<u32>(b) >= kBits ? 0 : a << static_cast<u32>(b); }});
  check({{"shr." + name_of<T>() + " %d, %a, %b;", sizeof(T), sizeof(T), 4}, [](u64 a, u64 b, u64) {
           const u32 n = std::min<u32>(static_cast<u32>(b), kBits);
           return static_cast<u64>(static_cast<s128>(static_cast<T>(a)) >> n);
         }});
}

TEST(ExecInteger, ArithmeticOf16Bits) {
  arithmetic<u16>();
  arithmetic<s16>();
}
TEST(ExecInteger, ArithmeticOf32Bits) {
  arithmetic<u32>();
  arithmetic<s32>();
}
TEST(ExecInteger, ArithmeticOf64Bits) {
  arithmetic<u64>();
  arithmetic<s64>();
}

TEST(ExecInteger, WideProducts) {
  binary<u16>(
      "mul.wide", [](s128 a, s128 b) { return a * b; }, 4);
  binary<s16>(
      "mul.wide", [](s128 a, s128 b) { return a * b; }, 4);
  binary<u32>(
      "mul.wide", [](s128 a, s128 b) { return a * b; }, 8);
  binary<s32>(
      "mul.wide", [](s128 a, s128 b) { return a * b; }, 8);
  check({{"mad.wide.s32 %d, %a, %b, %c;", 8, 4, 4, 8},
         [](u64 a, u64 b, u64 c) { return static_cast<u64>(s64{static_cast<s32>(a)} * static_cast<s32>(b)) + c; }});
  check({{"mad.hi.u32 %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return (u64{static_cast<u32>(a)} * static_cast<u32>(b) >> 32) + c; }});
}

s64 low24(u64 v) { return static_cast<s32>(static_cast<u32>(v) << 8) >> 8; }

TEST(ExecInteger, TwentyFourBitProducts) {
  check(
      {{"mul24.lo.s32 %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) { return static_cast<u64>(low24(a) * low24(b)); }});
  check({{"mul24.hi.s32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return static_cast<u64>(low24(a) * low24(b) >> 16); }});
  check(
      {{"mul24.hi.u32 %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) { return (a & 0xffffff) * (b & 0xffffff) >> 16; }});
  check({{"mad24.lo.u32 %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return (a & 0xffffff) * (b & 0xffffff) + c; }});
}

u64 clamp32(s64 v) { return static_cast<u64>(std::clamp<s64>(v, INT32_MIN, INT32_MAX)); }

TEST(ExecInteger, Saturation) {
  check({{"add.sat.s32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return clamp32(s64{static_cast<s32>(a)} + static_cast<s32>(b)); }});
  check({{"sub.sat.s32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return clamp32(s64{static_cast<s32>(a)} - static_cast<s32>(b)); }});
}

TEST(ExecInteger, Logic) {
  for (const int bytes : {2, 4, 8}) {
    const std::string t = ".b" + std::to_string(8 * bytes);
    check({{"and" + t + " %d, %a, %b;", bytes, bytes, bytes}, [](u64 a, u64 b, u64) { return a & b; }});
    check({{"or" + t + " %d, %a, %b;", bytes, bytes, bytes}, [](u64 a, u64 b, u64) { return a | b; }});
    check({{"xor" + t + " %d, %a, %b;", bytes, bytes, bytes}, [](u64 a, u64 b, u64) { return a ^ b; }});
    check({{"not" + t + " %d, %a;", bytes, bytes}, [](u64 a, u64, u64) { return ~a; }});
    check({{"selp" + t + " %d, %a, %b, %p;", bytes, bytes, bytes, 4},
           [](u64 a, u64 b, u64 c) { return (c & 1) != 0 ? a : b; }});
    check({{"selp" + t + " %d, %a, %b, !%p;", bytes, bytes, bytes, 4},
           [](u64 a, u64 b, u64 c) { return (c & 1) == 0 ? a : b; }});
  }
  for (const int table : {0x00, 0x01, 0x6a, 0x96, 0xca, 0xe8, 0xff}) {
    check({{"lop3.b32 %d, %a, %b, %c, " + std::to_string(table) + ";", 4, 4, 4, 4}, [table](u64 a, u64 b, u64 c) {
             u64 out = 0;
             for (int i = 0; i < 32; ++i) {
               const int row = static_cast<int>((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1));
               out |= u64(table >> row & 1) << i;
             }
             return out;
           }});
  }
}

TEST(ExecInteger, BitCounts) {
  check({{"popc.b32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return u64(std::popcount(static_cast<u32>(a))); }});
  check({{"popc.b64 %d, %a;", 4, 8}, [](u64 a, u64, u64) { return u64(std::popcount(a)); }});
  check({{"clz.b32 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return u64(std::countl_zero(static_cast<u32>(a))); }});
  check({{"clz.b64 %d, %a;", 4, 8}, [](u64 a, u64, u64) { return u64(std::countl_zero(a)); }});
  check({{"bfind.u32 %d, %a;", 4, 4},
         [](u64 a, u64, u64) { return u64(31) - u64(std::countl_zero(static_cast<u32>(a))); }});
  check({{"bfind.s64 %d, %a;", 4, 8},
         [](u64 a, u64, u64) { return u64(63) - u64(std::countl_zero(static_cast<s64>(a) < 0 ? ~a : a)); }});
  check({{"bfind.shiftamt.u32 %d, %a;", 4, 4}, [](u64 a, u64, u64) {
           return static_cast<u32>(a) == 0 ? ~u64{0} : u64(std::countl_zero(static_cast<u32>(a)));
         }});
  check({{"brev.b32 %d, %a;", 4, 4}, [](u64 a, u64, u64) {
           u64 out = 0;
           for (int i = 0; i < 32; ++i) out |= (a >> i & 1) << (31 - i);
           return out;
         }});
}

TEST(ExecInteger, BitFields) {
  // Fields are bounded to eight bits of position and length, as the instruction reads them.
  const auto bit = [](u64 a, u32 i, u32 width) { return i < width ? a >> i & 1 : 0; };
  check({{"bfe.u32 %d, %a, %b, %c;", 4, 4, 4, 4}, [bit](u64 a, u64 b, u64 c) {
           const u32 pos = b & 255, len = c & 255;
           u64 out = 0;
           for (u32 i = 0; i < 32 && i < len; ++i) out |= bit(a, pos + i, 32) << i;
           return out;
         }});
  check({{"bfe.s32 %d, %a, %b, %c;", 4, 4, 4, 4}, [bit](u64 a, u64 b, u64 c) {
           const u32 pos = b & 255, len = c & 255;
           const u64 sign = len == 0 ? 0 : bit(a, std::min(pos + len - 1, 31u), 32);
           u64 out = 0;
           for (u32 i = 0; i < 32; ++i) out |= (i < len && pos + i <= 31 ? bit(a, pos + i, 32) : sign) << i;
           return out;
         }});
  check({{"bfi.b32 %d, %a, %b, %c, 7;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const u32 pos = c & 255;
           u64 out = b;
           for (u32 i = 0; i < 7 && pos + i < 32; ++i) out = (out & ~(u64{1} << (pos + i))) | (a >> i & 1) << (pos + i);
           return out;
         }});
  check({{"bmsk.clamp.b32 %d, %a, %b;", 4, 4, 4}, [](u64 a, u64 b, u64) {
           u64 out = 0;
           for (u64 i = static_cast<u32>(a); i < 32 && i < static_cast<u32>(a) + u64{static_cast<u32>(b)}; ++i)
             out |= u64{1} << i;
           return out;
         }});
  check({{"shf.l.wrap.b32 %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return (b << 32 | static_cast<u32>(a)) << (c & 31) >> 32; }});
  check({{"shf.r.clamp.b32 %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           return (b << 32 | static_cast<u32>(a)) >> std::min<u32>(static_cast<u32>(c), 32);
         }});
  check({{"prmt.b32 %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           const u64 bytes = b << 32 | static_cast<u32>(a);
           u64 out = 0;
           for (int i = 0; i < 4; ++i) {
             const u64 s = c >> (4 * i) & 15;
             u64 byte = bytes >> (8 * (s & 7)) & 255;
             if ((s & 8) != 0) byte = (byte & 128) != 0 ? 255 : 0;
             out |= byte << (8 * i);
           }
           return out;
         }});
}

TEST(ExecInteger, ByteDotProducts) {
  check({{"dp4a.s32.u32 %d, %a, %b, %c;", 4, 4, 4, 4}, [](u64 a, u64 b, u64 c) {
           s64 sum = static_cast<s32>(c);
           for (int i = 0; i < 4; ++i) sum += s64{static_cast<s8>(a >> (8 * i))} * static_cast<u8>(b >> (8 * i));
           return static_cast<u64>(sum);
         }});
}

TEST(ExecInteger, CarryChains) {
  check({{"{ .reg .b32 x, y, lo, hi; mov.b64 {x, y}, %a; .reg .b32 u, v; mov.b64 {u, v}, %b; add.cc.u32 lo, x, u; "
          "addc.u32 hi, "
          "y, v; mov.b64 %d, {lo, hi}; }",
          8, 8, 8},
         [](u64 a, u64 b, u64) { return a + b; }});
  check({{"{ .reg .b32 x, y, lo, hi; mov.b64 {x, y}, %a; .reg .b32 u, v; mov.b64 {u, v}, %b; sub.cc.u32 lo, x, u; "
          "subc.u32 hi, "
          "y, v; mov.b64 %d, {lo, hi}; }",
          8, 8, 8},
         [](u64 a, u64 b, u64) { return a - b; }});
  check({{"{ .reg .b32 lo, hi; mad.lo.cc.u32 lo, %a, %b, %c; madc.hi.u32 hi, %a, %b, 5; mov.b64 %d, {lo, hi}; }", 8, 4,
          4, 4},
         [](u64 a, u64 b, u64 c) {
           return u64{static_cast<u32>(a)} * static_cast<u32>(b) + static_cast<u32>(c) + (u64{5} << 32);
         }});
}

template <class T>
void comparisons() {
  const std::string t = name_of<T>();
  const auto one = [&](const char* op, auto f) {
    check({{"setp." + std::string(op) + "." + t + " %q, %a, %b; selp.u32 %d, 1, 0, %q;", 4, sizeof(T), sizeof(T)},
           [f](u64 a, u64 b, u64) { return u64{f(static_cast<T>(a), static_cast<T>(b))}; }});
  };
  one("eq", [](T a, T b) { return a == b; });
  one("ne", [](T a, T b) { return a != b; });
  one("lt", [](T a, T b) { return a < b; });
  one("le", [](T a, T b) { return a <= b; });
  one("gt", [](T a, T b) { return a > b; });
  one("ge", [](T a, T b) { return a >= b; });
}

TEST(ExecInteger, Comparisons) {
  comparisons<u16>();
  comparisons<s16>();
  comparisons<u32>();
  comparisons<s32>();
  comparisons<u64>();
  comparisons<s64>();
}

TEST(ExecInteger, ComparisonsMeetPredicates) {
  const std::string tail = " selp.u32 %d, 1, 0, %q;";
  check({{"setp.lt.and.u32 %q, %a, %b, %p;" + tail, 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return u64{static_cast<u32>(a) < static_cast<u32>(b) && (c & 1) != 0}; }});
  check({{"setp.lt.or.u32 %q, %a, %b, !%p;" + tail, 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return u64{static_cast<u32>(a) < static_cast<u32>(b) || (c & 1) == 0}; }});
  check({{"{ .reg .pred x; setp.lt.xor.u32 x|%q, %a, %b, %p; }" + tail, 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return u64{(static_cast<u32>(a) >= static_cast<u32>(b)) != ((c & 1) != 0)}; }});
  check({{"set.le.u32.s32 %d, %a, %b;", 4, 4, 4},
         [](u64 a, u64 b, u64) { return static_cast<s32>(a) <= static_cast<s32>(b) ? ~u64{0} : 0; }});
  check({{"slct.u32.s32 %d, %a, %b, %c;", 4, 4, 4, 4},
         [](u64 a, u64 b, u64 c) { return static_cast<s32>(c) >= 0 ? a : b; }});
}

template <class D, class S>
void conversion() {
  const std::string t = name_of<D>() + "." + name_of<S>();
  constexpr int kTo = std::max<int>(sizeof(D), 2), kFrom = std::max<int>(sizeof(S), 2);
  check({{"cvt." + t + " %d, %a;", kTo, kFrom},
         [](u64 a, u64, u64) { return static_cast<u64>(static_cast<s64>(static_cast<D>(static_cast<S>(a)))); }});
  check({{"cvt.sat." + t + " %d, %a;", kTo, kFrom}, [](u64 a, u64, u64) {
           const auto v = static_cast<s128>(static_cast<S>(a));
           const auto low = static_cast<s128>(std::numeric_limits<D>::min()),
                      high = static_cast<s128>(std::numeric_limits<D>::max());
           return static_cast<u64>(v < low ? low : v > high ? high : v);
         }});
}

template <class D>
void conversions() {
  conversion<D, u8>();
  conversion<D, s8>();
  conversion<D, u16>();
  conversion<D, s16>();
  conversion<D, u32>();
  conversion<D, s32>();
  conversion<D, u64>();
  conversion<D, s64>();
}

TEST(ExecInteger, ConversionsTruncateExtendAndSaturate) {
  conversions<u8>();
  conversions<s8>();
  conversions<u16>();
  conversions<s16>();
  conversions<u32>();
  conversions<s32>();
  conversions<u64>();
  conversions<s64>();
}

TEST(ExecInteger, ConversionsTakeWiderRegisters) {
  check({{"cvt.u32.u8 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return a & 255; }});
  check({{"cvt.s32.s8 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return static_cast<u64>(s64{static_cast<s8>(a)}); }});
  check({{"cvt.s16.s8 %d, %a;", 4, 4}, [](u64 a, u64, u64) { return static_cast<u64>(s64{static_cast<s8>(a)}); }});
}

}  // namespace
}  // namespace softgpu
