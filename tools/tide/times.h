#pragma once

// Points in time as people write and read them, on this machine's clock and in its time zone. Milliseconds since 1970.

#include <cstdint>
#include <optional>
#include <string>

namespace tide::cli {

// "2026-11-23 06:45:01"
std::string moment_text(uint64_t ms);

// "7d", "12h", "30m", "90s" before `now_ms`; "2026-11-01", "2026-11-01 14:30", "2026-11-01T14:30:00Z" (UTC); "06:45"
// (of today).
std::optional<uint64_t> parse_moment(const std::string& text, uint64_t now_ms);

}  // namespace tide::cli
