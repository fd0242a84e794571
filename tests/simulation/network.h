#pragma once

// The control plane's network: kj's streams, addresses and timers, of which each process has its own view. Bytes arrive
// late, wait where the network is cut, and connections are reset; of a process that was killed the far ends hear, of a
// machine that lost its power they hear only when it is back.

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/timer.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/world.h"

namespace tide::simulation {

struct Machine {
  std::string name;
  bool powered = true;
};

class SimConnection;
class SimListener;

class SimNetwork {
 public:
  explicit SimNetwork(World& world) : world_(world), chance_(world.fork()) {}

  World& world() { return world_; }
  Chance& chance() { return chance_; }
  void cut(const std::string& a, const std::string& b, uint64_t ns);
  void heal() { cuts_.clear(); }
  uint64_t cut_until(const std::string& a, const std::string& b) const;
  // Each connection of that machine breaks at its far end.
  void power_is_back(const std::shared_ptr<Machine>& machine);
  SimListener*& listener(const std::string& address) { return listeners_[address]; }
  // What that process has open is broken for itself; it ends where the process does.
  void break_for(const Process& process);
  void add(const std::shared_ptr<SimConnection>& connection);
  void add(class SimIo* io) { ios_.push_back(io); }
  void remove(class SimIo* io);
  // Every process is woken for its next timer.
  void plan();

 private:
  using Pair = std::pair<std::string, std::string>;
  static Pair pair_of(const std::string& a, const std::string& b) { return a < b ? Pair{a, b} : Pair{b, a}; }

  World& world_;
  Chance chance_;
  std::map<Pair, uint64_t> cuts_;
  std::map<std::string, SimListener*> listeners_;
  std::vector<std::weak_ptr<SimConnection>> connections_;
  std::vector<class SimIo*> ios_;
};

// A process that speaks kj: its timer, its addresses.
class SimIo {
 public:
  SimIo(SimNetwork& network, std::shared_ptr<Machine> machine, std::shared_ptr<Process> process,
        kj::WaitScope& wait_scope, kj::UnixEventPort& unused);
  ~SimIo();
  kj::AsyncIoContext& context() { return context_; }
  kj::Timer& timer() { return timer_; }
  const std::shared_ptr<Process>& process() const { return process_; }
  const std::shared_ptr<Machine>& machine() const { return machine_; }
  SimNetwork& network() { return network_; }
  World& world() { return network_.world(); }
  // Sees to it that the world wakes it for its next timer.
  void plan();
  // Its process has ended.
  void retire();

 private:
  SimNetwork& network_;
  const std::shared_ptr<Machine> machine_;
  const std::shared_ptr<Process> process_;
  kj::TimerImpl timer_;
  kj::AsyncIoContext context_;
  uint64_t planned_ = 0;
  std::shared_ptr<bool> here_ = std::make_shared<bool>(true);
};

}  // namespace tide::simulation
