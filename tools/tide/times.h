#pragma once

// Moments as people write them.

#include <cstdint>
#include <optional>
#include <string>

namespace tide::cli {

// "7d", "12h", "30m" before `now_ms`; "2026-11-01", "2026-11-01 14:30" and "2026-11-01T14:30:00" of this machine's time
// zone. Milliseconds since 1970.
std::optional<uint64_t> parse_moment(const std::string& text, uint64_t now_ms);
// "2026-11-01 14:30", of this machine's time zone.
std::string moment_text(uint64_t ms);

}  // namespace tide::cli
