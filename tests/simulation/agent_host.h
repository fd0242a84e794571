#pragma once

// A server on which the agent's own code runs (server/agent*.cc). Around it: a machine that loses its power, a process
// that is killed, paused and started again, and the part of the door that other agents knock at (server/agent_door.cc
// reads real sockets, so this is a short model).

#include <kj/async-io.h>
#include <kj/async-unix.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/agent.h"
#include "tests/simulation/machines.h"
#include "tests/simulation/network.h"

namespace tide::simulation {

class AgentHost final : private kj::TaskSet::ErrorHandler {
 public:
  AgentHost(Machines& machines, SimNetwork& network, kj::WaitScope& wait_scope, kj::UnixEventPort& port,
            std::string name, uint32_t hold_ms);
  ~AgentHost();
  const std::string& name() const { return name_; }
  // Where clients and other agents come.
  std::string endpoint() const { return "tcp=" + address(); }
  static std::string server_at(const std::string& endpoint);
  bool up() const { return agent_ != nullptr && process_->alive; }
  uint64_t life() const { return life_; }
  bool paused() const { return process_->paused_until > world_.now(); }
  void start();
  // The process, not its workers. Also from within its own code: then `bury()` follows.
  void kill();
  void lose_power();
  void pause(uint64_t ns);
  // In the agent's process, when it looks; never when it has ended before. A promise is kept until it is over.
  void call(std::function<kj::Promise<void>(Agent&)> what);
  bool holds(const std::string& job, uint64_t epoch = 0) const;

 private:
  void taskFailed(kj::Exception&&) override {}
  std::string address() const { return name_ + ":7500"; }
  kj::Promise<kj::Own<kj::NetworkAddress>> network_address(const std::string& text);
  kj::Promise<void> listen();
  kj::Promise<void> accept(kj::ConnectionReceiver& door);
  kj::Promise<void> answer(kj::Own<kj::AsyncIoStream> stream);
  void clear();

  World& world_;
  Machines& machines_;
  SimNetwork& network_;
  kj::WaitScope& wait_scope_;
  kj::UnixEventPort& port_;
  const std::string name_;
  const uint32_t hold_ms_;
  std::shared_ptr<Machine> machine_;
  std::shared_ptr<Process> process_;
  std::unique_ptr<SimIo> io_;
  std::vector<std::unique_ptr<SimIo>> graveyard_;
  kj::Own<Agent> agent_;
  std::unique_ptr<kj::TaskSet> tasks_;
  uint64_t life_ = 0;
};

}  // namespace tide::simulation
