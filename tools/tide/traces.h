#pragma once

// The views of `tide trace`.

#include <stdio.h>

#include <string>

#include "interpose/trace/reader.h"
#include "tools/tide/json.h"

namespace tide::cli {

// By function, slowest first.
Outcome print_summary(const std::string& path, trace::TraceFile& file);
Outcome add_summary(Json& json, trace::TraceFile& file);  // members of the open object
// One line, or one object, for each call. add_calls() prints `json` as it grows.
Outcome print_calls(trace::TraceFile& file);
Outcome add_calls(Json& json, trace::TraceFile& file);
// Trace events as ui.perfetto.dev and chrome://tracing open them, into the file of that name.
Outcome write_perfetto(trace::TraceFile& file, const std::string& path);

// "CUDA_ERROR_INVALID_VALUE"
std::string result_name(int32_t result);
// From the last call's counters: "local", "sent", "1 round trip".
std::string travel_text(const TravelCounters& travel);

}  // namespace tide::cli
