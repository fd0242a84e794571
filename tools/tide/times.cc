#include "tools/tide/times.h"

#include <time.h>

#include <charconv>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace tide::cli {
namespace {

constexpr std::pair<char, uint64_t> kUnits[] = {
    {'w', 7 * 24 * 3'600'000ull}, {'d', 24 * 3'600'000ull}, {'h', 3'600'000}, {'m', 60'000}, {'s', 1'000}};
constexpr const char* kForms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M",
                                  "%Y-%m-%d",          "%H:%M:%S",          "%H:%M"};

std::optional<uint64_t> parse_ago(const std::string& text) {
  uint64_t number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc() || last - end != 1) return {};
  for (const auto& [unit, ms] : kUnits) {
    if (*end == unit && number <= UINT64_MAX / ms) return number * ms;
  }
  return {};
}

}  // namespace

std::string moment_text(uint64_t ms) {
  const time_t seconds = time_t(ms / 1000);
  tm parts = {};
  localtime_r(&seconds, &parts);
  return format("%04d-%02d-%02d %02d:%02d:%02d", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                parts.tm_min, parts.tm_sec);
}

std::optional<uint64_t> parse_moment(const std::string& text, uint64_t now_ms) {
  if (const auto ago = parse_ago(text)) return now_ms > *ago ? now_ms - *ago : 1;
  std::string written = text;
  const bool utc = !written.empty() && written.back() == 'Z';
  if (utc) written.pop_back();
  const time_t now = time_t(now_ms / 1000);
  tm today = {};
  utc ? gmtime_r(&now, &today) : localtime_r(&now, &today);
  for (const char* form : kForms) {
    tm read = {};
    read.tm_year = today.tm_year;
    read.tm_mon = today.tm_mon;
    read.tm_mday = today.tm_mday;
    const char* const end = strptime(written.c_str(), form, &read);
    if (end == nullptr || *end != '\0') continue;
    const int day = read.tm_mday;
    read.tm_isdst = -1;
    const time_t seconds = utc ? timegm(&read) : mktime(&read);
    // The 31st of February is in March.
    return seconds > 0 && read.tm_mday == day ? std::optional(uint64_t(seconds) * 1000) : std::nullopt;
  }
  return {};
}

}  // namespace tide::cli
