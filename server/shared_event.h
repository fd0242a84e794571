#pragma once

// An event of several processes, as their workers see it: a page that all of them map. A record is a number, counted
// over all processes; it is complete when the worker that made it says so, or when that worker has ended.
//
// Threads: one in each process.

#include <atomic>
#include <cstdint>
#include <memory>

namespace tide {

class SharedEvent {
 public:
  // Null when the host has no more descriptors or memory.
  static std::shared_ptr<SharedEvent> make();
  // Takes the descriptor. Null when it is not an event's page.
  static std::shared_ptr<SharedEvent> open(int fd);
  ~SharedEvent();
  SharedEvent(const SharedEvent&) = delete;
  SharedEvent& operator=(const SharedEvent&) = delete;

  int fd() const { return fd_; }
  // Who made it, a number of the maker's session, and its number of this event. Told to nobody before they are set.
  struct Maker {
    uint64_t low = 0, high = 0, number = 0;
    bool operator==(const Maker&) const = default;
  };
  void set_maker(const Maker& maker);
  Maker maker() const;
  // Of one made anew after a move: so many records were begun, and all are complete.
  void set_complete(uint64_t begun);
  // `recorder`: a number of the worker's session. In the order of the stream that records.
  uint64_t begin(uint64_t recorder);
  void complete(uint64_t record);
  uint64_t last() const { return page_->begun.load(std::memory_order_acquire); }  // 0: never recorded
  uint64_t recorder(uint64_t record) const;
  bool done(uint64_t record) const;
  void recorder_ended(uint64_t recorder);

 private:
  // Only the last record of an event can be waited for; a wait that is older than this many more ends with the newer
  // one.
  static constexpr uint64_t kRecords = 64;
  struct Record {
    std::atomic<uint64_t> done, recorder;
  };
  struct Page {
    std::atomic<uint64_t> magic, begun, maker_low, maker_high, number;
    Record records[kRecords];
  };
  SharedEvent(Page* page, int fd) : page_(page), fd_(fd) {}
  static std::shared_ptr<SharedEvent> map(int fd);

  Page* const page_;
  const int fd_;
};

// One record of one event; none: nothing.
struct SharedRecord {
  std::shared_ptr<SharedEvent> event;
  uint64_t number = 0;
};

}  // namespace tide
