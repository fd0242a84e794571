#pragma once

// A device's memory as a real card has it: a file, of which each chunk goes from one owner to the next with all that
// was written into it, also between processes and after an owner that was killed. For tests of who must clear it: the
// software GPU's memory is otherwise new from the system each time. SOFTGPU_KEEP_MEMORY=PATH turns it on; the file is
// PATH and the device's UUID, sparse, as large as the device's memory.
//
// Threads: any.

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace softgpu {

class KeptMemory {
 public:
  // Null, with one line in the log, when the file cannot be had.
  static std::unique_ptr<KeptMemory> open(const std::string& path, uint64_t bytes);
  ~KeptMemory();
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;

  // So many chunks that are free of all processes, by their places in the file; nothing when there are not enough.
  std::vector<uint64_t> take(uint64_t count);
  void give(const std::vector<uint64_t>& places);
  int fd() const { return fd_; }

 private:
  KeptMemory(int fd, uint64_t chunks) : fd_(fd), taken_(chunks) {}

  const int fd_;  // its locks say what this process has; the system ends them with it
  std::mutex mu_;
  std::vector<bool> taken_;  // by this process; guarded by mu_
};

}  // namespace softgpu
