#pragma once

// The worker process: serves one session, told by its agent over the control socket. One thread; it never waits for the
// GPU while a client is served. Or, as a keeper, it has no GPU and keeps a session whose job is suspended: its client
// is connected and waits, and nothing is executed; or as a guard it has no client either, and keeps checkpoints of a
// session that another worker serves. Ends when its client is gone, or when the session has moved. A
// client whose connection broke is waited for, and so is an agent that died: the session goes on, and the next agent
// finds us.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/busy.h"
#include "server/control.h"
#include "server/guard.h"
#include "server/kept.h"
#include "server/link_meter.h"
#include "server/precopy.h"
#include "server/rate.h"
#include "server/reception.h"
#include "server/session.h"
#include "server/text_capture.h"
#include "server/time_slices.h"
#include "server/transfer.h"
#include "transport/link.h"
#include "transport/ring.h"

namespace tide {

class Worker {
 public:
  // `rendezvous` is where an agent that was restarted connects (server/rendezvous.h); -1: we end with ours.
  explicit Worker(int control, int rendezvous = -1) : control_(control), rendezvous_(rendezvous) {}
  // Returns the exit status of the process.
  int run();

 private:
  int run_until_end();
  // How the process goes on after a step.
  enum class Next { kGoOn, kEnd };

  std::unique_ptr<JobShelf> join_keepers() const;
  Outcome begin(const ControlSession& session);
  // Of what it serves, a session on a GPU or a kept one.
  bool serves() const { return session_ != nullptr || kept_ != nullptr; }
  bool ended() const { return session_ != nullptr && session_->ended(); }
  uint64_t sequence() const { return kept_ != nullptr ? kept_->outline().sequence : session_->sequence(); }
  uint64_t told() const { return kept_ != nullptr ? kept_->outline().told : session_->told(); }
  bool shares_host_memory() const;
  ChannelState serving_state() const {
    if (fenced_) return ChannelState::kFenced;
    return kept_ != nullptr ? ChannelState::kPaused : ChannelState::kLive;
  }
  Next take_control();
  // The agent's next word. kGone: there is none, and there will be none.
  ControlState hear(ControlMessage* message);
  bool lose_agent();
  bool look_for_agent();
  bool is_for_us(ControlMessage* message) const;
  void wait_for_words();
  Next handle(ControlMessage* message);
  ControlStats count() const;
  void hold(bool on);
  void tell_held();
  bool quiet() const;
  void count_trips(ControlStats* stats) const;
  void measure_link(ControlStats* stats) const;
  void handle_sharing(ControlMessage* message);
  Next serve(const ControlSession& session, int lifeline, int region_fd);
  Next receive(const ControlSession& session);
  Next go_live();
  void enter_region();
  bool fits(uint64_t acknowledged, uint64_t renewed);
  Outcome tell_opened(const ControlSession& session, int lifeline, const std::string& data);
  Outcome accept_client(const ControlSession& session, int lifeline, int region_fd, int* code);
  void refuse(int lifeline, int code, const std::string& message);
  void fail(const std::string& message);

  // One turn of the loop: executes what is there, tells what has completed.
  bool turn();
  bool execute(bool any);
  bool may_land() const;
  bool uses_gpu() const;
  bool is_others_turn();
  Next lose_channel(const char* reason);
  bool may_come_back();
  bool may_outlive_client() const;
  bool outlive_client();
  void resume(const ControlSession& session, int lifeline);
  Outcome resume_over(const ControlSession& session, int lifeline);
  void wait_for_leave();
  static void end_naps_by(int socket);
  void idle();
  uint32_t nap_us(uint64_t quiet_ns) const;
  uint32_t sleep_until_rung(uint32_t timeout_us);
  void set_state(ChannelState state);
  void share_gpu();
  void share_memory();
  void tell_shares();
  void capture_text();
  void forward_text();
  void forward(TextCapture& text, int32_t descriptor);

  // A move, as its destination.
  std::unique_ptr<Shelf> keepers_shelf() const;
  Outcome accept_source(const ControlSession& session, StreamListener& listener, const TransferOffer& offer,
                        std::unique_ptr<ByteStream>* stream);
  Outcome take_session(std::unique_ptr<LastingStream> stream, std::unique_ptr<SourceDoor> door, ChunkSlots* slots,
                       Shelf* shelf);
  bool hear_end();

  // A move, as its source.
  void handle_move(ControlMessage* message);
  void prepare_move(const ControlMove& move);
  void pause_for_move(bool alone);
  bool await_others(Next* next);
  bool client_has_ended();
  void hear_meanwhile(ControlMessage* message);
  Next go_on_with_move();
  Outcome begin_precopy();
  Precopy::MakeCarrier carrier();
  void tell_progress();
  bool at_rest_point();
  bool destination_reaches_host_memory() const;
  bool is_in_the_way() const;
  void ask_for_staging(bool unwanted);
  bool waits_for_staging() const;
  bool may_try_move();
  Next try_move();
  void try_move_later();
  Outcome send_paused();
  bool drain(uint32_t ms);
  Next finish_move();
  bool destination_stays();
  bool client_is_cut_off();
  const char* why_back();
  void wait_until_left(ControlMoved* moved);
  void say_move_failed(const std::string& why);
  void give_up_move(const std::string& why);
  void carry();

  // Checkpoints, as their source.
  void begin_checkpoint(const ControlMove& request);
  std::string why_never() const;
  void go_on_with_checkpoint();
  bool may_checkpoint() const;
  void try_checkpoint();
  bool come_to_rest();
  Outcome send_checkpoint();
  void checkpoint_done();
  void tell_no_checkpoint(const std::string& why, bool refused);
  void fail_checkpoint(const std::string& why, bool refused = false);
  void drop_checkpoints();
  void unprotect(const std::string& why);
  void tell_server_ended();
  void look_whether_wanted();
  // As a guard.
  void begin_guarding(const ControlSession& session);
  void begin_giving(const ControlMove& request);
  void look_after_gift();
  void fail_gently(const std::string& why);
  // As one whose agent renews its lease.
  bool look_at_lease();
  // As one that has its session from a guard.
  Recovery recovery() const;
  bool nobody_comes() const;

  // Of a guard, and the checkpoint that is under way.
  struct Checkpoints {
    ControlMove request;
    std::unique_ptr<Precopy> precopy;  // rests between two checkpoints
    PiecesThere there;
    bool wanted = false;  // one is under way,
    bool sent = false;    // and only the guard's word is missing
    uint32_t attempts = 0;
    uint64_t begin_ns = 0, told_ns = 0;
    uint64_t ready_ns = 0;  // since when it is tried to pause; 0: not yet
    uint64_t next_attempt_ns = 0;
    uint64_t cpu_ns = 0;  // of the thread, before this one
    uint64_t answers = 0;
    uint64_t paused_ns = 0;
    ControlCheckpointed report;
  };

  struct Move {
    ControlMove request;
    std::unique_ptr<Precopy> precopy;
    bool ready = false;        // and said so
    uint64_t pause_ns = 0;     // when the agent asked for the pause; 0: not yet
    bool alone = true;         // no other session is paused with it
    bool stays = false;        // the destination has all, and shows in the stream that it is there
    bool wishes_back = false;  // and has told the agent, which may have decided by then
    uint64_t told_ns = 0;      // when progress was told last,
    Precopy::Progress told;    // and which
    uint32_t attempts = 0;
    uint64_t begin_ns = 0;
    uint64_t next_attempt_ns = 0;
    uint64_t paused_ns = 0;
    ControlMoved report;
  };

  int control_;  // -1: the agent has died
  const int rendezvous_;
  int caller_ = -1;  // has connected there, and not said yet who it is
  uint64_t agent_lost_ns_ = 0;
  DriverLibrary library_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Kept> kept_;                        // of a keeper; session_ is null then
  std::shared_ptr<const JobShelfFiles> shelf_files_;  // of a keeper, or who receives: what its job's keepers share
  ControlSession identity_;
  std::unique_ptr<Link> link_;
  CommandReader reader_;
  bool live_ = false;      // the region is ready and commands are executed
  bool restored_ = false;  // came by a move
  bool shares_ = false;    // other processes of the job use the vGPU
  bool told_to_end_ = false;
  bool bereaved_ = false;  // of a keeper: its client has ended
  uint64_t lost_ns_ = 0;   // since when the client is not connected; 0: it is
  bool said_end_ = false;  // the client's last command has come, and it has all answers
  std::unique_ptr<Move> move_;
  std::unique_ptr<Reception> arrival_;  // what has come, until the source has left
  std::unique_ptr<Checkpoints> checkpoints_;
  uint64_t asked_for_ = 0;                          // ClientPage::checkpoint_wanted, as the agent was told
  bool said_unprotected_ = false;                   // that its client has ended the protection
  uint64_t lease_until_ns_ = 0;                     // on CLOCK_BOOTTIME; 0: without end
  bool fenced_ = false;                             // it is over: nothing is executed or told
  uint64_t recovered_ns_ = 0;                       // when the session came from a guard
  std::unique_ptr<Guard> guard_;                    // of a guard: what it does with kept_
  std::vector<std::unique_ptr<Precopy>> given_up_;  // whose threads have not ended yet
  TextCapture output_, errors_;                     // what kernels print
  BusyMeter meter_;
  TimeSlices slices_;
  LinkMeter link_meter_;
  RateMeter trips_;
  uint64_t held_until_ns_ = 0;  // the program begins nothing new; 0: it may
  uint64_t held_ns_ = 0;        // since when
  uint64_t holds_ = 0;          // how often it was told to
  bool worked_ = false;         // work was under way in the last turn
  uint64_t busy_ns_ = 0;        // when something last happened
  uint64_t linger_ns_ = 0;      // so long it looks on after that before it sleeps
  uint32_t heard_ = 0;          // messages, when the control socket was last looked at
  uint64_t checked_ns_ = 0;     // when the control socket and the client were last looked at
};

}  // namespace tide
