#include "server/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/mix.h"
#include "base/secrets.h"
#include "server/rendezvous.h"
#include "server/told_digest.h"
#include "transport/wait.h"

// Of builds with a sanitizer.
extern "C" void __sanitizer_set_report_fd(void* descriptor) __attribute__((weak));

namespace tide {
namespace {

constexpr uint32_t kCommandsPerTurn = 256;
constexpr uint64_t kCheckEveryNs = 1'000'000;
// After that long without anything to do the worker sleeps. Waking it costs its client up to 60 us; if by then it slept
// again, every call would wake it. So when it is woken soon, it lingers longer.
constexpr uint64_t kLingerLeastNs = 30'000, kLingerMostNs = 480'000;
constexpr uint32_t kPollEveryUs = 25;  // least sleep while the GPU works; grows to the next
constexpr uint32_t kPollSlowestUs = 250;
constexpr uint32_t kTurnSleepUs = 50;     // while another job has the GPU
constexpr uint32_t kIdleSleepUs = 5'000;  // the agent's wishes interrupt it; grows to the next
constexpr uint32_t kIdleSleepMostUs = 400'000;
constexpr size_t kTextBytes = 4096;
// Of a client whose end of the connection was closed: a process that lives comes back at once, one that has ended shall
// not keep a GPU.
constexpr uint32_t kHoldClosedMs = 1'500;
constexpr uint64_t kDrainNs = 50'000'000;
// What a process took after the checkpoint it may have got from another one, which gives it back when it does that
// again.
constexpr uint64_t kReplayNs = 20'000'000'000;
constexpr int kLookForAgentMs = 200;

// Of the one thread, and of its signal handler.
std::atomic<uint32_t> messages_heard{0};  // signals that something has come on a socket
std::atomic<Link*> napping_on{nullptr};   // the nap that such a signal ends

void hear_message(int) {
  const int error = errno;
  messages_heard.fetch_add(1);
  if (Link* const link = napping_on.load(); link != nullptr) link->interrupt();
  errno = error;
}

}  // namespace

// Of the same job here. Null: it keeps for itself.
std::unique_ptr<JobShelf> Worker::join_keepers() const {
  std::unique_ptr<JobShelf> shelf;
  if (shelf_files_ == nullptr) return shelf;
  const Outcome joined = JobShelf::join(shelf_files_, shelf_place(), &shelf);
  if (!joined.ok()) log(LogLevel::kWarning, "%s; equal chunks are not shared", joined.message().c_str());
  return shelf;
}

Outcome Worker::begin(const ControlSession& session) {
  identity_ = session;
  if (session.keeps != 0) {
    kept_ = std::make_unique<Kept>(session.vgpu, session.memory_bytes, shelf_place());
    return kept_->start(join_keepers());
  }
  if (Outcome outcome = open_driver(&library_); !outcome.ok()) return outcome;
  session_ = std::make_unique<Session>(library_);
  log(LogLevel::kDebug, "driver %s", library_.path.c_str());
  capture_text();
  share_gpu();
  SessionId self;
  static_assert(sizeof(self) == sizeof(session.session));
  memcpy(&self, session.session, sizeof(self));
  session_->sharing().start(self, [this](ControlType type, const ControlShared& message, const int* fds, int count) {
    // What no agent hears is asked again when there is one.
    return send_control(control_, type, &message, sizeof(message), fds, count) || rendezvous_ >= 0;
  });
  if (Outcome outcome = session_->start(session.vgpu, session.memory_bytes); !outcome.ok()) return outcome;
  share_memory();
  return {};
}

// With the job's other processes on this vGPU. Where that fails the quota is this one's.
void Worker::share_memory() {
  shares_ |= identity_.shares != 0;
  const char* const path = getenv("TIDE_MEMORY_QUOTA");
  if (path == nullptr || path[0] == '\0') return;
  const Outcome started = session_->memory().share_quota(path);
  if (started.ok()) return;
  log(LogLevel::kWarning, "vGPU %u: its quota of memory is this process's, not the job's: %s", identity_.vgpu,
      started.message().c_str());
}

// Now, or when the client is there.
void Worker::tell_shares() {
  Word& shared = link_->region().worker().memory_shared;
  shared.store(identity_.epoch, std::memory_order_release);
  link_->note(shared);
}

// With the other vGPUs on this GPU. Where that fails it is used as if they were not there.
void Worker::share_gpu() {
  const char* const page = getenv("TIDE_SLICES");
  if (identity_.share == 0 || page == nullptr || page[0] == '\0') return;
  uint64_t vgpu = mix(identity_.vgpu + 1);
  for (const uint8_t byte : identity_.token) vgpu = mix(vgpu ^ byte);
  const TimeSlices::Sharer self{.vgpu = std::max<uint64_t>(vgpu, 1),
                                .share = identity_.share,
                                .latency = identity_.latency != 0,
                                .siblings = identity_.siblings != 0};
  const Outcome started = slices_.start(page, self, now_ns());
  if (started.ok()) return;
  log(LogLevel::kWarning, "vGPU %u: its share of the GPU's time is not kept: %s", identity_.vgpu,
      started.message().c_str());
}

// A nap on a futex sees no socket: what comes on one, or its end, interrupts the nap by a signal to this thread.
void Worker::end_naps_by(int socket) {
  struct sigaction action = {};
  action.sa_handler = hear_message;
  action.sa_flags = SA_RESTART;  // the driver's own calls go on; naps end all the same
  const f_owner_ex owner{F_OWNER_TID, gettid()};
  const bool done = sigaction(SIGIO, &action, nullptr) == 0 && fcntl(socket, F_SETOWN_EX, &owner) == 0 &&
                    fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_ASYNC) == 0;
  if (!done) log(LogLevel::kDebug, "naps are not interrupted by messages: %s", strerror(errno));
}

int Worker::run() {
  const int status = run_until_end();
  send_control(control_, ControlType::kStatsReply, count());  // for the last time
  slices_.leave(now_ns());
  if (status == 0) send_control(control_, ControlType::kFarewell, nullptr, 0);
  return status;
}

int Worker::run_until_end() {
  end_naps_by(control_);
  checked_ns_ = busy_ns_ = now_ns();
  while (true) {
    const uint64_t now = now_ns();
    meter_.at(now, worked_);
    link_meter_.at(now, worked_ || slices_.waits(), live_ && link_ != nullptr && link_->part_has_come());
    slices_.at(now, {.working = uses_gpu() && !ended(), .ready = live_ && reader_.ready()});
    if (now - checked_ns_ >= kCheckEveryNs || link_ == nullptr) {
      checked_ns_ = now;
      if (take_control() == Next::kEnd) return 0;
      // A session from a checkpoint that its client never came to is lost once more, and restored once more.
      if (link_ != nullptr && !link_->alive() && !may_come_back() && !outlive_client())
        return recovered_ns_ != 0 ? 1 : 0;
      forward_text();
      if (arrival_ != nullptr && arrival_->left()) arrival_.reset();
      // The driver may wait for all streams when it takes back what a copy had; one may wait for a later command.
      std::erase_if(given_up_, [this](const auto& precopy) {
        return precopy->over() && (session_ == nullptr || session_->streams().idle());
      });
      if (live_ && session_ != nullptr && !said_end_) session_->tell_running();
      if (held_until_ns_ != 0 && now >= held_until_ns_) hold(false);
      look_whether_wanted();
      if (live_ && trips_.due(now)) trips_.take(now, link_->region().client().counters.round_trips);
      if (live_ && link_meter_.due(now)) {
        link_meter_.take(now, link_->region().client().counters.wait_ns, link_->carried());
      }
    }
    if (guard_ != nullptr) look_after_gift();
    if (link_ == nullptr && nobody_comes()) return 0;
    if (link_ == nullptr && move_ != nullptr && serves()) {
      if (go_on_with_move() == Next::kEnd) return 0;
      sleep_us(kPollSlowestUs);
      continue;
    }
    if (link_ == nullptr) {
      wait_for_words();  // after a move the client may come late; the agent ends us when the lease ends
      continue;
    }
    if (ended()) {
      wait_for_leave();
      continue;
    }
    if (look_at_lease()) continue;
    if (!live_ && go_live() == Next::kEnd) return 1;
    if (turn()) {
      busy_ns_ = now_ns();
    } else {
      idle();
    }
    if (live_ && reader_.reason()[0] != '\0') return lose_channel(reader_.reason()) == Next::kEnd ? 1 : 0;
    if (move_ != nullptr && live_ && !link_->alive()) {
      // What it has not heard yet stays here. One that ended takes its session along.
      if (link_->closed() && !may_outlive_client()) return 0;
      give_up_move("its client is not connected at the moment");
    }
    if (move_ != nullptr && live_ && go_on_with_move() == Next::kEnd) return 0;
    if (checkpoints_ != nullptr && live_) go_on_with_checkpoint();
  }
}

Worker::Next Worker::take_control() {
  heard_ = messages_heard.load();
  ControlMessage message;
  while (true) {
    switch (hear(&message)) {
      case ControlState::kNothing:
        return Next::kGoOn;
      case ControlState::kGone:
        return Next::kEnd;
      case ControlState::kMessage:
        if (handle(&message) == Next::kEnd) return Next::kEnd;
    }
  }
}

ControlState Worker::hear(ControlMessage* message) {
  if (control_ >= 0) {
    const ControlState state = receive_control(control_, message);
    if (state != ControlState::kGone) return state;
    if (!lose_agent()) return ControlState::kGone;
  }
  return look_for_agent() ? ControlState::kNothing : ControlState::kGone;
}

// False: nothing here is worth waiting for the next one.
bool Worker::lose_agent() {
  close(control_);
  control_ = -1;
  agent_lost_ns_ = now_ns();
  if (rendezvous_ < 0 || !serves() || identity_.hold_ms == 0) return false;
  log(LogLevel::kInfo, "vGPU %u: its agent has ended; the next one has %u ms to come", identity_.vgpu,
      identity_.hold_ms);
  end_naps_by(rendezvous_);
  return true;
}

// False when the time is over. Who comes first counts: a worker that was busy or stopped has been waited for, too.
bool Worker::look_for_agent() {
  ControlMessage message;
  if (caller_ < 0 && (caller_ = accept_agent(rendezvous_)) >= 0) end_naps_by(caller_);
  const ControlState state = caller_ < 0 ? ControlState::kNothing : receive_control(caller_, &message);
  if (state == ControlState::kNothing) return now_ns() - agent_lost_ns_ < identity_.hold_ms * 1'000'000ull;
  const int caller = std::exchange(caller_, -1);
  if (state == ControlState::kGone || !is_for_us(&message)) {
    close(caller);
    return true;
  }
  control_ = caller;
  const ControlAdopted adopted{.restored = restored_ && link_ == nullptr, .bereaved = bereaved_};
  const bool shelf = shelf_files_ != nullptr;
  send_control(control_, ControlType::kAdopted, &adopted, sizeof(adopted), shelf ? shelf_files_->fds() : nullptr,
               shelf ? JobShelfFiles::kCount : 0);
  if (session_ != nullptr) session_->sharing().ask_again();
  log(LogLevel::kInfo, "vGPU %u: an agent is there again", identity_.vgpu);
  return true;
}

bool Worker::is_for_us(ControlMessage* message) const {
  for (const int fd : message->fds) {
    if (fd >= 0) close(fd);
  }
  const auto* adopt = message->as<ControlAdopt>();
  const bool ours = message->type == ControlType::kAdopt && adopt != nullptr && adopt->version == kControlVersion &&
                    adopt->epoch == identity_.epoch &&
                    memcmp(adopt->session, identity_.session, sizeof(adopt->session)) == 0 &&
                    same_secret(adopt->token, identity_.token, kTokenBytes);
  if (!ours)
    log(LogLevel::kWarning, "vGPU %u: somebody who is not our agent, or of another version, is refused",
        identity_.vgpu);
  return ours;
}

void Worker::wait_for_words() {
  const bool lost = control_ < 0;
  const bool looks = lost || recovered_ns_ != 0;
  pollfd words[] = {{control_, POLLIN, 0},
                    {lost ? rendezvous_ : -1, POLLIN, 0},
                    {caller_, POLLIN, 0},
                    {guard_ != nullptr ? guard_->over_fd() : -1, POLLIN, 0}};
  poll(words, std::size(words), looks ? kLookForAgentMs : -1);
}

Worker::Next Worker::handle(ControlMessage* message) {
  switch (message->type) {
    case ControlType::kServe:
      if (const auto* session = message->as<ControlSession>(); session != nullptr && session->again != 0) {
        if (message->fds[1] >= 0) close(message->fds[1]);
        resume(*session, message->fds[0]);
      } else if (session != nullptr && link_ == nullptr) {
        return serve(*session, message->fds[0], message->fds[1]);
      }
      return Next::kGoOn;
    case ControlType::kReceive:
      shelf_files_ = JobShelfFiles::take(message->fds, kControlFdsMax);
      if (const auto* session = message->as<ControlSession>(); session != nullptr && !serves()) {
        return receive(*session);
      }
      return Next::kGoOn;
    case ControlType::kMove:
    case ControlType::kPause:
    case ControlType::kSend:
    case ControlType::kAbort:
      handle_move(message);
      return Next::kGoOn;
    case ControlType::kCheckpoint:
      if (const auto* wish = message->as<ControlMove>()) begin_checkpoint(*wish);
      return Next::kGoOn;
    case ControlType::kGuard:
      if (auto files = JobShelfFiles::take(message->fds, kControlFdsMax); !serves()) shelf_files_ = std::move(files);
      if (const auto* session = message->as<ControlSession>()) begin_guarding(*session);
      return Next::kGoOn;
    case ControlType::kGive:
      if (const auto* wish = message->as<ControlMove>()) begin_giving(*wish);
      return Next::kGoOn;
    case ControlType::kLease:
      if (const auto* lease = message->as<ControlLease>(); lease != nullptr && identity_.is_protected != 0) {
        lease_until_ns_ = lease->until_ns;
      }
      return Next::kGoOn;
    case ControlType::kUnprotect:
      if (const auto* text = message->as<ControlText>()) unprotect(text->text);
      return Next::kGoOn;
    case ControlType::kShares:
      shares_ = true;
      if (live_ && session_ != nullptr) {
        tell_shares();
        link_->progress();
        notify(*link_, Side::kWorker);
      }
      return Next::kGoOn;
    case ControlType::kHold:
      if (const auto* wish = message->as<ControlHold>()) hold(wish->on != 0);
      return Next::kGoOn;
    case ControlType::kSweep:
      if (kept_ != nullptr) kept_->sweep();
      return Next::kGoOn;
    case ControlType::kStats:
      return send_control(control_, ControlType::kStatsReply, count()), Next::kGoOn;
    case ControlType::kAskShared:
    case ControlType::kSharedAnswer:
    case ControlType::kSessionEnded:
      handle_sharing(message);
      return Next::kGoOn;
    case ControlType::kExit:
      return Next::kEnd;
    default:
      return Next::kGoOn;
  }
}

void Worker::handle_sharing(ControlMessage* message) {
  if (session_ != nullptr) session_->sharing().take(message);
  for (const int fd : message->fds) {
    if (fd >= 0) close(fd);
  }
}

Worker::Next Worker::serve(const ControlSession& session, int lifeline, int region_fd) {
  int code = CUDA_ERROR_SYSTEM_NOT_READY;
  const Outcome outcome = accept_client(session, lifeline, region_fd, &code);
  if (outcome.ok()) {
    send_control(control_, ControlType::kServing, nullptr, 0);
    return Next::kGoOn;
  }
  refuse(lifeline, code, outcome.message());
  fail(outcome.message());
  return Next::kEnd;
}

Outcome Worker::accept_client(const ControlSession& session, int lifeline, int region_fd, int* code) {
  const Transport* transport = find_transport(session.transport);
  if (!serves()) {
    if (session.keeps != 0) return Outcome::fail("this worker only keeps what comes by a move");
    std::optional<Preparation> beside;
    if (transport != nullptr) beside.emplace(*transport);
    if (Outcome outcome = begin(session); !outcome.ok()) return outcome;
  } else if (!restored_ || memcmp(session.session, identity_.session, sizeof(session.session)) != 0) {
    return Outcome::fail("this worker serves another session");
  }
  *code = CUDA_ERROR_INVALID_VALUE;
  if (transport == nullptr) return Outcome::fail(std::string("there is no transport '") + session.transport + "'");
  if (transport->same_host && region_fd < 0) return Outcome::fail("the client sent no memory for its rings");
  std::string data;
  // The link owns both descriptors from here on, the lifeline stays usable for the answer.
  if (Outcome outcome = transport->accept(lifeline, region_fd, &data, &link_); !outcome.ok()) return outcome;
  end_naps_by(lifeline);
  // The program's staging memory would bind the vGPU to this machine.
  if (kept_ != nullptr && link_->shares_memory()) ask_for_staging(true);
  return tell_opened(session, lifeline, data);
}

Outcome Worker::tell_opened(const ControlSession& session, int lifeline, const std::string& data) {
  DoorOpened opened;
  opened.worker_pid = uint32_t(getpid());
  opened.hold_ms = session.hold_ms;
  opened.epoch = session.epoch;
  if (session.is_protected != 0) opened.flags |= kOpenedProtected;
  if (session.shares != 0) opened.flags |= kOpenedShares;
  if (const Recovery from = recovery(); from.from_checkpoint != 0) {
    opened.flags |= kOpenedRecovered;
    opened.sequence = sequence();
    opened.answers = from.answers;
  }
  set_text(opened.transport_data, data);
  identity_ = session;
  return send_frame(lifeline, DoorType::kOpened, &opened, sizeof(opened));
}

// Nothing of a client whose connection broke is lost: what it has sent is executed, what it has not heard waits. One
// that ended comes back at once or never.
bool Worker::may_come_back() {
  if (!live_ || ended() || !link_->resumes() || identity_.hold_ms == 0) return false;
  const uint64_t now = now_ns();
  if (lost_ns_ == 0) {
    lost_ns_ = now;
    link_->release();
    const bool closed = link_->closed();
    log(closed ? LogLevel::kDebug : LogLevel::kInfo, "vGPU %u: the client's connection %s; it is waited for",
        identity_.vgpu, closed ? "ended" : "broke");
  }
  const uint32_t hold_ms = link_->closed() ? std::min(kHoldClosedMs, identity_.hold_ms) : identity_.hold_ms;
  if (now - lost_ns_ < hold_ms * 1'000'000ull) return true;
  log(link_->closed() ? LogLevel::kDebug : LogLevel::kInfo, "vGPU %u: the client did not come back within %u ms",
      identity_.vgpu, hold_ms);
  return false;
}

void Worker::resume(const ControlSession& session, int lifeline) {
  const Outcome outcome = resume_over(session, lifeline);
  send_control(control_, ControlType::kServing, nullptr, 0);
  if (outcome.ok()) {
    log(LogLevel::kInfo, "vGPU %u: the client is back", identity_.vgpu);
    return;
  }
  refuse(lifeline, CUDA_ERROR_NOT_READY, outcome.message());
  close(lifeline);
}

// What has come over the old connection counts. Then it is given up, though it may seem to be whole: nothing of it can
// come any more.
Outcome Worker::resume_over(const ControlSession& session, int lifeline) {
  const bool same = memcmp(session.session, identity_.session, sizeof(session.session)) == 0;
  if (!same || !live_ || ended() || !link_->resumes()) {
    return Outcome::fail("this worker has no such session to go on with");
  }
  if (session.attempt <= identity_.attempt)
    return Outcome::fail("a newer connection of this session has been accepted");
  const Transport* transport = find_transport(session.transport);
  if (transport == nullptr || !transport->resume) {
    return Outcome::fail(format("a session cannot go on over the transport '%s'", session.transport));
  }
  if (move_ != nullptr) give_up_move("its client's connection broke");
  for (const uint64_t end = now_ns() + kDrainNs; link_->progress() && now_ns() < end;) {
  }
  link_->release();
  if (lost_ns_ == 0) lost_ns_ = now_ns();
  link_->take_back();
  const KeptRegion kept = link_->leave_region();
  std::string data;
  std::unique_ptr<Link> link;
  if (Outcome outcome = transport->resume(kept, lifeline, &data, &link); !outcome.ok()) return outcome;
  if (session_ != nullptr) session_->resume(link.get());
  link_ = std::move(link);
  lost_ns_ = 0;
  end_naps_by(lifeline);
  // If it does not get there this connection, too, has broken.
  const Outcome told = tell_opened(session, lifeline, data);
  if (!told.ok()) log(LogLevel::kDebug, "the client did not hear that it is served: %s", told.message().c_str());
  return {};
}

// Whether this session is what the client's next command needs: one that came by a move, or a new one where the client
// begins, or began again after it had given up another.
bool Worker::fits(uint64_t acknowledged, uint64_t renewed) {
  if (acknowledged == sequence()) return true;
  if (restored_ || acknowledged != renewed) return false;
  session_->set_sequence(acknowledged);
  WorkerPage& page = link_->region().worker();
  page.sticky.store(0, std::memory_order_release);
  link_->note(page.sticky);
  return true;
}

// The region's contents may come a little later than the link.
Worker::Next Worker::go_live() {
  link_->progress();
  if (!link_->ready()) return Next::kGoOn;
  WorkerPage& page = link_->region().worker();
  const ClientPage& client = link_->region().client();
  if (client.magic != kRegionMagic || client.version != kRegionVersion)
    return lose_channel("the region is not one of ours");
  // Of a session from a checkpoint it sets its region back first.
  const bool recovered = recovery().from_checkpoint != 0;
  if (recovered && client.recovered.load(std::memory_order_acquire) != identity_.epoch) return Next::kGoOn;
  if (!fits(page.acknowledged.load(), client.renewed.load())) {
    return lose_channel("the client's state does not fit what came from the last worker");
  }
  bool broken = false;
  if (session_ != nullptr) session_->host_memory().attach(link_.get());
  if (session_ != nullptr && !session_->host_memory().ready(&broken)) {
    return broken ? lose_channel("its host memory cannot be reached from here") : Next::kGoOn;
  }
  if (restored_ && !recovered && told() != told_digest(link_->region())) {
    return lose_channel("its connection broke during the move, and with it went what the last worker told");
  }
  enter_region();
  return Next::kGoOn;
}

// A keeper tells nothing else: the next worker finds what the last one left.
void Worker::enter_region() {
  WorkerPage& page = link_->region().worker();
  reader_ = CommandReader(link_->region());
  page.epoch.store(identity_.epoch, std::memory_order_release);
  link_->note(page.epoch);
  if (session_ != nullptr) {
    session_->set_errors(page.error.load(), page.errors.load());
    page.content_slots.store(session_->contents().slots(), std::memory_order_release);
    link_->note(page.content_slots);
    session_->attach(link_.get());
    session_->set_recovery({});
    if (recovered_ns_ != 0) session_->memory().be_patient_until(now_ns() + kReplayNs);
    if (shares_) {
      tell_shares();
    } else {
      session_->memory().hold_all();
    }
  }
  recovered_ns_ = 0;
  tell_held();
  set_state(serving_state());
  live_ = true;
}

void Worker::set_state(ChannelState state) {
  if (link_ == nullptr) return;
  Word& word = link_->region().worker().state;
  word.store(uint64_t(state), std::memory_order_release);
  link_->note(word);
  link_->progress();
  notify(*link_, Side::kWorker);
}

void Worker::refuse(int lifeline, int code, const std::string& message) {
  DoorRefused refused;
  refused.code = code;
  set_text(refused.message, message);
  const Outcome sent = send_frame(lifeline, DoorType::kRefused, &refused, sizeof(refused));
  if (!sent.ok()) log(LogLevel::kDebug, "refusal not sent: %s", sent.message().c_str());
}

void Worker::fail(const std::string& message) {
  log(LogLevel::kError, "%s", message.c_str());
  ControlText text;
  set_text(text.text, message);
  send_control(control_, ControlType::kFailed, text);
}

Worker::Next Worker::lose_channel(const char* reason) {
  WorkerPage& page = link_->region().worker();
  page.error.store(CUDA_ERROR_UNKNOWN, std::memory_order_release);
  link_->note(page.error);
  set_state(ChannelState::kFailed);
  link_->progress();
  fail(std::string("the client's channel is of no use: ") + reason);
  return Next::kEnd;
}

bool Worker::turn() {
  if (!live_ || session_ == nullptr) return link_->progress();
  session_->landings().allow(may_land());
  const bool any = execute(link_->progress());
  session_->landings().allow(false);
  return any;
}

// Not while it is at rest, or about to be, for a move or a checkpoint; nor on a GPU that is shared: it may be another's
// turn, and asking whether it is ours is a claim to it.
bool Worker::may_land() const {
  return !slices_.shared() && lost_ns_ == 0 && (move_ == nullptr || move_->pause_ns == 0) &&
         (checkpoints_ == nullptr || !checkpoints_->wanted);
}

// What waits for another vGPU of the job, which may be waiting for this GPU, does not.
bool Worker::uses_gpu() const {
  if (!worked_ || !slices_.shared() || identity_.siblings == 0 || session_ == nullptr) return worked_;
  return session_->streams().computes() && !session_->signals().outstanding();
}

// Nobody's, where nobody shares the GPU.
bool Worker::is_others_turn() { return slices_.shared() && reader_.ready() && !slices_.may_begin(now_ns()); }

bool Worker::execute(bool any) {
  uint32_t executed = 0;
  bool drained = false;
  while (executed < kCommandsPerTurn && !session_->outbox().crowded()) {
    Command command;
    const ReadState state = is_others_turn() ? ReadState::kEmpty : reader_.next(&command);
    if (state != ReadState::kRecord) {
      drained = true;
      break;
    }
    const uint64_t part = session_->partial();
    session_->let_lend_memory(session_->landings().allowed() && !reader_.ready());
    if (!session_->execute(command.header, command.payload)) {
      any |= session_->partial() != part;
      reader_.rewind();
      break;
    }
    reader_.consume(command);
    ++executed;
    // Whoever waits for a large copy hears of it before the next is begun.
    const bool rest = at_rest_point() || (checkpoints_ != nullptr && may_checkpoint());
    if (session_->ended() || rest || session_->streams().take_copied()) break;
  }
  if (drained) session_->settle();
  any |= session_->poll() || executed != 0;
  worked_ = executed != 0 || session_->streams().has_pending();
  if (any) {
    link_->progress();
    notify(*link_, Side::kWorker);
  }
  return any;
}

// The client has everything when it sees that we have ended; then it goes, which run() notices.
void Worker::wait_for_leave() {
  // From then on the region may be the next worker's.
  if (!said_end_) session_->poll();
  link_->progress();
  if (!said_end_ && session_->outbox().empty()) {
    said_end_ = true;
    set_state(ChannelState::kEnded);
  }
  sleep_us(kPollSlowestUs);
}

// How long to sleep, unless the client rings.
uint32_t Worker::nap_us(uint64_t quiet_ns) const {
  if (!live_) return kPollSlowestUs;
  const uint64_t share = quiet_ns / 8000;
  const bool under_way = session_ != nullptr && (session_->events().watching() || session_->streams().has_pending() ||
                                                 !session_->outbox().empty());
  if (under_way) return uint32_t(std::clamp<uint64_t>(share, kPollEveryUs, kPollSlowestUs));
  if (move_ != nullptr) return move_->pause_ns != 0 ? kPollEveryUs : kIdleSleepUs;
  if (checkpoints_ != nullptr && checkpoints_->wanted) return checkpoints_->ready_ns != 0 ? kPollEveryUs : kIdleSleepUs;
  return uint32_t(std::clamp<uint64_t>(share, kIdleSleepUs, kIdleSleepMostUs));
}

void Worker::idle() {
  const uint64_t now = now_ns(), quiet = now - busy_ns_;
  if (quiet < std::max(linger_ns_, kLingerLeastNs)) {
    sched_yield();
    return;
  }
  if (slices_.waits()) return sleep_us(kTurnSleepUs);
  if (live_ && session_ != nullptr && session_->sharing().asking()) {
    pollfd answer = {control_, POLLIN, 0};
    poll(&answer, 1, 1);
    checked_ns_ = 0;
    return;
  }
  const uint32_t nap = nap_us(quiet), seen = sleep_until_rung(nap);
  const bool rung = link_->region().client().doorbell.load(std::memory_order_relaxed) != seen;
  if (messages_heard.load() != heard_) checked_ns_ = 0;
  const bool soon = now_ns() - now < kLingerMostNs;
  if (!soon) linger_ns_ = kLingerLeastNs;
  if (rung && soon) linger_ns_ = std::clamp(2 * linger_ns_, kLingerLeastNs, kLingerMostNs);
}

// The doorbell as it was before.
uint32_t Worker::sleep_until_rung(uint32_t timeout_us) {
  Region region = link_->region();
  const uint32_t seen = region.client().doorbell.load(std::memory_order_acquire);
  // A keeper has no use for commands, so nobody is to wake it for some.
  region.worker().asleep.store(kept_ != nullptr ? 0 : asleep_mark(seen), std::memory_order_relaxed);
  // Pairs with the fence in notify(): either the client sees that we sleep, or we see what it published.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  napping_on.store(link_.get());
  // What comes from here on ends the nap.
  if ((!live_ || kept_ != nullptr || !reader_.ready()) && messages_heard.load() == heard_)
    link_->sleep(timeout_us, seen);
  napping_on.store(nullptr);
  region.worker().asleep.store(0, std::memory_order_relaxed);
  return seen;
}

// What kernels print comes on our standard output and, from assert, error. Our own words go on to where they went.
void Worker::capture_text() {
  int errors = -1;
  if (!output_.start(STDOUT_FILENO) || !errors_.start(STDERR_FILENO, &errors)) {
    log(LogLevel::kWarning, "what kernels print cannot be forwarded: %s", strerror(errno));
  }
  if (errors >= 0) set_log_descriptor(errors);
  if (errors >= 0 && __sanitizer_set_report_fd != nullptr) {
    __sanitizer_set_report_fd(reinterpret_cast<void*>(intptr_t(errors)));
  }
  session_->outbox().set_before_word([this] { forward_text(); });
}

void Worker::forward(TextCapture& text, int32_t descriptor) {
  char bytes[kTextBytes];
  for (size_t n = 0; (n = text.read(bytes, sizeof(bytes))) != 0;) {
    AnswerHeader header;
    header.kind = uint16_t(AnswerKind::kText);
    header.result = descriptor;
    session_->outbox().record(header, std::as_bytes(std::span(bytes, n)));
    busy_ns_ = now_ns();
  }
}

void Worker::forward_text() {
  if (!live_ || session_ == nullptr || said_end_) return;
  forward(output_, STDOUT_FILENO);
  forward(errors_, STDERR_FILENO);
}

}  // namespace tide
