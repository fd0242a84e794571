#pragma once

// The Entrance interface of scheduler/control.capnp: what a connection to the control port meets first.

#include <functional>
#include <string>

#include "scheduler/control.capnp.h"

namespace tide::sched {

class Entrance final : public control::Entrance::Server {
 public:
  // Whether another scheduler leads, and where.
  struct Elsewhere {
    bool is = false;
    std::string leader;
  };
  // `entered` is called when the pool is handed out. `protocol`: another one for tests.
  Entrance(control::Pool::Client pool, std::function<void(control::Caller)> entered,
           uint32_t protocol = control::PROTOCOL, std::function<Elsewhere()> elsewhere = {})
      : pool_(kj::mv(pool)), entered_(std::move(entered)), protocol_(protocol), elsewhere_(std::move(elsewhere)) {}

 protected:
  kj::Promise<void> enter(EnterContext context) override;
  DispatchCallResult dispatchCall(uint64_t interface, uint16_t method,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override;

 private:
  control::Pool::Client pool_;
  std::function<void(control::Caller)> entered_;
  const uint32_t protocol_;
  const std::function<Elsewhere()> elsewhere_;
};

}  // namespace tide::sched
