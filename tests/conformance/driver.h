#pragma once

// The driver under test, through the one library that a program would load. Cases name every function in full, with the
// version that they mean: CU(cuMemAlloc_v2)(&address, 4096). What was called is written down: that is the coverage.
//
// Threads: any. A case runs in a process of its own (main.cc), so nothing here is ever closed.

#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#include <cuda.h>
#include <cudaProfiler.h>

#include <set>
#include <string>

namespace conformance {

// Opens NAME ("libcuda.so.1" or a path). False, with the loader's words on standard error, when that fails.
bool open_driver(const char* name);

// True: a function that has a form for per-thread default streams is called in that form.
void use_per_thread_streams(bool yes);
bool per_thread_streams();

// The function's address, noted as called; ends the process when the library does not have it.
void* symbol(const char* name);
// The same without noting or ending: null when absent.
void* find_symbol(const char* name);

// Symbols that were called in this process.
std::set<std::string> called();

}  // namespace conformance

#define CU(name) (*reinterpret_cast<decltype(&::name)>(conformance::symbol(#name)))
