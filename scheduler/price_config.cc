#include "scheduler/price_config.h"

#include <charconv>

#include "base/log.h"
#include "scheduler/require.h"

namespace tide::sched {

std::optional<double> PriceConfig::of(const std::string& gpu) const {
  std::optional<double> price = otherwise;
  size_t longest = 0;
  for (const auto& [model, each] : models) {
    if (model.size() < longest || !is_model(gpu, model)) continue;
    longest = model.size();
    price = each;
  }
  return price;
}

std::string to_text(const PriceConfig& prices) {
  std::string text;
  if (prices.otherwise) text = format("default %g", *prices.otherwise);
  for (const auto& [model, price] : prices.models) text += (text.empty() ? "" : ", ") + model + format(" %g", price);
  return text.empty() || prices.currency.empty() ? text : text + " " + prices.currency;
}

std::optional<uint64_t> parse_keep(const std::string& text) {
  uint64_t number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  const std::string unit(end, last);
  const uint64_t ms = unit == "d" ? 24 * 3'600'000ull : unit == "h" ? 3'600'000ull : 0;
  if (error != std::errc() || ms == 0 || number > kKeepMsMost / ms || number * ms < kKeepMsLeast) return {};
  return number * ms;
}

}  // namespace tide::sched
