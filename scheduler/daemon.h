#pragma once

// The scheduler as a whole: the pool, its control port and its door, on one kj event loop.

#include <kj/async-io.h>

#include <memory>
#include <string>

#include "base/outcome.h"
#include "scheduler/config.h"
#include "scheduler/door.h"
#include "scheduler/pool_service.h"

namespace tide::sched {

inline constexpr uint32_t kControlConnectionsMax = 4096;
inline constexpr uint64_t kMessageWordsMax = 2u << 20;  // 16 MiB: a server with 64 described GPUs fits many times

class Daemon final : private kj::TaskSet::ErrorHandler {
 public:
  // Opens the store and takes over its jobs.
  static Outcome open(const PoolConfig& config, kj::AsyncIoContext& io, std::unique_ptr<Daemon>* daemon);
  // Both ports are open when the promise is fulfilled.
  kj::Promise<void> listen();
  // "127.0.0.1:PORT", as they came to be.
  const std::string& address() const { return address_; }
  const std::string& door_address() const { return core_.door_address; }
  // Serves until `tide down` (shutdown()) has been asked for and done.
  kj::Promise<void> run();
  // Closes everything; jobs stay in the record for the next scheduler.
  void stop();
  PoolCore& core() { return core_; }

 private:
  struct Connection;
  Daemon(PoolConfig config, std::unique_ptr<Store> store, kj::AsyncIoContext& io);
  void taskFailed(kj::Exception&& exception) override;
  kj::Promise<void> accept(kj::ConnectionReceiver& receiver);

  PoolConfig config_;
  std::unique_ptr<Store> store_;
  kj::AsyncIoContext& io_;
  PoolCore core_;
  control::Pool::Client pool_;
  Door door_;
  std::string address_;
  uint32_t connections_ = 0;
  kj::Own<kj::ConnectionReceiver> control_receiver_, door_receiver_;
  kj::PromiseFulfillerPair<void> quit_;
  kj::TaskSet tasks_;  // last: connections fall first, while the core still stands
};

}  // namespace tide::sched
