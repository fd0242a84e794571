#pragma once

// What api/generate.py says of the traced functions. A function's number in a trace is its line in the text.

#include <cstdint>

namespace tide::trace {

// For the recorder: one letter a parameter (format.h).
struct FunctionRow {
  const char* name;
  const char* kinds;
};
extern const FunctionRow kFunctions[];
extern void* const kWrappers[];
extern const uint32_t kFunctionCount;
extern const uint64_t kTableHash;

// For the head of a file: a line a function, "NAME PARAMETER:KIND PARAMETER:KIND ...".
extern const char kTableText[];

}  // namespace tide::trace
