#pragma once

// A client and its worker on the two ends of a network: real regions, rings, replicas and ReplicaLinks. What stands
// around them in the processes (the loops of interpose/connection.cc and server/worker.cc, the agent's door) is a short
// model here, which keeps their rules; docs/simulation.md says which.

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/gpu.h"
#include "tests/simulation/wire.h"
#include "tests/simulation/world.h"
#include "transport/replica_link.h"
#include "transport/ring.h"

namespace tide::simulation {

class SimSession;

// One worker process and its session.
class SimWorker {
 public:
  SimWorker(SimSession& session, uint64_t number);
  ~SimWorker();
  void accept(std::shared_ptr<Wire> wire);
  // Something has come.
  void wake() { plan(0); }
  // Worker::resume: whether this worker goes on over that wire.
  bool resume(std::shared_ptr<Wire> wire);
  void turn();
  void kill();
  bool gone() const { return !process_->alive; }
  const std::shared_ptr<Process>& process() const { return process_; }
  uint64_t executed() const { return executed_; }
  uint64_t memory_hash() const { return memory_.hash(); }
  // When it has ended, by whatever cause.
  std::function<void()> on_end;

 private:
  struct Lent {
    uint64_t begin = 0;
    std::vector<std::byte> bytes;
    uint64_t end() const { return begin + bytes.size(); }
  };
  void plan(uint64_t ns);
  void end(const char* why);
  void drop_link();
  bool may_come_back();
  void go_live();
  bool execute_one();
  bool answer(uint64_t sequence, const std::vector<std::byte>& bytes);
  bool tell_done();
  void tell(Word& word, uint64_t value);

  SimSession& session_;
  World& world_;
  const uint64_t number_;
  std::shared_ptr<Process> process_;
  std::shared_ptr<Wire> wire_;
  std::unique_ptr<ReplicaLink> link_;
  CommandReader reader_;
  AnswerWriter out_;
  GpuMemory memory_;
  std::deque<Lent> lent_;
  std::deque<std::pair<uint64_t, uint64_t>> running_;  // sequence, when the GPU is done with it
  bool live_ = false;
  uint64_t executed_ = 0, lost_ns_ = 0, planned_ = 0;
};

class SimSession : public std::enable_shared_from_this<SimSession> {
 public:
  enum class State { kConnecting, kConnected, kLost, kDone, kFailed };

  SimSession(World& world, uint64_t number, uint32_t commands, uint32_t hold_ms);
  ~SimSession();
  void start();
  State state() const { return state_; }
  bool over() const { return state_ == State::kDone || state_ == State::kFailed; }
  bool nothing_left() const { return worker_ == nullptr || worker_->gone(); }
  uint32_t hold_ms() const { return hold_ms_; }
  uint64_t number() const { return number_; }
  uint64_t commands() const { return writer_.last_sequence(); }
  World& world() { return world_; }

  // Faults from outside.
  void cut(uint64_t ns);
  void pause_client(uint64_t ns);
  void pause_worker(uint64_t ns);
  void kill_worker();
  void kill_client();

  // The worker's: what the client wrote with that number.
  bool is_as_written(uint64_t sequence, const std::byte* payload, size_t bytes) const;
  void worker_ended(const char* why);
  void excuse(const char* why);
  // What lasts so long may end it.
  void excuse_if_long(uint64_t ns, const char* why);

 private:
  struct Lent {
    uint64_t begin = 0;
    std::vector<std::byte> bytes;
    uint64_t end() const { return begin + bytes.size(); }
  };
  struct Expected {
    uint64_t sequence = 0;
    std::vector<std::byte> bytes;
  };
  void plan(uint64_t ns);
  void turn();
  void work();
  void dial();
  void asked(uint64_t attempt, bool again);
  void opened(uint64_t attempt, std::shared_ptr<Wire> wire);
  void connect();
  void refused(uint64_t attempt, bool for_good);
  void try_again(uint64_t attempt, uint64_t after_ns);
  std::shared_ptr<Wire> new_wire();
  void lose_link();
  void drop_link();
  void fail(const char* why);
  void finish();
  void publish();
  void read();
  void wake(Side side);
  uint64_t message_latency();

  World& world_;
  const uint64_t number_;
  Chance chance_;
  const uint32_t target_, hold_ms_;
  std::shared_ptr<Process> process_;
  std::shared_ptr<Cut> cut_;
  std::unique_ptr<SimWorker> worker_;
  bool worker_asked_ = false;  // AgentSession::resuming

  int region_fd_ = -1;
  Region region_;
  std::shared_ptr<Wire> wire_, arrived_;  // of the link; and one that the program has not looked at yet
  std::unique_ptr<ReplicaLink> link_;
  CommandWriter writer_;
  AnswerReader reader_;
  std::deque<Lent> lent_;
  GpuMemory shadow_;                // a run without faults
  std::deque<Expected> expected_;   // answers that have not come
  std::vector<uint64_t> contents_;  // hash of every command's payload
  uint64_t waits_for_ = 0;          // nothing is published before this one's answer
  uint64_t progress_ = 0, answered_ = 0;
  State state_ = State::kConnecting;
  uint64_t attempt_ = 0, lost_ns_ = 0;
  uint64_t planned_ = 0;  // when it looks again
  std::string excuse_;
};

}  // namespace tide::simulation
