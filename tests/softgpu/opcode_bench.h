#pragma once

// Runs one PTX statement over many operands and gives the raw results.

#include <functional>
#include <string>
#include <vector>

#include "machine.h"

namespace softgpu {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;

// `text` uses %d, %a, %b, %c; the widths are bytes of each register, 0 for none. Predicates: %p (set from bit 0 of c).
struct Statement {
  std::string text;
  int d, a, b = 0, c = 0;
};

struct Operands {
  std::vector<uint64_t> a, b, c;
};

inline std::string kernel_text(const Statement& s) {
  const auto bits = [](int bytes) { return std::to_string(8 * (bytes == 0 ? 4 : bytes)); };
  std::string out = ".visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u64 pd)\n{\n";
  out += ".reg .b" + bits(s.d) + " %d; .reg .b" + bits(s.a) + " %a; .reg .b" + bits(s.b) + " %b; .reg .b" + bits(s.c) +
         " %c;\n";
  out += ".reg .pred %p, %q; .reg .b64 %rd<9>; .reg .b32 %r<9>; .reg .b16 %h<9>;\n";
  out += "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x; mad.lo.u32 %r4, %r1, %r2, %r3;\n";
  out += "mul.wide.u32 %rd1, %r4, 8;\n";
  const char* names[] = {"a", "b", "c"};
  const int widths[] = {s.a, s.b, s.c};
  for (int i = 0; i < 3; ++i) {
    const std::string n = names[i];
    out += "ld.param.u64 %rd2, [p" + n + "]; add.u64 %rd2, %rd2, %rd1; ld.global.b" + bits(widths[i]) + " %" + n +
           ", [%rd2];\n";
  }
  out +=
      "ld.param.u64 %rd2, [pc]; add.u64 %rd2, %rd2, %rd1; ld.global.b32 %r5, [%rd2]; and.b32 %r5, %r5, 1; setp.ne.u32 "
      "%p, %r5, 0;\n";
  out += "ld.param.u64 %rd3, [pd]; add.u64 %rd3, %rd3, %rd1;\n";
  out += s.text + "\nst.global.b" + bits(s.d) + " [%rd3], %d;\nret;\n}\n";
  return out;
}

inline std::vector<uint64_t> run_statement(const Statement& s, const Operands& o, IsaLevel level) {
  Machine m;
  m.load(with_header(kernel_text(s)), level);
  if (::testing::Test::HasFatalFailure()) return {};
  // 33 threads a block: the last warp runs with one lane only.
  const auto n = static_cast<uint32_t>(o.a.size() / 33 * 33);
  const uint64_t d = m.allocate(n * 8);
  const Fault fault = m.run("k", {n / 33, 1, 1}, {33, 1, 1}, {m.upload(o.a), m.upload(o.b), m.upload(o.c), d});
  EXPECT_TRUE(fault.ok()) << s.text << ": " << fault.where;
  return m.download<uint64_t>(d, n);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

 private:
  uint64_t state_;
};

// Edges of integers and floats of every size.
inline constexpr uint64_t kEdges[] = {0,
                                      1,
                                      2,
                                      3,
                                      31,
                                      32,
                                      33,
                                      63,
                                      64,
                                      127,
                                      128,
                                      255,
                                      256,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x10000,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      0xffffffffffffffff,
                                      0x3f800000,
                                      0xbf800000,
                                      0x7f800000,
                                      0xff800000,
                                      0x7fc00000,
                                      0x7f800001,
                                      0x00000001,
                                      0x007fffff,
                                      0x00800000,
                                      0x80000001,
                                      0x7f7fffff,
                                      0x4b000000,
                                      0x4f000000,
                                      0xcf000000,
                                      0x3effffff,
                                      0x3ff0000000000000,
                                      0xbff0000000000000,
                                      0x7ff0000000000000,
                                      0xfff0000000000000,
                                      0x7ff8000000000000,
                                      0x7fefffffffffffff,
                                      0x0000000000000001,
                                      0x0010000000000000,
                                      0x3fe0000000000000,
                                      0x41e0000000000000,
                                      0xc1e0000000000000,
                                      0x43e0000000000000,
                                      0x3c00,
                                      0xbc00,
                                      0x7c00,
                                      0xfc00,
                                      0x7e00,
                                      0x0001,
                                      0x03ff,
                                      0x0400,
                                      0x7bff,
                                      0x3c003c00,
                                      0x7c00fc00,
                                      0x3f80,
                                      0x7f80};

// An edge, noise, or a float of moderate size.
inline uint64_t edgy(Random& noise) {
  const uint64_t r = noise.next();
  if (r % 3 != 0) return kEdges[r / 3 % (sizeof(kEdges) / sizeof(kEdges[0]))];
  if (r % 2 != 0) return noise.next();
  // Floats of moderate size, so that sums and products do not all overflow.
  const uint64_t f = noise.next();
  const auto single = static_cast<uint32_t>((f & 0x80ffffff) | (0x3c000000 + (f >> 40 & 0x7) * 0x01000000));
  const uint64_t wide = (f & 0x800fffffffffffff) | (uint64_t{0x3f0} + (f >> 53 & 0x1f)) << 52;
  return r % 4 == 0 ? wide : single;
}

inline Operands operands(size_t count, uint64_t seed) {
  Random noise(seed);
  Operands o;
  for (size_t i = 0; i < count; ++i) {
    o.a.push_back(edgy(noise));
    o.b.push_back(edgy(noise));
    o.c.push_back(edgy(noise));
  }
  return o;
}

using Reference = std::function<uint64_t(uint64_t, uint64_t, uint64_t)>;

struct Case {
  Statement statement;
  Reference reference;
};

// Every level must give what the reference gives.
inline void check(const Case& c) {
  const Operands o = operands(33 * 24, 0x9e3779b97f4a7c15 + c.statement.text.size());
  const uint64_t mask = c.statement.d == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * c.statement.d)) - 1;
  for (const IsaLevel level : levels()) {
    const std::vector<uint64_t> results = run_statement(c.statement, o, level);
    int wrong = 0;
    for (size_t i = 0; i < results.size() && wrong < 4; ++i) {
      const uint64_t want = c.reference(o.a[i], o.b[i], o.c[i]) & mask;
      if (results[i] == want) continue;
      ++wrong;
      ADD_FAILURE() << c.statement.text << std::hex << " a=" << o.a[i] << " b=" << o.b[i] << " c=" << o.c[i] << ": got "
                    << results[i] << ", want " << want << " at level " << static_cast<int>(level);
    }
  }
}

}  // namespace softgpu
