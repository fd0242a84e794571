#include "softgpu/lower/module_check.h"

#include <algorithm>
#include <mutex>

#include "softgpu/lower/kernel_lowering.h"
#include "softgpu/ptx/parser.h"

namespace softgpu {
namespace {

using ptx::Operand;

constexpr size_t kMostKnownForms = 1 << 20;

// Whether forms are supported, for all modules of the process.
struct KnownForms {
  std::mutex mu;
  std::unordered_map<uint64_t, bool> supported;
};

KnownForms& known_forms() {
  static auto* const kForms = new KnownForms;
  return *kForms;
}

uint64_t mix(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x9ddfea08eb382d69u + (hash >> 29); }

uint64_t mix(uint64_t hash, std::string_view text) {
  hash = mix(hash, text.size());
  for (; text.size() > 8; text.remove_prefix(8)) {
    uint64_t word = 0;
    __builtin_memcpy(&word, text.data(), 8);
    hash = mix(hash, word);
  }
  uint64_t word = 0;
  __builtin_memcpy(&word, text.data(), text.size());
  return mix(hash, word);
}

uint64_t mix(uint64_t hash, const Operand& o, const ptx::Function& f) {
  hash = mix(hash, static_cast<uint64_t>(o.kind) << 1 | (o.negated ? 1 : 0));
  if (o.kind == Operand::Kind::kRegister) hash = mix(hash, static_cast<uint64_t>(f.registers[o.reg]));
  if (o.kind == Operand::Kind::kVariable) hash = mix(hash, static_cast<uint64_t>(f.variables[o.reg].space));
  if (o.kind == Operand::Kind::kSpecial) hash = mix(hash, o.name);
  if (!o.parts.empty()) hash = mix(hash, o.parts.size());
  for (const Operand& part : o.parts) hash = mix(hash, part, f);
  return hash;
}

uint64_t key_of(const ptx::Instruction& in, const ptx::Function& f) {
  uint64_t hash = mix(0x243f6a8885a308d3u, in.opcode);
  for (const std::string_view m : in.modifiers) hash = mix(hash, m);
  for (const Operand& o : in.operands) hash = mix(hash, o, f);
  return hash ^ hash >> 32;
}

std::string words_of(const ptx::Instruction& in) {
  std::string out(in.opcode);
  for (const std::string_view m : in.modifiers) out.append(".").append(m);
  return out;
}

// The first name that nothing has declared.
std::string_view undeclared(const ptx::Module& module, const Operand& o) {
  if (o.kind == Operand::Kind::kSymbol && module.find_variable(0, o.name) < 0 && module.find_function(0, o.name) < 0) {
    return o.name;
  }
  if (o.kind == Operand::Kind::kSpecial && !KernelLowering::is_special(o.name)) return o.name;
  for (const Operand& part : o.parts) {
    if (const std::string_view name = undeclared(module, part); !name.empty()) return name;
  }
  return {};
}

std::string place(bool entry, std::string_view function, uint32_t line) {
  return (entry ? "kernel " : "function ") + std::string(function) + ", line " + std::to_string(line) + ": ";
}

}  // namespace

void ModuleCheck::see(const ptx::Instruction& in, const ptx::Function& function, Seen* seen) {
  const auto index = static_cast<uint32_t>(functions_.size());
  const auto [at, fresh] = form_of_.emplace(key_of(in, function), forms_.size());
  if (fresh) forms_.push_back({at->first, index, 0, false, words_of(in)});
  Form& form = forms_[at->second];
  if (form.last == index + 1) return;
  form.last = index + 1;
  seen->uses.push_back({at->second, in.line});
}

void ModuleCheck::take_addresses(const ptx::Module& module, const Operand& o, uint32_t unit) {
  for (const Operand& part : o.parts) take_addresses(module, part, unit);
  if (o.kind == Operand::Kind::kSymbol && module.find_function(0, o.name) >= 0) taken_.emplace_back(unit, o.name);
}

std::vector<uint32_t> ModuleCheck::address_taken(const ptx::Module& module) const {
  std::vector<bool> taken(module.functions.size());
  const auto take = [&](uint32_t unit, std::string_view name) {
    if (const int64_t f = module.find_function(unit, name); f >= 0) taken[static_cast<size_t>(f)] = true;
  };
  for (const auto& [unit, name] : taken_) take(unit, name);
  for (const ptx::Variable& v : module.variables) {
    for (const ptx::Initial& value : v.initial) {
      if (!value.symbol.empty()) take(v.unit, value.symbol);
    }
  }
  std::vector<uint32_t> out;
  for (uint32_t f = 0; f < taken.size(); ++f) {
    if (taken[f]) out.push_back(f);
  }
  return out;
}

void ModuleCheck::visit(const ptx::Module& module, const ptx::Function& function, uint32_t unit) {
  Seen seen;
  seen.name = function.name;
  seen.unit = unit;
  seen.entry = function.entry;
  for (const ptx::Instruction& in : function.body) {
    if (error_.empty() && KernelLowering::has_row(in.opcode)) {
      for (const Operand& o : in.operands) {
        const std::string_view name = undeclared(module, o);
        if (name.empty() || name == function.name) continue;
        error_ = place(function.entry, function.name, in.line) + "unknown symbol '" + std::string(name) + "'";
      }
    }
    if (in.opcode != "call") {
      see(in, function, &seen);
      for (const Operand& o : in.operands) take_addresses(module, o, unit);
      continue;
    }
    for (const Operand& o : in.operands) {
      seen.indirect = seen.indirect || o.kind == Operand::Kind::kRegister;
      if (o.kind == Operand::Kind::kSymbol) seen.callees.push_back(o.name);
    }
  }
  std::sort(seen.callees.begin(), seen.callees.end());
  seen.callees.erase(std::unique(seen.callees.begin(), seen.callees.end()), seen.callees.end());
  functions_.push_back(std::move(seen));
}

void ModuleCheck::probe(const ptx::Module& module, const ImageLayout& image, const HandlerTable& handlers) {
  KnownForms& known = known_forms();
  const std::lock_guard lock(known.mu);
  std::vector<std::vector<uint64_t>> wanted(functions_.size());
  for (Form& form : forms_) {
    const auto at = known.supported.find(form.key);
    if (at != known.supported.end()) {
      form.missing = !at->second;
    } else {
      wanted[form.first].push_back(form.key);
    }
  }
  for (size_t i = 0; i < functions_.size(); ++i) {
    if (wanted[i].empty()) continue;
    const int64_t head = module.find_function(functions_[i].unit, functions_[i].name);
    if (head < 0 || seen_of_[static_cast<size_t>(head)] != static_cast<int64_t>(i)) continue;
    std::sort(wanted[i].begin(), wanted[i].end());
    KernelLowering lowering(module, image, handlers);
    lowering.probe(*module.functions[static_cast<size_t>(head)],
                   [&](const ptx::Function& function, const ptx::Instruction& in) {
                     const uint64_t key = key_of(in, function);
                     const auto at = std::lower_bound(wanted[i].begin(), wanted[i].end(), key);
                     if (at == wanted[i].end() || *at != key) return;
                     const bool supported = lowering.supports(in);
                     if (known.supported.size() < kMostKnownForms) known.supported[key] = supported;
                     forms_[form_of_.at(key)].missing = !supported;
                     wanted[i].erase(at);
                   });
  }
}

// A definition that lost against another one in the link belongs to no function of the module.
void ModuleCheck::find_functions(const ptx::Module& module) {
  seen_of_.assign(module.functions.size(), -1);
  for (size_t i = 0; i < functions_.size(); ++i) {
    const int64_t at = module.find_function(functions_[i].unit, functions_[i].name);
    if (at < 0 || module.functions[static_cast<size_t>(at)]->unit != functions_[i].unit) continue;
    seen_of_[static_cast<size_t>(at)] = static_cast<int64_t>(i);
  }
}

bool ModuleCheck::find_missing(const ptx::Module& module, const std::string& kernel, int64_t function,
                               std::vector<bool>* visited, std::string* out) const {
  const int64_t at = function < 0 ? -1 : seen_of_[static_cast<size_t>(function)];
  if (at < 0 || (*visited)[static_cast<size_t>(at)]) return false;
  (*visited)[static_cast<size_t>(at)] = true;
  const Seen& seen = functions_[static_cast<size_t>(at)];
  for (const Use& use : seen.uses) {
    if (!forms_[use.form].missing) continue;
    *out = place(true, kernel, use.line) + "instruction '" + forms_[use.form].words + "' is not supported";
    return true;
  }
  for (const std::string_view callee : seen.callees) {
    if (find_missing(module, kernel, module.find_function(seen.unit, callee), visited, out)) return true;
  }
  if (!seen.indirect) return false;
  return std::any_of(module.address_taken.begin(), module.address_taken.end(),
                     [&](uint32_t f) { return find_missing(module, kernel, f, visited, out); });
}

void ModuleCheck::write_warnings(const ptx::Module& module) {
  std::unordered_map<std::string_view, std::pair<size_t, uint32_t>> lines;  // line, functions
  for (const Seen& seen : functions_) {
    if (module.find_function(seen.unit, seen.name) < 0) continue;
    for (const Use& use : seen.uses) {
      const Form& form = forms_[use.form];
      if (!form.missing) continue;
      const auto [at, fresh] = lines.emplace(form.words, std::make_pair(warnings_.size(), 0u));
      if (fresh)
        warnings_.push_back(place(seen.entry, seen.name, use.line) + "instruction '" + form.words +
                            "' is not supported");
      ++at->second.second;
    }
  }
  for (const auto& [words, at] : lines) {
    if (at.second > 1) warnings_[at.first] += " (and in " + std::to_string(at.second - 1) + " more)";
  }
}

bool ModuleCheck::finish(const ptx::Module& module, const ImageLayout& image, const HandlerTable& handlers,
                         std::string* error) {
  if (!error_.empty()) {
    *error = error_;
    return false;
  }
  find_functions(module);
  probe(module, image, handlers);
  missing_.resize(module.functions.size());
  const bool all = std::none_of(forms_.begin(), forms_.end(), [](const Form& form) { return form.missing; });
  if (all) return true;
  for (size_t i = 0; i < module.functions.size(); ++i) {
    const ptx::Function& function = *module.functions[i];
    if (!function.entry) continue;
    std::vector<bool> visited(functions_.size());
    find_missing(module, std::string(function.name), static_cast<int64_t>(i), &visited, &missing_[i]);
  }
  write_warnings(module);
  return true;
}

std::string ModuleCheck::missing(uint32_t function) const { return missing_[function]; }

}  // namespace softgpu
