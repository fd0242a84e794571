#pragma once

// How long a module image is: the load calls get a pointer only.

#include <cstddef>
#include <cstdint>

namespace tide {

enum class ImageKind { kUnknown, kFatbin, kElf, kPtx, kSeveralFatbins, kBundle };

struct Image {
  ImageKind kind = ImageKind::kUnknown;
  const void* data = nullptr;  // of a wrapper: what it wraps
  uint64_t bytes = 0;          // of text: with its NUL
};

// Requires: `code` points to what a CUDA load call may be given (the program's own memory).
Image find_image(const void* code);

// The parts of a kSeveralFatbins: what nvlink made (perhaps nothing), and what each unit brought.
struct Fatbins {
  Image linked;
  const void* const* units = nullptr;  // ends with null
};
Fatbins fatbins_of(const void* wrapper);

}  // namespace tide
