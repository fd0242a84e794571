#pragma once

// Joins the units of one program: what one unit declares `.extern` another defines. A visible definition beats a weak
// one, that a `.common` variable, and of several of these the largest counts; names without linkage stay private.

#include <memory>
#include <string>
#include <vector>

#include "softgpu/ptx/ast.h"

namespace softgpu::ptx {

// Null on failure, with one line in *error. `units` are not empty; with one unit nothing is changed
// but that its names can be looked up. Names that nothing defines stay declarations.
std::unique_ptr<Module> link(std::vector<std::unique_ptr<Module>> units, std::string* error);

// Names that the unit defines for others, and names that it needs.
struct Interface {
  std::vector<std::string_view> defined;
  std::vector<std::string_view> needed;
};
Interface interface_of(const Module& unit);

}  // namespace softgpu::ptx
