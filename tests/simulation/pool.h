#pragma once

// A pool: one scheduler (the real one, whole: scheduler/daemon.h, over a simulated network and disk), servers whose
// agents are a model that keeps the contract of control.capnp, and jobs that do what `tide run` does.

#include <kj/async-unix.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "scheduler/daemon.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/network.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/world.h"

namespace tide::simulation {

class SimPool;

inline constexpr const char* kSchedulerAddress = "scheduler:7411";

// A vGPU on a GPU, as an agent was told.
struct LeaseKey {
  std::string job;
  uint32_t vgpu = 0;
  uint64_t epoch = 0;
  auto operator<=>(const LeaseKey&) const = default;
};

// A worker process: it holds its GPU until it is gone, which takes a while.
struct GpuWorker {
  LeaseKey key;
  uint32_t gpu = 0;
  uint32_t part = 0;          // thousandths of the GPU
  uint64_t memory_bytes = 0;  // its quota
  bool dying = false;
  bool gone = false;
  bool held = false;                                         // its program begins nothing new
  bool arriving = false;                                     // by a move, and not decided yet: it executes nothing
  bool there = false;                                        // and has all of it
  bool at_rest = false;                                      // in the pause of a move
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> waiting;  // for its end
};

// A move away from here, as far as it is.
struct PoolMove {
  LeaseKey from, to;
  std::string source, destination;
  MoveStep step = MoveStep::kNone;
  uint32_t rounds = 0;     // that are to be copied
  uint32_t processes = 1;  // of the vGPU, which rest together
  bool called_off = false;
  std::array<bool, kMoveSteps> struck = {};
  std::shared_ptr<GpuWorker> arrives;
};

struct AgentLease {
  uint32_t gpu = 0;
  uint32_t part = 0;
  uint64_t memory_bytes = 0;
  std::string token;
  bool moving = false;
  bool committed = false;           // written down: its worker is to leave, and it is not told of any more
  std::shared_ptr<PoolMove> going;  // where to, from when the destination has been asked
  uint64_t quiet_at = 0;            // when what its held program has begun is done
  bool held = false;
  std::shared_ptr<GpuWorker> worker;
};

// One server: its GPUs, the workers on them, and the agent's process while there is one.
class SimServer {
 public:
  SimServer(SimPool& pool, std::string name, uint32_t gpus);
  ~SimServer();
  const std::string& name() const { return name_; }
  uint32_t gpus() const { return gpus_; }
  bool up() const { return agent_ != nullptr; }
  bool paused() const;
  bool holds_anything() const;
  bool holds(const std::string& job, uint32_t vgpu, uint32_t gpu) const;
  void start();
  // The agent's process; its workers go on, and the next agent adopts them.
  void kill_agent();
  void lose_power();
  void pause(uint64_t ns);
  void kill_some_worker(Chance& chance);
  // Of a move that has come to its next step: something may happen there.
  void strike_move(PoolMove& move, Chance& chance);
  const std::vector<std::shared_ptr<GpuWorker>>& workers() const { return workers_; }
  void kill_worker(const std::shared_ptr<GpuWorker>& worker);

  // A client of the job at the door: empty, or why not.
  std::string open(const LeaseKey& key, const std::string& token, std::shared_ptr<GpuWorker>* worker);

 private:
  friend class AgentModel;
  bool is_left(const std::string& job, uint32_t gpu) const;
  std::shared_ptr<GpuWorker> start_worker(const LeaseKey& key, const AgentLease& lease);
  void take_over();
  void undo(AgentLease& lease);
  void hand_over(const LeaseKey& key);
  void note_struck();
  void note_struck(PoolMove& move);
  void end_worker(const std::shared_ptr<GpuWorker>& worker);

  SimPool& pool_;
  const std::string name_;
  const uint32_t gpus_;
  std::shared_ptr<Machine> machine_;
  std::vector<std::shared_ptr<GpuWorker>> workers_;  // not gone
  std::map<LeaseKey, AgentLease> leases_;
  kj::Own<class AgentModel> agent_;
};

// What `tide run` and the job's processes do.
class SimJob {
 public:
  SimJob(SimPool& pool, uint32_t number);
  ~SimJob();
  void start();
  bool over() const { return over_; }
  // And nothing of it runs any more.
  bool cleared() const { return over_ && running_ == nullptr; }
  void kill();
  const std::string& id() const { return id_; }
  const std::string& token() const { return token_; }
  bool acknowledged() const { return !id_.empty(); }
  bool ended_by_itself() const { return ended_by_itself_; }

 private:
  struct Connection;
  kj::Promise<void> run();
  kj::Promise<void> connect();
  kj::Promise<void> submit();
  kj::Promise<void> be_watched();
  kj::Promise<void> reattach();
  kj::Promise<void> be_program();
  kj::Promise<void> wait_until_running();
  kj::Promise<void> be_somebody();
  kj::Promise<void> ask_to_suspend();
  kj::Promise<void> ask_to_resume();
  kj::Promise<void> look();
  kj::Promise<void> look_again();
  kj::Promise<void> open_all(control::JobInfo::Reader info);
  kj::Promise<void> open_one(uint32_t vgpu, std::string server, uint64_t epoch);
  kj::Promise<void> ask_for_size();
  bool is_served() const;
  bool is_still() const;
  kj::Promise<void> report(int32_t status);
  kj::Promise<void> pause(uint64_t ms) { return io_->timer().afterDelay(ms * kj::MILLISECONDS); }
  void finish(const char* how);
  void leave_workers();

  SimPool& pool_;
  const uint32_t number_;
  Chance chance_, somebody_;
  const uint32_t part_, gpus_, min_gpus_;
  const uint64_t memory_bytes_;
  const uint64_t work_ns_;
  std::unique_ptr<SimIo> io_;
  kj::Own<Connection> connection_;
  kj::Maybe<control::JobHandle::Client> handle_;
  std::string id_, token_;
  uint64_t away_since_ = 0, works_until_ = 0;
  bool over_ = false, ended_by_itself_ = false;
  struct Served {
    std::string server;
    uint64_t epoch = 0;
    std::shared_ptr<GpuWorker> worker;
  };
  std::map<uint32_t, Served> served_;  // by vGPU
  kj::Maybe<kj::Promise<void>> running_;
};

class SimPool {
 public:
  SimPool(World& world, Totals* totals);
  ~SimPool();
  void run();

  World& world() { return world_; }
  SimNetwork& network() { return network_; }
  std::unique_ptr<SimIo> new_io(std::shared_ptr<Machine> machine, const std::string& process);
  // Of a process that has ended: calls that nobody cancelled may still hold its timer.
  void bury(std::unique_ptr<SimIo> io);
  const std::shared_ptr<Machine>& login_machine() const { return login_machine_; }
  SimServer* server(const std::string& name);
  Totals* totals() { return totals_; }
  bool takes_turns() const { return turns_.on; }
  // What is told to the checkers.
  void granted(const SimJob& job);
  void leased(const LeaseKey& key, const std::string& server, uint32_t gpu);
  // Faults that a move's steps ask for.
  void kill_agent(SimServer& server, bool power);
  uint64_t how_long();
  enum class Told { kNothing, kSuspended, kResumed };
  void told(const std::string& job, Told told) { told_[job] = told; }

 private:
  void behind();
  void start_scheduler();
  void stop_scheduler(bool power_lost);
  void check_record();
  void check_owners();
  void check_places();
  void check_suspended();
  void check_decision();
  void check_leases();
  void check_turns();
  bool could_start(const sched::Job& job) const;
  void strike();
  void strike_network();
  void strike_scheduler();
  void strike_servers();
  void start_again(SimServer& server);
  void keep_jobs();
  bool all_done() const;
  std::string what_is_left() const;

  World& world_;
  Totals* totals_;
  Chance chance_;
  SimNetwork network_;
  SimDisk disk_;
  std::vector<std::unique_ptr<SimIo>> graveyard_;
  kj::UnixEventPort port_;
  kj::EventLoop loop_;
  kj::WaitScope wait_scope_;
  std::shared_ptr<Machine> scheduler_machine_, login_machine_;
  std::unique_ptr<SimIo> scheduler_io_;
  std::unique_ptr<sched::Daemon> daemon_;
  kj::Maybe<kj::Promise<void>> listening_;
  bool power_went_ = false;
  uint64_t looks_ = 0;
  uint64_t rounds_checked_ = 0;  // of this scheduler's
  std::vector<std::unique_ptr<SimServer>> servers_;
  std::vector<std::unique_ptr<SimJob>> jobs_;
  uint32_t jobs_begun_ = 0;
  std::map<std::string, std::string> grants_;  // by id: the token
  std::map<LeaseKey, std::string> leased_;     // where
  std::map<std::string, Told> told_;           // by id: what was acknowledged last, of what was asked last
  sched::TurnRules turns_;
  // Who waits for a turn, by number: since when, and since when it could start at any moment.
  struct Waiting {
    uint64_t since = 0, ready_since = 0;
    bool failed = false;   // it had its turn, and could not be placed: since when is not known
    bool counted = false;  // that it was given its turn
  };
  std::map<uint64_t, Waiting> waiting_;
  std::set<uint64_t> coming_;  // who has its turn, and is not placed yet
  bool restarted_ = false;     // the scheduler, and nobody has looked since
};

}  // namespace tide::simulation
