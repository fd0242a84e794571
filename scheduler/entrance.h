#pragma once

// The Entrance interface of scheduler/control.capnp: what a connection to the control port meets first.

#include <functional>
#include <string>

#include "scheduler/control.capnp.h"

namespace tide::sched {

class Entrance final : public control::Entrance::Server {
 public:
  // `entered` is called when the pool is handed out. `protocol`: another one for tests.
  Entrance(control::Pool::Client pool, std::function<void(control::Caller)> entered,
           uint32_t protocol = control::PROTOCOL)
      : pool_(kj::mv(pool)), entered_(std::move(entered)), protocol_(protocol) {}

 protected:
  kj::Promise<void> enter(EnterContext context) override;
  DispatchCallResult dispatchCall(uint64_t interface, uint16_t method,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override;

 private:
  control::Pool::Client pool_;
  std::function<void(control::Caller)> entered_;
  const uint32_t protocol_;
};

}  // namespace tide::sched
