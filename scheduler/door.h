#pragma once

// The scheduler's door: where a job's client processes ask, with the job's token, where their vGPUs are served
// (transport/door.h says the frames). Garbage is answered with kRefused where that makes sense, and closed.

#include <kj/async-io.h>

#include <memory>
#include <string>

#include "scheduler/pool_service.h"
#include "scheduler/port.h"

namespace tide::sched {

class Door final {
 public:
  Door(PoolCore& core, kj::Timer& timer) : core_(core), timer_(timer) {}

  // Serves one connection until its end.
  kj::Promise<void> serve(kj::Own<kj::AsyncIoStream> stream, std::shared_ptr<Port::Place> place);

 private:
  struct Client;
  kj::Promise<void> hello(Client& client);
  kj::Promise<void> ask(Client& client);
  kj::Promise<void> where(Client& client, const Job& job);
  kj::Promise<void> measure(Client& client, const Job& job);
  // Reads a frame into client.type and client.payload; the promise is false when the stream ended or made no sense.
  kj::Promise<bool> receive(Client& client);
  kj::Promise<void> send(Client& client, uint16_t type, std::string payload);
  kj::Promise<void> refuse(Client& client, int32_t code, const std::string& message);

  PoolCore& core_;
  kj::Timer& timer_;
};

}  // namespace tide::sched
