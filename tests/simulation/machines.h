#pragma once

// What the agent's own code (server/agent*.cc) finds of its machine: worker processes and the socket to each, where a
// restarted agent finds them, and the file with what it has decided. Simulated, and linked in the place of
// server/worker_process.cc, rendezvous.cc, gpus.cc and the file of agent_state.cc.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/agent_state.h"
#include "server/control.h"
#include "tests/simulation/world.h"

namespace tide {
class WorkerProcess;
}

namespace tide::simulation {

// A worker's process, as its agent and its machine see it.
class WorkerModel : public std::enable_shared_from_this<WorkerModel> {
 public:
  WorkerModel(World& world, std::string server);
  virtual ~WorkerModel();
  uint32_t pid() const { return pid_; }
  const std::string& server() const { return server_; }
  const std::shared_ptr<Process>& process() const { return process_; }
  // It does nothing any more; reaped a while later, because a driver may hold it.
  bool dead() const { return !process_->alive; }
  bool reaped() const { return reaped_; }
  // By a signal, which nothing withstands.
  void kill(const char* why);
  // Its power is off: nobody hears of it.
  void vanish();

 protected:
  friend class ControlLine;
  friend class Machines;
  virtual void hear(ControlMessage& message) = 0;
  virtual void lose_agent() = 0;
  // Its connections end.
  virtual void on_end(const char* why) = 0;
  void say(ControlType type, const void* payload = nullptr, size_t bytes = 0);
  template <class T>
  void say(ControlType type, const T& payload) {
    say(type, &payload, sizeof(T));
  }
  bool has_agent() const { return line_ != nullptr; }
  World& world_;

 private:
  void die(const char* why, uint64_t reaped_after_ns);
  const std::string server_;
  const uint32_t pid_;
  std::shared_ptr<Process> process_;
  std::shared_ptr<class ControlLine> line_, caller_;  // of its agent; of the next one
  bool reaped_ = false;
};

// The socket between an agent and a worker: in order, and nothing is lost.
class ControlLine : public std::enable_shared_from_this<ControlLine> {
 public:
  ControlLine(World& world, std::shared_ptr<Process> agent, std::shared_ptr<WorkerModel> worker)
      : world_(world), agent_process_(std::move(agent)), worker_(std::move(worker)) {}
  World& world() { return world_; }
  const std::shared_ptr<Process>& agent_process() const { return agent_process_; }
  const std::shared_ptr<WorkerModel>& worker() const { return worker_; }
  void hold_agent(WorkerProcess* agent) { agent_ = agent; }
  void to_worker(const ControlMessage& message);
  void to_agent(const ControlMessage& message);
  // The agent's process has ended, or wants nothing more of it.
  void agent_ends();
  // Its process was reaped.
  void worker_ends();
  // Of a restarted agent.
  void begin();

 private:
  void at_agent(std::function<void(WorkerProcess&)> what);
  void at_worker(std::function<void(WorkerModel&)> what);
  uint64_t due(uint64_t* floor);

  World& world_;
  const std::shared_ptr<Process> agent_process_;
  const std::shared_ptr<WorkerModel> worker_;
  WorkerProcess* agent_ = nullptr;
  std::vector<std::function<void(WorkerProcess&)>> inbox_;  // of the agent, which reads all of it when it looks
  uint64_t floor_to_agent_ = 0, floor_to_worker_ = 0;
};

// All machines of a world.
class Machines {
 public:
  using MakeWorker = std::function<std::shared_ptr<WorkerModel>(const std::string& server)>;
  Machines(World& world, MakeWorker make);
  ~Machines();
  Machines(const Machines&) = delete;
  Machines& operator=(const Machines&) = delete;
  static Machines& now();

  World& world() { return world_; }
  void agent_starts(const std::string& server, std::shared_ptr<Process> process) { agents_[server] = process; }
  // The machine has no power: workers, and what files say of them, are of no use.
  void lose_power(const std::string& server);
  const std::vector<std::shared_ptr<WorkerModel>>& workers() const { return workers_; }
  // Asked before an agent's file is written: false, it cannot be. And told when it is.
  std::function<bool(const std::string& server, const AgentState& state)> may_write;
  std::function<void(const std::string& server, const AgentState& state)> written;

  // Of the stand-ins.
  struct Place {
    std::string server, name;
    std::shared_ptr<WorkerModel> worker;
  };
  int bind(const std::string& server, const std::string& name);
  void remove(const std::string& server, const std::string& name) { places_.erase({server, name}); }
  std::shared_ptr<WorkerModel> find(const std::string& server, const std::string& name) const;
  std::vector<std::string> names(const std::string& server) const;
  std::shared_ptr<ControlLine> start(int rendezvous);
  std::shared_ptr<ControlLine> connect(uint32_t pid);
  bool write(const std::string& server, const AgentState& state);
  AgentState read(const std::string& server) const;
  void forget(const WorkerModel& worker);

 private:
  World& world_;
  const MakeWorker make_;
  std::map<std::string, std::shared_ptr<Process>> agents_;
  std::map<std::pair<std::string, std::string>, std::shared_ptr<WorkerModel>> places_;
  std::vector<std::pair<std::string, std::string>> bound_;  // by descriptor
  std::map<std::string, AgentState> files_;
  std::vector<std::shared_ptr<WorkerModel>> workers_;  // not reaped
};

// The machine that an agent's path lies on.
std::string server_of(const std::string& path);

}  // namespace tide::simulation
