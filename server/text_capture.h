#pragma once

// What the driver writes to a standard descriptor of the worker (printf and assert of kernels) on its way to the job.
// It waits in a file in memory, so that nobody who writes ever has to wait for the worker. One thread reads.

#include <cstddef>
#include <cstdint>

namespace tide {

class TextCapture {
 public:
  ~TextCapture();
  // From now on what is written to `descriptor` comes here. *before, where given: a duplicate of what it was.
  bool start(int descriptor, int* before = nullptr);
  // The next bytes, at most `room`; 0 when there are none.
  size_t read(char* to, size_t room);

 private:
  int file_ = -1;
  uint64_t read_ = 0;
};

}  // namespace tide
