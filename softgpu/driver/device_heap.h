#pragma once

// The memory that kernels allocate from, and what they print: one of each a context.
//
// Threads: any.

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "softgpu/driver/cuda_api.h"

namespace softgpu {

struct Context;

// First fit in one piece of device memory, which is taken when it is used for the first time.
class DeviceHeap {
 public:
  // Device address, aligned to 16 bytes; 0 when there is no room. `limit` counts at the first call only.
  uint64_t allocate(Context& context, uint64_t bytes, uint64_t limit);
  bool release(uint64_t address);
  bool in_use() const;
  // Its memory has gone with the context.
  void forget();

 private:
  mutable std::mutex mu_;
  bool tried_ = false;                           // guarded by mu_
  std::map<uint64_t, uint64_t> free_;            // address -> bytes; guarded by mu_
  std::unordered_map<uint64_t, uint64_t> used_;  // address -> bytes; guarded by mu_
};

// Texts of printf on their way to the host. A full buffer loses its oldest ones.
class PrintBuffer {
 public:
  void add(std::string_view text, uint64_t limit);
  void flush();  // to the process's standard output

 private:
  std::mutex mu_;
  std::deque<std::string> texts_;  // guarded by mu_
  uint64_t bytes_ = 0;             // guarded by mu_
};

}  // namespace softgpu
