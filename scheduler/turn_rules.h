#pragma once

// `turns` of pool.toml: whether jobs that wait for GPUs take turns with those that run, and how long a turn is.

#include <cstdint>
#include <string>

namespace tide::sched {

struct TurnRules {
  bool on = false;
  uint64_t fixed_ms = 0;  // of each turn; 0: by what switching costs
  bool operator==(const TurnRules&) const = default;
};

// "off", "auto", or a time like "500ms", "30s", "10m", "2h". False: it is none of them, and `rules` stays as it was.
bool parse_turns(const std::string& text, TurnRules* rules);
// As it is written in pool.toml.
std::string to_text(const TurnRules& rules);

}  // namespace tide::sched
