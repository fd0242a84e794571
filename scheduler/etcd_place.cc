#include "scheduler/etcd_place.h"

#include <algorithm>
#include <cstddef>

namespace tide::sched {
namespace {

bool is_member(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0 || text.size() - colon - 1 > 5 || colon + 1 == text.size()) return false;
  return std::all_of(text.begin() + ptrdiff_t(colon) + 1, text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

Outcome parse_etcd(const std::string& text, EtcdPlace* place) {
  const Outcome wrong = Outcome::fail("'" + text + "' names no etcd; write etcd://127.0.0.1:2379,127.0.0.2:2379");
  const std::string scheme = "etcd://";
  if (text.compare(0, scheme.size(), scheme) != 0) return wrong;
  EtcdPlace parsed;
  std::string rest = text.substr(scheme.size());
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    const std::string name = rest.substr(slash + 1);
    if (name.empty() || name.find('/') != std::string::npos) return wrong;
    parsed.root = "/" + name + "/";
    rest.resize(slash);
  }
  for (size_t at = 0; at <= rest.size();) {
    const size_t comma = std::min(rest.find(',', at), rest.size());
    parsed.members.push_back(rest.substr(at, comma - at));
    if (!is_member(parsed.members.back())) return wrong;
    at = comma + 1;
  }
  *place = std::move(parsed);
  return {};
}

std::string to_text(const EtcdPlace& place) {
  if (place.members.empty()) return "sqlite";
  std::string text;
  for (const std::string& member : place.members) text += (text.empty() ? "etcd://" : ",") + member;
  const std::string name = place.root.substr(1, place.root.size() - 2);
  return name == "tide" ? text : text + "/" + name;
}

}  // namespace tide::sched
