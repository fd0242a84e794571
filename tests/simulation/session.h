#pragma once

// A client with its region, ring, replica and link, which are the product's. What stands around them in its process
// (the loops of interpose/connection.cc) is a short model here, which keeps their rules; docs/simulation.md says which.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/gpu.h"
#include "tests/simulation/wire.h"
#include "tests/simulation/world.h"
#include "transport/replica_link.h"
#include "transport/ring.h"

namespace tide::simulation {

class Sessions;
class SimVgpu;
class SimWorker;

// What doors say (CUresults).
inline constexpr int kNoDevice = 100, kNotReady = 600;

class SimSession : public std::enable_shared_from_this<SimSession> {
 public:
  enum class State { kConnecting, kConnected, kLost, kSearching, kDone, kFailed };

  // `owner`: another process of the vGPU, whose memory this one works on.
  SimSession(Sessions& room, SimVgpu& vgpu, uint64_t number, uint32_t commands, uint32_t hold_ms,
             std::shared_ptr<SimSession> owner);
  ~SimSession();
  void start();
  State state() const { return state_; }
  bool over() const { return state_ == State::kDone || state_ == State::kFailed; }
  uint64_t number() const { return number_; }
  const uint8_t* id() const { return id_; }
  SimVgpu& vgpu() { return vgpu_; }
  const std::shared_ptr<SimSession>& owner() const { return owner_; }
  uint64_t commands() const { return writer_.last_sequence(); }
  uint64_t executed() const { return executed_; }
  bool has_begun() const { return served_ != 0; }

  // Faults from outside.
  void cut(uint64_t ns);
  void pause_client(uint64_t ns);
  void kill_client();
  void excuse(const char* why);
  // What lasts so long may end it.
  void excuse_if_long(uint64_t ns, const char* why);

  // The worker's. What the client wrote with that number; and that it is executed, by whom it may be.
  bool is_as_written(uint64_t sequence, const std::byte* payload, size_t bytes) const;
  void executes(const SimWorker& worker, uint64_t sequence);
  void is_served(uint64_t epoch);
  void worker_ended(const SimWorker& worker, const char* why);
  std::shared_ptr<Wire> take_socket(int socket, SimWorker& worker);
  void opened(uint64_t attempt, std::shared_ptr<Wire> wire);
  void refused(uint64_t attempt, int code);
  // The agent of `epoch` has written down that it leaves.
  void decided(uint64_t epoch);

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
  // A request at a door.
  struct Knock {
    uint64_t attempt = 0;
    std::string server;
    uint64_t life = 0;  // of the agent there
    std::shared_ptr<Wire> wire;
    std::weak_ptr<SimWorker> worker;  // that has the socket
    bool handed = false;              // to a worker
  };
  void plan(uint64_t ns);
  void turn();
  void work();
  bool was_sent_on() const;
  void dial();
  bool choose_place();
  void knock(const std::shared_ptr<Knock>& knock, bool again);
  void watch(const std::shared_ptr<Knock>& knock, uint64_t until);
  void search();
  void connect();
  void try_again(uint64_t attempt, uint64_t after_ns);
  std::shared_ptr<Wire> new_wire(const std::shared_ptr<Knock>& knock);
  void lose_link();
  void drop_link();
  void fail(const char* why);
  void finish();
  void publish();
  void read();
  uint64_t message_latency();

  Sessions& room_;
  SimVgpu& vgpu_;
  World& world_;
  const uint64_t number_;
  uint8_t id_[16] = {};
  Chance chance_;
  const uint32_t target_, hold_ms_;
  const std::shared_ptr<SimSession> owner_;
  std::shared_ptr<Process> process_;
  std::shared_ptr<Cut> cut_;
  std::map<int, std::shared_ptr<Knock>> sockets_;  // on their way to a worker
  std::shared_ptr<Knock> taken_;                   // the last one that a worker took

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
  std::string server_, to_server_;  // where it is served, and where it dials to
  uint64_t epoch_ = 0, to_epoch_ = 0;
  uint64_t attempt_ = 0, lost_ns_ = 0, search_ns_ = 0;
  bool asks_ = false;     // the scheduler, in turn with where it was sent
  uint64_t planned_ = 0;  // when it looks again
  std::string excuse_;
  // For the checkers: commands executed, by whichever worker; the epoch of the last; the newest that served it.
  uint64_t executed_ = 0, executed_in_ = 0, served_ = 0;
};

}  // namespace tide::simulation
