#include "softgpu/exec/program.h"

#include "softgpu/exec/load.h"
#include "softgpu/lower/kernel_lowering.h"
#include "softgpu/lower/module_check.h"
#include "softgpu/ptx/parser.h"

namespace softgpu {

std::shared_ptr<const LoadedProgram> LoadedProgram::load(std::string_view ptx, IsaLevel level, std::string* error) {
  auto program = std::make_shared<LoadedProgram>();
  program->level_ = level;
  ModuleCheck check;
  program->module_ = ptx::parse(
      ptx, [&](const ptx::Module& module, const ptx::Function& function) { check.visit(module, function); }, error);
  const ptx::Module* module = program->module_.get();
  if (module == nullptr || !program->image_.build(*module, error)) return nullptr;
  if (!check.finish(*module, program->image_, handlers_of(level), error)) return nullptr;
  program->warnings_ = check.warnings();
  bool any = false;
  for (uint32_t i = 0; i < module->functions.size(); ++i) {
    const ptx::Function& function = *module->functions[i];
    if (!function.entry || !function.has_body) continue;
    program->heads_.push_back(KernelLowering::head_of(*module, function));
    program->heads_.back().missing = check.missing(i);
    program->functions_.push_back(i);
    any = any || program->heads_.back().missing.empty();
  }
  if (!any && !program->heads_.empty()) {
    *error = program->heads_[0].missing;
    return nullptr;
  }
  program->slots_ = std::make_unique<Slot[]>(program->heads_.size());
  return program;
}

const KernelInfo* LoadedProgram::kernel(uint32_t index, std::string* error) const {
  Slot& slot = slots_[index];
  if (const Lowered* ready = slot.lowered.load(std::memory_order_acquire)) return &ready->info;
  const std::lock_guard lock(mu_);
  if (slot.owner == nullptr && slot.error.empty()) {
    auto lowered = std::make_unique<Lowered>();
    KernelLowering lowering(*module_, image_, handlers_of(level_));
    if (!heads_[index].missing.empty()) {
      slot.error = heads_[index].missing;
    } else if (lowering.lower(*module_->functions[functions_[index]], &lowered->info, &lowered->code, &slot.error)) {
      slot.lowered.store(lowered.get(), std::memory_order_release);
      slot.owner = std::move(lowered);
    }
  }
  if (slot.owner != nullptr) return &slot.owner->info;
  *error = slot.error;
  return nullptr;
}

std::shared_ptr<const Program> Program::load(std::string_view ptx, std::string* error) {
  return LoadedProgram::load(ptx, best_isa_level(), error);
}

}  // namespace softgpu
