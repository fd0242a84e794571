#pragma once

// The vGPU's contexts, by the numbers that the client chose, and which one is current in the worker's only thread.
// The device's primary context is held for as long as the worker lives: staging memory and our own streams are in it.

#include <cstdint>
#include <unordered_map>

#include "base/outcome.h"
#include "server/driver_library.h"

namespace tide {

inline constexpr size_t kContextsMax = 1024;  // far above what programs make; bounds what a hostile client can hold

struct Context {
  CUcontext handle = nullptr;
  bool primary = false;
  uint32_t legacy_stream = 0;  // the slot of its legacy default stream
  CUevent base = nullptr;      // recorded when the context was made, at base_ms of the vGPU's time (events.h)
  double base_ms = 0;
};

class Contexts {
 public:
  // Takes the first visible device and makes its primary context current.
  Outcome start(const Driver& driver);
  CUresult create(uint32_t number, uint32_t legacy_stream, uint32_t flags, bool primary);
  // Requires: nothing runs in it.
  CUresult destroy(uint32_t number);
  // Makes it current; 0 means the primary one. CUDA_ERROR_INVALID_CONTEXT where the number is unknown.
  CUresult use(uint32_t number);
  // From now on the calling thread is the only one.
  void enter_thread();
  const Context* find(uint32_t number) const;
  CUdevice device() const { return device_; }
  CUcontext primary() const { return primary_; }
  // The vGPU's time goes on from here: it is `ms` now.
  void set_time(double ms);
  double time_ms() const;
  size_t size() const { return contexts_.size(); }

 private:
  void record_base(Context* context);

  const Driver* driver_ = nullptr;
  CUdevice device_ = 0;
  CUcontext primary_ = nullptr;
  CUcontext current_ = nullptr;
  std::unordered_map<uint32_t, Context> contexts_;
  uint64_t epoch_ns_ = 0;  // when the vGPU's time was 0, on this host's clock; may have wrapped, only differences count
};

}  // namespace tide
