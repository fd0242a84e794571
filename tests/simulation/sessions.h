#pragma once

// The world of sessions: servers with real agents, vGPUs that are moved between them, and their client processes. Who
// orders (the scheduler's part in it) is a short model, SimVgpu.

#include <kj/async-unix.h>

#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/simulation/agent_host.h"
#include "tests/simulation/machines.h"
#include "tests/simulation/network.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/session.h"
#include "tests/simulation/worker.h"

namespace tide::simulation {

// One vGPU as the scheduler has it, and the sessions of one or two processes that use it.
class SimVgpu : public std::enable_shared_from_this<SimVgpu> {
 public:
  SimVgpu(Sessions& room, uint64_t number, uint32_t hold_ms);
  void start();
  std::string job() const { return std::to_string(number_); }
  const std::vector<std::shared_ptr<SimSession>>& sessions() const { return sessions_; }
  const std::string& token() const { return token_; }
  // Where the scheduler knows it to be; false: nowhere.
  bool where(std::string* server, uint64_t* epoch) const;
  bool over() const;
  bool nothing_left() const { return doing_ == Doing::kGone && what_is_left().empty(); }
  std::string what_is_left() const;
  bool moves() const { return doing_ == Doing::kMoving || doing_ == Doing::kInDoubt; }
  MoveStep step() const { return step_; }
  bool is_decided(uint64_t epoch) const { return decided_.count(epoch) != 0; }
  uint64_t present_epoch() const { return epoch_; }
  uint64_t next_epoch() const { return next_; }
  const std::string& source() const { return at_; }
  const std::string& destination() const { return to_; }
  // What is heard of its workers and agents.
  void enter(MoveStep step);
  void struck();
  void wrote(const AgentState& state);
  void agent_is_back(const std::string& server);
  void agent_has_ended(const std::string& server);
  // What a scheduler may want in the middle of a move.
  void want_something_else();

 private:
  enum class Doing { kPlacing, kNothing, kMoving, kInDoubt, kReleasing, kGone };
  enum class Said { kDone, kRefused, kGone };
  using Answer = std::function<void(Said said, const std::string& why)>;
  using Order = std::function<kj::Promise<void>(Agent&)>;
  LeaseTerms terms(uint64_t epoch) const;
  uint64_t latency() { return chance_.between(50 * kUs, 5 * kMs); }
  void ask(const std::string& server, Order order, Answer answer);
  void answer(uint64_t question, Said said, const std::string& why);
  void place();
  void begin_sessions();
  void look();
  void order_move();
  void order_source();
  Agent::MoveOrder order(const std::string& to, uint64_t epoch) const;
  void settle(bool at_destination);
  void cancel(const std::string& server, uint64_t epoch);
  void release();
  void release_at(const std::string& server);

  Sessions& room_;
  World& world_;
  const uint64_t number_;
  const uint32_t hold_ms_;
  Chance chance_;
  std::string token_;
  std::vector<std::shared_ptr<SimSession>> sessions_;
  std::string at_, to_;
  uint64_t epoch_ = 0, next_ = 0, last_epoch_ = 0;
  Doing doing_ = Doing::kPlacing;
  MoveStep step_ = MoveStep::kNone;
  bool called_off_ = false;
  std::array<bool, kMoveSteps> struck_ = {};
  std::map<std::string, uint64_t> floors_;  // of what is asked, by server
  bool at_source_ = false;                  // which has the order, and has not answered
  struct Question {
    std::string server;
    Answer answer;
  };
  std::map<uint64_t, Question> questions_;  // under way
  uint64_t asked_ = 0;
  std::set<std::string> releasing_;
  std::set<uint64_t> decided_;  // epochs of which a source has written down that it leaves
};

class Sessions {
 public:
  Sessions(World& world, Totals* totals);
  ~Sessions();
  void run();

  World& world() { return world_; }
  Totals* totals() { return totals_; }
  SimNetwork& network() { return network_; }
  Machines& machines() { return machines_; }
  Chance& chance() { return chance_; }
  AgentHost* host(const std::string& name);
  const std::vector<std::unique_ptr<AgentHost>>& hosts() const { return hosts_; }
  std::shared_ptr<SimSession> session(const uint8_t id[16]) const;
  // Of that session; null: none that is not dead.
  std::shared_ptr<SimWorker> worker(const SimSession& session, uint64_t epoch) const;
  std::vector<std::shared_ptr<SimWorker>> workers(const SimSession& session) const;
  std::shared_ptr<SimWorker> worker_at(const SimSession& session, const std::string& server) const;
  std::shared_ptr<SimWorker> worker_by_pid(uint32_t pid) const;
  bool died_soon_before(const SimSession& session, uint64_t epoch, uint64_t ns) const;
  // At that address of a stream.
  std::shared_ptr<SimWorker> listener(const std::string& address) const;
  // A move has come to its next step: something may happen to it there.
  void aim(const std::shared_ptr<SimVgpu>& vgpu);

 private:
  void behind();
  void fill();
  bool all_over() const;
  void count(const SimVgpu& vgpu);
  void close();
  void strike();
  void strike_session(SimSession& session);
  void strike_hosts();
  void strike_move(SimVgpu& vgpu);
  void is_away(const std::string& server, uint64_t ns);
  void pause_agent(AgentHost& host);
  void kill_agent(AgentHost& host, bool power);
  void pause_worker(SimSession& session, uint64_t epoch, uint64_t ns);
  void note_struck(const std::string& server);
  uint64_t how_long();
  bool may_write(const std::string& server, const AgentState& state);
  void wrote(const std::string& server, const AgentState& state);

  World& world_;
  Totals* totals_;
  Chance chance_;
  SimNetwork network_;
  kj::UnixEventPort port_;
  kj::EventLoop loop_;
  kj::WaitScope wait_scope_;
  Machines machines_;
  uint32_t hold_ms_ = 0;
  std::vector<std::unique_ptr<AgentHost>> hosts_;
  std::vector<std::shared_ptr<SimVgpu>> slots_;
  uint64_t begun_ = 0;
};

}  // namespace tide::simulation
