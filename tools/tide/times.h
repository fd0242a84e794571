#pragma once

// Points in time as people write and read them, on this machine's clock and in its time zone.

#include <cstdint>
#include <optional>
#include <string>

namespace tide::cli {

// "2026-11-23 06:45:01"
std::string moment_text(uint64_t ms);  // since 1970

// "2026-11-23 06:45", "2026-11-23T06:45:01Z" (UTC), "06:45" (of today), "10m" (so long ago); since 1970.
std::optional<uint64_t> parse_moment(const std::string& text, uint64_t now_ms);

}  // namespace tide::cli
