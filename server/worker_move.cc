// The worker's part in a move: as the source, and as the destination.

#include <poll.h>
#include <unistd.h>

#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "server/worker.h"
#include "transport/wait.h"

namespace tide {
namespace {

constexpr uint32_t kDrainMs = 500;  // then the session runs on for a while, and the move is tried again
constexpr uint64_t kRetryAfterNs = 20'000'000;
constexpr uint64_t kLookForRestNs =
    5'000'000'000;  // so long for a command boundary at which nothing waits for the client
constexpr uint32_t kAttemptsMax = 100;
// The agent's, when all sessions of the vGPU have been sent: longer than it gives to the slowest of them, because who
// runs on here while the agent sends the clients away loses what was done since.
constexpr uint32_t kDecisionMs = 300'000;
constexpr uint32_t kLeaveMs = 10'000;               // the client's time to go to the new worker
constexpr uint64_t kGiveUpStagingNs = 400'000'000;  // a client that does nothing looks every 100 ms
constexpr uint32_t kLeaveIdleMs = 300;              // of one that does nothing: it goes when it next wants something
constexpr uint32_t kConnectMs = 10'000;
constexpr uint32_t kAcceptStepMs = 100;
constexpr uint32_t kAcceptMs = 60'000;

uint64_t after_ms(uint32_t ms) { return now_ns() + uint64_t(ms) * 1'000'000; }

TransferHello hello_of(const ControlSession& session, const uint8_t* token, uint64_t epoch) {
  TransferHello hello;
  memcpy(hello.job, session.job, sizeof(hello.job));
  memcpy(hello.token, token, sizeof(hello.token));
  memcpy(hello.session, session.session, sizeof(hello.session));
  hello.vgpu = session.vgpu;
  hello.epoch = epoch;
  return hello;
}

}  // namespace

void Worker::prepare_move(const ControlMove& request) {
  move_ = std::make_unique<Move>();
  move_->request = request;
  move_->begin_ns = now_ns();
  move_->request.stream_address[kEndpointBytes - 1] = move_->request.endpoint[kEndpointBytes - 1] = '\0';
  if (link_ != nullptr && session_ != nullptr && !destination_reaches_host_memory()) ask_for_staging(true);
}

// Staging memory is shared, too; the client gives it up when it is asked.
void Worker::ask_for_staging(bool unwanted) {
  link_->region().worker().staging_unwanted.store(unwanted ? 1 : 0, std::memory_order_release);
}

bool Worker::waits_for_staging() const {
  return now_ns() - move_->begin_ns < kGiveUpStagingNs && !destination_reaches_host_memory();
}

void Worker::greet_destination() {
  const ControlMove& request = move_->request;
  Outcome outcome = connect_stream(request.stream_address, kConnectMs, &move_->stream);
  if (outcome.ok()) outcome = greet_receiver(*move_->stream, hello_of(identity_, request.token, request.next_epoch));
  if (!outcome.ok()) give_up_move(outcome.message());
}

void Worker::give_up_move(const std::string& why) {
  if (session_ != nullptr) session_->peer_source().open();
  log(LogLevel::kWarning, "the move of vGPU %u is off: %s", identity_.vgpu, why.c_str());
  ControlText text;
  set_text(text.text, why);
  send_control(control_, ControlType::kMoveFailed, text);
  move_.reset();
  if (link_ != nullptr) ask_for_staging(false);
  if (live_) set_state(ChannelState::kLive);
}

// A session that came by a move may go on before its client has come: then there is nobody to carry to.
void Worker::carry() {
  if (link_ != nullptr) link_->progress();
}

// Paused; true when nothing is under way any more. What has completed is told meanwhile.
bool Worker::drain() {
  const uint64_t end = after_ms(kDrainMs);
  session_->settle();
  while (!session_->streams().idle() || !session_->peer_source().close()) {
    carry();
    if (session_->poll()) {
      carry();
      if (link_ != nullptr) notify(*link_, Side::kWorker);
    } else {
      sleep_us(20);
    }
    if (now_ns() > end) return false;
  }
  session_->poll();
  return true;
}

// Host memory that is shared with the program is shared on its machine only.
bool Worker::destination_reaches_host_memory() const {
  Endpoint to;
  return !session_->host_memory().shares() || !Endpoint::parse(move_->request.endpoint, &to).ok() || to.same_host();
}

// A good place to pause: behind it nothing that is under way needs a later command of this client. Two vGPUs that
// move at once and wait for each other's data would else never come to rest.
bool Worker::at_rest_point() {
  return move_ != nullptr && move_->stream != nullptr && now_ns() >= move_->next_attempt_ns &&
         !session_->signals().outstanding() && !session_->graphs().building() && !waits_for_staging();
}

bool Worker::may_try_move() {
  const uint64_t now = now_ns();
  if (now < move_->next_attempt_ns || session_->graphs().building() || waits_for_staging()) return false;
  return move_->stream == nullptr || !session_->signals().outstanding() || now - move_->begin_ns > kLookForRestNs;
}

Worker::Next Worker::try_move() {
  if (const char* obstacle = session_->sharing().obstacle(); obstacle != nullptr) {
    give_up_move(obstacle);
    return Next::kGoOn;
  }
  if (move_->stream == nullptr) {
    greet_destination();
    return Next::kGoOn;
  }
  if (!destination_reaches_host_memory()) {
    give_up_move("the program and its kernels share host memory, which another machine cannot reach");
    return Next::kGoOn;
  }
  const uint64_t begin = now_ns();
  set_state(ChannelState::kPaused);
  if (!drain()) {
    // A stream may wait for something that a later command of this client leads to: let it run.
    set_state(ChannelState::kLive);
    if (++move_->attempts > kAttemptsMax) {
      give_up_move("its streams do not come to rest");
    } else {
      // Not in step with another worker that does the same.
      move_->next_attempt_ns = now_ns() + kRetryAfterNs * (1 + uint64_t(getpid()) % 7);
    }
    return Next::kGoOn;
  }
  if (session_->failed()) {
    give_up_move("its context is lost after an error");
    return Next::kGoOn;
  }
  move_->paused_ns = begin;
  if (link_ != nullptr) session_->set_told(told_digest(link_->region()));
  const Outcome outcome = send_session(
      *session_, *move_->stream, [this] { carry(); }, &move_->bytes);
  if (!outcome.ok()) {
    give_up_move(outcome.message());
    return Next::kGoOn;
  }
  return finish_move();
}

Worker::Next Worker::finish_move() {
  move_->stream.reset();
  ControlMoved moved{move_->bytes, now_ns() - move_->paused_ns};
  send_control(control_, ControlType::kTransferred, moved);
  const uint64_t end = after_ms(kDecisionMs);
  bool commit = false;
  while (!commit) {
    ControlMessage message;
    // Where the agent died, the next one knows what it had decided.
    const ControlState state = hear(&message);
    if (state == ControlState::kGone || (link_ != nullptr && !link_->alive() && link_->closed())) return Next::kEnd;
    if (state == ControlState::kMessage && message.type == ControlType::kExit) return Next::kEnd;
    if (state == ControlState::kMessage && message.type == ControlType::kCommit) commit = true;
    const bool off = state == ControlState::kMessage && message.type == ControlType::kAbort;
    if (off || now_ns() > end) {
      give_up_move(off ? "the agent called it off" : "the agent did not decide in time");
      return Next::kGoOn;
    }
    carry();
    if (state == ControlState::kNothing) sleep_us(100);
  }
  if (link_ == nullptr) {  // the client, when it comes, is told here to ask the scheduler
    send_control(control_, ControlType::kLeft, moved);
    return Next::kEnd;
  }
  WorkerPage& page = link_->region().worker();
  memcpy(page.next_endpoint, move_->request.endpoint, kEndpointBytes);
  for (uint64_t at = 0; at < kEndpointBytes; at += sizeof(Word)) {
    link_->note(*reinterpret_cast<Word*>(page.next_endpoint + at));
  }
  page.next_epoch.store(move_->request.next_epoch, std::memory_order_release);
  link_->note(page.next_epoch);
  set_state(ChannelState::kMoved);
  moved.pause_ns = now_ns() - move_->paused_ns;
  wait_until_left(&moved);
  send_control(control_, ControlType::kLeft, moved);
  return Next::kEnd;
}

// From kMoved on the region belongs to the next worker: nothing is written any more. The pause lasts until the client
// is served there; a client that wants nothing has none.
void Worker::wait_until_left(ControlMoved* moved) {
  const Region region = link_->region();
  const uint64_t next = move_->request.next_epoch;
  const auto wants = [&] {
    return region.client().command_head.load() != region.worker().command_tail.load() ||
           region.client().asleep.load() != 0;
  };
  const uint64_t begin = now_ns(), end = after_ms(kLeaveMs), idle_end = after_ms(kLeaveIdleMs);
  bool wanted = false;
  while (now_ns() < end) {
    link_->progress();
    wanted |= wants();
    if (!link_->alive() || region.worker().epoch.load() == next) {
      moved->pause_ns += wanted ? now_ns() - begin : 0;
      return;
    }
    if (!wanted && now_ns() > idle_end) return;
    sleep_us(100);
  }
  moved->pause_ns += now_ns() - begin;
}

Worker::Next Worker::receive(const ControlSession& session) {
  Outcome outcome = begin(session);
  std::unique_ptr<StreamListener> listener;
  std::string address;
  if (outcome.ok()) outcome = listen_stream(&address, &listener);
  if (!outcome.ok()) {
    fail(outcome.message());
    return Next::kEnd;
  }
  ControlText text;
  set_text(text.text, address);
  send_control(control_, ControlType::kReceiving, text);
  std::unique_ptr<ByteStream> stream;
  const TransferHello expected = hello_of(session, session.token, session.epoch);
  for (const uint64_t end = after_ms(kAcceptMs); stream == nullptr;) {
    pollfd gone = {control_, POLLIN, 0};
    poll(&gone, 1, 0);
    if (gone.revents != 0) {
      ControlMessage message;
      const ControlState state = receive_control(control_, &message);
      if (state == ControlState::kGone || message.type == ControlType::kExit) return Next::kEnd;
    }
    if (!listener->accept(kAcceptStepMs, &stream).ok()) {
      stream.reset();
      if (now_ns() < end) continue;
      fail("nobody sent the vGPU");
      return Next::kEnd;
    }
    // Somebody else's connection must not end the wait for ours.
    if (const Outcome greeted = greet_sender(*stream, expected); !greeted.ok()) stream.reset();
  }
  outcome = receive_session(*session_, *stream);
  if (!outcome.ok()) {
    fail(outcome.message());
    return Next::kEnd;
  }
  restored_ = true;
  send_control(control_, ControlType::kRestored, nullptr, 0);
  return Next::kGoOn;
}

}  // namespace tide
