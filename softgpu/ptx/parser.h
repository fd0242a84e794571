#pragma once

// PTX text -> Module. Accepts what nvcc and ptxas accept as far as our kernels need it; it does not type-check.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "softgpu/ptx/ast.h"

namespace softgpu::ptx {

// Sees every function with its body while the module is read, after what was declared before it.
using FunctionVisitor = std::function<void(const Module&, const Function&)>;

// Returns null on failure, with one line in *error that names the place. The functions of the module have no bodies.
std::unique_ptr<Module> parse(std::string_view text, const FunctionVisitor& visit, std::string* error);

// The function with its body. `head` is one of a module that parse() returned, and its module outlives the result;
// null, with *error set, when the text is not what it was.
std::unique_ptr<Function> parse_body(const Function& head, std::string* error);

}  // namespace softgpu::ptx
