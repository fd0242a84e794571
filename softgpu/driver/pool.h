#pragma once

// A pool of stream-ordered memory of one device. What is freed stays with the pool up to its release threshold.
//
// Threads: any for the atomics; the heap belongs to Memory's lock.

#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "softgpu/driver/cuda_api.h"
#include "softgpu/driver/heap.h"
#include "softgpu/driver/views.h"

namespace softgpu {

class Device;

struct Pool {
  Pool(Device& of, CUmemoryPool its_handle, const CUmemPoolProps& its_properties)
      : device(of), handle(its_handle), properties(its_properties) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  ~Pool() {
    if (token >= 0) close(token);
  }

  Device& device;
  const CUmemoryPool handle;
  const CUmemPoolProps properties;
  bool is_default = false;  // of its device: cannot be destroyed
  bool imported = false;    // gives no memory
  int token = -1;           // the open file that stands for it in other processes; -1: not shareable
  uint64_t identity = 0;    // the token's inode

  std::atomic<int> reuse_event_dependencies{1};
  std::atomic<int> reuse_opportunistic{1};
  std::atomic<int> reuse_internal_dependencies{1};
  std::atomic<uint64_t> release_threshold{0};
  std::atomic<bool> destroyed{false};

  // Guarded by Memory's lock.
  Heap heap;
  DeviceSet seen_by = 0;  // beside the own device
  uint64_t used_high = 0, reserved_high = 0;
};

}  // namespace softgpu
