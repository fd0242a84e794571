#include "scheduler/turn_rules.h"

#include <charconv>
#include <utility>

namespace tide::sched {
namespace {

constexpr std::pair<const char*, uint64_t> kUnits[] = {{"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}};
constexpr uint64_t kFixedMost = 366ull * 24 * 3'600'000;

}  // namespace

bool parse_turns(const std::string& text, TurnRules* rules) {
  if (text == "off" || text == "auto") {
    *rules = {.on = text == "auto"};
    return true;
  }
  uint64_t number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc() || number == 0) return false;
  for (const auto& [unit, ms] : kUnits) {
    if (std::string(end, last) != unit || number > kFixedMost / ms) continue;
    *rules = {.on = true, .fixed_ms = number * ms};
    return true;
  }
  return false;
}

std::string to_text(const TurnRules& rules) {
  if (!rules.on) return "off";
  if (rules.fixed_ms == 0) return "auto";
  for (const auto& [unit, ms] : kUnits) {
    if (rules.fixed_ms % ms == 0) return std::to_string(rules.fixed_ms / ms) + unit;
  }
  return "";
}

}  // namespace tide::sched
