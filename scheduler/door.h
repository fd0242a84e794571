#pragma once

// The scheduler's door: where a job's client processes ask, with the job's token, where their vGPUs are served
// (transport/door.h says the frames). Garbage is answered with kRefused where that makes sense, and closed.

#include <kj/async-io.h>

#include "scheduler/pool_service.h"

namespace tide::sched {

inline constexpr uint32_t kDoorConnectionsMax = 4096;
inline constexpr uint32_t kDoorHelloMs = 5000;  // who connects must speak by then

class Door final : private kj::TaskSet::ErrorHandler {
 public:
  Door(PoolCore& core, kj::Timer& timer) : core_(core), timer_(timer), clients_(*this) {}

  // Serves connections until it fails.
  kj::Promise<void> listen(kj::ConnectionReceiver& receiver);

 private:
  struct Client;
  void taskFailed(kj::Exception&&) override {}  // the other end went away
  kj::Promise<void> serve(kj::Own<kj::AsyncIoStream> stream);
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
  uint32_t connections_ = 0;
  kj::TaskSet clients_;
};

}  // namespace tide::sched
