// Checkpoints (docs/decisions/0019-*.md): the worker's part as their source, as a guard, and as one that has its
// session from a guard.

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "server/worker.h"
#include "transport/wait.h"

namespace tide {
namespace {

constexpr uint32_t kDrainMs = 500;         // for the first attempt to pause; twice that for the next,
constexpr uint32_t kDrainMostMs = 4'000;   // up to that: GPUs have work meanwhile
constexpr uint64_t kReadNs = 300'000'000;  // the client's time to read what it has been answered
constexpr uint64_t kRetryAfterNs = 20'000'000;
constexpr uint64_t kRestPatienceNs = 60'000'000'000;  // then this checkpoint is given up
constexpr uint32_t kSendMs = 1'000;  // in a pause: so long a guard that takes nothing stops the program at most
constexpr uint64_t kTellEveryNs = 1'000'000'000;
constexpr uint64_t kComeNs = 120'000'000'000;  // the client's time to come to a session from a checkpoint
constexpr uint32_t kFencedSleepUs = 5'000;

const char* text_of(Unprotected why) {
  switch (why) {
    case Unprotected::kNo:
      return "";
    case Unprotected::kHostMemory:
      return "its kernels reach memory of the program (mapped, managed or page-locked)";
    case Unprotected::kSharing:
      return "it shares memory or events with another process (CUDA IPC)";
    case Unprotected::kError:
      return "one of its commands failed after it had been sent";
    case Unprotected::kLogFull:
      return "no checkpoint was made for long, and the program's log of commands was full";
    case Unprotected::kRenewed:
      return "it began again after an error";
    case Unprotected::kLogMemory:
      return "the program's machine has no memory for the log of commands";
  }
  return "its client has ended the protection";
}

}  // namespace

// Why there can be no checkpoint of this session; empty: there can.
std::string Worker::why_never() const {
  if (kept_ != nullptr || session_ == nullptr) return "";
  if (const char* const obstacle = session_->sharing().obstacle(); obstacle != nullptr) return obstacle;
  if (session_->host_memory().shares()) return text_of(Unprotected::kHostMemory);
  if (session_->failed()) return "its context is lost after an error";
  return live_ ? text_of(Unprotected(link_->region().client().unprotected.load())) : "";
}

void Worker::begin_checkpoint(const ControlMove& request) {
  if (checkpoints_ != nullptr && checkpoints_->wanted) {
    const bool same = request.stream_address[0] == '\0' && request.next_epoch == checkpoints_->request.next_epoch;
    if (same) return;  // its end is told
    return fail_checkpoint("another guard is to have it");
  }
  if (const std::string never = why_never(); !never.empty()) return fail_checkpoint(never, true);
  if (!live_ || session_ == nullptr || ended() || !link_->alive()) {
    return tell_no_checkpoint("its program is not connected at the moment", false);
  }
  if (move_ != nullptr) return tell_no_checkpoint("the vGPU is being moved", false);
  const bool anew = request.stream_address[0] != '\0';
  if (checkpoints_ != nullptr && (anew || checkpoints_->precopy->over())) drop_checkpoints();
  if (checkpoints_ == nullptr && !anew) return fail_checkpoint("there is no stream to the guard");
  if (checkpoints_ == nullptr) {
    checkpoints_ = std::make_unique<Checkpoints>();
    checkpoints_->request = request;
    checkpoints_->request.stream_address[kEndpointBytes - 1] = '\0';
    const TransferHello hello = hello_of(identity_, request.token, request.next_epoch);
    checkpoints_->precopy = std::make_unique<Precopy>(carrier(), checkpoints_->request.stream_address, hello);
    if (const Outcome started = checkpoints_->precopy->start(); !started.ok()) {
      checkpoints_.reset();
      return fail_checkpoint(started.message());
    }
  } else {
    checkpoints_->precopy->again();
  }
  Checkpoints& now = *checkpoints_;
  now.wanted = true;
  now.sent = false;
  now.attempts = 0;
  now.begin_ns = now.told_ns = now_ns();
  now.ready_ns = now.next_attempt_ns = 0;
  now.cpu_ns = now.precopy->cpu_ns();
}

void Worker::go_on_with_checkpoint() {
  Checkpoints& now = *checkpoints_;
  if (now.precopy->over()) {
    const std::string why = now.precopy->failure();
    if (now.wanted) return fail_checkpoint(why, why.find(kTooMuchKept) != std::string::npos);
    return drop_checkpoints();
  }
  if (!now.wanted) return;
  if (now.sent) return now.precopy->concluded() ? checkpoint_done() : void();
  if (const std::string never = why_never(); !never.empty()) return fail_checkpoint(never, true);
  const uint64_t time = now_ns();
  if (time - now.told_ns >= kTellEveryNs) {
    now.told_ns = time;
    const Precopy::Progress progress = now.precopy->progress();
    send_control(control_, ControlType::kProgress,
                 ControlProgress{progress.rounds, progress.bytes, progress.rest_bytes});
  }
  if (!now.precopy->ready()) return;
  if (now.ready_ns == 0) now.ready_ns = time;
  if (time - now.ready_ns > kRestPatienceNs) return fail_checkpoint("its streams do not come to rest");
  if (!now.precopy->held()) return now.precopy->hold();
  if (may_checkpoint()) try_checkpoint();
}

// A good place for the pause: nothing that is under way needs a later command, and none is half done, since what it has
// answered already would not come again.
bool Worker::may_checkpoint() const {
  const Checkpoints& now = *checkpoints_;
  return now.wanted && !now.sent && now.ready_ns != 0 && now.precopy->held() && now_ns() >= now.next_attempt_ns &&
         session_->partial() == 0 && !session_->signals().outstanding() && !session_->graphs().building();
}

void Worker::try_checkpoint() {
  Checkpoints& now = *checkpoints_;
  now.paused_ns = now_ns();
  if (!come_to_rest()) {
    session_->peer_source().open();
    now.precopy->go_on();
    ++now.attempts;
    now.next_attempt_ns = now_ns() + kRetryAfterNs * std::min(now.attempts, 50u);
    return;
  }
  const Outcome sent = send_checkpoint();
  session_->peer_source().open();
  if (!sent.ok()) return fail_checkpoint(sent.message(), sent.message().find(kTooMuchKept) != std::string::npos);
  now.sent = true;
  now.precopy->conclude();
}

// And the client has read all that it was answered: what was done up to here it never asks for again.
bool Worker::come_to_rest() {
  if (!drain(std::min(kDrainMostMs, kDrainMs << std::min(checkpoints_->attempts, 3u)))) return false;
  forward_text();
  for (const uint64_t end = now_ns() + kReadNs; !session_->outbox().empty() || session_->outbox().unread() != 0;) {
    if (now_ns() > end || !link_->alive()) return false;
    session_->poll();
    carry();
    notify(*link_, Side::kWorker);
    sleep_us(20);
  }
  return !session_->failed();
}

Outcome Worker::send_checkpoint() {
  Checkpoints& now = *checkpoints_;
  const uint64_t drained = now_ns();
  const auto pump = [this] { carry(); };
  now.answers = link_->region().worker().answer_head.load();
  uint64_t others = 0;
  now.precopy->set_patience(kSendMs);
  Outcome outcome = now.precopy->finish(pump);
  if (outcome.ok()) {
    const SessionMark mark{.recovery = {.from_checkpoint = 1, .answers = now.answers}, .there = &now.there};
    now.there.begin();
    outcome = send_session(*session_, mark, now.precopy->stream(), pump, &others);
    others = now.there.bytes();
  }
  now.precopy->set_patience(~0u);
  if (!outcome.ok()) return outcome;
  const Precopy::Progress progress = now.precopy->progress();
  const uint64_t end = now_ns();
  now.report = {};
  now.report.sequence = session_->sequence();
  now.report.report = {.bytes = progress.bytes + others,
                       .pause_bytes = progress.rest_bytes + others,
                       .rounds = progress.rounds,
                       .pause_ns = end - now.paused_ns,
                       .drain_ns = drained - now.paused_ns,
                       .copy_ns = end - drained,
                       .restore_ns = 0};
  return {};
}

void Worker::checkpoint_done() {
  Checkpoints& now = *checkpoints_;
  now.wanted = now.sent = false;
  now.report.total_ns = now_ns() - now.begin_ns;
  now.report.cpu_ns = now.precopy->cpu_ns() - now.cpu_ns;
  WorkerPage& page = link_->region().worker();
  page.safe_answers.store(now.answers, std::memory_order_release);
  link_->note(page.safe_answers);
  page.safe_sequence.store(now.report.sequence, std::memory_order_release);
  link_->note(page.safe_sequence);
  link_->progress();
  notify(*link_, Side::kWorker);
  send_control(control_, ControlType::kCheckpointed, now.report);
}

void Worker::tell_no_checkpoint(const std::string& why, bool refused) {
  log(refused ? LogLevel::kInfo : LogLevel::kDebug, "vGPU %u: no checkpoint: %s", identity_.vgpu, why.c_str());
  ControlCheckpointed failed;
  failed.failed = 1;
  failed.refused = refused ? 1 : 0;
  set_text(failed.text, why.substr(0, sizeof(failed.text) - 1));
  send_control(control_, ControlType::kCheckpointed, failed);
  if (!refused) asked_for_ = 0;  // whoever has asked for this one asks again
}

// The one before it still stands. What the guard has of this one is not known: the next begins anew.
void Worker::fail_checkpoint(const std::string& why, bool refused) {
  if (refused && live_) tell_server_ended();
  tell_no_checkpoint(why, refused);
  drop_checkpoints();
}

// Nor does its lease end by a clock: nobody is to have the session elsewhere.
void Worker::unprotect(const std::string& why) {
  if (identity_.is_protected == 0) return;
  identity_.is_protected = 0;
  lease_until_ns_ = 0;
  if (live_ && session_ != nullptr) tell_server_ended();
  if (checkpoints_ != nullptr && checkpoints_->wanted) tell_no_checkpoint(why, true);
  drop_checkpoints();
}

// The client keeps nothing any more.
void Worker::tell_server_ended() {
  Word& safe = link_->region().worker().safe_sequence;
  safe.store(~uint64_t{0}, std::memory_order_release);
  link_->note(safe);
  link_->progress();
  notify(*link_, Side::kWorker);
}

void Worker::drop_checkpoints() {
  if (checkpoints_ == nullptr) return;
  checkpoints_->precopy->stop();
  given_up_.push_back(std::move(checkpoints_->precopy));
  checkpoints_.reset();
}

// The agent is told once for each time that the client asks.
void Worker::look_whether_wanted() {
  if (!live_ || session_ == nullptr || identity_.is_protected == 0) return;
  if (link_->region().client().unprotected.load() != 0) {  // the others' clients shall not keep what is of no use
    if (!std::exchange(said_unprotected_, true)) send_control(control_, ControlType::kWanted, nullptr, 0);
    return;
  }
  const uint64_t wanted = link_->region().client().checkpoint_wanted.load();
  if (wanted == asked_for_ || wanted <= link_->region().worker().safe_sequence.load()) return;
  asked_for_ = wanted;
  send_control(control_, ControlType::kWanted, nullptr, 0);
}

// True: its lease is over, nothing is done. The client is told, so that it looks where the vGPU is now.
bool Worker::look_at_lease() {
  const bool over = lease_until_ns_ != 0 && boot_ns() > lease_until_ns_;
  if (over != fenced_) {
    log(over ? LogLevel::kWarning : LogLevel::kInfo, "vGPU %u: %s", identity_.vgpu,
        over ? "the scheduler has not heard its server for long; it stops until it does" : "it goes on");
    fenced_ = over;
    if (live_) set_state(serving_state());
  }
  if (!over) return false;
  carry();  // the client shall hear of it, also over a connection that is made meanwhile
  sleep_us(kFencedSleepUs);
  return true;
}

void Worker::fail_gently(const std::string& why) {
  ControlText text;
  set_text(text.text, why.substr(0, sizeof(text.text) - 1));
  send_control(control_, ControlType::kMoveFailed, text);
}

void Worker::begin_guarding(const ControlSession& session) {
  if (serves() && guard_ == nullptr) return fail_gently("this worker is no guard");
  Outcome outcome = serves() ? Outcome() : begin(session);
  if (outcome.ok() && guard_ == nullptr) {
    kept_->limit_rest(Kept::usual_rest(session.memory_bytes));
    guard_ = std::make_unique<Guard>(*kept_);
  }
  identity_ = session;
  std::string address;
  if (outcome.ok()) outcome = guard_->listen(hello_of(session, session.token, session.epoch), &address);
  if (!outcome.ok()) return fail_gently(outcome.message());
  ControlText text;
  set_text(text.text, address);
  send_control(control_, ControlType::kReceiving, text);
}

void Worker::begin_giving(const ControlMove& request) {
  if (guard_ == nullptr) return fail_gently("this worker is no guard");
  ControlMove order = request;
  order.stream_address[kEndpointBytes - 1] = '\0';
  const Outcome begun = guard_->give(order.stream_address, hello_of(identity_, order.token, order.next_epoch));
  if (!begun.ok()) fail_gently(begun.message());
}

void Worker::look_after_gift() {
  Outcome outcome;
  ControlMoved moved;
  if (!guard_->giving() || !guard_->over(&outcome, &moved.bytes)) return;
  if (!outcome.ok()) return fail_gently(outcome.message());
  send_control(control_, ControlType::kTransferred, moved);
}

Recovery Worker::recovery() const {
  if (kept_ != nullptr) return kept_->outline().recovery;
  return session_ != nullptr ? session_->recovery() : Recovery();
}

// Its program may have ended while nobody served it.
bool Worker::nobody_comes() const { return recovered_ns_ != 0 && now_ns() - recovered_ns_ > kComeNs; }

}  // namespace tide
