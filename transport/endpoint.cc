#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "transport/door.h"

namespace tide {
namespace {

bool is_clean(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > ' ' && c != 127; });
}

}  // namespace

Outcome Endpoint::parse(const std::string& text, Endpoint* endpoint) {
  if (text.empty() || text.size() >= kEndpointBytes) return Outcome::fail("an endpoint has 1 to 511 characters");
  if (!is_clean(text)) return Outcome::fail("an endpoint has no spaces or control characters");
  Endpoint result;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(';', at), text.size());
    const std::string field = text.substr(at, end - at);
    at = end + 1;
    const size_t equals = field.find('=');
    const std::string key = field.substr(0, equals);
    std::string* place = key == "host"   ? &result.host
                         : key == "unix" ? &result.unix_path
                         : key == "tcp"  ? &result.tcp_address
                                         : nullptr;
    if (equals == std::string::npos || equals + 1 == field.size() || place == nullptr || !place->empty()) {
      return Outcome::fail("an endpoint is host=ID;unix=PATH;tcp=ADDRESS:PORT, not '" + text + "'");
    }
    *place = field.substr(equals + 1);
  }
  if (result.unix_path.empty() && result.tcp_address.empty()) {
    return Outcome::fail("the endpoint '" + text + "' names no socket");
  }
  *endpoint = result;
  return {};
}

std::string Endpoint::text() const {
  std::string text;
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) text += (text.empty() ? "" : ";") + std::string(key) + "=" + value;
  };
  add("host", host);
  add("unix", unix_path);
  add("tcp", tcp_address);
  return text;
}

bool Endpoint::same_host() const { return !host.empty() && host == this_host_id(); }

std::string this_host_id() {
  char text[64] = {};
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  std::string id(text, size_t(std::max<ssize_t>(n, 0)));
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

}  // namespace tide
