// The client's process around its link: what interpose/connection.cc does when a connection breaks, and a program that
// can tell whether anything was lost, came twice or came in another order.

#include "tests/simulation/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "tests/simulation/sessions.h"
#include "transport/door.h"
#include "transport/region.h"

namespace tide::simulation {
namespace {

constexpr uint32_t kSlot = 7;
constexpr uint64_t kIdle = 30 * kMs;
constexpr uint64_t kAgainPause = 20 * kMs;     // interpose/connection.cc
constexpr uint64_t kAgainTimeout = 250 * kMs;  // so long it waits for the server's socket
constexpr uint64_t kOpenedTimeout = 65 * kS;   // and for an answer: an agent lets it wait for the end of a move
constexpr uint64_t kSearch = 5 * kS, kNowhere = 2 * kS, kSearchPause = 100 * kMs;
constexpr uint64_t kWatchEvery = 50 * kMs;
constexpr uint64_t kUnnoticed = 250 * kMs;  // a death that was so short ago need not have been heard of
constexpr int kSockets = 2'000'000;         // no file's

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

SimSession::SimSession(Sessions& room, SimVgpu& vgpu, uint64_t number, uint32_t commands, uint32_t hold_ms,
                       std::shared_ptr<SimSession> owner)
    : room_(room),
      vgpu_(vgpu),
      world_(room.world()),
      number_(number),
      chance_(world_.fork()),
      target_(commands),
      hold_ms_(hold_ms),
      owner_(std::move(owner)),
      process_(world_.start_process("client")),
      cut_(std::make_shared<Cut>()) {
  if (!create_region(&region_fd_, &region_).ok()) abort();
  memcpy(id_, &number_, sizeof number_);
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

void SimSession::kill_client() {
  world_.note("client killed", number_);
  excuse("the client was killed");
  fail("the client was killed");
}

// Why this session may fail; without one of these it must not.
void SimSession::excuse(const char* why) {
  if (excuse_.empty()) excuse_ = why;
}

// Of a worker without which it cannot go on. One that it has not come to yet is that from the decision on, or where the
// one before has ended.
void SimSession::worker_ended(const SimWorker& worker, const char* why) {
  if (state_ == State::kDone || strcmp(why, "left") == 0 || strcmp(why, "not held any more") == 0) return;
  const auto others = room_.workers(*this);
  const bool older = std::any_of(others.begin(), others.end(), [&](const auto& other) {
    return other.get() != &worker && !other->dead() && other->epoch() < worker.epoch();
  });
  const bool was_arriving = worker.epoch() > served_ && older && !vgpu_.is_decided(served_);
  const bool was_left = worker.epoch() < served_;
  if (!was_arriving && !was_left) excuse(why);
}

// Where the other end is not heard of any more, the client may miss what the source has said at last.
void SimSession::decided(uint64_t epoch) {
  if (over() || epoch != vgpu_.present_epoch()) return;
  const auto source = room_.worker(*this, epoch), next = room_.worker(*this, vgpu_.next_epoch());
  if (state_ != State::kConnected || !link_->alive()) excuse("its connection broke before the decision, unnoticed");
  const bool held_up = room_.network().cut_until(vgpu_.source(), vgpu_.destination()) > world_.now() ||
                       (source != nullptr && source->process()->paused_until + kS > world_.now());
  if (next == nullptr && (held_up || room_.died_soon_before(*this, vgpu_.next_epoch(), kUnnoticed)))
    excuse("the destination died before the decision, unnoticed");
}

// By one worker at a time, each behind what the ones before it did.
void SimSession::executes(const SimWorker& worker, uint64_t sequence) {
  // One that began with nothing, behind one that was lost before its client had heard anything of it.
  if (sequence == 1 && !worker.restored() && worker.epoch() > executed_in_) executed_ = 0;
  if (sequence != executed_ + 1) {
    world_.violate("exactly-once", "session %llu: command %llu is executed behind %llu", ull(number_), ull(sequence),
                   ull(executed_));
  }
  executed_ = sequence;
  if (vgpu_.is_decided(worker.epoch())) {
    world_.violate("place", "session %llu: the source executes command %llu, and had decided to leave", ull(number_),
                   ull(sequence));
  }
  if (worker.epoch() < executed_in_) {
    world_.violate("place", "session %llu: command %llu is executed in epoch %llu, behind some of %llu", ull(number_),
                   ull(sequence), ull(worker.epoch()), ull(executed_in_));
  }
  executed_in_ = worker.epoch();
  for (const auto& other : room_.workers(*this)) {
    if (other.get() == &worker || other->dead() || !other->live() || other->epoch() > worker.epoch()) continue;
    if (vgpu_.is_decided(other->epoch())) continue;
    world_.violate("place", "session %llu: the destination executes command %llu before the source has left",
                   ull(number_), ull(sequence));
  }
}

void SimSession::is_served(uint64_t epoch) { served_ = std::max(served_, epoch); }

// Several may follow each other, so half of its patience is long; where it looks for its worker, a second.
void SimSession::excuse_if_long(uint64_t ns, const char* why) {
  const bool goes = state_ == State::kSearching || vgpu_.step() >= MoveStep::kSend;
  if (ns >= (goes ? kS : hold_ms_ * kMs / 2)) excuse(why);
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

void SimSession::turn() {
  if (over()) return;
  if (state_ == State::kConnected && was_sent_on()) {
    search();
  } else if (state_ == State::kConnected && !link_->alive()) {
    lose_link();
  }
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

// The connection: Channel::come_back, follow_move, search and connect.

bool SimSession::was_sent_on() const {
  return region_.worker().state.load() == uint64_t(ChannelState::kMoved) && region_.worker().next_epoch.load() > epoch_;
}

void SimSession::drop_link() {
  if (over() && arrived_ != nullptr) std::exchange(arrived_, nullptr)->close_end(Side::kClient);
  if (link_ == nullptr) return;
  link_->release();
  link_.reset();
  wire_->close_end(Side::kClient);
}

void SimSession::lose_link() {
  world_.note("lost", number_);
  const auto worker = room_.worker(*this, epoch_);
  if (worker != nullptr && worker->phase() == SimWorker::Phase::kLeaving) excuse("it broke while it changed hands");
  if (vgpu_.is_decided(epoch_)) excuse("it broke while it changed hands");
  link_->release();
  state_ = State::kLost;
  lost_ns_ = now_ns();
  dial();
}

// Where the last worker sent it, or the scheduler knows it to be.
void SimSession::search() {
  if (link_ != nullptr) link_->release();
  state_ = State::kSearching;
  search_ns_ = now_ns();
  asks_ = false;
  dial();
}

std::shared_ptr<Wire> SimSession::new_wire(const std::shared_ptr<Knock>& knock) {
  std::weak_ptr<SimSession> weak = weak_from_this();
  std::weak_ptr<Knock> from = knock;
  return std::make_shared<Wire>(world_, cut_,
                                [weak, worker = std::make_shared<std::weak_ptr<SimWorker>>(), from](Side side) {
                                  if (const auto asked = from.lock()) *worker = asked->worker;
                                  const auto self = weak.lock();
                                  const auto far = worker->lock();
                                  if (side == Side::kWorker && far != nullptr && !far->dead()) far->wake();
                                  if (side == Side::kClient && self != nullptr)
                                    self->plan(self->chance_.below(50 * kUs));
                                });
}

// False: there is none to dial to now.
bool SimSession::choose_place() {
  std::string server;
  uint64_t epoch = 0;
  if (state_ == State::kLost) {
    to_server_ = server_;
    to_epoch_ = epoch_;
    return true;
  }
  const bool known = vgpu_.where(&server, &epoch);
  if (state_ == State::kConnecting) {
    to_server_ = server;
    to_epoch_ = epoch;
    return known;
  }
  const bool sent = was_sent_on(), asks = asks_;
  asks_ = !asks_;
  if (sent && !asks) {
    to_server_ = AgentHost::server_at(region_.worker().next_endpoint);
    to_epoch_ = region_.worker().next_epoch.load();
    return true;
  }
  if (!sent && (!known || epoch <= epoch_) && now_ns() - search_ns_ >= kNowhere) {
    fail("its worker is gone, and it is nowhere else");
    return false;
  }
  to_server_ = server;
  to_epoch_ = epoch;
  return known && epoch > epoch_;
}

void SimSession::dial() {
  const uint64_t attempt = ++attempt_;
  if (state_ == State::kLost && now_ns() - lost_ns_ >= hold_ms_ * kMs) return search();
  if (state_ == State::kSearching && now_ns() - search_ns_ >= kSearch) return fail("its worker could not be found");
  const bool chosen = choose_place();
  if (over()) return;
  if (!chosen) return try_again(attempt, kSearchPause);
  const auto weak = weak_from_this();
  if (cut_->is_cut(world_.now()) || world_.strikes(Fault::kDrop, 30)) return try_again(attempt, kAgainTimeout);
  const auto asked = std::make_shared<Knock>();
  asked->attempt = attempt;
  asked->server = to_server_;
  const bool again = state_ == State::kLost;
  world_.after(message_latency(), [weak, asked, again] {
    if (const auto self = weak.lock()) self->knock(asked, again);
  });
  try_again(attempt, kOpenedTimeout);
}

void SimSession::try_again(uint64_t attempt, uint64_t after_ns) {
  world_.after(process_, after_ns, [this, attempt] {
    const bool waits = state_ == State::kLost || state_ == State::kConnecting || state_ == State::kSearching;
    if (attempt == attempt_ && waits) dial();
  });
}

// At the agent's door.
void SimSession::knock(const std::shared_ptr<Knock>& knock, bool again) {
  if (over()) return;
  AgentHost* const host = room_.host(knock->server);
  if (host == nullptr || !host->up()) return refused(knock->attempt, kNotReady);
  knock->life = host->life();
  knock->wire = new_wire(knock);
  DoorOpen open;
  set_text(open.job, vgpu_.job());
  memcpy(open.token, vgpu_.token().data(), std::min(sizeof open.token, vgpu_.token().size()));
  memcpy(open.session, id_, sizeof open.session);
  open.epoch = to_epoch_;
  open.flags = again ? kOpenAgain : 0;
  open.attempt = uint32_t(knock->attempt);
  set_text(open.transport, "simulated");
  const int socket = kSockets + int(knock->attempt);
  sockets_[socket] = knock;
  const auto weak = weak_from_this();
  host->call([weak, knock, open, socket](Agent& agent) {
    return agent.open(open, socket, -1)
        .then([knock] { knock->handed = true; },
              [weak, knock](kj::Exception&& e) {
                if (const auto self = weak.lock()) self->refused(knock->attempt, refusal_of(e).code);
              });
  });
  watch(knock, world_.now() + kOpenedTimeout);
}

// A socket is closed where the process that has it ends.
void SimSession::watch(const std::shared_ptr<Knock>& knock, uint64_t until) {
  const auto weak = weak_from_this();
  world_.after(kWatchEvery, [weak, knock, until] {
    const auto self = weak.lock();
    if (self == nullptr || self->over() || knock->attempt != self->attempt_ || self->state_ == State::kConnected)
      return;
    AgentHost* const host = self->room_.host(knock->server);
    const bool agent_ended = !knock->handed && (!host->up() || host->life() != knock->life);
    const auto worker = knock->worker.lock();
    const bool worker_ended = knock->handed && self->room_.worker_at(*self, knock->server) == nullptr;
    const bool lost = worker != nullptr ? worker->dead() && self->arrived_ == nullptr : agent_ended || worker_ended;
    if (lost) return self->refused(knock->attempt, kNotReady);
    if (self->world_.now() < until) self->watch(knock, until);
  });
}

std::shared_ptr<Wire> SimSession::take_socket(int socket, SimWorker& worker) {
  const auto found = sockets_.find(socket);
  if (found == sockets_.end() || over()) return nullptr;
  const auto knock = found->second;
  sockets_.erase(found);
  knock->worker = std::static_pointer_cast<SimWorker>(worker.shared_from_this());
  const auto wire = knock->wire;
  taken_ = knock;
  return wire;
}

// What is passing is tried again; at other words the scheduler is asked.
void SimSession::refused(uint64_t attempt, int code) {
  const uint64_t heard = std::max(world_.now() + message_latency(), cut_->until());
  const auto weak = weak_from_this();
  world_.at(heard, [weak, attempt, code] {
    const auto self = weak.lock();
    if (self == nullptr || attempt != self->attempt_ || self->over() || !self->process_->alive) return;
    self->world_.after(self->process_, 0, [weak, attempt, code] {
      const auto client = weak.lock();
      if (client == nullptr || attempt != client->attempt_ || client->over()) return;
      if (client->state_ == State::kLost && code != kNotReady) return client->search();
      const bool waits = client->state_ == State::kSearching && now_ns() - client->search_ns_ > kNowhere;
      if (waits) client->excuse("its new place did not answer for long");
      client->try_again(attempt, client->state_ == State::kLost ? kAgainPause : kSearchPause);
    });
  });
}

// Whoever does not wait for this answer any more closes the connection.
void SimSession::opened(uint64_t attempt, std::shared_ptr<Wire> wire) {
  const uint64_t heard = std::max(world_.now() + message_latency(), cut_->until());
  const auto weak = weak_from_this();
  world_.at(heard, [weak, attempt, wire] {
    const auto self = weak.lock();
    const bool wanted = self != nullptr && self->process_->alive && attempt == self->attempt_ && !self->over() &&
                        self->state_ != State::kConnected;
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
  server_ = to_server_;
  epoch_ = to_epoch_;
  world_.note("connected", number_, epoch_);
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
  const auto worker = room_.worker(*this, epoch_);
  if (executed_ != commands()) {
    world_.violate("exactly-once", "session %llu: %llu commands were executed, %llu written", number, ull(executed_),
                   ull(commands()));
  } else if (worker != nullptr && worker->memory_hash() != shadow_.hash()) {
    world_.violate("bytes", "session %llu: its memory is not that of a run without faults", number);
  }
  process_->alive = false;
  drop_link();
}

}  // namespace tide::simulation
