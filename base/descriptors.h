#pragma once

// Files and pipes, whole: signals interrupt reads and writes, and both may do less than was asked.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/outcome.h"

namespace tide {

// Of a daemon: as many as the system lets it have, not as many as its shell thought enough. How many that is; fails,
// with the remedy, where it is less than `least`.
Outcome take_descriptors(uint64_t least, uint64_t* count);

// What the last call of the system said, behind what was tried.
Outcome errno_failure(const std::string& what);
// The same of a process that could not be made, with what to look at.
Outcome fork_failure(const std::string& what);
Outcome write_all(int fd, const void* data, size_t bytes);
// Fails where it ends before.
Outcome read_all(int fd, void* data, size_t bytes);

struct ReadLimits {
  size_t bytes_max = SIZE_MAX;
  uint64_t timeout_ns = UINT64_MAX;
};
// What comes until the end is appended to *text.
Outcome read_to_end(int fd, const ReadLimits& limits, std::string* text);

}  // namespace tide
