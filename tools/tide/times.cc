#include "tools/tide/times.h"

#include <stdio.h>
#include <time.h>

#include "base/log.h"
#include "tools/tide/options.h"

namespace tide::cli {

std::string moment_text(uint64_t ms) {
  const time_t seconds = time_t(ms / 1000);
  tm parts = {};
  localtime_r(&seconds, &parts);
  return format("%04d-%02d-%02d %02d:%02d:%02d", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                parts.tm_min, parts.tm_sec);
}

std::optional<uint64_t> parse_moment(const std::string& text, uint64_t now_ms) {
  if (const auto ago_s = parse_seconds(text); ago_s && text.find(':') == std::string::npos) {
    const auto ago_ms = uint64_t(*ago_s * 1e3);
    return now_ms > ago_ms ? std::optional(now_ms - ago_ms) : std::nullopt;
  }
  std::string local = text;
  const bool utc = !local.empty() && local.back() == 'Z';
  if (utc) local.pop_back();
  const time_t now = time_t(now_ms / 1000);
  tm parts = {};
  utc ? gmtime_r(&now, &parts) : localtime_r(&now, &parts);
  for (const char* form : {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d",
                           "%H:%M:%S", "%H:%M"}) {
    tm read = {};
    read.tm_year = parts.tm_year;
    read.tm_mon = parts.tm_mon;
    read.tm_mday = parts.tm_mday;
    const char* const end = strptime(local.c_str(), form, &read);
    if (end == nullptr || *end != 0) continue;
    read.tm_isdst = -1;
    const time_t seconds = utc ? timegm(&read) : mktime(&read);
    return seconds > 0 ? std::optional(uint64_t(seconds) * 1000) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace tide::cli
