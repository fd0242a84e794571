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
  if (o.kind == Operand::Kind::kSymbol && !module.variable_index.contains(o.name) &&
      !module.function_index.contains(o.name)) {
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

void ModuleCheck::visit(const ptx::Module& module, const ptx::Function& function) {
  Seen seen;
  seen.name = function.name;
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
      continue;
    }
    for (const Operand& o : in.operands) {
      seen.indirect = seen.indirect || o.kind == Operand::Kind::kRegister;
      if (o.kind == Operand::Kind::kSymbol) seen.callees.push_back(o.name);
    }
  }
  std::sort(seen.callees.begin(), seen.callees.end());
  seen.callees.erase(std::unique(seen.callees.begin(), seen.callees.end()), seen.callees.end());
  function_of_[function.name] = static_cast<uint32_t>(functions_.size());
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
    const auto head = module.function_index.find(functions_[i].name);
    if (head == module.function_index.end()) continue;
    std::sort(wanted[i].begin(), wanted[i].end());
    KernelLowering lowering(module, image, handlers);
    lowering.probe(*module.functions[head->second], [&](const ptx::Function& function, const ptx::Instruction& in) {
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

bool ModuleCheck::find_missing(const std::string& kernel, std::string_view function, std::vector<bool>* visited,
                               std::string* out) const {
  const auto at = function_of_.find(function);
  if (at == function_of_.end() || (*visited)[at->second]) return false;
  (*visited)[at->second] = true;
  const Seen& seen = functions_[at->second];
  for (const Use& use : seen.uses) {
    if (!forms_[use.form].missing) continue;
    *out = place(true, kernel, use.line) + "instruction '" + forms_[use.form].words + "' is not supported";
    return true;
  }
  for (const std::string_view callee : seen.callees) {
    if (find_missing(kernel, callee, visited, out)) return true;
  }
  if (!seen.indirect) return false;
  return std::any_of(functions_.begin(), functions_.end(),
                     [&](const Seen& other) { return find_missing(kernel, other.name, visited, out); });
}

void ModuleCheck::write_warnings(const ptx::Module& module) {
  std::unordered_map<std::string_view, std::pair<size_t, uint32_t>> lines;  // line, functions
  for (const Seen& seen : functions_) {
    if (!module.function_index.contains(seen.name)) continue;
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
  probe(module, image, handlers);
  missing_.resize(module.functions.size());
  const bool all = std::none_of(forms_.begin(), forms_.end(), [](const Form& form) { return form.missing; });
  if (all) return true;
  for (size_t i = 0; i < module.functions.size(); ++i) {
    const ptx::Function& function = *module.functions[i];
    if (!function.entry) continue;
    std::vector<bool> visited(functions_.size());
    find_missing(std::string(function.name), function.name, &visited, &missing_[i]);
  }
  write_warnings(module);
  return true;
}

std::string ModuleCheck::missing(uint32_t function) const { return missing_[function]; }

}  // namespace softgpu
