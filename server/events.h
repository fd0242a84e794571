#pragma once

// The vGPU's events by slot, and when they happened in the vGPU's own time, which goes on when it moves: an event that
// was recorded on another GPU can still be compared with one that was recorded here. One thread.

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "server/contexts.h"
#include "server/shared_event.h"
#include "server/streams.h"
#include "transport/layout.h"

namespace tide {

class Events {
 public:
  struct Event {
    CUevent handle = nullptr;
    uint32_t context = 0;
    uint32_t flags = 0;
    bool live = false;
    bool recorded = false;                // here or before a move
    bool native = false;                  // recorded here: the driver knows when
    double virtual_ms = 0;                // of one that is not native
    std::shared_ptr<SharedEvent> shared;  // of one that other processes may have
  };

  Events(const Driver& driver, Contexts& contexts);
  // `shared`: of one for other processes that comes from elsewhere, with its page.
  CUresult create(uint32_t slot, uint32_t context, uint32_t flags, std::shared_ptr<SharedEvent> shared = nullptr);
  // An event of another process.
  CUresult adopt(uint32_t slot, uint32_t context, std::shared_ptr<SharedEvent> shared);
  CUresult destroy(uint32_t slot);
  void forget_context(uint32_t context);
  // Null where there is none.
  Event* find(uint32_t slot);
  // Requires: both have completed. CUDA_ERROR_INVALID_HANDLE for those never recorded or without timing.
  CUresult elapsed(uint32_t start, uint32_t end, float* ms);
  // When it happened, in the vGPU's time. Requires: recorded and completed.
  double time_ms(const Event& event) const;
  // The client shall hear, as command `sequence`, when this record of a shared event is complete; in the order in which
  // it asked.
  void watch(uint32_t slot, uint64_t record, uint64_t sequence);
  bool watching() const { return !watches_.empty(); }
  // Tells what has completed; true if anything has.
  bool poll(Streams& streams);
  size_t slots() const { return events_.size(); }

 private:
  CUresult between(CUevent start, CUevent end, float* ms) const;

  struct Watch {
    std::shared_ptr<SharedEvent> event;  // null: it was destroyed
    uint64_t record = 0, sequence = 0;
  };

  const Driver& driver_;
  Contexts& contexts_;
  std::vector<Event> events_;
  std::map<uint32_t, std::deque<Watch>> watches_;  // by slot
};

}  // namespace tide
