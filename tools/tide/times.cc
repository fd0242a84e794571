#include "tools/tide/times.h"

#include <time.h>

#include <charconv>
#include <cstring>

namespace tide::cli {
namespace {

constexpr std::pair<char, uint64_t> kUnits[] = {
    {'w', 7 * 24 * 3'600'000ull}, {'d', 24 * 3'600'000ull}, {'h', 3'600'000}, {'m', 60'000}, {'s', 1'000}};

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

std::optional<uint64_t> parse_moment(const std::string& text, uint64_t now_ms) {
  if (const auto ago = parse_ago(text)) return now_ms > *ago ? now_ms - *ago : 1;
  for (const char* form : {"%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"}) {
    tm read = {};
    const char* const end = strptime(text.c_str(), form, &read);
    if (end == nullptr || *end != '\0') continue;
    const tm wanted = read;
    read.tm_isdst = -1;
    const time_t seconds = mktime(&read);
    // The 31st of February is in March.
    if (seconds <= 0 || read.tm_mday != wanted.tm_mday) return {};
    return uint64_t(seconds) * 1000;
  }
  return {};
}

std::string moment_text(uint64_t ms) {
  const time_t seconds = time_t(ms / 1000);
  tm local = {};
  char text[32] = {};
  localtime_r(&seconds, &local);
  strftime(text, sizeof(text), "%Y-%m-%d %H:%M", &local);
  return text;
}

}  // namespace tide::cli
