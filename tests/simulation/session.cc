// The client's process around its link: what interpose/connection.cc does when a connection breaks, and a program that
// can tell whether anything was lost, came twice or came in another order.

#include "tests/simulation/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "transport/region.h"

namespace tide::simulation {
namespace {

constexpr uint32_t kSlot = 7;
constexpr uint64_t kIdle = 30 * kMs;
constexpr uint64_t kAgainPause = 20 * kMs;     // interpose/connection.cc
constexpr uint64_t kAgainTimeout = 250 * kMs;  // so long it waits for the server's socket
constexpr uint64_t kOpenedTimeout = 3 * kS;    // and for an answer

uint64_t hash_of(const std::byte* bytes, size_t n) {
  uint64_t hash = 0xcbf29ce484222325 + n;
  for (size_t at = 0; at + 8 <= n; at += 8) {
    uint64_t word;
    memcpy(&word, bytes + at, 8);
    hash = (hash ^ word) * 0x100000001b3 + (hash >> 29);
  }
  return hash;
}

unsigned long long ull(uint64_t n) { return n; }

}  // namespace

SimSession::SimSession(World& world, uint64_t number, uint32_t commands, uint32_t hold_ms)
    : world_(world),
      number_(number),
      chance_(world.fork()),
      target_(commands),
      hold_ms_(hold_ms),
      process_(world.start_process("client")),
      cut_(std::make_shared<Cut>()) {
  if (!create_region(&region_fd_, &region_).ok()) abort();
  writer_ = CommandWriter(region_);
  reader_ = AnswerReader(region_);
}

SimSession::~SimSession() {
  process_->alive = false;
  drop_link();
  destroy_region(region_fd_, region_);
}

void SimSession::start() {
  world_.note("session", number_, target_, hold_ms_);
  dial();
  plan(0);
}

uint64_t SimSession::message_latency() { return chance_.between(50 * kUs, 5 * kMs); }

// Faults from outside.

void SimSession::cut(uint64_t ns) {
  cut_->cut_until(world_.now() + ns);
  world_.note("cut", number_, ns);
  excuse_if_long(ns, "the network was cut");
}

void SimSession::pause_client(uint64_t ns) {
  world_.note("client paused", number_, ns);
  world_.pause(*process_, ns);
  excuse_if_long(ns, "the client did not run");
}

void SimSession::pause_worker(uint64_t ns) {
  if (nothing_left()) return;
  world_.note("worker paused", number_, ns);
  world_.pause(*worker_->process(), ns);
  excuse_if_long(ns, "the worker did not run");
}

void SimSession::kill_worker() {
  if (!nothing_left()) worker_->kill();
}

void SimSession::kill_client() {
  world_.note("client killed", number_);
  excuse("the client was killed");
  fail("the client was killed");
}

// Why this session may fail; without one of these it must not.
void SimSession::excuse(const char* why) {
  if (excuse_.empty()) excuse_ = why;
}

void SimSession::worker_ended(const char* why) {
  if (state_ != State::kDone && strcmp(why, "it broke before it began") != 0 && strcmp(why, "not held any more") != 0) {
    excuse(why);
  }
  // A connection that breaks before the worker has the client's state ends both: nothing was done for it yet.
  if (strcmp(why, "it broke before it began") == 0) excuse(why);
}

// Several may follow each other, so half of its patience is long.
void SimSession::excuse_if_long(uint64_t ns, const char* why) {
  if (ns >= hold_ms_ * kMs / 2) excuse(why);
}

bool SimSession::is_as_written(uint64_t sequence, const std::byte* payload, size_t bytes) const {
  return sequence >= 1 && sequence <= contents_.size() && contents_[sequence - 1] == hash_of(payload, bytes);
}

// The program.

// Looks again at the latest then.
void SimSession::plan(uint64_t ns) {
  const uint64_t when = world_.now() + ns;
  if (over() || (planned_ != 0 && planned_ <= when)) return;
  planned_ = when;
  world_.after(process_, ns, [this, when] {
    if (planned_ != when) return;
    planned_ = 0;
    turn();
  });
}

void SimSession::wake(Side side) {
  if (side == Side::kWorker) {
    if (!nothing_left()) worker_->wake();
    return;
  }
  plan(chance_.below(50 * kUs));
}

void SimSession::turn() {
  if (over()) return;
  if (state_ == State::kConnected && !link_->alive()) lose_link();
  if (state_ == State::kConnected) work();
  const bool more = state_ == State::kConnected && commands() != target_ && answered_ >= waits_for_;
  plan(more ? chance_.between(300 * kUs, 4 * kMs) : kIdle);
}

void SimSession::work() {
  link_->progress();
  read();
  for (uint64_t n = chance_.below(5); n != 0; --n) publish();
  link_->progress();
  notify(*link_, Side::kClient);
  if (commands() == target_ && answered_ == target_ && progress_ == target_) finish();
}

void SimSession::publish() {
  if (commands() == target_ || answered_ < waits_for_) return;
  const uint64_t sequence = commands() + 1;
  Work work;
  work.kind = WorkKind(chance_.below(3));
  const uint64_t size = chance_.below(60);
  work.length = uint32_t(size == 0 ? chance_.below(kMemoryBytes - 64) : chance_.below(400));
  work.offset = uint32_t(chance_.below(kMemoryBytes - work.length));
  work.seed = chance_.next();
  std::vector<std::byte> bytes(work.kind == WorkKind::kWrite ? work.length : 0);
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    const uint64_t word = chance_.next();
    memcpy(bytes.data() + at, &word, 8);
  }
  CommandHeader* header = writer_.reserve(uint32_t(sizeof work + bytes.size()));
  if (header == nullptr) return;
  header->call = 1;
  std::byte* payload = payload_of(header);
  std::vector<std::byte> whole(sizeof work + bytes.size());
  memcpy(whole.data(), &work, sizeof work);
  std::copy(bytes.begin(), bytes.end(), whole.begin() + sizeof work);
  contents_.push_back(hash_of(whole.data(), whole.size()));
  bool lent = false;
  if (link_->lends() && whole.size() >= kLentBytesLeast) {
    const uint64_t begin = writer_.start() + sizeof(CommandHeader);
    lent_.push_back({begin, whole});
    lent = link_->lend(begin, lent_.back().bytes.data(), whole.size());
    if (!lent) lent_.pop_back();
  }
  if (!lent) std::copy(whole.begin(), whole.end(), payload);
  writer_.publish(header);
  while (!lent_.empty() && lent_.front().end() <= region_.worker().command_tail.load()) lent_.pop_front();
  const auto answer = shadow_.run(work, bytes.data());
  if (work.kind == WorkKind::kRead) expected_.push_back({sequence, answer});
  if (work.kind == WorkKind::kRead && chance_.one_in(2)) waits_for_ = sequence;
}

void SimSession::read() {
  const uint64_t progress = region_.worker().stream_progress[kSlot].load();
  if (progress < progress_) world_.violate("words", "session %llu: progress went back", ull(number_));
  if (region_.worker().errors.load() < progress / 10 * 10) {
    world_.violate("words", "session %llu: progress overtook the error that it stands for", ull(number_));
  }
  progress_ = progress;
  Answer answer;
  ReadState state;
  while ((state = reader_.next(&answer)) == ReadState::kRecord) {
    const uint64_t sequence = answer.header.sequence;
    if (expected_.empty() || expected_.front().sequence != sequence) {
      world_.violate("exactly-once", "session %llu: the answer of command %llu comes where another's should",
                     ull(number_), ull(sequence));
      return fail("an answer too many");
    }
    const auto& bytes = expected_.front().bytes;
    if (answer.header.payload_bytes != bytes.size() || memcmp(answer.payload, bytes.data(), bytes.size()) != 0) {
      world_.violate("bytes", "session %llu: command %llu was answered with other bytes than without faults",
                     ull(number_), ull(sequence));
    }
    expected_.pop_front();
    reader_.consume(answer);
    world_.note("answered", number_, sequence);
  }
  if (state == ReadState::kMalformed) {
    world_.violate("order", "session %llu: the client refuses its channel: %s", ull(number_), reader_.reason());
    return fail("its channel is of no use");
  }
  answered_ = expected_.empty() ? commands() : expected_.front().sequence - 1;
  if (answered_ < progress) {
    world_.violate("words", "session %llu: progress overtook the answer that it stands for", ull(number_));
  }
}

// The connection: Channel::come_back, Channel::connect, and the agent's Agent::serve.

void SimSession::drop_link() {
  if (over() && arrived_ != nullptr) std::exchange(arrived_, nullptr)->close_end(Side::kClient);
  if (link_ == nullptr) return;
  link_->release();
  link_.reset();
  wire_->close_end(Side::kClient);
}

void SimSession::lose_link() {
  world_.note("lost", number_);
  link_->release();
  state_ = State::kLost;
  lost_ns_ = now_ns();
  dial();
}

std::shared_ptr<Wire> SimSession::new_wire() {
  std::weak_ptr<SimSession> weak = weak_from_this();
  return std::make_shared<Wire>(world_, cut_, [weak](Side side) {
    if (const auto self = weak.lock()) self->wake(side);
  });
}

void SimSession::dial() {
  const uint64_t attempt = ++attempt_;
  const bool again = state_ == State::kLost;
  if (again && now_ns() - lost_ns_ >= hold_ms_ * kMs) return fail("its worker could not be reached in time");
  const auto weak = weak_from_this();
  if (cut_->is_cut(world_.now()) || world_.strikes(Fault::kDrop, 30)) return try_again(attempt, kAgainTimeout);
  world_.after(message_latency(), [weak, attempt, again] {
    if (const auto self = weak.lock()) self->asked(attempt, again);
  });
  try_again(attempt, kOpenedTimeout);
}

void SimSession::try_again(uint64_t attempt, uint64_t after_ns) {
  world_.after(process_, after_ns, [this, attempt] {
    if (attempt == attempt_ && (state_ == State::kLost || state_ == State::kConnecting)) dial();
  });
}

// At the agent's door.
void SimSession::asked(uint64_t attempt, bool again) {
  if (over()) return;
  if (worker_ != nullptr && worker_->gone() && again) return refused(attempt, true);
  if (nothing_left()) worker_ = nullptr, worker_asked_ = false;
  if (worker_asked_ || (worker_ != nullptr && !again)) return refused(attempt, false);
  auto wire = new_wire();
  const auto weak = weak_from_this();
  if (worker_ == nullptr) {
    if (again) return refused(attempt, true);
    worker_ = std::make_unique<SimWorker>(*this, number_);
    const World::As as(world_, worker_->process().get());
    worker_->accept(wire);
    return opened(attempt, std::move(wire));
  }
  worker_asked_ = true;
  world_.after(worker_->process(), chance_.below(2 * kMs), [weak, attempt, wire] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->worker_asked_ = false;
    if (self->worker_->resume(wire)) {
      self->opened(attempt, wire);
      self->worker_->turn();
    } else {
      self->refused(attempt, false);
    }
  });
}

void SimSession::refused(uint64_t attempt, bool for_good) {
  const uint64_t heard = std::max(world_.now() + message_latency(), cut_->until());
  const auto weak = weak_from_this();
  world_.at(heard, [weak, attempt, for_good] {
    const auto self = weak.lock();
    if (self == nullptr || attempt != self->attempt_ || self->over()) return;
    const World::As as(self->world_, self->process_.get());
    if (for_good) return self->fail("its worker is gone");
    self->try_again(attempt, kAgainPause);
  });
}

// Whoever does not wait for this answer any more closes the connection.
void SimSession::opened(uint64_t attempt, std::shared_ptr<Wire> wire) {
  const uint64_t heard = std::max(world_.now() + message_latency(), cut_->until());
  const auto weak = weak_from_this();
  world_.at(heard, [weak, attempt, wire] {
    const auto self = weak.lock();
    const bool wanted = self != nullptr && self->process_->alive && attempt == self->attempt_ && !self->over() &&
                        (self->state_ == State::kLost || self->state_ == State::kConnecting);
    if (!wanted) return wire->close_end(Side::kClient);
    if (self->arrived_ != nullptr) self->arrived_->close_end(Side::kClient);
    self->arrived_ = wire;
    self->world_.after(self->process_, 0, [weak] { weak.lock()->connect(); });
  });
}

void SimSession::connect() {
  if (arrived_ == nullptr) return;
  if (link_ != nullptr) link_->take_back();
  drop_link();
  lent_.clear();
  wire_ = std::move(arrived_);
  link_ = std::make_unique<ReplicaLink>(region_, Side::kClient, wire_->lifeline(Side::kClient),
                                        wire_->carrier(Side::kClient));
  state_ = State::kConnected;
  world_.note("connected", number_);
  plan(0);
}

void SimSession::fail(const char* why) {
  if (over()) return;
  state_ = State::kFailed;
  world_.note("failed", number_, commands());
  if (excuse_.empty()) world_.violate("kept", "session %llu failed, and nothing excuses it: %s", ull(number_), why);
  process_->alive = false;
  drop_link();
}

void SimSession::finish() {
  state_ = State::kDone;
  world_.note("done", number_, commands(), shadow_.hash());
  const unsigned long long number = ull(number_);
  if (worker_ == nullptr || worker_->executed() != commands()) {
    world_.violate("exactly-once", "session %llu: %llu commands were executed, %llu written", number,
                   ull(worker_ == nullptr ? 0 : worker_->executed()), ull(commands()));
  } else if (worker_->memory_hash() != shadow_.hash()) {
    world_.violate("bytes", "session %llu: its memory is not that of a run without faults", number);
  }
  process_->alive = false;
  drop_link();
}

}  // namespace tide::simulation
