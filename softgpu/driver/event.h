#pragma once

// An event: the last place in a stream where it was recorded.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "softgpu/driver/stream.h"

namespace softgpu {

class SharedEvent;

struct Record {
  Ticket ticket;
  std::atomic<uint64_t> time_ns{0};  // when the stream came there
};

struct Event {
  Event(Context& in, unsigned with) : context(in), flags(with) {}

  // The last record so far; null when there was none.
  std::shared_ptr<Record> last();
  void set(std::shared_ptr<Record> record);

  Context& context;
  const unsigned flags;
  std::shared_ptr<SharedEvent> shared{};  // of several processes; set before anybody else knows of it

 private:
  std::mutex mu_;
  std::shared_ptr<Record> record_;  // guarded by mu_
};

// Records in the stream's order; waits for the last record so far.
void record_event(Context& context, const std::shared_ptr<Stream>& stream, Event& event);
void wait_event(Context& context, const std::shared_ptr<Stream>& stream, Event& event);
// The same where the stream may capture; `flags` of cuEventRecordWithFlags.
CUresult record_in_stream(Context& context, const std::shared_ptr<Stream>& stream, CUevent handle, Event& event,
                          unsigned flags);
CUresult wait_in_stream(Context& context, const std::shared_ptr<Stream>& stream, CUevent handle, Event& event,
                        unsigned flags);

}  // namespace softgpu
