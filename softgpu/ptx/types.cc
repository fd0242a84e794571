#include "softgpu/ptx/ast.h"

namespace softgpu::ptx {
namespace {

struct Row {
  const char* suffix;
  Type type;
  uint8_t bytes;
  bool is_signed;
  bool is_float;
};

constexpr Row kRows[] = {
    {"pred", Type::kPred, 4, false, false},
    {"b8", Type::kB8, 1, false, false},
    {"b16", Type::kB16, 2, false, false},
    {"b32", Type::kB32, 4, false, false},
    {"b64", Type::kB64, 8, false, false},
    {"b128", Type::kB128, 16, false, false},
    {"u8", Type::kU8, 1, false, false},
    {"u16", Type::kU16, 2, false, false},
    {"u32", Type::kU32, 4, false, false},
    {"u64", Type::kU64, 8, false, false},
    {"s8", Type::kS8, 1, true, false},
    {"s16", Type::kS16, 2, true, false},
    {"s32", Type::kS32, 4, true, false},
    {"s64", Type::kS64, 8, true, false},
    {"f16", Type::kF16, 2, true, true},
    {"f16x2", Type::kF16x2, 4, true, true},
    {"bf16", Type::kBf16, 2, true, true},
    {"bf16x2", Type::kBf16x2, 4, true, true},
    {"f32", Type::kF32, 4, true, true},
    {"f64", Type::kF64, 8, true, true},
    {"u16x2", Type::kU16x2, 4, false, false},
    {"s16x2", Type::kS16x2, 4, true, false},
    {"f32x2", Type::kF32x2, 8, true, true},
    {"texref", Type::kTexref, 8, false, false},
    {"surfref", Type::kSurfref, 8, false, false},
    {"samplerref", Type::kSamplerref, 8, false, false},
};

const Row* row_of(Type type) {
  for (const Row& row : kRows) {
    if (row.type == type) return &row;
  }
  return nullptr;
}

}  // namespace

Type type_of(std::string_view suffix) {
  for (const Row& row : kRows) {
    if (suffix == row.suffix) return row.type;
  }
  return Type::kNone;
}

uint32_t bytes_of(Type type) {
  const Row* row = row_of(type);
  return row == nullptr ? 0 : row->bytes;
}

bool is_signed(Type type) {
  const Row* row = row_of(type);
  return row != nullptr && row->is_signed;
}

bool is_float(Type type) {
  const Row* row = row_of(type);
  return row != nullptr && row->is_float;
}

int64_t Module::find_variable(uint32_t unit, std::string_view symbol) const {
  const auto at = symbols[unit].variables.find(symbol);
  return at == symbols[unit].variables.end() ? -1 : int64_t{at->second};
}

int64_t Module::find_function(uint32_t unit, std::string_view symbol) const {
  const auto at = symbols[unit].functions.find(symbol);
  return at == symbols[unit].functions.end() ? -1 : int64_t{at->second};
}

}  // namespace softgpu::ptx
