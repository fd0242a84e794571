#pragma once

// Which pages of the program's memory were written, by way of these addresses, since they were looked at last. The
// system protects them from writing and, at the first write to each, takes the protection away and goes on: no signal
// comes, and a system call that fills such memory works as ever (userfaultfd's asynchronous write protection,
// Linux 6.7; for any user). Where the system has no such thing, start() says so, and the memory has to be compared
// instead. What others write does not show: other mappings of the same memory, or devices to whom its pages were given
// before.
//
// Threads: any may write to the memory; for a watch the caller holds a lock. Costs about a microsecond for the first
// write to a page after each look, and a millisecond for each GiB that is looked at.

#include <cstdint>

namespace tide {

class PageWatch {
 public:
  PageWatch() = default;
  PageWatch(const PageWatch&) = delete;
  PageWatch& operator=(const PageWatch&) = delete;
  ~PageWatch() { stop(); }

  // Watches whole pages; at first all that were ever touched count as written. False: this system, or this memory,
  // cannot be watched.
  bool start(uint64_t address, uint64_t bytes);
  void stop();
  bool on() const { return bytes_ != 0; }
  uint64_t bytes() const { return bytes_; }  // 0: it is not on

  // Calls look(offset, bytes) for each run of pages, of those from offset `at` to `end`, that may have been written
  // since the last time, and counts them as not written from before that call on. False: it is not known what was
  // written; the watch is over.
  template <class Look>
  bool take_written(uint64_t at, uint64_t end, Look look) {
    Run runs[kRuns];
    while (on() && at < end) {
      const int found = next_written(&at, end, runs);
      if (found < 0) return false;
      for (int i = 0; i < found; ++i) look(runs[i].begin - address_, runs[i].end - runs[i].begin);
    }
    return on();
  }

 private:
  static constexpr int kRuns = 128;
  struct Run {  // the system's `struct page_region`
    uint64_t begin, end, categories;
  };
  // The next runs behind the offset *at, which moves on. -1: the system does not know.
  int next_written(uint64_t* at, uint64_t end, Run* runs);

  uint64_t address_ = 0, bytes_ = 0;
};

// Whether all of it is memory that no other process, file or second mapping can change.
bool is_private_memory(uint64_t address, uint64_t bytes);

}  // namespace tide
