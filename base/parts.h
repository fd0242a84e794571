#pragma once

// A rectangle of bytes, cut into what fits into one piece each: whole rows where they fit, else parts of one.

#include <algorithm>
#include <cstdint>

namespace tide {

struct Part {
  uint64_t row = 0, column = 0, rows = 0, columns = 0;
  uint64_t bytes() const { return rows * columns; }
};

// In order, row by row. Requires: no argument is 0.
class Parts {
 public:
  Parts(uint64_t width, uint64_t height, uint64_t piece_bytes)
      : width_(width),
        height_(height),
        rows_max_(width > piece_bytes ? 1 : piece_bytes / width),
        columns_max_(std::min(width, piece_bytes)) {}
  bool next(Part* part) {
    if (row_ == height_) return false;
    *part = {row_, column_, std::min(rows_max_, height_ - row_), std::min(columns_max_, width_ - column_)};
    column_ += part->columns;
    if (column_ == width_) column_ = 0, row_ += part->rows;
    return true;
  }

 private:
  const uint64_t width_, height_, rows_max_, columns_max_;
  uint64_t row_ = 0, column_ = 0;
};

}  // namespace tide
