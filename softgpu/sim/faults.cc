#include "softgpu/sim/faults.h"

#include <algorithm>
#include <cstdlib>

#include "base/mix.h"

namespace softgpu::sim {
namespace {

struct Kind {
  std::string_view name;
  FaultAction action;
  FaultSite site;
};

constexpr Kind kKinds[] = {
    {"ecc", FaultAction::kEcc, FaultSite::kKernel},
    {"bus", FaultAction::kBus, FaultSite::kKernel},
    {"illegal", FaultAction::kIllegal, FaultSite::kKernel},
    {"hang", FaultAction::kHang, FaultSite::kKernel},
    {"slow", FaultAction::kSlow, FaultSite::kKernel},
    {"flip", FaultAction::kFlip, FaultSite::kKernel},
    {"lostcopy", FaultAction::kLostCopy, FaultSite::kCopy},
    {"slowcopy", FaultAction::kSlowCopy, FaultSite::kCopy},
    {"oom", FaultAction::kOutOfMemory, FaultSite::kAllocation},
};

class Parser {
 public:
  Parser(std::string_view text, std::string* error) : text_(text), error_(error) {}

  bool run(std::vector<PlannedFault>* out) {
    while (true) {
      PlannedFault fault;
      const size_t began = at_;
      if (!parse_fault(&fault)) return false;
      fault.text = std::string(text_.substr(began, at_ - began));
      out->push_back(std::move(fault));
      if (at_ == text_.size()) return true;
      ++at_;  // the semicolon
    }
  }

 private:
  bool fail(size_t at, const std::string& what) {
    *error_ = "character " + std::to_string(at + 1) + ": " + what;
    return false;
  }

  std::string_view word(std::string_view ends) {
    const size_t end = std::min(text_.find_first_of(ends, at_), text_.size());
    const std::string_view out = text_.substr(at_, end - at_);
    at_ = end;
    return out;
  }

  bool parse_fault(PlannedFault* fault) {
    size_t began = at_;
    std::string_view name = word("/:;");
    if (at_ < text_.size() && text_[at_] == '/') {
      uint64_t device = 0;
      if (!number(name, &device) || device > 1023) return fail(began, "expected the number of a device before '/'");
      fault->device = static_cast<int>(device);
      began = ++at_;
      name = word("/:;");
    }
    const auto* kind =
        std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& k) { return k.name == name; });
    if (kind == std::end(kKinds)) {
      std::string known;
      for (const Kind& k : kKinds) known += (known.empty() ? "" : ", ") + std::string(k.name);
      return fail(began, "no fault is named '" + std::string(name) + "': expected one of " + known);
    }
    fault->action = kind->action;
    if (at_ == text_.size() || text_[at_] == ';') return true;
    if (text_[at_] != ':') return fail(at_, "expected ':' or ';'");
    do {
      ++at_;
      if (!parse_key(fault)) return false;
    } while (at_ < text_.size() && text_[at_] == ',');
    return true;
  }

  bool parse_key(PlannedFault* fault) {
    const size_t began = at_;
    const std::string_view key = word("=,;");
    if (at_ == text_.size() || text_[at_] != '=') return fail(began, "expected key=value");
    const size_t value_at = ++at_;
    const std::string_view value = word(",;");
    const struct {
      std::string_view name;
      uint64_t* to;
    } numbers[] = {{"after", &fault->after}, {"times", &fault->times}, {"seed", &fault->seed},
                   {"ms", &fault->ms},       {"bit", &fault->bit},     {"address", &fault->address}};
    for (const auto& n : numbers) {
      if (n.name == key) return number(value, n.to) || fail(value_at, "expected a number");
    }
    const struct {
      std::string_view name;
      double* to;
      double most;
    } reals[] = {{"time", &fault->time_s, 1e9}, {"chance", &fault->chance, 1}, {"factor", &fault->factor, 1e6}};
    for (const auto& r : reals) {
      if (r.name == key)
        return real(value, r.most, r.to) ||
               fail(value_at, "expected a number of at most " + std::to_string(static_cast<int>(r.most)));
    }
    if (key != "kernel") return fail(began, "no key is named '" + std::string(key) + "'");
    if (value.empty()) return fail(value_at, "expected the name of a kernel");
    if (site_of(fault->action) != FaultSite::kKernel) return fail(began, "this fault has no kernel");
    fault->kernel = std::string(value);
    return true;
  }

  static bool number(std::string_view text, uint64_t* out) {
    const std::string copy(text);
    char* end = nullptr;
    if (copy.empty() || copy[0] < '0' || copy[0] > '9') return false;
    *out = std::strtoull(copy.c_str(), &end, 0);
    return *end == 0;
  }

  static bool real(std::string_view text, double most, double* out) {
    const std::string copy(text);
    char* end = nullptr;
    if (copy.empty()) return false;
    *out = std::strtod(copy.c_str(), &end);
    return *end == 0 && *out >= 0 && *out <= most;
  }

  std::string_view text_;
  std::string* error_;
  size_t at_ = 0;
};

bool fits(const PlannedFault& fault, const Occasion& occasion) {
  if (site_of(fault.action) != occasion.site || (fault.device >= 0 && fault.device != occasion.device)) return false;
  if (occasion.elapsed_s < fault.time_s) return false;
  if (fault.kernel.empty()) return true;
  if (fault.kernel.back() == '*') return occasion.kernel.starts_with(fault.kernel.substr(0, fault.kernel.size() - 1));
  return occasion.kernel == fault.kernel;
}

}  // namespace

const char* name_of(FaultAction action) {
  for (const Kind& kind : kKinds) {
    if (kind.action == action) return kind.name.data();
  }
  return "";
}

FaultSite site_of(FaultAction action) {
  for (const Kind& kind : kKinds) {
    if (kind.action == action) return kind.site;
  }
  return FaultSite::kKernel;
}

bool parse_faults(std::string_view text, std::vector<PlannedFault>* out, std::string* error) {
  std::vector<PlannedFault> parsed;
  if (!Parser(text, error).run(&parsed)) return false;
  *out = std::move(parsed);
  return true;
}

void FaultPlan::add(std::vector<PlannedFault> faults) {
  const std::lock_guard lock(mu_);
  for (PlannedFault& fault : faults) faults_.push_back(std::move(fault));
  count_ = faults_.size();
}

void FaultPlan::clear(int device) {
  const std::lock_guard lock(mu_);
  std::erase_if(faults_, [&](const PlannedFault& fault) { return device < 0 || fault.device == device; });
  count_ = faults_.size();
}

std::vector<PlannedFault> FaultPlan::list() const {
  const std::lock_guard lock(mu_);
  return faults_;
}

std::vector<PlannedFault> FaultPlan::due(const Occasion& occasion) {
  const std::lock_guard lock(mu_);
  std::vector<PlannedFault> out;
  for (PlannedFault& fault : faults_) {
    if (!fits(fault, occasion) || ++fault.seen < fault.after) continue;
    if (fault.times != 0 && fault.done >= fault.times) continue;
    const double drawn = static_cast<double>(tide::mix(fault.seed ^ fault.seen << 20) >> 11) / 9007199254740992.0;
    if (drawn >= fault.chance) continue;
    ++fault.done;
    out.push_back(fault);
  }
  return out;
}

}  // namespace softgpu::sim
