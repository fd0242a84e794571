#pragma once

// An event of several processes: how often it was recorded and how far those records are, in a page that all of them
// map.
//
// Threads: any.

#include <atomic>
#include <cstdint>
#include <memory>

#include "softgpu/driver/shared_place.h"

namespace softgpu {

class SharedEvent {
 public:
  // Null when the host has no more descriptors or memory.
  static std::shared_ptr<SharedEvent> make();
  static std::shared_ptr<SharedEvent> open(const SharedPlace& place);
  ~SharedEvent();
  SharedEvent(const SharedEvent&) = delete;
  SharedEvent& operator=(const SharedEvent&) = delete;

  // A record and its completion, in the stream's order.
  uint64_t begin();
  void complete(uint64_t record);

  uint64_t last() const;  // the last record of any process; 0: none
  // A record counts as done when its process has ended.
  bool done(uint64_t record) const;
  void wait(uint64_t record, const std::atomic<bool>& cancel) const;

  CUresult share(SharedPlace* place) const;

 private:
  struct Page {
    std::atomic<uint64_t> begun, completed;
    std::atomic<int32_t> recorder;  // the process of the last record
  };
  SharedEvent(Page* page, int fd) : page_(page), fd_(fd) {}
  static std::shared_ptr<SharedEvent> map(int fd);

  Page* const page_;
  const int fd_;
};

}  // namespace softgpu
