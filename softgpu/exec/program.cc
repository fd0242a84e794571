#include "softgpu/exec/program.h"

#include "softgpu/exec/load.h"
#include "softgpu/lower/kernel_lowering.h"
#include "softgpu/ptx/parser.h"

namespace softgpu {

std::shared_ptr<const LoadedProgram> LoadedProgram::load(std::string_view ptx, IsaLevel level, std::string* error) {
  const std::unique_ptr<ptx::Module> module = ptx::parse(ptx, error);
  if (module == nullptr) return nullptr;
  auto program = std::make_shared<LoadedProgram>();
  if (!program->image_.build(*module, error)) return nullptr;
  for (const auto& function : module->functions) {
    if (!function->entry || !function->has_body) continue;
    KernelLowering lowering(*module, program->image_, handlers_of(level));
    KernelInfo info;
    auto code = std::make_unique<KernelCode>();
    if (!lowering.lower(*function, &info, code.get(), error)) return nullptr;
    program->kernels_.push_back(std::move(info));
    program->code_.push_back(std::move(code));
  }
  return program;
}

std::shared_ptr<const Program> Program::load(std::string_view ptx, std::string* error) {
  return LoadedProgram::load(ptx, best_isa_level(), error);
}

}  // namespace softgpu
