#include "softgpu/lower/reach.h"

#include <vector>

#include "softgpu/ptx/parser.h"

namespace softgpu {
namespace {

using ptx::Function;
using ptx::Operand;
using ptx::Variable;

class Walk {
 public:
  explicit Walk(const ptx::Module& module)
      : module_(module), functions_(module.functions.size()), variables_(module.variables.size()) {}

  bool run(std::string* error) {
    error_ = error;
    for (uint32_t i = 0; i < module_.functions.size(); ++i) {
      if (module_.functions[i]->entry) reach_function(i, *module_.functions[i]);
    }
    while (!left_.empty()) {
      const Function& head = *left_.back();
      left_.pop_back();
      if (!head.has_body) continue;
      const auto f = ptx::parse_body(head, error_);
      if (f == nullptr) return false;
      for (const auto& in : f->body) {
        for (const Operand& o : in.operands) {
          if (!operand(o, *f)) return false;
        }
      }
    }
    return true;
  }

 private:
  bool operand(const Operand& o, const Function& f) {
    for (const Operand& part : o.parts) {
      if (!operand(part, f)) return false;
    }
    return o.kind != Operand::Kind::kSymbol || name(o.name, f.unit);
  }

  bool name(std::string_view symbol, uint32_t unit) {
    if (const int64_t v = module_.find_variable(unit, symbol); v >= 0) {
      return reach_variable(static_cast<uint32_t>(v), unit);
    }
    const int64_t f = module_.find_function(unit, symbol);
    if (f < 0) return true;  // a name of the instruction's own: the lowering knows
    const Function& function = *module_.functions[static_cast<size_t>(f)];
    if (!function.has_body && !is_builtin(symbol)) return undefined(symbol, unit);
    reach_function(static_cast<uint32_t>(f), function);
    return true;
  }

  bool reach_variable(uint32_t index, uint32_t unit) {
    const Variable& v = module_.variables[index];
    if (v.external && v.space != ptx::Space::kShared) return undefined(v.name, unit);
    if (variables_[index]) return true;
    variables_[index] = true;
    for (const ptx::Initial& value : v.initial) {
      if (!value.symbol.empty() && !name(value.symbol, v.unit)) return false;
    }
    return true;
  }

  void reach_function(uint32_t index, const Function& f) {
    if (functions_[index]) return;
    functions_[index] = true;
    left_.push_back(&f);
  }

  bool undefined(std::string_view symbol, uint32_t unit) {
    const std::string& where = unit < module_.units.size() ? module_.units[unit]->name : module_.name;
    *error_ = "Undefined reference to '" + std::string(symbol) + "'" + (where.empty() ? "" : " in '" + where + "'");
    return false;
  }

  const ptx::Module& module_;
  std::string* error_ = nullptr;
  std::vector<bool> functions_, variables_;
  std::vector<const Function*> left_;
};

bool declares_more(const ptx::Module& module) {
  for (const Variable& v : module.variables) {
    if (v.external && v.space != ptx::Space::kShared) return true;
  }
  for (const auto& f : module.functions) {
    if (!f->has_body && !is_builtin(f->name)) return true;
  }
  return false;
}

}  // namespace

bool check_references(const ptx::Module& module, std::string* error) {
  return !declares_more(module) || Walk(module).run(error);
}

}  // namespace softgpu
