// The worker's process around its link: what server/worker.cc does, in its order.

#include "tests/simulation/worker.h"

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "server/told_digest.h"
#include "tests/simulation/sessions.h"
#include "transport/region.h"

namespace tide::simulation {
namespace {

constexpr uint64_t kHoldClosedMs = 1'500;  // server/worker.cc
constexpr uint32_t kCommandsPerTurn = 8;
constexpr uint32_t kSlot = 7;  // of the stream whose progress is told
constexpr uint64_t kIdle = 40 * kMs;

unsigned long long ull(uint64_t n) { return n; }

}  // namespace

SimWorker::SimWorker(Sessions& room, std::string server) : WorkerModel(room.world(), std::move(server)), room_(room) {}

SimWorker::~SimWorker() { drop_link(); }

void SimWorker::drop_link() {
  if (link_ == nullptr) return;
  link_->release();
  link_.reset();
  wire_->close_end(Side::kWorker);
}

// What its agent says.

void SimWorker::hear(ControlMessage& message) {
  const bool alone = message.type == ControlType::kPause && message.as<ControlPause>()->alone != 0;
  switch (message.type) {
    case ControlType::kServe:
      serve(*message.as<ControlSession>(), message.fds[0]);
      break;
    case ControlType::kReceive:
      if (!serves_) receive(*message.as<ControlSession>());
      break;
    case ControlType::kMove:
      begin_move(*message.as<ControlMove>());
      break;
    case ControlType::kPause:
      pause_for_move(alone);
      break;
    case ControlType::kSend:
      if (phase() == Phase::kStill) {
        send_rest();
      } else if (move_ == nullptr) {  // it came to nothing when the agent waited for others already
        ControlText text;
        set_text(text.text, "its move was given up");
        say(ControlType::kMoveFailed, text);
      }
      break;
    case ControlType::kCommit:
      if (phase() == Phase::kThere) commit();
      break;
    case ControlType::kAbort:
      if (phase() != Phase::kLeaving && move_ != nullptr) give_up_move("the agent called it off");
      break;
    case ControlType::kAdopt: {
      agent_lost_ns_ = 0;
      const ControlAdopted adopted{.restored = restored_ && link_ == nullptr ? 1u : 0u};
      say(ControlType::kAdopted, adopted);
      break;
    }
    case ControlType::kAskShared:
      answer_owner(*message.as<ControlShared>());
      break;
    case ControlType::kSharedAnswer:
      take_memory(*message.as<ControlShared>());
      break;
    case ControlType::kSessionEnded:
      // Nobody answers any more.
      if (session_ != nullptr && session_->owner() != nullptr && memory_ == nullptr) {
        ControlShared none;
        none.result = 1;
        take_memory(none);
      }
      break;
    case ControlType::kStats:
      say(ControlType::kStatsReply, ControlStats{});
      break;
    default:
      break;
  }
  if (!dead()) plan(0);
}

// Worker::lose_agent: who serves waits for the next one.
void SimWorker::lose_agent() {
  if (!serves_ || receiving_) return end("its agent has ended");
  const uint64_t lost = agent_lost_ns_ = now_ns();
  const Self weak = std::static_pointer_cast<SimWorker>(shared_from_this());
  world_.after(process(), identity_.hold_ms * kMs, [weak, lost] {
    const auto self = weak.lock();
    if (self != nullptr && self->agent_lost_ns_ == lost && !self->has_agent()) self->end("no agent came");
  });
}

void SimWorker::end(const char* why) {
  if (!dead()) kill(why);
}

void SimWorker::on_end(const char* why) {
  died_ns_ = world_.now();
  world_.note("worker ended", pid(), executed_);
  if (session_ != nullptr) session_->worker_ended(*this, why);
  drop_link();
  if (move_ != nullptr && move_->stream != nullptr) move_->stream->close(MoveStream::kSource);
  if (arrival_ != nullptr && arrival_->stream != nullptr) arrival_->stream->close(MoveStream::kDestination);
}

// Serving.

// Worker::serve, and accept_client.
void SimWorker::serve(const ControlSession& session, int socket) {
  const auto asked = room_.session(session.session);
  const auto wire = asked == nullptr ? nullptr : asked->take_socket(socket, *this);
  if (session.again != 0) {
    const bool resumed = wire != nullptr && resume(session, wire);
    say(ControlType::kServing);
    if (asked == nullptr) return;
    if (resumed) {
      asked->opened(session.attempt, wire);
      turn();
    } else {
      asked->refused(session.attempt, kNotReady);
    }
    return;
  }
  if (link_ != nullptr || (serves_ && !restored_) || wire == nullptr) return;
  if (!serves_) {
    session_ = asked;
    serves_ = true;
    own_ = {std::make_shared<GpuMemory>()};
    memory_ = own_[0];
  }
  identity_ = session;
  take_link(wire);
  asked->opened(session.attempt, wire);
  if (!restored_ && session_->owner() != nullptr) ask_owner(false);
}

void SimWorker::take_link(const std::shared_ptr<Wire>& wire) {
  Region region;
  if (!map_private_region(&region).ok()) abort();
  wire_ = wire;
  link_ = std::make_unique<ReplicaLink>(region, Side::kWorker, wire_->lifeline(Side::kWorker),
                                        wire_->carrier(Side::kWorker));
  plan(0);
}

// Looks again at the latest then.
void SimWorker::plan(uint64_t ns) {
  const uint64_t when = world_.now() + ns;
  if (planned_ != 0 && planned_ <= when) return;
  planned_ = when;
  const Self weak = std::static_pointer_cast<SimWorker>(shared_from_this());
  world_.after(process(), ns, [weak, when] {
    const auto self = weak.lock();
    if (self == nullptr || self->planned_ != when) return;
    self->planned_ = 0;
    self->turn();
    const uint64_t done = self->running_.empty() ? 0 : self->running_.front().second, now = self->world_.now();
    self->plan(self->running_.empty() ? kIdle : done - std::min(done, now));
  });
}

// Worker::resume_over.
bool SimWorker::resume(const ControlSession& session, const std::shared_ptr<Wire>& wire) {
  if (!live_ || phase() == Phase::kLeaving || session.attempt <= identity_.attempt) return false;
  if (move_ != nullptr) give_up_move("its client's connection broke");
  while (link_->progress()) {
  }
  link_->release();
  link_->take_back();
  lent_.clear();
  const KeptRegion kept = link_->leave_region();
  wire_->close_end(Side::kWorker);
  wire_ = wire;
  identity_ = session;
  link_ = std::make_unique<ReplicaLink>(kept.region, Side::kWorker, wire_->lifeline(Side::kWorker),
                                        wire_->carrier(Side::kWorker), kept.received);
  lost_ns_ = 0;
  world_.note("worker resumed", pid(), kept.received, executed_);
  return true;
}

bool SimWorker::may_come_back() {
  if (!live_ || phase() == Phase::kLeaving) return false;
  const uint64_t now = now_ns();
  if (lost_ns_ == 0) {
    lost_ns_ = now;
    link_->release();
  }
  const uint64_t hold_ms = link_->closed() ? std::min<uint64_t>(kHoldClosedMs, identity_.hold_ms) : identity_.hold_ms;
  return now - lost_ns_ < hold_ms * kMs;
}

void SimWorker::go_live() {
  link_->progress();
  if (!link_->ready() || memory_ == nullptr) return;
  const Region region = link_->region();
  if (region.worker().acknowledged.load() != executed_) return end("the client's state does not fit");
  if (restored_ && told_ != told_digest(region)) return end("what the last worker told was lost");
  reader_ = CommandReader(region);
  out_ = AnswerWriter(region);
  tell(region.worker().epoch, identity_.epoch);
  set_state(uint64_t(ChannelState::kLive));
  live_ = true;
  session_->is_served(identity_.epoch);
}

void SimWorker::set_state(uint64_t state) {
  if (link_ == nullptr) return;
  tell(link_->region().worker().state, state);
  link_->progress();
  notify(*link_, Side::kWorker);
}

// Nothing is executed from the pause on.
bool SimWorker::rests() const { return move_ != nullptr && (move_->at_rest || move_->phase > Phase::kPausing); }

void SimWorker::turn() {
  if (dead()) return;
  if (link_ == nullptr) return go_on_with_move();
  if (phase() == Phase::kLeaving) return leave();
  if (!link_->alive() && !may_come_back()) return end(live_ ? "not held any more" : "it broke before it began");
  link_->progress();
  if (!live_) go_live();
  if (dead()) return;
  uint32_t executed = 0;
  while (live_ && !rests() && executed < kCommandsPerTurn && execute_one()) ++executed;
  if (dead()) return;
  if (live_ && reader_.reason()[0] != '\0') {
    world_.violate("order", "session %llu: the worker refuses its channel: %s", ull(session_->number()),
                   reader_.reason());
    return end("its channel is of no use");
  }
  const bool told = live_ && tell_done();
  if (executed != 0 || told) {
    link_->progress();
    notify(*link_, Side::kWorker);
  }
  if (live_) go_on_with_move();
}

bool SimWorker::execute_one() {
  const uint64_t read = link_->region().client().answer_tail.load();
  while (!lent_.empty() && lent_.front().end() <= read) lent_.pop_front();
  Command command;
  if (reader_.next(&command) != ReadState::kRecord) return false;
  const uint64_t sequence = command.header.sequence;
  Work work;
  memcpy(static_cast<void*>(&work), command.payload, sizeof work);
  if (work.kind == WorkKind::kRead && !out_.fits(work.length)) {
    reader_.rewind();
    return false;
  }
  session_->executes(*this, sequence);
  if (!session_->is_as_written(sequence, command.payload, command.header.payload_bytes)) {
    world_.violate("bytes", "session %llu: command %llu is not what the client wrote", ull(session_->number()),
                   ull(sequence));
  }
  executed_ = sequence;
  const auto answered = memory_->run(work, command.payload + sizeof work);
  if (work.kind == WorkKind::kRead) answer(sequence, answered);
  uint64_t done = world_.now() + world_.chance().below(300 * kUs);
  if (world_.strikes(Fault::kSlowGpu, 60)) done += world_.chance().between(5 * kMs, 400 * kMs);
  if (!running_.empty()) done = std::max(done, running_.back().second);
  running_.emplace_back(sequence, done);
  reader_.consume(command);
  world_.note("executed", session_->number(), sequence, pid());
  return true;
}

bool SimWorker::answer(uint64_t sequence, const std::vector<std::byte>& bytes) {
  AnswerHeader* header = out_.reserve(uint32_t(bytes.size()));
  if (header == nullptr) return false;
  header->kind = uint16_t(AnswerKind::kData);
  header->sequence = sequence;
  bool lent = false;
  if (link_->lends() && bytes.size() >= kLentBytesLeast) {
    const uint64_t begin = out_.start() + sizeof(AnswerHeader);
    lent_.push_back({begin, bytes});
    lent = link_->lend(begin, lent_.back().bytes.data(), bytes.size());
    if (!lent) lent_.pop_back();
  }
  if (!lent) std::copy(bytes.begin(), bytes.end(), payload_of(header));
  out_.publish(header);
  return true;
}

// What the GPU has done; an error is known before the work that failed is over.
bool SimWorker::tell_done() {
  bool any = false;
  WorkerPage& page = link_->region().worker();
  for (; !running_.empty() && running_.front().second <= world_.now(); running_.pop_front()) {
    const uint64_t sequence = running_.front().first;
    if (sequence % 10 == 0) tell(page.errors, sequence);
    tell(page.stream_progress[kSlot], sequence);
    any = true;
  }
  return any;
}

// Memory that another process's worker has for this session (server/sharing.h).

// Fresh: by a name that the owner's client gave. Came by a move: the piece that it had before.
void SimWorker::ask_owner(bool came) {
  ControlShared question;
  memcpy(&question.owner, session_->owner()->id(), sizeof question.owner);
  question.by = came ? SharedBy::kPiece : SharedBy::kName;
  memory_ = nullptr;
  say(ControlType::kAskShared, question);
}

// One that still arrives answers when it is there.
void SimWorker::answer_owner(ControlShared question) {
  if (receiving_) return questions_.push_back(question);
  question.name = pid();
  question.result = own_.size() < (question.by == SharedBy::kPiece ? 2 : 1) ? 1 : 0;
  question.last = 1;
  say(ControlType::kSharedAnswer, question);
}

std::shared_ptr<GpuMemory> SimWorker::lend() {
  while (own_.size() < 2) own_.push_back(std::make_shared<GpuMemory>());
  return own_[1];
}

void SimWorker::take_memory(const ControlShared& answer) {
  if (memory_ != nullptr) return;
  const auto owner = answer.result == 0 ? room_.worker_by_pid(uint32_t(answer.name)) : nullptr;
  if (owner == nullptr && arrival_ != nullptr) return fail_arrival("memory of another process cannot be had");
  if (owner == nullptr) {
    memory_ = own_[0];
    return;
  }
  memory_ = owner->lend();
  owner_ = owner;
  foreign_ = true;
  own_.clear();
  if (arrival_ != nullptr) restore();
}

void SimWorker::tell(Word& word, uint64_t value) {
  word.store(value, std::memory_order_release);
  link_->note(word);
}

}  // namespace tide::simulation
