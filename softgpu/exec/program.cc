#include "softgpu/exec/program.h"

#include <algorithm>
#include <set>

#include "softgpu/exec/load.h"
#include "softgpu/lower/kernel_lowering.h"
#include "softgpu/lower/module_check.h"
#include "softgpu/lower/reach.h"
#include "softgpu/ptx/header.h"
#include "softgpu/ptx/link.h"
#include "softgpu/ptx/parser.h"

namespace softgpu {
namespace {

std::string in_unit(const PtxUnit& unit, const std::string& text) {
  return unit.name.empty() ? text : unit.name + ": " + text;
}

bool check_header(const PtxUnit& unit, unsigned capability, LoadError* error) {
  const ptx::Header header = ptx::read_header(unit.text);
  const auto fail = [&](LoadFailure kind, uint32_t line, const std::string& text) {
    *error = {kind, in_unit(unit, "line " + std::to_string(line) + ": " + text)};
    return false;
  };
  if (header.version == 0) return fail(LoadFailure::kSyntax, 1, "missing .version directive at the start");
  if (header.version > ptx::kNewestVersion) {
    return fail(LoadFailure::kVersion, header.version_line,
                "unsupported .version " + header.version_text + "; the newest is '" +
                    std::to_string(ptx::kNewestVersion / 10) + "." + std::to_string(ptx::kNewestVersion % 10) + "'");
  }
  if (header.target == 0) return true;
  if (!ptx::is_known_target(header.target_text)) {
    return fail(LoadFailure::kTarget, header.target_line, "unknown .target '" + header.target_text + "'");
  }
  if (capability != 0 && header.target > capability && !unit.any_target) {
    return fail(LoadFailure::kTarget, header.target_line,
                ".target " + header.target_text + " is above the device, sm_" + std::to_string(capability));
  }
  return true;
}

std::unique_ptr<ptx::Module> parse_unit(const PtxUnit& unit, unsigned capability, const ptx::FunctionVisitor& visit,
                                        LoadError* error) {
  if (!check_header(unit, capability, error)) return nullptr;
  std::string text;
  auto module = ptx::parse(unit.text, visit, &text);
  if (module == nullptr) {
    *error = {LoadFailure::kSyntax, in_unit(unit, text)};
  } else {
    module->name = unit.name;
  }
  return module;
}

void ignore_function(const ptx::Module&, const ptx::Function&) {}

// `check` may be null.
std::unique_ptr<ptx::Module> parse_units(const std::vector<PtxUnit>& units, unsigned capability, ModuleCheck* check,
                                         LoadError* error) {
  std::vector<std::unique_ptr<ptx::Module>> modules;
  for (const PtxUnit& unit : units) {
    const auto number = static_cast<uint32_t>(modules.size());
    const auto visit = [&](const ptx::Module& module, const ptx::Function& function) {
      if (check != nullptr) check->visit(module, function, number);
    };
    modules.push_back(parse_unit(unit, capability, visit, error));
    if (modules.back() == nullptr) return nullptr;
  }
  std::string text;
  auto linked = ptx::link(std::move(modules), &text);
  if (linked == nullptr) *error = {LoadFailure::kLink, text};
  return linked;
}

}  // namespace

std::shared_ptr<const LoadedProgram> LoadedProgram::load(std::vector<PtxUnit> units, unsigned capability,
                                                         IsaLevel level, LoadError* error) {
  auto program = std::make_shared<LoadedProgram>();
  program->level_ = level;
  ModuleCheck check;
  std::unique_ptr<ptx::Module> linked = parse_units(units, capability, &check, error);
  if (linked == nullptr) return nullptr;
  linked->address_taken = check.address_taken(*linked);
  program->module_ = std::move(linked);
  const ptx::Module* module = program->module_.get();
  error->kind = LoadFailure::kUndefined;
  // One unit out of a fat binary may be a part of something that is linked later: only its kernels that need what is
  // missing cannot run.
  const bool whole = units.size() > 1 || (capability != 0 && !units[0].any_target);
  if (whole && !check_references(*module, &error->text)) return nullptr;
  if (!program->image_.build(*module, &error->text)) return nullptr;
  error->kind = LoadFailure::kUnsupported;
  if (!check.finish(*module, program->image_, handlers_of(level), &error->text)) return nullptr;
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
    error->text = program->heads_[0].missing;
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

std::shared_ptr<const LoadedProgram> LoadedProgram::load(std::string_view ptx, IsaLevel level, std::string* error) {
  LoadError why;
  std::vector<PtxUnit> units(1);
  units[0].text = ptx;
  auto program = load(std::move(units), 0, level, &why);
  if (program == nullptr) *error = why.text;
  return program;
}

int64_t LoadedProgram::kernel_at(uint64_t address) const {
  const auto found = std::find(functions_.begin(), functions_.end(), (address - kCodeWindow) / 16);
  if (address < kCodeWindow || address % 16 != 0 || found == functions_.end()) return -1;
  return found - functions_.begin();
}

std::shared_ptr<const Program> Program::load(std::string_view ptx, std::string* error) {
  return LoadedProgram::load(ptx, best_isa_level(), error);
}

std::shared_ptr<const Program> Program::load(std::vector<PtxUnit> units, unsigned capability, LoadError* error) {
  return LoadedProgram::load(std::move(units), capability, best_isa_level(), error);
}

bool Program::check_unit(const PtxUnit& unit, unsigned capability, LoadError* error) {
  return parse_unit(unit, capability, ignore_function, error) != nullptr;
}

void Program::pull_members(std::vector<PtxUnit>* units, std::vector<PtxUnit>* members) {
  LoadError ignored;  // whoever added them has checked them
  std::set<std::string> defined, needed;
  const auto count = [&](const ptx::Module& module) {
    const ptx::Interface names = ptx::interface_of(module);
    defined.insert(names.defined.begin(), names.defined.end());
    needed.insert(names.needed.begin(), names.needed.end());
  };
  for (const PtxUnit& unit : *units) {
    if (const auto module = parse_unit(unit, 0, ignore_function, &ignored)) count(*module);
  }
  std::vector<std::unique_ptr<ptx::Module>> modules;
  for (const PtxUnit& unit : *members) modules.push_back(parse_unit(unit, 0, ignore_function, &ignored));
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < modules.size(); ++i) {
      if (modules[i] == nullptr) continue;
      const ptx::Interface names = ptx::interface_of(*modules[i]);
      const bool wanted = std::any_of(names.defined.begin(), names.defined.end(), [&](std::string_view name) {
        return needed.contains(std::string(name)) && !defined.contains(std::string(name));
      });
      if (!wanted) continue;
      count(*modules[i]);
      modules[i] = nullptr;
      units->push_back((*members)[i]);
      changed = true;
    }
  }
}

bool Program::check(const std::vector<PtxUnit>& units, unsigned capability, LoadError* error) {
  const std::unique_ptr<ptx::Module> module = parse_units(units, capability, nullptr, error);
  if (module == nullptr) return false;
  error->kind = LoadFailure::kUndefined;
  return check_references(*module, &error->text);
}

}  // namespace softgpu
