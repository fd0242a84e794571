#pragma once

// A system that has no thread left, as far as this process can see. For one source of a test program.

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include <atomic>

namespace tide {

inline std::atomic<bool> threads_exhausted{false};

struct NoThreads {
  NoThreads() { threads_exhausted = true; }
  ~NoThreads() { threads_exhausted = false; }
};

}  // namespace tide

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*), void* of) {
  using Function = decltype(pthread_create)*;
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "pthread_create"));
  return tide::threads_exhausted ? EAGAIN : real(thread, attributes, body, of);
}
