// The worker's part in a move: what server/worker_move.cc and precopy.cc do, as the source and as the destination.

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "server/told_digest.h"
#include "tests/simulation/sessions.h"

namespace tide::simulation {
namespace {

constexpr uint64_t kDrainMs = 500, kDrainTogetherMs = 1'000, kDrainTogetherMostMs = 4'000;  // server/worker_move.cc
constexpr uint64_t kRetryAfter = 20 * kMs;
constexpr uint32_t kAttemptsMax = 100;
constexpr uint64_t kStillMs = 60'000, kDecisionMs = 300'000, kLeaveMs = 10'000, kAcceptMs = 60'000;
constexpr uint64_t kLeaveIdle = 300 * kMs, kFlush = 2 * kS;
constexpr uint64_t kVerdict = 60 * kS, kBetweenRounds = 50 * kMs, kTellEvery = kS;
constexpr uint32_t kFewChunks = 3, kRoundsMost = 5;

}  // namespace

// As the source.

void SimWorker::begin_move(const ControlMove& request) {
  if (move_ != nullptr) return;
  move_ = std::make_unique<Move>();
  move_->request = request;
  move_->sent.resize(chunks());
  session_->vgpu().enter(MoveStep::kCopy);
  if (const char* why = obstacle()) return give_up_move(why);
  const auto to = room_.listener(request.stream_address);
  if (to == nullptr) return give_up_move("nobody listens there");
  const auto self = std::static_pointer_cast<SimWorker>(shared_from_this());
  const Self here = self, there = to;
  MoveStream::End source{server(), process(),
                         [here](const MoveFrame& f) {
                           if (const auto it = here.lock()) it->hear_destination(f);
                         },
                         [here](const char* why) {
                           if (const auto it = here.lock()) it->lose_destination(why);
                         }};
  MoveStream::End destination{to->server(), to->process(),
                              [there](const MoveFrame& f) {
                                if (const auto it = there.lock()) it->hear_source(f);
                              },
                              [there](const char* why) {
                                if (const auto it = there.lock()) it->lose_source(why);
                              }};
  move_->stream = std::make_shared<MoveStream>(world_, room_.network(), std::move(source), std::move(destination));
  if (!to->accept_source(move_->stream)) return give_up_move("nobody listens there");
  step_copy(kMs);
  tell_progress();
}

// Of memory whose owner has ended nobody carries anything.
const char* SimWorker::obstacle() const {
  const auto owner = owner_.lock();
  return foreign_ && (owner == nullptr || owner->dead()) ? "memory of a process that has ended" : nullptr;
}

// The agent gives up a copy that comes to nothing.
void SimWorker::tell_progress() {
  if (move_ == nullptr || move_->phase > Phase::kPausing) return;
  say(ControlType::kProgress, ControlProgress{});
  const Self weak = std::static_pointer_cast<SimWorker>(shared_from_this());
  world_.after(process(), kTellEvery, [weak, stream = move_->stream] {
    const auto self = weak.lock();
    if (self != nullptr && self->move_ != nullptr && self->move_->stream == stream) self->tell_progress();
  });
}

// The thread that copies: one chunk after the other, while commands are executed.
void SimWorker::step_copy(uint64_t ns) {
  const Self weak = std::static_pointer_cast<SimWorker>(shared_from_this());
  world_.after(process(), ns, [weak, stream = move_->stream] {
    const auto self = weak.lock();
    if (self != nullptr && self->move_ != nullptr && self->move_->stream == stream) self->copy_on();
  });
}

uint64_t SimWorker::hash_of_chunk(uint32_t n, std::vector<unsigned char>* bytes) const {
  *bytes = own_[n / kChunks]->chunk(n % kChunks);
  return GpuMemory::hash_of(bytes->data(), bytes->size()) | 1;
}

void SimWorker::copy_on() {
  Move& move = *move_;
  const bool sends = move.phase == Phase::kSending;
  if (move.hold && !sends) {
    move.held = true;
    return plan(0);
  }
  if (move.sent.size() < chunks()) move.sent.resize(chunks());  // another process has got memory of it meanwhile
  std::vector<unsigned char> bytes;
  while (move.at < chunks()) {
    const uint32_t n = move.at++;
    const uint64_t hash = hash_of_chunk(n, &bytes);
    if (hash == move.sent[n]) continue;
    move.sent[n] = hash;
    ++move.changed;
    move.stream->send(MoveStream::kSource, {.kind = MoveFrame::Kind::kChunk, .chunk = n, .bytes = std::move(bytes)});
    return step_copy(room_.chance().between(30 * kUs, 400 * kUs));
  }
  if (sends) return be_there();
  move.confirming = true;
  move.stream->send(MoveStream::kSource, {.kind = MoveFrame::Kind::kRound});
}

// RoundJudge, in short.
void SimWorker::end_round() {
  Move& move = *move_;
  move.confirming = false;
  ++move.rounds;
  const bool enough = move.rounds >= kRoundsMost || (move.rounds >= 2 && move.changed <= kFewChunks);
  move.at = move.changed = 0;
  if (enough && !move.ready) {
    move.ready = true;
    session_->vgpu().enter(MoveStep::kReady);
    say(ControlType::kReady, ControlProgress{});
  }
  step_copy(move.ready && !move.hold ? kBetweenRounds : 0);
}

void SimWorker::hear_destination(const MoveFrame& frame) {
  if (dead() || move_ == nullptr) return;
  if (frame.kind == MoveFrame::Kind::kConfirm && move_->phase < Phase::kSending) return end_round();
  if (frame.kind != MoveFrame::Kind::kVerdict) return;
  if (!frame.ok) return give_up_move(frame.why);
  if (move_->phase != Phase::kSending) return;
  move_->phase = Phase::kThere;
  move_->end_ns = now_ns() + kDecisionMs * kMs;
  session_->vgpu().enter(MoveStep::kThere);
  say(ControlType::kTransferred, ControlMoved{});
}

// Until the decision the destination shows that it is there (Worker::destination_stays).
void SimWorker::lose_destination(const char* why) {
  if (dead() || move_ == nullptr || move_->phase == Phase::kLeaving) return;
  move_->phase == Phase::kThere ? wish_back(why) : give_up_move(why);
}

// All of it is there, so the agent may have decided already: it says whether it goes on here (Worker::finish_move).
void SimWorker::wish_back(const char* why) {
  if (std::exchange(move_->wished_back, true)) return;
  ControlText text;
  set_text(text.text, why);
  say(ControlType::kMoveFailed, text);
}

void SimWorker::reset_stream() {
  if (move_ != nullptr && move_->stream != nullptr) move_->stream->reset();
}

void SimWorker::pause_for_move(bool alone) {
  if (move_ == nullptr) {
    ControlText text;
    set_text(text.text, "its copy was given up");
    return say(ControlType::kMoveFailed, text);
  }
  if (move_->phase != Phase::kCopying) return;
  move_->phase = Phase::kPausing;
  move_->alone = alone;
  move_->hold = true;
  session_->vgpu().enter(MoveStep::kPause);
}

void SimWorker::go_on_with_move() {
  if (move_ == nullptr) return;
  const Phase now = move_->phase;
  // One that ended takes its session along; what another has not heard yet stays here, and it comes back here.
  if (link_ != nullptr && !link_->alive() && link_->closed()) return end("its client has ended");
  if (link_ != nullptr && !link_->alive()) return lose_destination("its client is not connected at the moment");
  if (now == Phase::kPausing && move_->held && now_ns() >= move_->next_attempt_ns) return come_to_rest();
  const bool late = move_->end_ns != 0 && now_ns() > move_->end_ns;
  if (late && now == Phase::kStill) give_up_move("the other processes of the vGPU did not come to rest in time");
  if (late && now == Phase::kSending) give_up_move("the destination does not answer");
  if (late && now == Phase::kThere) give_up_move("the agent did not decide in time");
}

// Worker::try_move: what is under way comes to its end.
void SimWorker::come_to_rest() {
  Move& move = *move_;
  if (const char* why = obstacle()) return give_up_move(why);
  if (!move.at_rest) {
    const uint64_t together = std::min(kDrainTogetherMs << std::min(move.attempts, 8u), kDrainTogetherMostMs);
    move.at_rest = true;
    move.rest_end_ns = now_ns() + (move.alone ? kDrainMs : together) * kMs;
    set_state(uint64_t(ChannelState::kPaused));
  }
  if (link_ != nullptr) tell_done();
  if (link_ == nullptr) running_.clear();
  if (!running_.empty() && now_ns() < move.rest_end_ns) return;
  if (!running_.empty()) {
    move.at_rest = move.held = false;
    set_state(uint64_t(ChannelState::kLive));
    if (++move.attempts > kAttemptsMax) return give_up_move("its streams do not come to rest");
    move.next_attempt_ns = now_ns() + kRetryAfter * (1 + pid() % 7);
    return step_copy(0);
  }
  if (move.alone) return send_rest();
  move.phase = Phase::kStill;
  move.end_ns = now_ns() + kStillMs * kMs;
  session_->vgpu().enter(MoveStep::kStill);
  say(ControlType::kStill);
}

// Worker::send_paused.
void SimWorker::send_rest() {
  move_->phase = Phase::kSending;
  move_->end_ns = now_ns() + kVerdict;
  move_->at = 0;
  session_->vgpu().enter(MoveStep::kSend);
  if (link_ != nullptr) told_ = told_digest(link_->region());
  step_copy(0);
}

void SimWorker::be_there() {
  move_->stream->send(
      MoveStream::kSource,
      {.kind = MoveFrame::Kind::kRest, .executed = executed_, .told = told_, .pieces = uint32_t(own_.size())});
}

void SimWorker::give_up_move(const char* why) {
  world_.note("move given up", pid(), uint64_t(move_->phase));
  ControlText text;
  set_text(text.text, why);
  say(ControlType::kMoveFailed, text);
  if (move_->stream != nullptr) move_->stream->close(MoveStream::kSource);
  move_.reset();
  if (live_) set_state(uint64_t(ChannelState::kLive));
  plan(0);
}

// Worker::finish_move.
void SimWorker::commit() {
  move_->phase = Phase::kLeaving;
  move_->left_ns = now_ns();
  session_->vgpu().enter(MoveStep::kGoesOver);
  if (link_ == nullptr) return leave();
  WorkerPage& page = link_->region().worker();
  memcpy(page.next_endpoint, move_->request.endpoint, kEndpointBytes);
  for (uint64_t at = 0; at < kEndpointBytes; at += sizeof(Word)) {
    link_->note(*reinterpret_cast<Word*>(page.next_endpoint + at));
  }
  tell(page.next_epoch, move_->request.next_epoch);
  set_state(uint64_t(ChannelState::kMoved));
}

// Worker::wait_until_left, and what a link does at its end.
void SimWorker::leave() {
  bool left = link_ == nullptr;
  if (!left) {
    link_->progress();
    left = !link_->alive() || now_ns() > move_->left_ns + std::max(kLeaveIdle + kFlush, kLeaveMs * kMs);
  }
  if (!left) return plan(5 * kMs);
  say(ControlType::kLeft, ControlMoved{});
  end("left");
}

// As the destination.

void SimWorker::receive(const ControlSession& session) {
  identity_ = session;
  session_ = room_.session(session.session);
  if (session_ == nullptr) return end("nobody's");
  receiving_ = serves_ = true;
  own_ = {std::make_shared<GpuMemory>()};
  arrival_ = std::make_unique<Arrival>();
  ControlText text;
  set_text(text.text, server() + "/" + std::to_string(pid()));
  say(ControlType::kReceiving, text);
  const Self weak = std::static_pointer_cast<SimWorker>(shared_from_this());
  world_.after(process(), kAcceptMs * kMs, [weak] {
    const auto self = weak.lock();
    if (self != nullptr && self->arrival_ != nullptr && self->arrival_->stream == nullptr)
      self->fail_arrival("nobody sent the vGPU");
  });
}

bool SimWorker::accept_source(const std::shared_ptr<MoveStream>& stream) {
  if (dead() || arrival_ == nullptr || arrival_->stream != nullptr) return false;
  arrival_->stream = stream;
  return true;
}

void SimWorker::hear_source(const MoveFrame& frame) {
  if (dead() || arrival_ == nullptr || arrival_->all_has_come) return;
  if (frame.kind == MoveFrame::Kind::kChunk) {
    if (world_.strikes(Fault::kNoRoom, 1500)) {
      session_->vgpu().struck();
      return fail_arrival("there is no memory for it");
    }
    while (own_.size() <= frame.chunk / kChunks) own_.push_back(std::make_shared<GpuMemory>());
    own_[frame.chunk / kChunks]->set_chunk(frame.chunk % kChunks, frame.bytes);
  } else if (frame.kind == MoveFrame::Kind::kRound) {
    arrival_->stream->send(MoveStream::kDestination, {.kind = MoveFrame::Kind::kConfirm});
  } else if (frame.kind == MoveFrame::Kind::kRest) {
    arrival_->rest = frame;
    arrival_->all_has_come = true;
    if (world_.strikes(Fault::kNoRoom, 40)) {
      session_->vgpu().struck();
      return fail_arrival("there is no memory for what it had made");
    }
    if (frame.pieces == 0) return ask_owner(true);
    own_.resize(frame.pieces);
    memory_ = own_[0];
    restore();
  }
}

// Objects are made again, which takes a while.
void SimWorker::restore() {
  const Self weak = std::static_pointer_cast<SimWorker>(shared_from_this());
  world_.after(process(), room_.chance().between(kMs, 30 * kMs), [weak] {
    const auto self = weak.lock();
    if (self == nullptr || self->arrival_ == nullptr) return;
    self->executed_ = self->arrival_->rest.executed;
    self->told_ = self->arrival_->rest.told;
    self->receiving_ = false;
    self->restored_ = true;
    for (const auto& question : std::exchange(self->questions_, {})) self->answer_owner(question);
    self->say(ControlType::kRestored);
    self->arrival_->stream->send(MoveStream::kDestination, {.kind = MoveFrame::Kind::kVerdict});
    self->plan(0);
  });
}

void SimWorker::lose_source(const char* why) {
  if (dead() || arrival_ == nullptr || restored_) return;
  fail_arrival(why);
}

void SimWorker::fail_arrival(const char* why) {
  arrival_->stream == nullptr
      ? void()
      : arrival_->stream->send(MoveStream::kDestination, {.kind = MoveFrame::Kind::kVerdict, .ok = false, .why = why});
  ControlText text;
  set_text(text.text, why);
  say(ControlType::kFailed, text);
  end(why);
}

}  // namespace tide::simulation
