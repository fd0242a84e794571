// mma, ldmatrix, stmatrix and movmatrix: the places of the elements as the PTX document gives them, element by element,
// and sums by plain loops. Values are small integers, so that every sum is exact.

#include <cmath>
#include <functional>
#include <tuple>

#include "machine.h"

namespace softgpu {
namespace {

struct Place {
  uint32_t row, column;
};
using Places = std::function<Place(uint32_t lane, uint32_t i)>;

uint32_t group(uint32_t lane) { return lane >> 2; }
uint32_t within(uint32_t lane) { return lane % 4; }

// How an element of this type looks, by the number that it stands for.
uint64_t encoded(const std::string& type, int value) {
  const bool minus = value < 0;
  const uint32_t magnitude = static_cast<uint32_t>(minus ? -value : value);
  if (type == "f64") {
    const double d = value;
    uint64_t bits = 0;
    std::memcpy(&bits, &d, 8);
    return bits;
  }
  if (type == "f32" || type == "tf32" || type == "bf16") {
    const auto f = static_cast<float>(value);
    uint32_t bits = 0;
    std::memcpy(&bits, &f, 4);
    return type == "bf16" ? bits >> 16 : bits;
  }
  if (type[0] == 's' || type[0] == 'u' || type == "b1") return static_cast<uint32_t>(value);
  const uint32_t exponent_bits = type == "f16" ? 5 : static_cast<uint32_t>(type[1] - '0');
  const uint32_t fraction_bits = type == "f16" ? 10 : static_cast<uint32_t>(type[3] - '0');
  if (magnitude == 0) return 0;
  const uint32_t exponent = 31 - static_cast<uint32_t>(std::countl_zero(magnitude));
  const uint32_t fraction = magnitude - (1u << exponent);
  const uint32_t bias = (1u << (exponent_bits - 1)) - 1;
  const uint32_t bits = (bias + exponent) << fraction_bits | fraction << (fraction_bits - exponent);
  return bits | static_cast<uint32_t>(minus) << (exponent_bits + fraction_bits);
}

uint32_t bits_of(const std::string& type) {
  if (type == "f64") return 64;
  if (type == "f32" || type == "tf32" || type == "s32") return 32;
  if (type == "f16" || type == "bf16") return 16;
  return type == "s4" || type == "u4" ? 4 : type == "b1" ? 1 : 8;
}

int smallest(const std::string& type) {
  if (type[0] == 'u' || type == "b1") return 0;
  return type == "s8" ? -128 : type == "s4" ? -8 : -4;
}
int values_of(const std::string& type) {
  if (type == "b1") return 2;
  return type == "s8" || type == "u8" ? 256 : type == "s4" || type == "u4" ? 16 : 9;
}

struct Case {
  std::string instruction;  // with types
  uint32_t m, n, k;
  std::string a_type, b_type, c_type, d_type;
  uint32_t a_count, b_count, c_count;  // elements of a lane
  Places a, b, c;
  uint32_t batches = 1;
  std::function<uint32_t(uint32_t lane)> batch = [](uint32_t) { return 0u; };
  Places d = nullptr;  // where it differs from c
};

// The operand as `count` elements of each lane, in registers: [register][lane].
std::vector<uint64_t> registers(const Case& c, const std::string& type, uint32_t count, const Places& place,
                                const std::vector<int>& matrix, uint32_t rows, uint32_t columns) {
  const uint32_t bits = bits_of(type), width = bits == 64 ? 64 : 32, per = width / bits;
  std::vector<uint64_t> out(count / per * 32);
  const uint64_t mask = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    for (uint32_t i = 0; i < count; ++i) {
      const Place p = place(lane, i);
      const int value = matrix[(c.batch(lane) * rows + p.row) * columns + p.column];
      out[i / per * 32 + lane] |= (encoded(type, value) & mask) << (i % per * bits);
    }
  }
  return out;
}

std::string operand(const std::string& stem, size_t count) {
  std::string out = "{";
  for (size_t i = 0; i < count; ++i) out += (i == 0 ? "" : ", ") + stem + std::to_string(i);
  return out + "}";
}

std::string loads(const std::string& stem, size_t count, const std::string& type, size_t first) {
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    out +=
        "ld.global." + type + " " + stem + std::to_string(i) + ", [%rd3+" + std::to_string((first + i) * 256) + "];\n";
  }
  return out;
}

std::string register_type(const std::string& type) {
  return bits_of(type) == 64 ? "f64" : type == "f32" ? "f32" : "b32";
}

// Registers lie 8 bytes a lane in memory, first those of a, then of b, c and d.
std::string kernel_of(const Case& c, size_t a, size_t b, size_t cc, size_t d) {
  const std::string ta = register_type(c.a_type), tc = register_type(c.c_type), td = register_type(c.d_type);
  std::string out =
      ".version 9.0\n.target sm_120a\n.address_size 64\n.visible .entry k(.param .u64 out, .param .u64 in)\n{\n";
  out += ".reg .b32 %r<2>; .reg .b64 %rd<8>; .reg ." + ta + " %a<16>; .reg ." + ta + " %b<16>; .reg ." + tc +
         " %c<16>; .reg ." + td + " %d<16>;\n";
  out += "mov.u32 %r1, %laneid; ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [in];\n";
  out += "mul.wide.u32 %rd4, %r1, 8; add.u64 %rd3, %rd2, %rd4; add.u64 %rd5, %rd1, %rd4;\n";
  out += loads("%a", a, ta, 0) + loads("%b", b, ta, a) + loads("%c", cc, tc, a + b);
  out += c.instruction + " " + operand("%d", d) + ", " + operand("%a", a) + ", " + operand("%b", b) + ", " +
         operand("%c", cc) + ";\n";
  for (size_t i = 0; i < d; ++i) {
    out += "st.global." + td + " [%rd5+" + std::to_string(i * 256) + "], %d" + std::to_string(i) + ";\n";
  }
  return out + "ret;\n}\n";
}

std::vector<int> random_matrix(uint32_t size, const std::string& type, uint32_t* state) {
  std::vector<int> out(size);
  for (int& v : out) {
    *state = *state * 1664525 + 1013904223;
    v = smallest(type) + static_cast<int>((*state >> 8) % static_cast<uint32_t>(values_of(type)));
  }
  return out;
}

std::vector<int> product(const Case& c, const std::vector<int>& a, const std::vector<int>& b, std::vector<int> out) {
  const bool exclusive = c.instruction.find(".xor.") != std::string::npos;
  for (uint32_t g = 0; g < c.batches; ++g) {
    for (uint32_t i = 0; i < c.m; ++i) {
      for (uint32_t j = 0; j < c.n; ++j) {
        for (uint32_t l = 0; l < c.k; ++l) {
          const int x = a[(g * c.m + i) * c.k + l], y = b[(g * c.k + l) * c.n + j];
          out[(g * c.m + i) * c.n + j] += exclusive ? x ^ y : x * y;
        }
      }
    }
  }
  return out;
}

void try_case(const Case& c, IsaLevel level) {
  SCOPED_TRACE(c.instruction);
  uint32_t state = 7;
  const auto a = random_matrix(c.batches * c.m * c.k, c.a_type, &state);
  const auto b = random_matrix(c.batches * c.k * c.n, c.b_type, &state);
  const auto start = random_matrix(c.batches * c.m * c.n, "f16", &state);
  const auto ra = registers(c, c.a_type, c.a_count, c.a, a, c.m, c.k);
  const auto rb = registers(c, c.b_type, c.b_count, c.b, b, c.k, c.n);
  const auto rc = registers(c, c.c_type, c.c_count, c.c, start, c.m, c.n);
  const auto expected = registers(c, c.d_type, c.c_count, c.d ? c.d : c.c, product(c, a, b, start), c.m, c.n);
  std::vector<uint64_t> in = ra;
  in.insert(in.end(), rb.begin(), rb.end());
  in.insert(in.end(), rc.begin(), rc.end());
  Machine m;
  m.load(kernel_of(c, ra.size() / 32, rb.size() / 32, rc.size() / 32, expected.size() / 32), level);
  if (::testing::Test::HasFatalFailure()) return;
  const uint64_t out = m.allocate(expected.size() * 8);
  const Fault fault = m.run("k", {1, 1, 1}, {32, 1, 1}, {out, m.upload(in)});
  ASSERT_TRUE(fault.ok()) << fault.where;
  EXPECT_EQ(m.download<uint64_t>(out, expected.size()), expected);
}

void try_all_levels(const Case& c) {
  for (const IsaLevel level : levels()) try_case(c, level);
}

// The accumulator of every shape with eight columns: two elements side by side, then two eight rows below.
Place accumulator(uint32_t lane, uint32_t i) { return {group(lane) + (i < 2 ? 0 : 8), within(lane) * 2 + (i & 1)}; }

TEST(Mma, M16N8K16OfHalves) {
  const Places a = [](uint32_t lane, uint32_t i) {
    return Place{i < 2 || (i >= 4 && i < 6) ? group(lane) : group(lane) + 8,
                 within(lane) * 2 + (i & 1) + (i < 4 ? 0 : 8)};
  };
  const Places b = [](uint32_t lane, uint32_t i) {
    return Place{within(lane) * 2 + (i & 1) + (i < 2 ? 0 : 8), group(lane)};
  };
  for (const std::string d : {"f16", "f32"}) {
    for (const std::string c : {"f16", "f32"}) {
      try_all_levels({"mma.sync.aligned.m16n8k16.row.col." + d + ".f16.f16." + c, 16, 8, 16, "f16", "f16", c, d, 8, 4,
                      4, a, b, accumulator});
    }
  }
  try_all_levels({"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 16, 8, 16, "bf16", "bf16", "f32", "f32", 8, 4,
                  4, a, b, accumulator});
}

TEST(Mma, M16N8K8OfHalves) {
  const Places a = [](uint32_t lane, uint32_t i) {
    return Place{i < 2 ? group(lane) : group(lane) + 8, within(lane) * 2 + (i & 1)};
  };
  const Places b = [](uint32_t lane, uint32_t i) { return Place{within(lane) * 2 + i, group(lane)}; };
  try_all_levels({"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", 16, 8, 8, "f16", "f16", "f32", "f32", 4, 2, 4, a,
                  b, accumulator});
  try_all_levels({"mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16", 16, 8, 8, "f16", "f16", "f16", "f16", 4, 2, 4, a,
                  b, accumulator});
  try_all_levels({"mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", 16, 8, 8, "bf16", "bf16", "f32", "f32", 4, 2, 4,
                  a, b, accumulator});
}

TEST(Mma, SinglePrecisionWithTenBitsAndDoublePrecision) {
  const Places a4 = [](uint32_t lane, uint32_t i) {
    return Place{i == 0 ? group(lane) : group(lane) + 8, within(lane)};
  };
  const Places b4 = [](uint32_t lane, uint32_t) { return Place{within(lane), group(lane)}; };
  const Places a8 = [](uint32_t lane, uint32_t i) {
    return Place{i == 0 || i == 2 ? group(lane) : group(lane) + 8, within(lane) + (i < 2 ? 0 : 4)};
  };
  const Places b8 = [](uint32_t lane, uint32_t i) { return Place{within(lane) + (i == 0 ? 0 : 4), group(lane)}; };
  const Places a16 = [](uint32_t lane, uint32_t i) {
    return Place{i % 2 == 0 ? group(lane) : group(lane) + 8,
                 i % 2 == 0 ? i * 2 + within(lane) : i * 2 - 2 + within(lane)};
  };
  const Places b16 = [](uint32_t lane, uint32_t i) { return Place{within(lane) + i * 4, group(lane)}; };
  const Places a_small = [](uint32_t lane, uint32_t) { return Place{group(lane), within(lane)}; };
  try_all_levels({"mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", 16, 8, 4, "tf32", "tf32", "f32", "f32", 2, 1, 4,
                  a4, b4, accumulator});
  try_all_levels({"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 16, 8, 8, "tf32", "tf32", "f32", "f32", 4, 2, 4,
                  a8, b8, accumulator});
  try_all_levels({"mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64", 8, 8, 4, "f64", "f64", "f64", "f64", 1, 1, 2,
                  a_small, b4, accumulator});
  try_all_levels({"mma.sync.aligned.m16n8k4.row.col.f64.f64.f64.f64", 16, 8, 4, "f64", "f64", "f64", "f64", 2, 1, 4, a4,
                  b4, accumulator});
  try_all_levels({"mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64", 16, 8, 8, "f64", "f64", "f64", "f64", 4, 2, 4, a8,
                  b8, accumulator});
  try_all_levels({"mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64", 16, 8, 16, "f64", "f64", "f64", "f64", 8, 4, 4,
                  a16, b16, accumulator});
}

TEST(Mma, Bytes) {
  const Places a_small = [](uint32_t lane, uint32_t i) { return Place{group(lane), within(lane) * 4 + i}; };
  const Places a16 = [](uint32_t lane, uint32_t i) {
    return Place{i < 4 ? group(lane) : group(lane) + 8, within(lane) * 4 + (i & 3)};
  };
  const Places b16 = [](uint32_t lane, uint32_t i) { return Place{within(lane) * 4 + i, group(lane)}; };
  const Places a32 = [](uint32_t lane, uint32_t i) {
    const bool upper = i < 4 || (i >= 8 && i < 12);
    return Place{upper ? group(lane) : group(lane) + 8, within(lane) * 4 + (i & 3) + (i < 8 ? 0 : 16)};
  };
  const Places b32 = [](uint32_t lane, uint32_t i) {
    return Place{within(lane) * 4 + (i & 3) + (i < 4 ? 0 : 16), group(lane)};
  };
  for (const std::string a : {"s8", "u8"}) {
    for (const std::string b : {"s8", "u8"}) {
      const std::string types = "row.col.s32." + a + "." + b + ".s32";
      try_all_levels(
          {"mma.sync.aligned.m8n8k16." + types, 8, 8, 16, a, b, "s32", "s32", 4, 4, 2, a_small, b16, accumulator});
      try_all_levels(
          {"mma.sync.aligned.m16n8k16." + types, 16, 8, 16, a, b, "s32", "s32", 8, 4, 4, a16, b16, accumulator});
      try_all_levels(
          {"mma.sync.aligned.m16n8k32." + types, 16, 8, 32, a, b, "s32", "s32", 16, 8, 4, a32, b32, accumulator});
    }
  }
  for (const std::string a : {"e4m3", "e5m2"}) {
    for (const std::string b : {"e4m3", "e5m2"}) {
      try_all_levels({"mma.sync.aligned.m16n8k32.row.col.f32." + a + "." + b + ".f32", 16, 8, 32, a, b, "f32", "f32",
                      16, 8, 4, a32, b32, accumulator});
      try_all_levels({"mma.sync.aligned.m16n8k16.row.col.f16." + a + "." + b + ".f16", 16, 8, 16, a, b, "f16", "f16", 8,
                      4, 4, a16, b16, accumulator});
    }
  }
  try_all_levels({"mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.e3m2.e2m3.f32", 16, 8, 32, "e3m2", "e2m3", "f32",
                  "f32", 16, 8, 4, a32, b32, accumulator});
}

TEST(Mma, FourBitsAndSingleBits) {
  const Places a_small = [](uint32_t lane, uint32_t i) { return Place{group(lane), within(lane) * 8 + i}; };
  const Places a32 = [](uint32_t lane, uint32_t i) {
    return Place{i < 8 ? group(lane) : group(lane) + 8, within(lane) * 8 + (i & 7)};
  };
  const Places b32 = [](uint32_t lane, uint32_t i) { return Place{within(lane) * 8 + i, group(lane)}; };
  const Places a64 = [](uint32_t lane, uint32_t i) {
    const bool upper = i < 8 || (i >= 16 && i < 24);
    return Place{upper ? group(lane) : group(lane) + 8, within(lane) * 8 + (i & 7) + (i < 16 ? 0 : 32)};
  };
  const Places b64 = [](uint32_t lane, uint32_t i) {
    return Place{within(lane) * 8 + (i & 7) + (i < 8 ? 0 : 32), group(lane)};
  };
  for (const std::string a : {"s4", "u4"}) {
    const std::string types = "row.col.s32." + a + ".s4.s32";
    try_all_levels(
        {"mma.sync.aligned.m8n8k32." + types, 8, 8, 32, a, "s4", "s32", "s32", 8, 8, 2, a_small, b32, accumulator});
    try_all_levels(
        {"mma.sync.aligned.m16n8k32." + types, 16, 8, 32, a, "s4", "s32", "s32", 16, 8, 4, a32, b32, accumulator});
    try_all_levels(
        {"mma.sync.aligned.m16n8k64." + types, 16, 8, 64, a, "s4", "s32", "s32", 32, 16, 4, a64, b64, accumulator});
  }
  const Places bits_small = [](uint32_t lane, uint32_t i) { return Place{group(lane), within(lane) * 32 + i}; };
  const Places bits128 = [](uint32_t lane, uint32_t i) {
    return Place{i < 32 ? group(lane) : group(lane) + 8, within(lane) * 32 + (i & 31)};
  };
  const Places column128 = [](uint32_t lane, uint32_t i) { return Place{within(lane) * 32 + i, group(lane)}; };
  const Places bits256 = [](uint32_t lane, uint32_t i) {
    const bool upper = i < 32 || (i >= 64 && i < 96);
    return Place{upper ? group(lane) : group(lane) + 8, within(lane) * 32 + (i & 31) + (i < 64 ? 0 : 128)};
  };
  const Places column256 = [](uint32_t lane, uint32_t i) {
    return Place{within(lane) * 32 + (i & 31) + (i < 32 ? 0 : 128), group(lane)};
  };
  for (const std::string how : {".and.popc", ".xor.popc"}) {
    const std::string types = "row.col.s32.b1.b1.s32" + how;
    try_all_levels({"mma.sync.aligned.m8n8k128." + types, 8, 8, 128, "b1", "b1", "s32", "s32", 32, 32, 2, bits_small,
                    column128, accumulator});
    try_all_levels({"mma.sync.aligned.m16n8k128." + types, 16, 8, 128, "b1", "b1", "s32", "s32", 64, 32, 4, bits128,
                    column128, accumulator});
    try_all_levels({"mma.sync.aligned.m16n8k256." + types, 16, 8, 256, "b1", "b1", "s32", "s32", 128, 64, 4, bits256,
                    column256, accumulator});
  }
}

TEST(Mma, FourMultiplicationsByQuads) {
  const auto upper = [](uint32_t lane) { return lane < 16 ? 0u : 4u; };
  const Places a_row = [=](uint32_t lane, uint32_t i) { return Place{lane % 4 + upper(lane), i}; };
  const Places a_col = [=](uint32_t lane, uint32_t i) { return Place{i % 4 + upper(lane), lane % 4}; };
  const Places b_row = [=](uint32_t lane, uint32_t i) { return Place{lane % 4, i + upper(lane)}; };
  const Places b_col = [=](uint32_t lane, uint32_t i) { return Place{i, lane % 4 + upper(lane)}; };
  const Places c16 = [=](uint32_t lane, uint32_t i) { return Place{lane % 4 + upper(lane), i}; };
  const Places c32 = [=](uint32_t lane, uint32_t i) {
    return Place{(lane & 1) + (i & 2) + upper(lane), (i & 4) + (lane & 2) + (i & 1)};
  };
  const auto batch = [](uint32_t lane) { return lane % 16 / 4; };
  for (const std::string la : {"row", "col"}) {
    for (const std::string lb : {"row", "col"}) {
      for (const std::string d : {"f16", "f32"}) {
        for (const std::string c : {"f16", "f32"}) {
          Case x{"mma.sync.aligned.m8n8k4." + la + "." + lb + "." + d + ".f16.f16." + c,
                 8,
                 8,
                 4,
                 "f16",
                 "f16",
                 c,
                 d,
                 4,
                 4,
                 8,
                 la == "row" ? a_row : a_col,
                 lb == "row" ? b_row : b_col,
                 c == "f16" ? c16 : c32,
                 4,
                 batch,
                 d == "f16" ? c16 : c32};
          try_all_levels(x);
        }
      }
    }
  }
}

// Half of A's columns are there; which, the metadata of one, two or four lanes of each quad says.
struct SparseCase {
  std::string instruction;
  uint32_t k, chunk, kept;  // of each chunk of columns
  std::string type, sum_type;
  uint32_t per;  // elements of a register
  uint32_t lanes_of_row;
  uint32_t selector;
};

// Where a bit of a row's metadata lies.
std::pair<uint32_t, uint32_t> metadata_place(const SparseCase& c, uint32_t row, uint32_t bit) {
  const uint32_t quad = row % 8 * 4;
  if (c.lanes_of_row == 4) return {quad + row / 8 + bit / 32 * 2, bit % 32};
  return {quad + c.selector * c.lanes_of_row + bit / 16, row / 8 * 16 + bit % 16};
}

void try_sparse(const SparseCase& c) {
  SCOPED_TRACE(c.instruction);
  uint32_t state = 11;
  const uint32_t stored = c.k / c.chunk * c.kept;
  std::vector<int> dense(16 * c.k), packed(16 * stored);
  std::vector<uint32_t> metadata(32);
  const auto pick = random_matrix(16 * c.k, "u8", &state);
  const auto values = random_matrix(16 * stored, c.type, &state);
  for (uint32_t row = 0; row < 16; ++row) {
    for (uint32_t chunk = 0; chunk < c.k / c.chunk; ++chunk) {
      uint32_t first = static_cast<uint32_t>(pick[row * c.k + chunk]) % (c.chunk - c.kept + 1);
      for (uint32_t i = 0; i < c.kept; ++i) {
        const uint32_t at = row * stored + chunk * c.kept + i;
        const uint32_t column = first + i;
        packed[at] = values[at];
        dense[row * c.k + chunk * c.chunk + column] = values[at];
        // One of two columns is named by both halves of it.
        const uint32_t index = c.kept == 1 ? 2 * column | (2 * column + 1) << 2 : column, width = c.kept == 1 ? 4 : 2;
        for (uint32_t b = 0; b < width; ++b) {
          const auto [lane, bit] = metadata_place(c, row, (chunk * c.kept + i) * width + b);
          metadata[lane] |= (index >> b & 1) << bit;
        }
      }
    }
  }
  Case x;
  x.m = 16, x.n = 8, x.k = c.k;
  const uint32_t blocks = stored / (4 * c.per);
  const Places a = [&](uint32_t lane, uint32_t i) {
    const uint32_t reg = i / c.per;
    return Place{group(lane) + reg % 2 * 8, within(lane) * c.per + i % c.per + reg / 2 * 4 * c.per};
  };
  const Places b = [&](uint32_t lane, uint32_t i) {
    return Place{within(lane) * c.per + i % c.per + i / c.per * 4 * c.per, group(lane)};
  };
  const auto right = random_matrix(c.k * 8, c.type, &state), start = random_matrix(128, "f16", &state);
  const auto ra = registers(x, c.type, 2 * blocks * c.per, a, packed, 16, stored);
  const auto rb = registers(x, c.type, 2 * blocks * c.per, b, right, c.k, 8);
  const auto rc = registers(x, c.sum_type, 4, accumulator, start, 16, 8);
  const auto expected = registers(x, c.sum_type, 4, accumulator, product(x, dense, right, start), 16, 8);
  x.instruction = c.instruction;
  x.a_type = c.type, x.c_type = x.d_type = c.sum_type;
  std::vector<uint64_t> in = ra;
  in.insert(in.end(), rb.begin(), rb.end());
  in.insert(in.end(), rc.begin(), rc.end());
  const size_t at = in.size() * 8;
  in.insert(in.end(), metadata.begin(), metadata.end());
  std::string kernel = kernel_of(x, ra.size() / 32, rb.size() / 32, rc.size() / 32, expected.size() / 32);
  const size_t where = kernel.find(operand("%c", rc.size() / 32) + ";\n");
  kernel.insert(where + operand("%c", rc.size() / 32).size(), ", %r0, " + std::to_string(c.selector));
  kernel.insert(kernel.find("mma.sp"), "ld.global.u32 %r0, [%rd3+" + std::to_string(at) + "];\n");
  Machine m;
  m.load(kernel);
  if (::testing::Test::HasFatalFailure()) return;
  const uint64_t out = m.allocate(expected.size() * 8);
  const Fault fault = m.run("k", {1, 1, 1}, {32, 1, 1}, {out, m.upload(in)});
  ASSERT_TRUE(fault.ok()) << fault.where;
  EXPECT_EQ(m.download<uint64_t>(out, expected.size()), expected);
}

TEST(Mma, SparseOperandsStandWhereTheMetadataSays) {
  for (const uint32_t selector : {0u, 1u, 2u, 3u}) {
    try_sparse({"mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", 16, 4, 2, "f16", "f32", 2, 1, selector});
    try_sparse({"mma.sp::ordered_metadata.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 8, 2, 1, "tf32", "f32", 1, 1,
                selector});
  }
  for (const uint32_t selector : {0u, 1u}) {
    try_sparse({"mma.sp.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32", 32, 4, 2, "bf16", "f32", 2, 2, selector});
    try_sparse({"mma.sp.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", 32, 4, 2, "s8", "s32", 4, 2, selector});
  }
  try_sparse({"mma.sp.sync.aligned.m16n8k64.row.col.s32.s8.s8.s32", 64, 4, 2, "s8", "s32", 4, 4, 0});
  try_sparse({"mma.sp.sync.aligned.m16n8k64.row.col.f32.e4m3.e4m3.f32", 64, 4, 2, "e4m3", "f32", 4, 4, 0});
}

TEST(Mma, SaturatesOnlyWhenAsked) {
  for (const bool saturate : {false, true}) {
    Machine m;
    m.load(with_header(
        ".visible .entry k(.param .u64 out)\n{ .reg .b32 %r<9>; .reg .b64 %rd<3>;\nld.param.u64 %rd1, [out]; mov.u32 "
        "%r1, %laneid; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; mov.u32 %r2, 0x7f7f7f7f; mov.u32 %r3, "
        "0x7ffffff0;\nmma.sync.aligned.m8n8k16.row.col" +
        std::string(saturate ? ".satfinite" : "") +
        ".s32.s8.s8.s32 {%r4, %r5}, {%r2}, {%r2}, {%r3, %r3};\nst.global.u32 [%rd1], %r4; ret; }"));
    const uint64_t out = m.allocate(128);
    ASSERT_TRUE(m.run("k", {1, 1, 1}, {32, 1, 1}, {out}).ok());
    EXPECT_EQ(m.download<uint32_t>(out, 1)[0], saturate ? 0x7fffffffu : 0x7ffffff0u + 16 * 127 * 127);
  }
}

TEST(Mma, UnknownShapesAreNamed) {
  std::string error;
  const auto program = LoadedProgram::load(
      with_header(".visible .entry odd()\n{ .reg .b32 %r<9>;\nmma.sync.aligned.m16n8k24.row.col.f16.f16.f16.f16 {%r1, "
                  "%r2}, {%r3, %r4}, {%r5}, {%r1, %r2}; ret; }"),
      best_isa_level(), &error);
  EXPECT_EQ(program, nullptr);
  EXPECT_NE(error.find("odd"), std::string::npos);
  EXPECT_NE(error.find("mma.sync.aligned.m16n8k24"), std::string::npos) << error;
}

// Shared memory holds 16-bit elements 0, 1, 2 ...; each lane gives the address of a row of eight.
std::vector<uint32_t> load_matrices(const std::string& instruction, const std::string& regs) {
  Machine m;
  m.load(with_header(
      ".visible .entry k(.param .u64 out)\n{ .reg .b32 %r<20>; .reg .b64 %rd<9>; .shared .align 16 .b8 s[512];\n"
      "mov.u32 %r1, %laneid; mov.u32 %r2, s; shl.b32 %r3, %r1, 4; add.u32 %r3, %r3, %r2;\n"
      "mul.lo.u32 %r4, %r1, 524296; add.u32 %r4, %r4, 65536; add.u32 %r5, %r4, 131074; add.u32 %r6, %r5, 131074; "
      "add.u32 %r7, %r6, 131074;\nst.shared.v4.u32 [%r3], {%r4, %r5, %r6, %r7}; bar.warp.sync -1;\n"
      "mov.u32 %r10, 0; mov.u32 %r11, 0; mov.u32 %r12, 0; mov.u32 %r13, 0;\n" +
      instruction + " " + regs +
      ", [%r3];\nld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r1, 16; add.u64 %rd3, %rd1, %rd2;\n"
      "st.global.v4.u32 [%rd3], {%r10, %r11, %r12, %r13}; ret; }"));
  const uint64_t out = m.allocate(512);
  const Fault fault = m.run("k", {1, 1, 1}, {32, 1, 1}, {out});
  EXPECT_TRUE(fault.ok()) << fault.where;
  return m.download<uint32_t>(out, 128);
}

TEST(Ldmatrix, GivesEachLaneTwoElementsOfARow) {
  for (const uint32_t count : {1u, 2u, 4u}) {
    for (const bool transposed : {false, true}) {
      const char* regs = count == 1 ? "{%r10}" : count == 2 ? "{%r10, %r11}" : "{%r10, %r11, %r12, %r13}";
      const auto out = load_matrices(
          "ldmatrix.sync.aligned.m8n8.x" + std::to_string(count) + (transposed ? ".trans" : "") + ".shared.b16", regs);
      for (uint32_t lane = 0; lane < 32; ++lane) {
        for (uint32_t i = 0; i < 4; ++i) {
          const uint32_t row = lane / 4, column = lane % 4 * 2;
          const auto element = [&](uint32_t r, uint32_t c) { return (8 * i + r) * 8 + c; };
          const uint32_t low = transposed ? element(column, row) : element(row, column);
          const uint32_t high = transposed ? element(column + 1, row) : element(row, column + 1);
          EXPECT_EQ(out[lane * 4 + i], i < count ? low | high << 16 : 0) << lane << " " << i;
        }
      }
    }
  }
}

TEST(Ldmatrix, ARowMustBeAligned) {
  Machine m;
  m.load(
      with_header(".visible .entry k()\n{ .reg .b32 %r<4>; .shared .align 16 .b8 s[512]; mov.u32 %r1, s; add.u32 %r1, "
                  "%r1, 8;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r2}, [%r1]; ret; }"));
  EXPECT_EQ(m.run("k", {1, 1, 1}, {32, 1, 1}, {}).kind, FaultKind::kMisalignedAddress);
}

TEST(Stmatrix, PutsBackWhatLdmatrixGives) {
  for (const std::string transposed : {"", ".trans"}) {
    Machine m;
    m.load(with_header(
        ".visible .entry k(.param .u64 out)\n{ .reg .b32 %r<20>; .reg .b64 %rd<9>; .shared .align 16 .b8 s[512];\n"
        "mov.u32 %r1, %laneid; mov.u32 %r2, s; shl.b32 %r3, %r1, 4; add.u32 %r3, %r3, %r2;\n"
        "mul.lo.u32 %r4, %r1, 0x10001; add.u32 %r5, %r4, 0x01000200; add.u32 %r6, %r5, 0x01000200; add.u32 %r7, %r6, "
        "0x01000200;\nstmatrix.sync.aligned.m8n8.x4" +
        transposed + ".shared.b16 [%r3], {%r4, %r5, %r6, %r7};\nldmatrix.sync.aligned.m8n8.x4" + transposed +
        ".shared.b16 {%r10, %r11, %r12, %r13}, [%r3];\nxor.b32 %r10, %r10, %r4; xor.b32 %r11, %r11, %r5; xor.b32 %r12, "
        "%r12, %r6; xor.b32 %r13, %r13, %r7;\nld.shared.u32 %r14, [s+4]; ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, "
        "%r1, 16; add.u64 %rd3, %rd1, %rd2; or.b32 %r10, %r10, %r11; st.global.v4.u32 [%rd3], {%r10, %r14, %r12, "
        "%r13}; "
        "ret; }"));
    const uint64_t out = m.allocate(512);
    ASSERT_TRUE(m.run("k", {1, 1, 1}, {32, 1, 1}, {out}).ok());
    const auto got = m.download<uint32_t>(out, 128);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      for (const uint32_t i : {0u, 2u, 3u}) EXPECT_EQ(got[lane * 4 + i], 0u);
      // Columns 2 and 3 of the first row: lane 1 holds both, or lanes 8 and 12 one each.
      EXPECT_EQ(got[lane * 4 + 1], transposed.empty() ? 0x00010001u : 0x000c0008u);
    }
  }
}

TEST(Movmatrix, Transposes) {
  Machine m;
  m.load(
      with_header(".visible .entry k(.param .u64 out)\n{ .reg .b32 %r<9>; .reg .b64 %rd<4>;\nmov.u32 %r1, %laneid; "
                  "mul.lo.u32 %r2, %r1, 131074; add.u32 %r2, %r2, 65536;\nmovmatrix.sync.aligned.m8n8.trans.b16 %r3, "
                  "%r2;\nld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd3, %rd1, %rd2; "
                  "st.global.u32 [%rd3], %r3; ret; }"));
  const uint64_t out = m.allocate(128);
  ASSERT_TRUE(m.run("k", {1, 1, 1}, {32, 1, 1}, {out}).ok());
  const auto got = m.download<uint32_t>(out, 32);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t row = lane / 4, column = lane % 4 * 2;
    EXPECT_EQ(got[lane], (column * 8 + row) | ((column + 1) * 8 + row) << 16);
  }
}

// Each lane's registers are its number, so every sum is its own; the factors are 2^(row) and 2^(-column).
TEST(Mma, RowsAndColumnsAreScaled) {
  const std::string head =
      ".version 8.7\n.target sm_120a\n.address_size 64\n.visible .entry k(.param .u64 out)\n{ .reg .b32 %r<40>; .reg "
      ".b16 %h<5>; .reg .b64 %rd<5>; .reg .f32 %f<9>; ld.param.u64 %rd1, [out]; mov.u32 %r1, %laneid; mul.wide.u32 "
      "%rd2, "
      "%r1, 16; add.u64 %rd1, %rd1, %rd2;\n";
  for (const IsaLevel level : levels()) {
    for (uint32_t thread_a = 0; thread_a < 2; ++thread_a) {
      for (uint32_t byte = 0; byte < 4; ++byte) {
        const uint32_t thread_b = 3 - thread_a - byte % 2;
        // The factor in byte `byte` of lane l is 120 + l % 7 for a, 130 - l % 5 for b; other bytes are NaN.
        const std::string shift = std::to_string(8 * byte);
        const std::string body =
            "mov.f32 %f1, 0f3f800000; mov.u32 %r2, 0x38383838; mov.u32 %r3, 0x3c3c3c3c;\nrem.u32 %r4, %r1, 7; add.u32 "
            "%r4, %r4, 120; rem.u32 %r5, %r1, 5; sub.u32 %r5, 130, %r5;\nmov.u32 %r6, -1; bfi.b32 %r7, %r4, %r6, " +
            shift + ", 8; bfi.b32 %r8, %r5, %r6, " + shift + ", 8; mov.u16 %h1, " + std::to_string(thread_b) +
            ";\nmma.sync.aligned.m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::1X.f32.e4m3.e5m2.f32.ue8m0 "
            "{%f5, %f6, %f7, %f8}, {%r2, %r2, %r2, %r2}, {%r3, %r3}, {%f1, %f1, %f1, %f1}, %r7, {" +
            std::to_string(byte) + ", " + std::to_string(thread_a) + "}, %r8, {" + std::to_string(byte) +
            ", %h1};\nst.global.v4.f32 [%rd1], {%f5, %f6, %f7, %f8}; ret; }\n";
        Machine m;
        m.load(head + body, level);
        if (HasFatalFailure()) return;
        const uint64_t out = m.allocate(512);
        ASSERT_TRUE(m.run("k", {1, 1, 1}, {32, 1, 1}, {out}).ok());
        const auto got = m.download<float>(out, 128);
        for (uint32_t lane = 0; lane < 32; ++lane) {
          for (uint32_t i = 0; i < 4; ++i) {
            const Place p = accumulator(lane, i);
            const uint32_t row_lane = p.row % 8 * 4 + thread_a * 2 + p.row / 8, column_lane = p.column * 4 + thread_b;
            const int exponent = static_cast<int>(120 + row_lane % 7 + 130 - column_lane % 5) - 254;
            EXPECT_EQ(got[lane * 4 + i], 1.0f + std::ldexp(32.0f, exponent)) << lane << " " << i;
          }
        }
      }
    }
  }
}

// 1 + 2^-60 and its like: what is left behind the last place goes where the mode says.
TEST(Mma, SumsOfDoublesAreRoundedAsAsked) {
  for (const IsaLevel level : levels()) {
    for (const auto& [mode, up, down] :
         {std::tuple{".rn", 1.0, -1.0}, std::tuple{".rz", 1.0, -1.0}, std::tuple{".rp", 1.0 + 0x1p-52, -1.0},
          std::tuple{".rm", 1.0, -1.0 - 0x1p-52}}) {
      Machine m;
      m.load(
          ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 out)\n{ .reg .b64 %rd<5>; .reg "
          ".f64 %d<9>; ld.param.u64 %rd1, [out]; mov.f64 %d1, 0d3c30000000000000; "
          "mov.f64 %d2, 0d3ff0000000000000; neg.f64 %d4, %d2; neg.f64 %d5, %d1;\n"
          "mma.sync.aligned.m16n8k4.row.col" +
              std::string(mode) +
              ".f64.f64.f64.f64 {%d6, %d7, %d6, %d7}, {%d1, "
              "%d1}, {%d2}, {%d2, %d2, %d2, %d2};\nmma.sync.aligned.m16n8k4.row.col" +
              std::string(mode) +
              ".f64.f64.f64.f64 {%d3, %d8, %d3, %d8}, {%d5, %d5}, {%d2}, {%d4, %d4, %d4, %d4};\nst.global.v2.f64 "
              "[%rd1], "
              "{%d6, %d3}; ret; }\n",
          level);
      if (HasFatalFailure()) return;
      const uint64_t out = m.allocate(16);
      ASSERT_TRUE(m.run("k", {1, 1, 1}, {32, 1, 1}, {out}).ok());
      const auto got = m.download<double>(out, 2);
      // Four steps, of which each one away from the number moves it by one last place.
      const double steps = 4;
      EXPECT_EQ(got[0], 1.0 + (up - 1.0) * steps) << mode;
      EXPECT_EQ(got[1], -1.0 + (down + 1.0) * steps) << mode;
    }
  }
}

}  // namespace
}  // namespace softgpu
