#include "softgpu/ptx/link.h"

#include <algorithm>

namespace softgpu::ptx {
namespace {

bool is_private(const Function& f) { return f.linkage == Linkage::kLocal && f.has_body; }
// Shared memory without linkage belongs to the kernels of its unit.
bool is_private(const Variable& v) { return v.linkage == Linkage::kLocal; }

// The higher one is kept; two of the highest are an error.
int rank_of(const Function& f) { return !f.has_body ? 0 : f.linkage == Linkage::kWeak ? 2 : 3; }
int rank_of(const Variable& v) {
  if (v.external) return 0;
  return v.linkage == Linkage::kCommon ? 1 : v.linkage == Linkage::kWeak ? 2 : 3;
}
constexpr int kHighestRank = 3;

class Linker {
 public:
  explicit Linker(std::string* error) : out_(std::make_unique<Module>()), error_(error) {}

  std::unique_ptr<Module> run(std::vector<std::unique_ptr<Module>> units) {
    out_->name = units[0]->name;
    out_->symbols.assign(units.size(), {});
    for (const auto& unit : units) {
      out_->target = std::max(out_->target, unit->target);
      out_->version = std::max(out_->version, unit->version);
    }
    for (uint32_t u = 0; u < units.size(); ++u) {
      unit_ = u;
      names_.push_back(units[u]->name);
      for (Variable& v : units[u]->variables) {
        if (!add(std::move(v))) return nullptr;
      }
      for (std::unique_ptr<Function>& f : units[u]->functions) {
        if (!add(std::move(f))) return nullptr;
      }
    }
    out_->units = std::move(units);
    return std::move(out_);
  }

 private:
  bool add(Variable v) {
    v.unit = unit_;
    auto& own = out_->symbols[unit_].variables;
    const std::string_view name = v.name;
    const auto fresh_index = static_cast<uint32_t>(out_->variables.size());
    const auto [at, fresh] = is_private(v) ? std::make_pair(own.end(), true) : variables_.emplace(name, fresh_index);
    if (fresh) {
      own[name] = fresh_index;
      out_->variables.push_back(std::move(v));
      return functions_.contains(name) && !is_private(out_->variables.back())
                 ? fail("Variable '" + std::string(name) + "' in " + where(unit_) + " is a function elsewhere")
                 : true;
    }
    own[name] = at->second;
    return merge(&out_->variables[at->second], std::move(v));
  }

  bool merge(Variable* known, Variable v) {
    const int before = rank_of(*known), now = rank_of(v);
    if (before == kHighestRank && now == kHighestRank) return defined_twice(v.name, known->unit);
    const bool open = known->bytes == 0 || v.bytes == 0;  // `.extern .b8 x[]`
    const bool common = before == 1 || now == 1;
    if (known->space != v.space) return mismatch("Memory space", v.name, known->unit);
    if (known->bytes != v.bytes && !open && !common) return mismatch("Size", v.name, known->unit);
    const uint32_t align = std::max(known->align, v.align);
    const uint64_t bytes = before == 1 && now == 1 ? std::max(known->bytes, v.bytes) : 0;
    if (now > before) *known = std::move(v);
    known->align = align;
    known->bytes = std::max(known->bytes, bytes);
    return true;
  }

  bool add(std::unique_ptr<Function> f) {
    f->unit = unit_;
    auto& own = out_->symbols[unit_].functions;
    const std::string_view name = f->name;
    const auto fresh_index = static_cast<uint32_t>(out_->functions.size());
    const bool own_only = is_private(*f);
    const auto [at, fresh] = own_only ? std::make_pair(own.end(), true) : functions_.emplace(name, fresh_index);
    if (fresh) {
      own[name] = fresh_index;
      out_->functions.push_back(std::move(f));
      if (own_only || !variables_.contains(name)) return true;
      return fail("Function '" + std::string(name) + "' in " + where(unit_) + " is a variable elsewhere");
    }
    own[name] = at->second;
    std::unique_ptr<Function>& known = out_->functions[at->second];
    const int before = rank_of(*known), now = rank_of(*f);
    if (before == kHighestRank && now == kHighestRank) return defined_twice(name, known->unit);
    if (known->params.size() != f->params.size() || known->returns.size() != f->returns.size()) {
      return mismatch("Prototype", name, known->unit);
    }
    if (now > before) known = std::move(f);
    return true;
  }

  std::string where(uint32_t unit) const {
    return names_[unit].empty() ? "unit " + std::to_string(unit + 1) : "'" + names_[unit] + "'";
  }
  bool fail(std::string what) {
    *error_ = std::move(what);
    return false;
  }
  bool defined_twice(std::string_view name, uint32_t first) {
    return fail("Multiple definition of '" + std::string(name) + "' in " + where(unit_) + ", first defined in " +
                where(first));
  }
  bool mismatch(const std::string& what, std::string_view name, uint32_t first) {
    return fail(what + " doesn't match for '" + std::string(name) + "' in " + where(unit_) + ", first specified in " +
                where(first));
  }

  std::unique_ptr<Module> out_;
  std::string* error_;
  uint32_t unit_ = 0;
  std::vector<std::string> names_;
  std::unordered_map<std::string_view, uint32_t> variables_;  // of all units
  std::unordered_map<std::string_view, uint32_t> functions_;
};

}  // namespace

std::unique_ptr<Module> link(std::vector<std::unique_ptr<Module>> units, std::string* error) {
  return Linker(error).run(std::move(units));
}

Interface interface_of(const Module& unit) {
  Interface out;
  for (const Variable& v : unit.variables) {
    if (is_private(v)) continue;
    (v.external ? out.needed : out.defined).push_back(v.name);
  }
  for (const auto& f : unit.functions) {
    if (is_private(*f)) continue;
    (f->has_body ? out.defined : out.needed).push_back(f->name);
  }
  return out;
}

}  // namespace softgpu::ptx
