#include "scheduler/require.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "scheduler/state.h"

namespace tide::sched {
namespace {

constexpr size_t kLabelPartMax = 63;
constexpr const char *kModel = "model ", *kLabel = "label ", *kTogether = "together ";

// Letters and digits, small; what lies between is a border.
std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  bool inside = false;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    const bool part = isalnum(u) != 0;
    if (part && !inside) words.emplace_back();
    if (part) words.back() += char(tolower(u));
    inside = part;
  }
  return words;
}

bool is_label_part(const std::string& text) {
  const auto fits = [](char c) {
    return isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
  };
  return !text.empty() && text.size() <= kLabelPartMax && std::all_of(text.begin(), text.end(), fits);
}

}  // namespace

bool is_model(const std::string& name, const std::string& wanted) {
  const auto has = words_of(name), wants = words_of(wanted);
  return !wants.empty() && std::search(has.begin(), has.end(), wants.begin(), wants.end()) != has.end();
}

bool is_model_text(const std::string& text) {
  const auto plain = [](char c) {
    return isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' || c == ' ';
  };
  return !text.empty() && text.size() <= kLabelPartMax && isalnum(static_cast<unsigned char>(text.front())) != 0 &&
         std::all_of(text.begin(), text.end(), plain);
}

bool is_same_model(const std::string& a, const std::string& b) { return words_of(a) == words_of(b); }

bool may_use(const JobView& job, const GpuView& gpu) {
  const Requirements& require = job.require;
  if (job.barred != nullptr && job.barred->count(gpu.id) != 0) return false;
  if (require.model.empty() && require.labels.empty()) return true;
  if (gpu.traits == nullptr) return false;
  const auto& has = gpu.traits->labels;
  return (require.model.empty() || is_model(gpu.traits->model, require.model)) &&
         std::includes(has.begin(), has.end(), require.labels.begin(), require.labels.end());
}

std::string group_of(const JobView& job, const GpuView& gpu) {
  switch (job.require.together) {
    case Together::kPreferred:
      return "";
    case Together::kServer:
      return "server " + gpu.id.server;
    case Together::kSwitch:
      // Behind no switch that is known a server has only itself near.
      return gpu.traits == nullptr || gpu.traits->network_switch.empty() ? "server " + gpu.id.server
                                                                         : "switch " + gpu.traits->network_switch;
  }
  return "";
}

bool is_label(const std::string& text) {
  const size_t equals = text.find('=');
  return equals != std::string::npos && is_label_part(text.substr(0, equals)) && is_label_part(text.substr(equals + 1));
}

bool parse_together(const std::string& text, Together* together) {
  if (text != "server" && text != "switch") return false;
  *together = text == "server" ? Together::kServer : Together::kSwitch;
  return true;
}

std::string to_text(const Requirements& require) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (!require.model.empty()) add(kModel + require.model);
  for (const std::string& label : require.labels) add(kLabel + label);
  if (require.together == Together::kServer) add(std::string(kTogether) + "server");
  if (require.together == Together::kSwitch) add(std::string(kTogether) + "switch");
  return text;
}

bool parse_requirements(const std::string& text, Requirements* require) {
  Requirements read;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(", ", at), text.size());
    const std::string part = text.substr(at, end - at);
    const auto rest_of = [&](const std::string& word) { return part.substr(word.size()); };
    if (part.rfind(kModel, 0) == 0) {
      read.model = rest_of(kModel);
    } else if (part.rfind(kLabel, 0) == 0) {
      read.labels.insert(rest_of(kLabel));
    } else if (part.rfind(kTogether, 0) != 0 || !parse_together(rest_of(kTogether), &read.together)) {
      return false;
    }
    at = end + 2;
  }
  *require = std::move(read);
  return true;
}

}  // namespace tide::sched
