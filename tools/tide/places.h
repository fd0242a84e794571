#pragma once

// Where the other programs and the libraries are: beside this program, in the bundle or in a build folder.

#include <string>
#include <vector>

namespace tide::cli {

// "tide-scheduler", "tide-agent"; empty when there is none.
std::string find_program(const std::string& name);

// Directory of libtidecuda.so: $TIDE_LIB, ../lib, the build folder; empty when there is none. `looked_in` for messages.
std::string find_library_directory(std::string* looked_in = nullptr);

// Directory with libcuda.so.1 as a name of the library, for who loads it by name; may be empty. "alias_trace": of the
// tracer.
std::string find_alias_directory(const std::string& library_directory, const char* name = "alias");

// libtidetrace.so, beside libtidecuda.so or below it; empty when there is none.
std::string find_trace_library(const std::string& library_directory);

// GPUs that the machine's own driver has; 0 without one.
int real_gpu_count();

}  // namespace tide::cli
