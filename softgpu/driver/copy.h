#pragma once

// Copies and fills of rectangles between any two kinds of memory; a plain copy is one row.

#include <cstdint>

#include "softgpu/driver/context.h"

namespace softgpu {

struct CopyRect {
  uint64_t destination = 0, destination_pitch = 0;
  uint64_t source = 0, source_pitch = 0;
  uint64_t width = 0, height = 1;                    // bytes, rows
  uint64_t depth = 1;                                // slices
  uint64_t destination_slice = 0, source_slice = 0;  // bytes from one to the next
};

// The rectangle that a description means. Refuses what lies outside of arrays, and pitches that are too small.
CUresult resolve_copy(const CUDA_MEMCPY3D& what, CopyRect* rect);

enum class Wait { kNever, kForPageable, kForHost };

// Refuses addresses that are nobody's. What is read from pageable memory has been read when this returns, what is
// written to pageable memory has been written; kForHost waits also where only pinned memory is concerned.
// `what`, where given, is what a node of a graph shows instead of the rectangle.
CUresult copy_rect(Context& context, const std::shared_ptr<Stream>& stream, const CopyRect& rect, Wait wait,
                   const CUDA_MEMCPY3D* what = nullptr);

struct FillRect {
  uint64_t address = 0, pitch = 0;  // pitch in bytes
  uint32_t pattern = 0;
  unsigned element_bytes = 1;
  uint64_t width = 0, height = 1;  // elements, rows
};
CUresult fill_rect(Context& context, const std::shared_ptr<Stream>& stream, const FillRect& rect);

}  // namespace softgpu
