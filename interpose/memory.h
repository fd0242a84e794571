#pragma once

// The device memory of one vGPU: allocator and globals, and the commands that make the worker follow. Threads: any.

#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "interpose/allocator.h"
#include "interpose/sharing.h"

namespace tide {

struct Context;
struct Vgpu;

class Memory {
 public:
  explicit Memory(Vgpu& vgpu);

  CUresult allocate(Context& context, uint64_t bytes, uint64_t* address);
  // Waits for the vGPU's work first, if there is any: until then it may use the memory.
  CUresult release(uint64_t address);
  // Frees when the work on the stream slot up to `sequence` is done, without waiting.
  CUresult release_after(uint64_t address, uint32_t slot, uint64_t sequence);
  void release_context(uint32_t context);

  // What an array takes of the quota.
  CUresult charge(Context& context, uint64_t bytes);
  void discharge(uint64_t bytes);
  // The VMM's halves: whole chunks of addresses, and of memory that is mapped there once.
  CUresult reserve(uint64_t bytes, uint64_t alignment, uint64_t* address);
  CUresult unreserve(uint64_t address, uint64_t bytes);
  CUresult create(uint64_t bytes);
  void destroy(uint64_t bytes);
  CUresult map(uint64_t address, uint64_t bytes);
  // Waits for the vGPU's work first.
  CUresult unmap(uint64_t address, uint64_t bytes);

  // The worker that knew of it all is gone, and another begins with nothing. False, and nothing is forgotten: something
  // of it is still there, or belongs to other processes as well.
  bool begin_again();

  // A physical memory of that name (process.h, Physical), mapped instead of new memory.
  CUresult map_named(uint64_t address, uint64_t bytes, uint64_t name);

  // Names the allocation that the address lies in for other processes: until it is freed.
  CUresult share(uint64_t address, SharedKind kind, SharedHandle* handle);
  // Another process's memory, at an address of our own; the same one when it is open already.
  CUresult open(const SharedHandle& handle, uint32_t context, uint64_t* address);
  // Waits for the vGPU's work first, where it was opened as often as it is closed now.
  CUresult close(uint64_t address, SharedKind kind);
  // Closes when the work on the stream slot up to `sequence` is done, without waiting.
  CUresult close_after(uint64_t address, SharedKind kind, uint32_t slot, uint64_t sequence);
  bool is_open(uint64_t address, SharedKind kind) const;

  // Whether [address, address + bytes) lies in one live allocation or global.
  bool covers(uint64_t address, uint64_t bytes) const;
  bool find(uint64_t address, Allocation* allocation) const;
  // Fills and copies of it that are not asynchronous by name are waited for. INVALID_VALUE: no live allocation.
  CUresult set_synchronous(uint64_t address, bool on);
  bool has_synchronous() const { return has_synchronous_.load(std::memory_order_relaxed); }
  void add_global(uint64_t address, uint64_t bytes, uint32_t context);
  // Of the quota, what no process has; the worker is asked where there are several.
  uint64_t available();
  uint64_t total() const;
  // Hears of another process that uses the vGPU. Now and then, by the service thread.
  void look_after();

 private:
  struct Later {
    uint64_t address;
    uint32_t slot;
    uint64_t sequence;
    bool opened = false;  // another process's, to be closed
  };
  struct Opened {
    SharedHandle handle;
    uint32_t count = 0;
  };
  // Requires: mu_.
  CUresult carry_out(const std::vector<Mapping>& todo, uint32_t context);
  void release_finished(std::vector<Mapping>* todo);
  void follow_sharing();
  void tell();
  // `attempt`: tries to get what needs so much of the quota. Waits, without the lock, for what was freed in stream
  // order and, where others have part of the quota, for the worker's word.
  template <class Attempt>
  CUresult obtain(uint64_t bytes, uint32_t context, Attempt attempt);
  template <class Attempt>
  CUresult ask_and_try(std::unique_lock<std::mutex>* lock, uint64_t bytes, uint32_t context, Attempt attempt);
  CUresult ask(uint64_t bytes, uint64_t* left);
  void unshare(uint64_t address);
  void end_opened(uint64_t address, std::vector<Mapping>* todo);
  CUresult map_at(uint64_t address, uint64_t bytes, uint64_t name);

  Vgpu& vgpu_;
  std::atomic<bool> has_synchronous_{false};  // since some allocation was made so once
  std::mutex asking_mu_;                      // taken before mu_, and held while the worker is asked for more
  mutable std::mutex mu_;
  Allocator allocator_;             // with several processes its quota is what the worker has promised
  bool asks_ = false;               // that is so
  std::atomic<uint64_t> heard_{0};  // Channel::memory_shared() as it was answered
  uint64_t wanted_ = 0;             // while somebody asks: how much
  std::vector<Later> later_;
  std::map<uint64_t, uint64_t> reserved_;  // of the VMM: address -> bytes
  std::map<uint64_t, uint64_t> mapped_;    // within these
  std::map<uint64_t, Allocation> globals_;
  std::mutex sharing_mu_;                    // taken before mu_, and held while the worker is asked
  std::map<uint64_t, SharedHandle> shared_;  // by the allocation's begin
  std::map<uint64_t, Opened> opened_;        // by address
};

}  // namespace tide
