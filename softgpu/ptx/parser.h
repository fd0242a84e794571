#pragma once

// PTX text -> Module. Accepts what nvcc and ptxas accept as far as our kernels need it; it does not type-check.

#include <memory>
#include <string>
#include <string_view>

#include "softgpu/ptx/ast.h"

namespace softgpu::ptx {

// Returns null on failure, with one line in *error that names the place.
std::unique_ptr<Module> parse(std::string_view text, std::string* error);

}  // namespace softgpu::ptx
