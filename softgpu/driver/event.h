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

}  // namespace softgpu
