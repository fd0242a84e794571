#pragma once

// Memory that both the program and its kernels touch: managed memory, and host memory mapped for kernels. The worker
// has one copy, the program another (mostly at the same address). They are made equal where CUDA orders host and
// device: before work is sent, what the program changed goes to the worker; after a synchronisation what the device
// changed comes back. A third copy, of what both had last, tells byte by byte who changed what.
//
// Costs: three times the memory; each launch compares all of it, each synchronisation after work fetches all of it.
// What needs both sides at once, such as a kernel that waits for a store of the host, does not work.
//
// Threads: any.

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace tide {

struct Context;
struct Process;
struct Vgpu;

struct Mirror {
  uint64_t host = 0;    // where the program finds it
  uint64_t device = 0;  // where kernels find it
  uint64_t bytes = 0;
  Vgpu* vgpu = nullptr;
  uint64_t context = 0;  // handle
  uint64_t id = 0;
  uint32_t flags = 0;  // as given
  bool managed = false;
};

class Mirrors {
 public:
  explicit Mirrors(Process& process) : process_(process) {}

  // New memory of both sides at one address, zero. `mirror`: flags and managed are the caller's.
  CUresult allocate(Context& context, uint64_t bytes, Mirror mirror, uint64_t* address);
  // Makes memory of the program, or what is mirrored already, known to kernels of the context's vGPU.
  CUresult attach(Context& context, const Mirror& host, uint64_t* device);
  // False: nothing that begins there was allocated by allocate(). The caller has waited for its uses.
  bool release(uint64_t address);
  void detach(uint64_t host);
  void release_vgpu_context(uint64_t context);

  // What is mirrored at an address of the program; of the program's own memory also.
  bool find(uint64_t address, Mirror* mirror) const;
  // The device's address for one of the program that is mirrored, else the same.
  uint64_t on_device(uint64_t address) const;

  // Before work that may touch any of it is sent to the vGPU, and after.
  CUresult before_work(Vgpu& vgpu) { return count_.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS : push(vgpu); }
  // After waiting for work of the vGPU; passes `result` on.
  CUresult after_wait(Vgpu& vgpu, CUresult result) {
    return result != CUDA_SUCCESS || count_.load(std::memory_order_relaxed) == 0 ? result : pull(vgpu);
  }

 private:
  struct Copy {
    Mirror mirror;
    std::byte* last = nullptr;  // what both sides had
    bool fresh = true;          // the device's side has never been written
    bool changed = false;       // the device may have written since the last pull
    bool owned = false;         // the program's side is ours
  };
  CUresult push(Vgpu& vgpu);
  CUresult pull(Vgpu& vgpu);
  CUresult push_one(Copy& copy);
  CUresult pull_one(Copy& copy);
  void drop(Copy& copy);

  Process& process_;
  std::atomic<uint32_t> count_{0};
  mutable std::mutex mu_;
  std::map<uint64_t, Copy> copies_;  // by host address; guarded by mu_
};

}  // namespace tide
