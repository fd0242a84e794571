#pragma once

// Rows of device memory, `pitch` apart.

#include <cstddef>
#include <cstdint>

#include "driver.h"

namespace tide {

class Session;

struct Rectangle {
  uint64_t pitch = 0, width = 0, height = 0;
  uint64_t bytes() const { return width * height; }
  bool contiguous() const { return height == 1 || pitch == width; }
  // From its first byte to behind its last one; false where no memory is that large.
  bool span(uint64_t* span) const {
    uint64_t rows = 0, total = 0;
    if (width == 0 || height == 0 || (height > 1 && pitch < width)) return false;
    if (__builtin_mul_overflow(pitch, height - 1, &rows) || __builtin_add_overflow(rows, width, span)) return false;
    return !__builtin_mul_overflow(width, height, &total);
  }
};

// Whether a command may name it.
bool valid(Session& session, uint64_t address, const Rectangle& r);
// Between device memory and packed rows in the host's.
CUresult copy_rows(const Driver& driver, CUstream stream, uint64_t device, const Rectangle& r, std::byte* host,
                   bool in);

}  // namespace tide
