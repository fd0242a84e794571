// The library behind the tracer: found by the order of LD_PRELOAD, and its functions' addresses.

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "interpose/trace/recorder.h"
#include "interpose/trace/table.h"

namespace tide::trace {
namespace {

constexpr uint32_t kFunctionsMax = 1024;
constinit pthread_once_t g_once = PTHREAD_ONCE_INIT;
constinit void* g_next[kFunctionsMax] = {};
constinit uint16_t g_by_address[kFunctionsMax] = {};

CUresult absent() { return CUDA_ERROR_NOT_SUPPORTED; }

// What follows in LD_PRELOAD; or, where a program was started without that and found us by LD_LIBRARY_PATH, what lies
// beside us, or above our folder of links.
void* find_driver() {
  if (dlsym(RTLD_NEXT, "cuInit") != nullptr) return RTLD_NEXT;
  Dl_info own = {};
  if (dladdr(reinterpret_cast<void*>(&absent), &own) == 0) return RTLD_NEXT;
  const char* const slash = strrchr(own.dli_fname, '/');
  const int length = slash == nullptr ? 0 : int(slash - own.dli_fname) + 1;
  for (const char* folder : {"", "../"}) {
    char path[4096];
    snprintf(path, sizeof path, "%.*s%slibtidecuda.so", length, own.dli_fname, folder);
    if (void* found = dlopen(path, RTLD_NOW | RTLD_LOCAL); found != nullptr) return found;
  }
  return RTLD_NEXT;
}

void find_functions() {
  void* const driver = find_driver();
  for (uint32_t i = 0; i < kFunctionCount && i < kFunctionsMax; ++i) {
    void* found = dlsym(driver, kFunctions[i].name);
    g_next[i] = found != nullptr ? found : reinterpret_cast<void*>(absent);
    g_by_address[i] = uint16_t(i);
  }
  if (dlsym(driver, "cuInit") == nullptr)
    dprintf(2, "tidepool: error: libtidetrace.so stands alone; libtidecuda.so has to follow it in LD_PRELOAD\n");
  std::sort(g_by_address, g_by_address + kFunctionCount, [](uint16_t a, uint16_t b) { return g_next[a] < g_next[b]; });
}

}  // namespace

void* next_function(uint16_t function) {
  pthread_once(&g_once, find_functions);
  return g_next[function];
}

void* wrapper_of(void* address) {
  pthread_once(&g_once, find_functions);
  uint16_t* const end = g_by_address + kFunctionCount;
  const uint16_t* at = std::lower_bound(g_by_address, end, address, [](uint16_t i, void* a) { return g_next[i] < a; });
  if (at == end || g_next[*at] != address || address == reinterpret_cast<void*>(absent)) return address;
  return kWrappers[*at];
}

}  // namespace tide::trace
