#include "api/composed/environment.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "api/uuid.h"

namespace tide::composed {
namespace {

// A number, or the beginning of a UUID. uuids.size() where it is nobody's.
size_t device_of(const std::string& item, std::span<const uint8_t* const> uuids) {
  if (item.compare(0, 4, "GPU-") == 0) {
    const auto matches = [&](const uint8_t* uuid) {
      return item.size() > 4 && uuid_text(uuid).compare(0, item.size(), item) == 0;
    };
    return static_cast<size_t>(std::find_if(uuids.begin(), uuids.end(), matches) - uuids.begin());
  }
  char* rest = nullptr;
  const long value = strtol(item.c_str(), &rest, 10);
  const bool known = rest != item.c_str() && value >= 0 && static_cast<size_t>(value) < uuids.size();
  return known ? static_cast<size_t>(value) : uuids.size();
}

}  // namespace

std::vector<uint32_t> visible_devices(const char* variable, std::span<const uint8_t* const> uuids) {
  std::vector<uint32_t> result;
  if (variable == nullptr) {
    for (uint32_t i = 0; i < uuids.size(); ++i) result.push_back(i);
    return result;
  }
  const std::string text = variable;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const size_t number = device_of(text.substr(at, end - at), uuids);
    at = end + 1;
    // The driver's rule: what is nobody's hides itself and all that follow; what is named twice hides everything.
    if (number >= uuids.size()) break;
    if (std::find(result.begin(), result.end(), number) != result.end()) return {};
    result.push_back(static_cast<uint32_t>(number));
  }
  return result;
}

bool launch_blocking() {
  const char* text = getenv("CUDA_LAUNCH_BLOCKING");
  return text != nullptr && strcmp(text, "0") != 0 && text[0] != 0;
}

}  // namespace tide::composed
