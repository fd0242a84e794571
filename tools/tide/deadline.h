#pragma once

// --estimate and --deadline, and how jobs with them are shown.

#include <optional>
#include <string>

#include "scheduler/control.capnp.h"
#include "tools/tide/json.h"

namespace tide::cli {

// "2h" from now, or a time: "2026-11-24T18:00[:00][Z|+01:00]", of this machine's time zone where it says none. As
// milliseconds since 1970.
std::optional<uint64_t> parse_deadline(const std::string& text, uint64_t now_ms);

void print_promise(control::JobInfo::Reader job);
Json& add_promise(Json& json, control::JobInfo::Reader job);

}  // namespace tide::cli
