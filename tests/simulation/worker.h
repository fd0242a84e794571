#pragma once

// One worker process and its session: what server/worker.cc and worker_move.cc do, in their order. The rings, the
// replica and the link are the product's; the agent that it speaks with, too.

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/simulation/gpu.h"
#include "tests/simulation/machines.h"
#include "tests/simulation/move_stream.h"
#include "tests/simulation/wire.h"
#include "transport/replica_link.h"
#include "transport/ring.h"

namespace tide::simulation {

class Sessions;
class SimSession;

class SimWorker final : public WorkerModel {
 public:
  enum class Phase { kNone, kCopying, kPausing, kStill, kSending, kThere, kLeaving };
  SimWorker(Sessions& room, std::string server);
  ~SimWorker() override;
  // Something has come from the client.
  void wake() { plan(0); }
  void turn();
  Phase phase() const { return move_ == nullptr ? Phase::kNone : move_->phase; }
  bool live() const { return live_; }
  bool restored() const { return restored_; }
  uint64_t epoch() const { return identity_.epoch; }
  uint64_t died_ns() const { return died_ns_; }
  uint64_t executed() const { return executed_; }
  uint64_t memory_hash() const { return memory_ == nullptr ? 0 : memory_->hash(); }
  const std::shared_ptr<SimSession>& session() const { return session_; }
  bool is_linked() const { return link_ != nullptr; }
  // At its listener, once.
  bool accept_source(const std::shared_ptr<MoveStream>& stream);
  void hear_source(const MoveFrame& frame);
  void lose_source(const char* why);
  // Of the stream to its destination.
  void reset_stream();
  // Another process's worker asks for the memory that this one has for it.
  std::shared_ptr<GpuMemory> lend();

 private:
  using Self = std::weak_ptr<SimWorker>;
  struct Lent {
    uint64_t begin = 0;
    std::vector<std::byte> bytes;
    uint64_t end() const { return begin + bytes.size(); }
  };
  struct Move {
    Phase phase = Phase::kCopying;
    ControlMove request;
    std::shared_ptr<MoveStream> stream;
    std::vector<uint64_t> sent;  // hashes of the chunks as they were sent; 0: not yet
    uint32_t at = 0, rounds = 0, changed = 0, attempts = 0;
    bool ready = false, hold = false, held = false, alone = false, at_rest = false, confirming = false,
         wished_back = false;
    uint64_t next_attempt_ns = 0, rest_end_ns = 0, end_ns = 0, left_ns = 0;
  };
  void hear(ControlMessage& message) override;
  void lose_agent() override;
  void on_end(const char* why) override;
  void plan(uint64_t ns);
  void end(const char* why);
  void drop_link();
  // Serving.
  void serve(const ControlSession& session, int socket);
  void take_link(const std::shared_ptr<Wire>& wire);
  bool resume(const ControlSession& session, const std::shared_ptr<Wire>& wire);
  bool may_come_back();
  bool rests() const;
  void go_live();
  void set_state(uint64_t state);
  bool execute_one();
  bool answer(uint64_t sequence, const std::vector<std::byte>& bytes);
  bool tell_done();
  void tell(Word& word, uint64_t value);
  void ask_owner(bool came);
  void answer_owner(ControlShared question);
  void take_memory(const ControlShared& answer);
  // Moving away.
  void begin_move(const ControlMove& request);
  const char* obstacle() const;
  uint64_t hash_of_chunk(uint32_t n, std::vector<unsigned char>* bytes) const;
  uint32_t chunks() const { return uint32_t(own_.size()) * kChunks; }
  void tell_progress();
  void step_copy(uint64_t ns);
  void copy_on();
  void end_round();
  void hear_destination(const MoveFrame& frame);
  void lose_destination(const char* why);
  void wish_back(const char* why);
  void pause_for_move(bool alone);
  void go_on_with_move();
  void come_to_rest();
  void send_rest();
  void be_there();
  void give_up_move(const char* why);
  void commit();
  void leave();
  // Arriving.
  void receive(const ControlSession& session);
  void restore();
  void fail_arrival(const char* why);

  Sessions& room_;
  std::shared_ptr<SimSession> session_;
  ControlSession identity_;
  std::shared_ptr<Wire> wire_;
  std::unique_ptr<ReplicaLink> link_;
  CommandReader reader_;
  AnswerWriter out_;
  std::vector<std::shared_ptr<GpuMemory>> own_;  // its own, and what another process's session has of it
  std::shared_ptr<GpuMemory> memory_;            // of its session; null while it is asked for
  std::weak_ptr<SimWorker> owner_;               // of memory_, where that is another worker
  bool foreign_ = false;
  std::vector<ControlShared> questions_;  // that wait until its memory is there
  std::deque<Lent> lent_;
  std::deque<std::pair<uint64_t, uint64_t>> running_;  // sequence, when the GPU is done with it
  bool live_ = false, restored_ = false, receiving_ = false, serves_ = false;
  uint64_t executed_ = 0, told_ = 0, lost_ns_ = 0, planned_ = 0, agent_lost_ns_ = 0, died_ns_ = 0;
  std::unique_ptr<Move> move_;
  struct Arrival {
    std::shared_ptr<MoveStream> stream;
    MoveFrame rest;
    bool all_has_come = false;
    uint64_t end_ns = 0;
  };
  std::unique_ptr<Arrival> arrival_;
};

}  // namespace tide::simulation
