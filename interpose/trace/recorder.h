#pragma once

// What the threads of a process did, on its way into the file: a buffer for each thread, which only that thread fills,
// without a lock; it is written when it is full, when its oldest call is a second old, when the thread ends, and when
// the process ends. A process that is killed, or becomes another program, loses what is in its buffers.

#include <cuda.h>

#include <atomic>
#include <cstdint>

#include "api/travel.h"
#include "interpose/trace/format.h"

namespace tide::trace {

inline constexpr uint32_t kBufferBytes = 64 * 1024;

// Mapped, never unmapped; taken over by another thread when its own ended.
struct ThreadBuffer {
  ThreadBuffer* next;               // of all there are
  const TravelCounters* travelled;  // the library's counters of this thread
  uint32_t thread;
  std::atomic<bool> owned;
  std::atomic<uint32_t> used;  // published by the owner
  std::atomic<uint64_t> recorded, lost;
  // Under the recorder's lock:
  uint32_t written;  // of `used`
  uint64_t base_ns;
  uint8_t bytes[kBufferBytes];
};

struct CallTaken {
  uint16_t function;
  CUresult result;
  uint64_t begin, end;
  TravelCounters before;
  const uint64_t* words;
};

// Of the calling thread, made when there is none; null where nothing is recorded.
ThreadBuffer* thread_buffer();
// Before _exit(), which runs no destructors.
void end_at_once();
void take_down(ThreadBuffer& buffer, const CallTaken& call);

// The address of a driver function behind us, by its number; never null.
void* next_function(uint16_t function);
// Of an address behind us: the wrapper, or the address itself where it is not a driver function's.
void* wrapper_of(void* address);

}  // namespace tide::trace
