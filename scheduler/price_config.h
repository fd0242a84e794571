#pragma once

// What GPU time costs: [price] and [price.model] of pool.toml.

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace tide::sched {

struct PriceConfig {
  std::optional<double> otherwise;       // `default`: of a GPU-hour of models that are not named
  std::string currency;                  // for people
  std::map<std::string, double> models;  // words of GPUs' names

  bool any() const { return otherwise.has_value() || !models.empty(); }
  // Of a GPU-hour of the GPU with this name; of several that fit, the longest counts. None: it has no price.
  std::optional<double> of(const std::string& gpu) const;
};

// "default 2.5, H200 4 EUR"; empty: there are none.
std::string to_text(const PriceConfig& prices);

inline constexpr uint64_t kKeepMsLeast = 3'600'000, kKeepMsMost = 100ull * 366 * 24 * 3'600'000;

// "400d", "12h": at least an hour, at most a hundred years.
std::optional<uint64_t> parse_keep(const std::string& text);

}  // namespace tide::sched
