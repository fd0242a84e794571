// `models` of a [[queue]] of pool.toml.

#include "base/log.h"
#include "scheduler/config_tables.h"

namespace tide::sched {
namespace {

constexpr int64_t kGpusMost = 1'000'000;
constexpr const char* kHint = "write models = { H200 = { quota = 4, limit = 8 } }";

std::string shown(const std::string& text) { return text.size() <= 80 ? text : text.substr(0, 80) + "..."; }

FilePlace place_of(const toml::source_region& at) { return {at.begin.line, at.begin.column}; }

void read_amounts(const std::string& model, const toml::table& table, const ConfigSink& sink, ModelQuota* quota) {
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    if (name != "quota" && name != "limit") {
      sink.error(key.source(), "unknown key '" + shown(name) + "' of model " + shown(model),
                 "known here: quota, limit");
      continue;
    }
    const int64_t gpus = node.is_integer() ? **node.as_integer() : -1;
    if (gpus < 0 || gpus > kGpusMost) {
      sink.error(node.source(),
                 format("the %s of a model is a whole number of GPUs from 0 to %ld", name.c_str(), long(kGpusMost)),
                 "write " + name + " = 4");
      continue;
    }
    (name == "quota" ? quota->quota_at : quota->limit_at) = place_of(node.source());
    if (name == "quota") quota->quota = uint32_t(gpus);
    if (name == "limit") quota->limit = uint32_t(gpus);
  }
}

}  // namespace

std::vector<ModelQuota> read_models(const toml::node& node, const ConfigSink& sink) {
  std::vector<ModelQuota> models;
  if (!node.is_table()) {
    sink.error(node.source(), "'models' must be a table", kHint);
    return models;
  }
  for (const auto& [key, value] : *node.as_table()) {
    const std::string name(key.str());
    ModelQuota quota{.model = name, .at = place_of(key.source())};
    if (!is_model_text(name)) {
      sink.error(key.source(), "'" + shown(name) + "' are no words of a GPU's name", kHint);
    } else if (!value.is_table()) {
      sink.error(value.source(), "what is said of model " + shown(name) + " must be a table", kHint);
    } else {
      read_amounts(name, *value.as_table(), sink, &quota);
      models.push_back(std::move(quota));
    }
  }
  return models;
}

}  // namespace tide::sched
