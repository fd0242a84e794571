#include "driver.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

namespace conformance {
namespace {

void* library = nullptr;
bool per_thread = false;
std::mutex mutex;
std::map<std::string, void*> found;    // guarded by mutex; by the name that the case wrote
std::set<std::string> called_symbols;  // guarded by mutex

// The form for per-thread default streams has one of two endings.
void* lookup(const std::string& name, std::string* symbol) {
  for (const char* ending : {"_ptsz", "_ptds", ""}) {
    if (!per_thread && *ending != 0) continue;
    *symbol = name + ending;
    if (void* address = dlsym(library, symbol->c_str())) return address;
  }
  return nullptr;
}

}  // namespace

bool open_driver(const char* name) {
  library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) fprintf(stderr, "conformance: %s\n", dlerror());
  return library != nullptr;
}

void use_per_thread_streams(bool yes) { per_thread = yes; }
bool per_thread_streams() { return per_thread; }

void* find_symbol(const char* name) { return dlsym(library, name); }

void* symbol(const char* name) {
  const std::lock_guard lock(mutex);
  auto [place, is_new] = found.try_emplace(name);
  if (is_new) {
    std::string full;
    place->second = lookup(name, &full);
    if (place->second == nullptr) {
      fprintf(stderr, "conformance: the driver has no symbol %s\n", name);
      fflush(nullptr);
      _exit(1);
    }
    called_symbols.insert(full);
  }
  return place->second;
}

std::set<std::string> called() {
  const std::lock_guard lock(mutex);
  return called_symbols;
}

}  // namespace conformance
