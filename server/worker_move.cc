// The worker's part in a move: as the source, and as the destination.

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "server/told_digest.h"
#include "server/verdict.h"
#include "server/worker.h"
#include "transport/wait.h"

namespace tide {
namespace {

constexpr uint32_t kDrainMs = 500;  // then the session runs on for a while, and the move is tried again
// Of one that rests together with others: what its streams wait for the others have begun, and bring to its end in the
// same time. Twice as long in each attempt.
constexpr uint32_t kDrainTogetherMs = 1'000, kDrainTogetherMostMs = 4'000;
constexpr uint64_t kLookTogetherNs = 200'000'000;  // as kLookForRestNs
constexpr uint64_t kRetryAfterNs = 20'000'000;
constexpr uint64_t kLookForRestNs =
    5'000'000'000;  // so long for a command boundary at which nothing waits for the client
constexpr uint32_t kAttemptsMax = 100;
// The agent's, when all sessions of the vGPU have been sent: longer than it gives to the slowest of them, because who
// runs on here while the agent sends the clients away loses what was done since.
constexpr uint32_t kDecisionMs = 300'000;
constexpr uint32_t kStillMs = 60'000;               // longer than the agent waits for the slowest
constexpr uint32_t kLeaveMs = 10'000;               // the client's time to go to the new worker
constexpr uint64_t kGiveUpStagingNs = 400'000'000;  // a client that does nothing looks every 100 ms
constexpr uint32_t kLeaveIdleMs = 300;              // of one that does nothing: it goes when it next wants something
constexpr uint64_t kTellEveryNs = 1'000'000'000;
constexpr const char* kOutOfReach = "the program and its kernels share host memory, which another machine cannot reach";
constexpr const char* kCutOff = "its client is not connected at the moment";
constexpr uint32_t kAcceptStepMs = 100;
constexpr uint32_t kAcceptMs = 60'000;

uint64_t after_ms(uint32_t ms) { return now_ns() + uint64_t(ms) * 1'000'000; }

}  // namespace

void Worker::handle_move(ControlMessage* message) {
  if (const auto* move = message->as<ControlMove>(); message->type == ControlType::kMove && move != nullptr)
    prepare_move(*move);
  if (const auto* pause = message->as<ControlPause>(); message->type == ControlType::kPause && pause != nullptr)
    pause_for_move(pause->alone != 0);
  // It came to nothing when the agent waited for others already.
  if (message->type == ControlType::kSend && move_ == nullptr) say_move_failed("its move was given up");
  if (message->type == ControlType::kAbort && move_ != nullptr) give_up_move("the agent called it off");
}

void Worker::prepare_move(const ControlMove& request) {
  // The guard hears the next checkpoint from the next worker.
  if (checkpoints_ != nullptr && checkpoints_->wanted) fail_checkpoint("the vGPU is being moved");
  drop_checkpoints();
  move_ = std::make_unique<Move>();
  move_->request = request;
  move_->begin_ns = now_ns();
  move_->request.stream_address[kEndpointBytes - 1] = move_->request.endpoint[kEndpointBytes - 1] = '\0';
  if (link_ != nullptr && session_ != nullptr && is_in_the_way()) ask_for_staging(true);
}

bool Worker::shares_host_memory() const {
  return kept_ != nullptr ? kept_->outline().shares_host_memory != 0 : session_->host_memory().shares();
}

// Of memory that is shared: the staging memory may be all of it.
bool Worker::is_in_the_way() const {
  return !destination_reaches_host_memory() || (move_->request.parks != 0 && shares_host_memory());
}

// Staging memory is shared, too; the client gives it up when it is asked.
void Worker::ask_for_staging(bool unwanted) {
  link_->region().worker().staging_unwanted.store(unwanted ? 1 : 0, std::memory_order_release);
}

bool Worker::waits_for_staging() const {
  return session_ != nullptr && now_ns() - move_->begin_ns < kGiveUpStagingNs && is_in_the_way();
}

Outcome Worker::begin_precopy() {
  // What it would be refused for at the end, too.
  const char* const obstacle = session_ != nullptr ? session_->sharing().move_obstacle() : nullptr;
  if (obstacle != nullptr) return Outcome::fail(obstacle);
  // Of a session that runs the client may still give it up.
  if (kept_ != nullptr && !destination_reaches_host_memory()) return Outcome::fail(kOutOfReach);
  const ControlMove& request = move_->request;
  const TransferHello hello = hello_of(identity_, request.token, request.next_epoch);
  auto precopy = std::make_unique<Precopy>(carrier(), request.stream_address, hello);
  const Outcome outcome = precopy->start();
  if (outcome.ok()) move_->precopy = std::move(precopy);
  return outcome;
}

Precopy::MakeCarrier Worker::carrier() {
  if (kept_ != nullptr) return kept_->carrier();
  return [session = session_.get()](ByteStream& to, std::unique_ptr<ChunkCarrier>* carrier) {
    const DriverLibrary& library = session->library();
    if (const CUresult r = library.calls.cuCtxSetCurrent(session->contexts().primary()); r != CUDA_SUCCESS)
      return Outcome::fail("cannot use the GPU: " + error_text(library.calls, r));
    auto made = std::make_unique<ChunkSender>(library, session->contexts(), session->memory(), to);
    const Outcome outcome = made->start();
    if (outcome.ok()) *carrier = std::move(made);
    return outcome;
  };
}

void Worker::pause_for_move(bool alone) {
  // It came to nothing when the agent waited for others already.
  if (move_ == nullptr) return say_move_failed("its copy was given up");
  if (move_->pause_ns != 0) return;
  move_->pause_ns = now_ns();
  move_->alone = alone;
  if (move_->precopy != nullptr) move_->precopy->hold();
}

// The agent gives up a copy that comes to nothing, not one that is long.
void Worker::tell_progress() {
  const bool ready = !move_->ready && move_->precopy->ready();
  const uint64_t now = now_ns();
  if (!ready && now - move_->told_ns < kTellEveryNs) return;
  const Precopy::Progress progress = move_->precopy->progress();
  const bool any = progress.looked_at != move_->told.looked_at || progress.rounds != move_->told.rounds;
  move_->told = progress;
  move_->told_ns = now;
  move_->ready |= ready;
  if (!ready && !any) return;
  const ControlProgress message{progress.rounds, progress.bytes, progress.rest_bytes};
  send_control(control_, ready ? ControlType::kReady : ControlType::kProgress, message);
}

Worker::Next Worker::go_on_with_move() {
  if (session_ != nullptr && session_->failed()) {
    give_up_move("its context is lost after an error");
  } else if (move_->precopy == nullptr) {
    if (const Outcome begun = begin_precopy(); !begun.ok()) give_up_move(begun.message());
  } else if (move_->precopy->over()) {
    give_up_move(move_->precopy->failure());
  } else {
    tell_progress();
    if (move_->pause_ns == 0 || !may_try_move()) return Next::kGoOn;
    if (move_->precopy->held()) return try_move();
    move_->precopy->hold();
  }
  return Next::kGoOn;
}

void Worker::say_move_failed(const std::string& why) {
  ControlText text;
  set_text(text.text, why);
  send_control(control_, ControlType::kMoveFailed, text);
}

void Worker::give_up_move(const std::string& why) {
  if (session_ != nullptr) session_->peer_source().open();
  log(LogLevel::kWarning, "the move of vGPU %u is off: %s", identity_.vgpu, why.c_str());
  say_move_failed(why);
  if (move_->precopy != nullptr) {
    move_->precopy->stop();
    given_up_.push_back(std::move(move_->precopy));
  }
  move_.reset();
  if (link_ != nullptr && session_ != nullptr) ask_for_staging(false);
  if (live_) set_state(serving_state());
}

// A session that came by a move may go on before its client has come: then there is nobody to carry to.
void Worker::carry() {
  if (link_ != nullptr) link_->progress();
}

// Paused; true when nothing is under way any more. What has completed is told meanwhile.
bool Worker::drain(uint32_t ms) {
  if (session_ == nullptr) return true;
  const uint64_t end = after_ms(ms);
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
  return !shares_host_memory() || !Endpoint::parse(move_->request.endpoint, &to).ok() || to.same_host();
}

// A good place to pause: behind it nothing that is under way needs a later command of this client. Two vGPUs that
// move at once and wait for each other's data would else never come to rest.
bool Worker::at_rest_point() {
  return move_ != nullptr && move_->pause_ns != 0 && move_->precopy != nullptr && move_->precopy->held() &&
         now_ns() >= move_->next_attempt_ns && !session_->signals().outstanding() && !session_->graphs().building() &&
         !waits_for_staging();
}

bool Worker::may_try_move() {
  const uint64_t now = now_ns();
  if (session_ == nullptr) return true;
  if (now < move_->next_attempt_ns || session_->graphs().building() || waits_for_staging()) return false;
  const uint64_t look_ns = move_->alone ? kLookForRestNs : kLookTogetherNs;
  return !session_->signals().outstanding() || now - move_->pause_ns > look_ns;
}

Worker::Next Worker::try_move() {
  if (const char* obstacle = session_ == nullptr ? nullptr : session_->sharing().move_obstacle(); obstacle != nullptr) {
    give_up_move(obstacle);
    return Next::kGoOn;
  }
  if (!destination_reaches_host_memory()) {
    give_up_move(kOutOfReach);
    return Next::kGoOn;
  }
  move_->paused_ns = now_ns();
  set_state(ChannelState::kPaused);
  const uint32_t together_ms = std::min(kDrainTogetherMs << std::min(move_->attempts, 8u), kDrainTogetherMostMs);
  if (!drain(move_->alone ? kDrainMs : together_ms)) {
    try_move_later();
    return Next::kGoOn;
  }
  if (session_ != nullptr && session_->failed()) {
    give_up_move("its context is lost after an error");
    return Next::kGoOn;
  }
  if (Next next = Next::kGoOn; !move_->alone && !await_others(&next)) return next;
  if (const Outcome outcome = send_paused(); !outcome.ok()) {
    give_up_move(outcome.message());
    return Next::kGoOn;
  }
  return finish_move();
}

// What may be said to a session that is at rest: it stays what it is, and others have questions until they rest, too.
void Worker::hear_meanwhile(ControlMessage* message) {
  switch (message->type) {
    case ControlType::kHold:
    case ControlType::kStats:
    case ControlType::kShares:
    case ControlType::kLease:
    case ControlType::kAskShared:
    case ControlType::kSharedAnswer:
    case ControlType::kSessionEnded:
      handle(message);
      return;
    default:
      return;
  }
}

// Processes that have memory or events of this one rest, too, and would have nothing when they go on.
bool Worker::may_outlive_client() const {
  return kept_ != nullptr && guard_ == nullptr && (shares_ || identity_.shares != 0);
}

bool Worker::outlive_client() {
  if (!may_outlive_client()) return false;
  log(LogLevel::kInfo, "vGPU %u: its program has ended; what is kept stays for the job's other processes",
      identity_.vgpu);
  link_.reset();
  live_ = false;
  lost_ns_ = 0;
  bereaved_ = true;
  send_control(control_, ControlType::kBereaved, nullptr, 0);
  return true;
}

// And takes its session along.
bool Worker::client_has_ended() {
  return link_ != nullptr && !link_->alive() && link_->closed() && !may_outlive_client();
}

// It comes back here; at the destination what it has not heard yet would be missing.
bool Worker::client_is_cut_off() { return link_ != nullptr && !link_->alive() && !link_->closed(); }

// At rest, until the other sessions of the vGPU are; false: it is off, or this is the end.
bool Worker::await_others(Next* next) {
  send_control(control_, ControlType::kStill, nullptr, 0);
  for (const uint64_t end = after_ms(kStillMs);;) {
    ControlMessage message;
    const ControlState state = hear(&message);
    *next = Next::kEnd;
    if (state == ControlState::kGone || client_has_ended()) return false;
    if (state == ControlState::kMessage && message.type == ControlType::kExit) return false;
    *next = Next::kGoOn;
    if (state == ControlState::kMessage && message.type == ControlType::kSend) break;
    const bool off = state == ControlState::kMessage && message.type == ControlType::kAbort;
    const bool cut_off = client_is_cut_off();
    if (off || cut_off || now_ns() > end) {
      give_up_move(off       ? "the agent called it off"
                   : cut_off ? kCutOff
                             : "the other processes of the vGPU did not come to rest in time");
      return false;
    }
    if (state == ControlState::kMessage) hear_meanwhile(&message);
    // Another one's record may have become complete, for which our client's next command waits.
    if (session_ != nullptr) session_->poll();
    carry();
    if (link_ != nullptr && session_ != nullptr) notify(*link_, Side::kWorker);
    if (state == ControlState::kNothing) sleep_us(100);
  }
  if (session_ != nullptr) session_->poll();
  carry();
  return true;
}

// A stream may wait for something that a later command of this client leads to: let it run.
void Worker::try_move_later() {
  set_state(serving_state());
  move_->precopy->go_on();
  if (++move_->attempts > kAttemptsMax) return give_up_move("its streams do not come to rest");
  // Not in step with another worker that does the same.
  move_->next_attempt_ns = now_ns() + kRetryAfterNs * (1 + uint64_t(getpid()) % 7);
}

Outcome Worker::send_paused() {
  const uint64_t drained = now_ns();
  if (link_ != nullptr && session_ != nullptr) session_->set_told(told_digest(link_->region()));
  Precopy& precopy = *move_->precopy;
  const auto pump = [this] { carry(); };
  uint64_t others = 0;
  Outcome outcome = precopy.finish(pump);
  if (outcome.ok()) {
    outcome = kept_ != nullptr ? kept_->send_rest(precopy.stream(), pump, &others)
                               : send_session(*session_, {.recovery = session_->recovery(), .there = nullptr},
                                              precopy.stream(), pump, &others);
  }
  const uint64_t sent = now_ns();
  if (outcome.ok()) outcome = await_restored(precopy.stream(), &move_->stays);
  if (!outcome.ok()) {
    const std::string why = last_words(precopy.stream());
    return why.empty() ? outcome : Outcome::fail(why);
  }
  const Precopy::Progress progress = precopy.progress();
  move_->report = {.bytes = progress.bytes + others,
                   .pause_bytes = progress.rest_bytes + others,
                   .rounds = progress.rounds,
                   .pause_ns = 0,
                   .drain_ns = drained - move_->paused_ns,
                   .copy_ns = sent - drained,
                   .restore_ns = now_ns() - sent};
  return {};
}

// As far as the stream shows it. Of nothing; that fails where the stream has.
bool Worker::destination_stays() { return move_->precopy == nullptr || move_->precopy->stream().send(nullptr, 0).ok(); }

// Why it should go on here rather than there.
const char* Worker::why_back() {
  if (!destination_stays()) return "the destination has gone, when it had everything";
  return client_is_cut_off() ? kCutOff : nullptr;
}

Worker::Next Worker::finish_move() {
  ControlMoved moved = move_->report;
  moved.pause_ns = now_ns() - move_->paused_ns;
  send_control(control_, ControlType::kTransferred, moved);
  if (!move_->stays) move_->precopy.reset();
  const uint64_t end = after_ms(kDecisionMs);
  bool commit = false;
  while (!commit) {
    ControlMessage message;
    // Where the agent died, the next one knows what it had decided.
    const ControlState state = hear(&message);
    if (state == ControlState::kGone || client_has_ended()) return Next::kEnd;
    if (state == ControlState::kMessage && message.type == ControlType::kExit) return Next::kEnd;
    if (state == ControlState::kMessage && message.type == ControlType::kCommit) commit = true;
    if (state == ControlState::kMessage) hear_meanwhile(&message);
    const bool off = state == ControlState::kMessage && message.type == ControlType::kAbort;
    if (off || now_ns() > end) {
      give_up_move(off ? "the agent called it off" : "the agent did not decide in time");
      return Next::kGoOn;
    }
    // The agent may have decided, though that has not been heard here: what it says counts.
    const char* const why = commit || move_->wishes_back ? nullptr : why_back();
    if (why != nullptr) say_move_failed(why);
    move_->wishes_back |= why != nullptr;
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
  if (outcome.ok()) {
    ControlText text;
    set_text(text.text, address);
    send_control(control_, ControlType::kReceiving, text);
    std::unique_ptr<ByteStream> stream;
    std::unique_ptr<ChunkSlots> slots;
    if (const Outcome made = ChunkSlots::make(&slots); !made.ok())
      log(LogLevel::kDebug, "chunks come over the network: %s", made.message().c_str());
    const std::unique_ptr<Shelf> shelf = keepers_shelf();
    const bool knows = kept_ != nullptr || shelf != nullptr;
    outcome = accept_source(session, *listener, {.slots = slots.get(), .knows = knows, .returns = true}, &stream);
    if (outcome.ok()) {
      auto lasting = std::make_unique<LastingStream>(std::move(stream));
      auto door =
          std::make_unique<SourceDoor>(std::move(listener), hello_of(session, session.token, session.epoch), *lasting);
      outcome = take_session(std::move(lasting), std::move(door), slots.get(), shelf.get());
    }
    if (kept_ == nullptr) shelf_files_.reset();
  }
  if (told_to_end_) return Next::kEnd;
  if (!outcome.ok()) {
    fail(outcome.message());
    return Next::kEnd;
  }
  restored_ = true;
  recovered_ns_ = recovery().from_checkpoint != 0 ? now_ns() : 0;
  return Next::kGoOn;
}

// Hears what the agent says of a session that is still to come, and little is: true when it shall not come any more.
bool Worker::hear_end() {
  ControlMessage message;
  while (true) {
    const ControlState state = receive_control(control_, &message);
    if (state == ControlState::kNothing) return false;
    told_to_end_ = state == ControlState::kGone || message.type == ControlType::kExit;
    if (told_to_end_ && session_ != nullptr) session_->sharing().post_end();
    if (told_to_end_) return true;
    if (session_ != nullptr) session_->sharing().post(&message);
    for (const int fd : message.fds) {
      if (fd >= 0) close(fd);
    }
    if (message.type == ControlType::kStats) send_control(control_, ControlType::kStatsReply, count());
    if (message.type == ControlType::kSweep && kept_ != nullptr) kept_->sweep();
  }
}

// Of one that serves: what keepers of its job have on this server needs not come once more. Null: there is nothing.
std::unique_ptr<Shelf> Worker::keepers_shelf() const {
  if (kept_ != nullptr || shelf_files_ == nullptr) return nullptr;
  auto shelf = std::make_unique<Shelf>(shelf_place());
  auto keepers = join_keepers();
  if (keepers == nullptr || !shelf->start(std::move(keepers)).ok()) return nullptr;
  return shelf;
}

Outcome Worker::accept_source(const ControlSession& session, StreamListener& listener, const TransferOffer& offer,
                              std::unique_ptr<ByteStream>* stream) {
  const TransferHello expected = hello_of(session, session.token, session.epoch);
  for (const uint64_t end = after_ms(kAcceptMs); now_ns() < end;) {
    if (hear_end()) return Outcome::fail("it was given up");
    std::unique_ptr<ByteStream> caller;
    if (!listener.accept(kAcceptStepMs, &caller).ok()) continue;
    // Somebody else's connection must not end the wait for ours.
    if (!greet_sender(*caller, expected, offer).ok()) continue;
    *stream = std::move(caller);
    return {};
  }
  return Outcome::fail("nobody sent the vGPU");
}

// Until the agent has no more use for it, or the source or its stream is gone.
Outcome Worker::take_session(std::unique_ptr<LastingStream> stream, std::unique_ptr<SourceDoor> door, ChunkSlots* slots,
                             Shelf* shelf) {
  const ChunkWays ways{.slots = slots, .door = door.get()};
  arrival_ = std::make_unique<Reception>(
      [this, ways, shelf](ByteStream& from) {
        if (kept_ != nullptr) return kept_->receive(from, ways);
        session_->contexts().enter_thread();
        return receive_session(*session_, from, ways, shelf);
      },
      std::move(stream), std::move(door));
  Reception& reception = *arrival_;
  if (Outcome outcome = reception.start(); !outcome.ok()) return outcome;
  while (!reception.over()) {
    pollfd words[] = {{control_, POLLIN, 0}, {reception.over_fd(), POLLIN, 0}};
    poll(words, std::size(words), kAcceptStepMs);
    if (!hear_end()) continue;
    arrival_.reset();
    return Outcome::fail("it was given up");
  }
  const Outcome outcome = reception.outcome();
  if (session_ != nullptr) session_->contexts().enter_thread();
  if (session_ != nullptr) session_->sharing().take_posts();
  // Before the source hears it and sends the client here.
  if (outcome.ok()) send_control(control_, ControlType::kRestored, nullptr, 0);
  // If it cannot be said, the source may have heard it all the same; if not, the vGPU stays there, and we are ended.
  (void)send_verdict(reception.stream(), outcome, kStaysWord);
  if (!outcome.ok()) arrival_.reset();
  return outcome;
}

}  // namespace tide
