#include "softgpu/exec/tensor.h"

namespace softgpu {
namespace {

struct Place {
  uint32_t batch = 0, row = 0, column = 0;
};

struct Shape {
  uint32_t rows, columns, per;
};

// Element i of a lane. Lanes in fours share a row of A (a column of B, a row of the accumulator); sixteen rows are two
// times eight, and further rows or columns follow in further registers.
Place place_in_a(const Shape& s, uint32_t lane, uint32_t i) {
  const uint32_t halves = s.rows >= 16 ? 2 : 1, blocks = s.columns / (4 * s.per);
  const uint32_t reg = i / s.per % (blocks * s.rows / 8);
  const uint32_t within = reg % (halves * blocks), tile = reg / (halves * blocks);
  return {0, lane / 4 + 8 * (within % halves) + 16 * tile, lane % 4 * s.per + i % s.per + within / halves * 4 * s.per};
}

Place place_in_b(const Shape& s, uint32_t lane, uint32_t i) {
  const uint32_t blocks = s.rows / (4 * s.per);
  const uint32_t reg = i / s.per % (blocks * s.columns / 8);
  return {0, lane % 4 * s.per + i % s.per + reg % blocks * 4 * s.per, lane / 4 + 8 * (reg / blocks)};
}

Place place_in_c(const Shape& s, uint32_t lane, uint32_t i) {
  const uint32_t halves = s.rows >= 16 ? 2 : 1;
  const uint32_t pair = i / 2 % (s.rows * s.columns / 64);
  const uint32_t half = pair % halves, column_tile = pair / halves % (s.columns / 8);
  const uint32_t row_tile = pair / halves / (s.columns / 8);
  return {0, lane / 4 + 8 * half + 16 * row_tile, lane % 4 * 2 + i % 2 + 8 * column_tile};
}

// m8n8k4 with half precision: four multiplications, each by two groups of four lanes.
Place place_in_quad(TensorCode::Role role, uint32_t lane, uint32_t i) {
  const uint32_t batch = lane % 16 / 4, along = lane % 4 + (lane < 16 ? 0 : 4);
  const uint32_t across = i % 4 + (lane < 16 ? 0 : 4);
  switch (role) {
    case TensorCode::Role::kQuadARow:
      return {batch, along, i};
    case TensorCode::Role::kQuadA:
      return {batch, across, lane % 4};
    case TensorCode::Role::kQuadBColumn:
      return {batch, i, along};
    case TensorCode::Role::kQuadB:
      return {batch, lane % 4, across};
    case TensorCode::Role::kQuadC16:
      return {batch, along, i};
    default:
      return {batch, (lane & 1) + (i & 2) + (lane < 16 ? 0 : 4), (i & 4) + (lane & 2) + (i & 1)};
  }
}

Place place_of(TensorCode::Role role, const Shape& shape, uint32_t lane, uint32_t i) {
  switch (role) {
    case TensorCode::Role::kA:
      return place_in_a(shape, lane, i);
    case TensorCode::Role::kB:
      return place_in_b(shape, lane, i);
    case TensorCode::Role::kC:
      return place_in_c(shape, lane, i);
    default:
      return place_in_quad(role, lane, i);
  }
}

}  // namespace

const FragmentLayout* TensorCode::layout(Role role, uint32_t rows, uint32_t columns, uint32_t per, uint32_t elements) {
  Stored& out = layouts_[{role, rows, columns, per, elements}];
  if (out.view.slots != 0) return &out.view;
  const bool quads = role >= Role::kQuadA;
  out.slot_of.assign(size_t{rows} * columns * (quads ? 4 : 1), -1);
  for (uint32_t i = 0; i < elements; ++i) {
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const Place p = place_of(role, {rows, columns, per}, lane, i);
      const uint32_t at = (p.batch * rows + p.row) * columns + p.column;
      if (out.slot_of[at] < 0) out.slot_of[at] = static_cast<int32_t>(out.matrix_of.size());
      out.matrix_of.push_back(static_cast<int32_t>(at));
    }
  }
  out.view = {out.matrix_of.data(), out.slot_of.data(), elements * 32, static_cast<uint32_t>(out.slot_of.size())};
  return &out.view;
}

}  // namespace softgpu
