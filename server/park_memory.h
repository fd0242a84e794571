#pragma once

// How much of a server's host memory its keepers take for parked vGPUs. With a limit: it is a row of slots, one byte
// each in a file of the agent's, and a keeper locks those that it uses; the system frees them when it ends, however.
// Without one: as long as a quarter of the machine's memory stays available.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide {

// Without a limit: whether a quarter of the machine's memory is available. Looked at now and then. One thread.
class MemoryLook {
 public:
  // For so many bytes more.
  bool plenty(uint64_t bytes);

 private:
  static constexpr uint64_t kEveryBytes = 32u << 20;
  uint64_t unlooked_ = kEveryBytes;  // bytes since the last look
  bool plenty_ = false;
};

// One of the limit's slots, with a lock that ends with `ledger` as it was opened. False: somebody else has it, and
// *slot is the last of the row that they have.
bool lock_ledger_slot(int ledger, uint64_t* slot);

class ParkMemory {
 public:
  // `ledger`: the file, made when missing; empty: the limit is this process's alone.
  ParkMemory(std::optional<uint64_t> bytes_max, std::string ledger);
  ~ParkMemory();
  ParkMemory(const ParkMemory&) = delete;
  ParkMemory& operator=(const ParkMemory&) = delete;

  Outcome start();
  // False: there is no room for so many bytes more.
  bool take(uint64_t bytes);
  void give_back(uint64_t bytes) { used_ -= bytes; }  // to this keeper

 private:
  bool lock_slots(uint64_t slots);

  const std::optional<uint64_t> bytes_max_;
  const std::string ledger_;
  int fd_ = -1;
  uint64_t used_ = 0;
  uint64_t held_slots_ = 0;
  std::vector<bool> mine_;  // by slot
  uint64_t next_slot_ = 0;  // behind the last that was looked at
  MemoryLook look_;
};

}  // namespace tide
