#pragma once

// What module and library loads share: their options and images in files.

#include <string>

#include "softgpu/driver/module.h"

namespace softgpu {

// The log buffers among the options of a load; everything else has no meaning for an interpreter.
JitLog read_load_options(const CUjit_option* options, void* const* values, unsigned count);

// The bytes of a file with a NUL behind them.
bool read_image_file(const char* path, std::string* image);

}  // namespace softgpu
