#pragma once

// How fast the workers of a server send what moves, suspensions, resumptions and checkpoints carry, all of them
// together: `move_rate` of its [[server]]. They have a page in common, a file of their agent's, in which each of them
// writes down when what it sends would be over at that rate, and waits until then; who has died owes a chunk at most.
// What is sent in a pause is neither held up nor counted. Time is given in (CLOCK_MONOTONIC, which all processes
// share). One thread in each process.

#include <atomic>
#include <cstdint>
#include <string>

#include "base/outcome.h"

namespace tide {

class MoveRate {
 public:
  MoveRate() = default;
  ~MoveRate();
  MoveRate(const MoveRate&) = delete;
  MoveRate& operator=(const MoveRate&) = delete;

  // `bytes_per_s`: 0: no limit. `page`: the file, made when missing. Once.
  Outcome start(uint64_t bytes_per_s, const std::string& page);
  // With what the agent has put into this process's environment: TIDE_MOVE_RATE (bytes a second; absent: no limit) and
  // TIDE_MOVE_PAGE.
  Outcome start_as_told();

  // So many bytes were sent at `now`: for how many ns nothing more is to be. What was slept too long is made up for, up
  // to 20 ms of it.
  uint64_t sent(uint64_t bytes, uint64_t now);

 private:
  uint64_t bytes_per_s_ = 0;
  std::atomic<uint64_t>* free_ns_ = nullptr;  // in the page: until then the rate is used up
};

}  // namespace tide
