#pragma once

// For the _ptsz/_ptds forms of entry points, which are generated: while it lives, a null stream means the thread's.

#include "softgpu/driver/thread.h"

namespace softgpu {

class PerThreadDefault {
 public:
  PerThreadDefault() { ++this_thread().per_thread_default; }
  ~PerThreadDefault() { --this_thread().per_thread_default; }
  PerThreadDefault(const PerThreadDefault&) = delete;
  PerThreadDefault& operator=(const PerThreadDefault&) = delete;
};

}  // namespace softgpu
