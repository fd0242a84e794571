#pragma once

// A context: the streams, modules and memory of one user of one device, and the error that ended it, if one did.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "softgpu/driver/device_heap.h"
#include "softgpu/driver/stream.h"

namespace softgpu {

class Device;

struct Context {
  Context(Device& device, CUcontext handle, bool primary);

  Device& device;
  const CUcontext handle;
  const uint64_t id;
  const bool primary;
  std::atomic<unsigned> flags{0};
  std::atomic<bool> alive{false};   // a primary context comes and goes
  std::atomic<bool> cancel{false};  // running kernels stop at the next back edge

  // The first error that poisoned it, else CUDA_SUCCESS.
  CUresult error() const { return static_cast<CUresult>(error_.load(std::memory_order_acquire)); }
  void fail(CUresult error);

  // Puts a task on a stream, behind what the legacy default stream's rule says: that stream waits for all blocking
  // streams and they wait for it. A brief one is done at once, in this thread, where nothing that it would wait for is
  // pending: then there is no ticket.
  Ticket submit(const std::shared_ptr<Stream>& stream, Task task);
  // A brief task only, and only if it can be done at once; false: nothing was done.
  bool submit_if_idle(const std::shared_ptr<Stream>& stream, const Task& task);
  // The same, but `run` may be called at once, in this thread, when nothing that it would wait for is pending. Returns
  // when it is done. For short work.
  void submit_and_wait(const std::shared_ptr<Stream>& stream, std::function<CUresult()> run);

  std::shared_ptr<Stream> legacy_stream();
  std::shared_ptr<Stream> create_stream(unsigned flags, int priority);
  void forget_stream(const std::shared_ptr<Stream>& stream);
  std::vector<std::shared_ptr<Stream>> all_streams();
  std::vector<Ticket> all_pending();
  // Waits for everything submitted before.
  void synchronize();

  void start();  // makes it usable
  void stop();   // cancels what runs, waits, and lets go of streams, modules and memory

  size_t limit(CUlimit limit);
  CUresult set_limit(CUlimit limit, size_t value);
  // Kernels of this context's device may use the memory of the other's device, or no longer.
  CUresult set_peer(const Context& other, bool enabled);
  std::atomic<int> cache_config{CU_FUNC_CACHE_PREFER_NONE};
  DeviceHeap heap;        // of malloc in kernels
  DeviceHeap parameters;  // of grids that kernels launch
  PrintBuffer prints;

 private:
  // Both under order_mu_.
  bool idle_for(const std::shared_ptr<Stream>& stream);
  bool run_at_once(const std::shared_ptr<Stream>& stream, const Task& task);

  std::mutex order_mu_;                           // tasks of all streams are submitted in one order
  std::shared_ptr<Stream> legacy_;                // guarded by order_mu_
  std::vector<std::shared_ptr<Stream>> streams_;  // all others; guarded by order_mu_
  std::atomic<int> error_{CUDA_SUCCESS};
  std::mutex settings_mu_;
  std::unordered_map<int, size_t> limits_;   // guarded by settings_mu_
  std::unordered_map<uint64_t, int> peers_;  // context id -> device; guarded by settings_mu_
};

}  // namespace softgpu
