#pragma once

// The views of `tide trace`.

#include <stdio.h>

#include <string>

#include "interpose/trace/reader.h"
#include "tools/tide/json.h"

namespace tide::cli {

// By function, slowest first.
void print_summary(const std::string& path, const trace::TraceFile& file);
void add_summary(Json& json, const trace::TraceFile& file);  // members of the open object
// One line, or one object, for each call.
void print_calls(const trace::TraceFile& file);
void add_calls(Json& json, const trace::TraceFile& file);
// Trace events as ui.perfetto.dev and chrome://tracing open them. False: errno says why.
bool write_perfetto(const trace::TraceFile& file, FILE* out);

// "CUDA_ERROR_INVALID_VALUE"
std::string result_name(int32_t result);
// From the last call's counters: "local", "sent", "1 round trip".
std::string travel_text(const TravelCounters& travel);

}  // namespace tide::cli
