// Functions that programs call and nobody but the driver defines: those with a handler.

#include "softgpu/exec/handlers.h"
#include "softgpu/lower/reach.h"

namespace softgpu {

bool is_builtin(std::string_view function) {
  return handlers_of(IsaLevel::kV2).contains("call." + std::string(function));
}

}  // namespace softgpu
