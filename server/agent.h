#pragma once

// The agent's own state and what it does with it: leases, their sessions (one worker process each), and moves. Behind
// two fronts: the scheduler's calls (control.capnp, AgentService) and the clients' door (AgentDoor). One event loop,
// one thread; nothing here blocks, and CUDA is never loaded.
//
// Workers outlive it. What it knows lies in its directory, and the next agent there goes on with it
// (docs/decisions/0013-*.md).

#include <kj/async-io.h>

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/control.capnp.h"
#include "server/agent_state.h"
#include "server/gpus.h"
#include "server/job_shelf.h"
#include "server/rendezvous.h"
#include "server/worker_process.h"
#include "transport/door.h"

namespace tide {

// On no GPU: its sessions are kept here (server/kept.h), and their programs wait.
inline bool is_parked(const LeaseTerms& terms) { return terms.gpu == control::PARKED; }
// Of a vGPU that is served elsewhere: its checkpoints are kept here (server/guard.h).
inline bool is_guard(const LeaseTerms& terms) { return terms.gpu == control::GUARDING; }
inline bool is_on_no_gpu(const LeaseTerms& terms) { return is_parked(terms) || is_guard(terms); }

// In DoorOpen, between agents.
inline constexpr const char* kMoveTransport = "move";
inline constexpr const char* kGuardTransport = "guard";

inline constexpr size_t kSessionsMax = 64;  // of one vGPU: client processes of a job that use it at once

struct AgentSession {
  ControlSession identity;
  kj::Own<WorkerProcess> worker;
  std::shared_ptr<const JobShelfFiles> shelf;  // of a keeper: what it keeps together with others of its job
  uint32_t gpu = 0;
  bool restored = false;   // came by a move, and its client has not come yet
  bool receiving = false;  // is coming
  bool bereaved = false;   // its client ended while it was kept: it is here for those that have memory of it
  bool awaited() const { return receiving || restored; }
  bool resuming = false;  // its worker was told of another connection, and has not looked at it yet
  bool unheard = false;   // an earlier agent's: the worker has not said yet how it is
  ControlStats counted;   // what the worker said last
  uint32_t busy_ms = 0;   // of that, what has been counted as used
  bool counting = true;   // false: it was another agent's, and what it has used before is not ours to count
  std::string guard;  // where the checkpoints of this session go, since its worker has a stream there; empty: nowhere
};

// What the scheduler waits to hear of a protected vGPU.
struct AgentNews {
  bool lost = false;    // a worker of it has ended as it should not
  bool wanted = false;  // a checkpoint, soon
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> waiting;
  bool any() const { return lost || wanted; }
  void tell();
};

struct AgentCheckpointOrder {
  std::string job;
  uint32_t vgpu = 0;
  uint64_t epoch = 0;
  LeaseTerms guard;
  std::string address;  // of the guard's agent's door
};

struct AgentLease {
  LeaseTerms terms;
  bool moving = false;     // away from here: new clients wait
  std::string called_off;  // why that comes to nothing; empty: it may still come to its end
  bool committed = false;  // there is no way back: the sessions leave
  uint32_t moves = 0;
  AgentNews news;
  std::shared_ptr<const AgentCheckpointOrder> guarded;  // the last one; null: none
  uint64_t knocked_ns = 0;                              // when a process that begins has found it parked
  std::list<std::shared_ptr<AgentSession>> sessions;
};

struct AgentMoveReport {
  uint64_t bytes = 0;
  uint64_t pause_bytes = 0;
  uint32_t rounds = 0;  // of the session that had most
  double pause_ms = 0;
  double drain_ms = 0, copy_ms = 0, restore_ms = 0;  // ControlMoved
  double total_ms = 0;
};

struct AgentCheckpointReport {
  AgentMoveReport all;  // of all sessions; phases of the slowest
  double cpu_ms = 0;    // of the threads that copied
  uint32_t sessions = 0;
  std::string refused;  // why of one of them there can be none; the others may have one
};

class Agent : private kj::TaskSet::ErrorHandler {
 public:
  Agent(Gpus gpus, uint32_t hold_s, const std::string& directory, kj::AsyncIoContext& io);
  // Goes on where the last agent of this directory was. Only when that is dead: the door can be listened at.
  void take_over();
  // For as long as anybody may know it: the door's TCP address, of the last agent and of this one.
  const std::string& last_door() const { return last_.door; }
  void keep_door(const std::string& tcp_address);
  // Ends all workers, and leaves nothing to the next agent.
  void end_all();

  // Each may be repeated. Failures have one sentence for a person.
  Outcome place(const LeaseTerms& terms);
  kj::Promise<void> release(const std::string& job, uint32_t vgpu, uint64_t epoch);
  void cancel(const std::string& job, uint32_t vgpu, uint64_t epoch);
  // For kHoldMs at most.
  Outcome hold(const std::string& job, uint32_t vgpu, uint64_t epoch, bool on);
  struct MoveOrder {
    std::string job;
    uint32_t vgpu = 0;
    uint64_t epoch = 0;
    LeaseTerms next;
    std::string address;   // of the other agent's door
    std::string endpoint;  // where clients shall go
  };
  kj::Promise<AgentMoveReport> move(const MoveOrder& order);
  // Sends a checkpoint of each session to a guard.
  kj::Promise<AgentCheckpointReport> checkpoint(const AgentCheckpointOrder& order);
  // As the guard of `epoch`: gives what it has to workers of `next`, at the agent at `address`. It stays a guard.
  kj::Promise<AgentMoveReport> give(const MoveOrder& order);
  // Until there is news of a protected vGPU; whether it has lost a worker.
  kj::Promise<bool> watch_vgpu(const std::string& job, uint32_t vgpu, uint64_t epoch);
  // The scheduler has heard this agent: workers of protected vGPUs go on until then (boot_ns()).
  void renew_leases(uint64_t until_ns);
  // Of moves whose scheduler has gone nobody waits for the end: what a new one is told shall stay true.
  void call_off_moves();
  struct Stats {
    uint32_t vgpu = 0;
    uint32_t moves = 0;
    std::vector<uint32_t> pids;
    struct Client {
      uint32_t pid = 0;
      uint64_t resident_bytes = 0;
    };
    std::vector<Client> clients;
    ControlStats sum;
    std::map<uint16_t, uint64_t> round_trips_of;  // by number of the function
  };
  kj::Promise<std::vector<Stats>> stats(const std::string& job);
  // Of vGPUs on GPUs, also such as have left a moment ago.
  struct Usage {
    std::string job;
    uint32_t vgpu = 0, gpu = 0;
    uint64_t epoch = 0;
    double used_ms = 0;   // that it had of its GPU, so far
    double fresh_ms = 0;  // that its workers were at work since, all of them together
    uint64_t resident_bytes = 0;
    uint32_t busy_permille = 0;
    uint64_t heard_ns = 0;
  };
  kj::Promise<std::vector<Usage>> usage();

  // A client asks to be served: takes the descriptors. Fails with what to tell it.
  kj::Promise<void> open(const DoorOpen& wish, int socket, int region_fd);
  // Another agent's worker wants to send a session here. Gives the address for its stream.
  kj::Promise<std::string> receive(const DoorOpen& wish);
  // The same of checkpoints. With kOpenAgain: the session has ended, nothing of it is kept any more.
  kj::Promise<std::string> guard(const DoorOpen& wish);

  const Gpus& gpus() const { return gpus_; }
  std::vector<LeaseTerms> leases() const;
  kj::AsyncIoContext& io() { return io_; }

 private:
  struct MoveState;
  using LeaseKey = std::pair<std::pair<std::string, uint32_t>, uint64_t>;  // job, vGPU, epoch

  void taskFailed(kj::Exception&& exception) override;
  AgentLease* find(const std::string& job, uint32_t vgpu, uint64_t epoch);
  Outcome begin_worker(AgentLease* lease, AgentSession* session);
  // What the keepers of a job keep together here (server/job_shelf.h). Null: each keeps for itself.
  std::shared_ptr<const JobShelfFiles> shelf_of(const std::string& job) const;
  // Of the keepers that are there; null: none.
  std::shared_ptr<const JobShelfFiles> known_shelf_of(const std::string& job) const;
  void send_to_keeper(const std::string& job, ControlType type, AgentSession& keeper);
  void sweep_shelf(const std::string& job, const AgentSession& ended) const;
  bool save();
  void fence(const LeaseTerms& ended);
  bool fenced(const LeaseTerms& terms) const;
  void take_over_lease(const AgentState::Lease& from);
  bool adopt(const LeaseKey& key, AgentLease& lease, const AgentState::Session& from);
  bool gpu_is_held(const LeaseTerms& by) const;
  kj::Promise<void> await_gpu(const LeaseTerms& terms, uint64_t end_ns);
  void end_session(const LeaseKey& key, const std::shared_ptr<AgentSession>& session);
  AgentLease* admit(const DoorOpen& wish, std::string* why, int* code);
  bool begins(const AgentLease& lease, const DoorOpen& wish) const;
  kj::Promise<void> serve(AgentLease* lease, const DoorOpen& wish, int socket, int region_fd);
  Outcome begin_session(AgentLease* lease, const DoorOpen& wish, std::shared_ptr<AgentSession>* session);
  void watch(const LeaseKey& key, std::shared_ptr<AgentSession> session);
  // Between workers of one lease (server/sharing.h).
  void carry_shared(const LeaseKey& key, AgentSession& from, const ControlMessage& message);
  void tell_ended(AgentLease& lease, const SessionId& ended);
  void end_bereaved(const LeaseKey& key);
  void forget(const LeaseKey& key);
  void count(const LeaseKey& key, AgentSession* session, const ControlStats& counted);
  std::vector<Usage> share_out();

  // The steps of a move.
  kj::Promise<void> await_arrival(std::shared_ptr<AgentSession> session, uint32_t looks);
  void drop_unreceived(const MoveState& state, const std::shared_ptr<AgentSession>& session);
  kj::Promise<void> begin_copy(std::shared_ptr<MoveState> state, std::shared_ptr<AgentSession> session);
  kj::Promise<void> copy_one(std::shared_ptr<MoveState> state, std::shared_ptr<AgentSession> session);
  kj::Promise<void> while_it_goes_on(std::shared_ptr<AgentSession> session);
  kj::Promise<void> unless_gone(MoveState& state, const AgentSession& session, kj::Exception&& e);
  static void call_off(AgentLease& lease, const std::string& why);
  kj::Promise<void> note_sent(MoveState& state, const std::shared_ptr<AgentSession>& session,
                              kj::ForkedPromise<ControlMessage> left, ControlMessage& message);
  kj::Promise<void> pause_all(std::shared_ptr<MoveState> state);
  kj::Promise<void> send_all(std::shared_ptr<MoveState> state);
  kj::Promise<std::string> begin_receiving(const DoorOpen& wish);
  kj::Promise<std::string> ask_receiver(const MoveOrder& order, const AgentSession& session, const char* for_what);
  kj::Promise<std::string> ask_door(const std::string& address, const DoorOpen& wish);
  struct CheckpointState;
  void unprotect(const AgentCheckpointOrder& order, const std::string& why);
  std::string quota_path(const LeaseTerms& terms) const;
  kj::Promise<void> checkpoint_one(std::shared_ptr<CheckpointState> state, std::shared_ptr<AgentSession> session,
                                   bool anew);
  kj::Promise<void> give_one(std::shared_ptr<AgentMoveReport> report, const MoveOrder& order,
                             std::shared_ptr<AgentSession> session);
  void note_end(AgentLease& lease, const AgentSession& session);
  void tell_lease(const LeaseTerms& terms, AgentSession& session);
  kj::Promise<void> commit(std::shared_ptr<MoveState> state);
  void abort_move(std::shared_ptr<MoveState> state, const std::string& why);

  Gpus gpus_;
  const uint32_t hold_ms_;
  const std::string state_path_;
  const std::string slices_path_;  // of a GPU with its number behind it (server/time_slices.h)
  const std::string quota_path_;   // of a lease (server/memory_quota.h)
  const Rendezvous rendezvous_;
  AgentState last_;  // as it was found
  std::string door_;
  std::vector<Fence> fences_;  // oldest first
  bool complained_ = false;    // that the state cannot be written
  kj::AsyncIoContext& io_;
  std::map<LeaseKey, std::unique_ptr<AgentLease>> leases_;
  std::list<std::pair<LeaseKey, std::shared_ptr<AgentSession>>> ending_;  // killed, and perhaps not gone yet
  std::map<LeaseKey, AgentMoveReport> done_moves_;  // by the new epoch: a repeated order succeeds again
  std::map<LeaseKey, Usage> usage_;
  std::map<uint32_t, uint64_t> shared_out_ns_;  // by GPU: until when what it did has been shared out
  uint64_t lease_until_ns_ = 0;                 // renew_leases(); 0: this agent was not heard yet
  kj::TaskSet tasks_;
};

ControlSession identity_of(const LeaseTerms& terms, const DoorOpen& wish, uint32_t hold_ms);

// What a door says besides its sentence.
struct Refusal {
  int code = 0;
  std::string message;
};
kj::Exception refusal(int code, const std::string& message);
Refusal refusal_of(const kj::Exception& exception);

}  // namespace tide
