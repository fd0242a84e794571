#pragma once

// The scheduler as a whole: the pool, its control port and its door, on one kj event loop.

#include <kj/async-io.h>

#include <memory>
#include <string>

#include "base/outcome.h"
#include "scheduler/config.h"
#include "scheduler/door.h"
#include "scheduler/pool_service.h"
#include "scheduler/port.h"

namespace tide::sched {

// What one message to the control port may have: a greeting or a command line fits; of an agent a server with 64
// described GPUs and what it serves.
inline constexpr uint64_t kMessageWordsMax = (64u << 10) / 8;
inline constexpr uint64_t kAgentMessageWordsMax = (4u << 20) / 8;
// Who does not read the answers is not heard until he does; and so much of what he asked may be under way.
inline constexpr size_t kUnreadBytesMax = 4u << 20;
inline constexpr size_t kCallWordsMax = (8u << 20) / 8;

class Daemon final {
 public:
  // Opens the store and, where no other scheduler can lead, takes over its jobs. `file`: what `config` was read from,
  // if anything.
  static Outcome open(const PoolConfig& config, kj::AsyncIoContext& io, std::unique_ptr<Daemon>* daemon,
                      PoolFile file = {});
  // Both ports are open when the promise is fulfilled.
  kj::Promise<void> listen();
  // "127.0.0.1:PORT", as they came to be.
  const std::string& address() const { return address_; }
  const std::string& door_address() const { return core_.door_address; }
  bool leads() const { return !core_.refuses(); }
  enum class End : uint8_t { kAsked, kDeposed };
  // Serves, where several schedulers share a store as soon as this one leads, until `tide down` (shutdown()) has been
  // asked for and done, or it leads no longer: calls that are under way may still come to this object.
  kj::Promise<End> run();
  // Closes everything; jobs stay in the record for the next scheduler.
  void stop();
  PoolCore& core() { return core_; }

 private:
  struct Connection;
  Daemon(PoolConfig config, std::unique_ptr<Store> store, kj::AsyncIoContext& io);
  kj::Promise<void> lead();
  kj::Promise<void> serve(kj::Own<kj::AsyncIoStream> stream, const std::shared_ptr<Port::Place>& place);

  PoolConfig config_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Election> election_;  // null: no other scheduler can lead
  kj::AsyncIoContext& io_;
  PoolCore core_;
  control::Pool::Client pool_;
  Door door_;
  std::string address_;
  kj::PromiseFulfillerPair<void> quit_;
  Port control_port_, door_port_;  // last: connections fall first, while the core still stands
};

}  // namespace tide::sched
