#pragma once

// Physical memory: whole chunks of host memory that a device's account pays for. It is anonymous, so that huge
// pages may lie behind it, until somebody shares it with another process: then the same bytes move into a memfd, at the
// same place of this process.
//
// Threads: any.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "softgpu/driver/chunk_hash.h"

namespace softgpu {

class Device;

class Backing {
 public:
  // Null when the device's account or the host's memory is exhausted. `shared`: a memfd from the beginning. Zeros, but
  // where the device keeps its memory (kept_memory.h).
  static std::shared_ptr<Backing> make(Device& device, uint64_t bytes, bool shared = false);
  // Host memory at an address of the device window that this process holds, readable by the host at that very address;
  // of no account.
  static std::shared_ptr<Backing> make_at(Device& device, uint64_t address, uint64_t bytes);
  // Memory of another process, or of this one: `bytes` of an open memfd. Takes the descriptor, also when it fails.
  static std::shared_ptr<Backing> import(Device& device, int fd, uint64_t bytes);
  // A descriptor of no memory that device_of() understands; -1 when there are no more.
  static int make_token(const Device& device);
  // Which of this process's devices an open memfd's memory is of, or was where it comes from; false when it is not a
  // Backing's.
  static bool device_of(int fd, int* device);
  ~Backing();
  Backing(const Backing&) = delete;
  Backing& operator=(const Backing&) = delete;

  // The memfd with these bytes, which stays the Backing's; -1 when the host has no more descriptors or memory.
  // Requires that nobody writes to it meanwhile.
  int share();
  bool is_shared();
  // Zeros, whatever was kept. Requires that it is new.
  void clear();

  // The hashes of some of its chunks as they are now. Until forget_hashes() it is remembered what was not written,
  // where the system says so and the memory is not shared. Throws std::bad_alloc.
  void hash(const tide::ChunkSecret& secret, uint64_t first, uint64_t count, tide::ChunkHash* hashes);
  void forget_hashes();

  Device& device;
  std::byte* const host;
  const uint64_t bytes;

 private:
  enum class Kind { kAccounted, kKept, kAtAddress, kImported };
  static std::shared_ptr<Backing> make_kept(Device& device, uint64_t bytes);
  Backing(Device& of, std::byte* at, uint64_t size, Kind kind, int fd)
      : device(of), host(at), bytes(size), kind_(kind), fd_(fd) {}

  const Kind kind_;
  std::vector<uint64_t> kept_at_;  // kKept: where its chunks are in the device's memory
  std::mutex mu_;
  int fd_;              // -1: anonymous; guarded by mu_
  ChunkHashes hashes_;  // guarded by mu_
};

}  // namespace softgpu
