#pragma once

// How much device memory the processes of a job may have together on one vGPU. Their workers share a file of their
// agent's, a row of slots for each chunk of the quota: a worker holds the system's lock on those that it uses, or has
// promised to its client, and the system frees them when it ends, however.
//
// One that is alone holds all of them, so that its client needs not ask. When another process comes, its client is
// told, says how much it has, and asks before it takes more. One thread.

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide {

class MemoryQuota {
 public:
  MemoryQuota() = default;
  ~MemoryQuota();
  MemoryQuota(const MemoryQuota&) = delete;
  MemoryQuota& operator=(const MemoryQuota&) = delete;

  // `path`: the file, made when missing. Until then, and when it fails, nobody else is known of.
  Outcome start(const std::string& path, uint64_t bytes);

  // All that others have left, and what they give back is theirs no more: for who is alone.
  void hold_all();
  // Only as much from now on.
  void end_all() { all_ = false; }
  bool holds_all() const { return all_; }
  // False: others have too much of it for so many bytes; then nothing has changed.
  bool grow_to(uint64_t bytes);
  void shrink_to(uint64_t bytes);
  // What could still be had; of what others hold all of, nothing.
  uint64_t left();
  // Another worker holds more than it will need, and has been told to give it back.
  bool others_will_give();

  static constexpr uint64_t kSlotsMax = uint64_t{1} << 24;  // 32 TiB

 private:
  uint64_t take(uint64_t slots);
  bool lock(uint64_t first, uint64_t slots, short type) const;
  uint64_t free_run(uint64_t first, uint64_t end, uint64_t* next) const;
  uint64_t end_of_run(uint64_t first, bool mine) const;

  int fd_ = -1;
  bool all_ = true;
  bool said_all_ = false;   // byte 0 is locked
  uint64_t held_ = 0;       // slots
  std::vector<bool> mine_;  // by slot
};

}  // namespace tide
