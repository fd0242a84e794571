#pragma once

// Names that a program uses and nothing defines.

#include <string>
#include <string_view>

#include "softgpu/ptx/ast.h"

namespace softgpu {

// Functions that the software GPU itself provides: vprintf, malloc, ...
bool is_builtin(std::string_view function);

// False, with one line in *error, when something that a kernel can reach is declared and nowhere defined.
bool check_references(const ptx::Module& module, std::string* error);

}  // namespace softgpu
