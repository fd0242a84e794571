#pragma once

// The file that a process appends frames to. It is opened for each frame and closed again: the program's descriptors
// stay its own, and one that it closes is not ours. When a frame cannot be written, the trace ends there and says so;
// the program goes on.
//
// Threads: append() one at a time (the caller's lock).

#include <cstddef>
#include <cstdint>

#include "interpose/trace/format.h"

namespace tide::trace {

class Sink {
 public:
  // Whether `path` is the beginning of a trace of this version. Says what is wrong.
  bool open(const char* path);
  // The process begins anew: after fork().
  void restart();
  // Fills in the rest of the head. A process's first frame brings the description of the process along.
  bool append(FrameHead head, const void* payload);
  bool failed() const { return failed_; }
  bool announced() const { return announced_; }

 private:
  bool announce();
  bool write_frame(FrameHead head, const void* payload);
  void give_up(const char* why);

  char path_[4096] = {};
  uint64_t process_ns_ = 0;
  bool announced_ = false, failed_ = false;
};

}  // namespace tide::trace
