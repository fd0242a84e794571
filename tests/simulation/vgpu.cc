// Who orders: what the scheduler does with a vGPU (scheduler/reconciler_actions.cc), in short. The scheduler itself
// runs in the pool's world.

#include <algorithm>
#include <cstring>
#include <utility>

#include "tests/simulation/sessions.h"

namespace tide::simulation {
namespace {

constexpr uint64_t kAgain = 200 * kMs;

}  // namespace

const char* name_of(MoveStep step) {
  static constexpr const char* kNames[kMoveSteps] = {"none",  "admit", "copy",  "ready",   "pause",
                                                     "still", "send",  "there", "decided", "goes-over"};
  return kNames[size_t(step)];
}

SimVgpu::SimVgpu(Sessions& room, uint64_t number, uint32_t hold_ms)
    : room_(room), world_(room.world()), number_(number), hold_ms_(hold_ms), chance_(room.world().fork()) {
  token_ = "token of " + job();
}

void SimVgpu::start() {
  place();
  look();
}

LeaseTerms SimVgpu::terms(uint64_t epoch) const {
  LeaseTerms terms;
  terms.job = job();
  terms.epoch = epoch;
  memcpy(terms.token, token_.data(), std::min(sizeof terms.token, token_.size()));
  return terms;
}

bool SimVgpu::where(std::string* server, uint64_t* epoch) const {
  *server = at_;
  *epoch = epoch_;
  return doing_ != Doing::kPlacing && epoch_ != 0;
}

bool SimVgpu::over() const {
  const auto is_over = [](const auto& session) { return session->over(); };
  return !sessions_.empty() && std::all_of(sessions_.begin(), sessions_.end(), is_over);
}

std::string SimVgpu::what_is_left() const {
  for (const auto& session : sessions_) {
    for (const auto& worker : room_.workers(*session)) return "a worker on " + worker->server();
  }
  for (const auto& host : room_.hosts()) {
    if (host->holds(job())) return "a lease on " + host->name();
  }
  return doing_ == Doing::kGone ? "" : "it is not released";
}

// Calls, which end with the agent.

void SimVgpu::ask(const std::string& server, Order order, Answer answered) {
  const uint64_t question = ++asked_;
  questions_[question] = {server, std::move(answered)};
  const std::weak_ptr<SimVgpu> weak = weak_from_this();
  const auto tell = [weak, question](uint64_t ns, Said said, const std::string& why) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->world_.after(ns, [weak, question, said, why] {
      if (const auto it = weak.lock()) it->answer(question, said, why);
    });
  };
  uint64_t& floor = floors_[server];  // a connection keeps their order
  floor = std::max(floor, world_.now() + latency());
  world_.at(floor, [weak, server, order, tell] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    AgentHost& host = *self->room_.host(server);
    if (!host.up()) return tell(0, Said::kGone, "");
    host.call([weak, order, tell, &host](Agent& agent) {
      const auto done = [weak, tell, &host, life = host.life()](Said said, const std::string& why) {
        const auto it = weak.lock();
        if (it != nullptr && host.up() && host.life() == life) tell(it->latency(), said, why);
      };
      return order(agent).then([done] { done(Said::kDone, ""); },
                               [done](kj::Exception&& e) { done(Said::kRefused, e.getDescription().cStr()); });
    });
  });
}

void SimVgpu::answer(uint64_t question, Said said, const std::string& why) {
  const auto found = questions_.find(question);
  if (found == questions_.end()) return;
  const Answer answered = std::move(found->second.answer);
  questions_.erase(found);
  answered(said, why);
}

void SimVgpu::agent_has_ended(const std::string& server) {
  std::vector<uint64_t> gone;
  for (const auto& [number, question] : questions_) {
    if (question.server == server) gone.push_back(number);
  }
  for (const uint64_t number : gone) answer(number, Said::kGone, "");
}

// It says what it has (Reconciler::adopt): of a move that was under way the source decides.
void SimVgpu::agent_is_back(const std::string& server) {
  if (server != at_ || doing_ == Doing::kPlacing) return;
  const bool here = room_.host(server)->holds(job(), epoch_);
  if (doing_ == Doing::kInDoubt) return settle(!here);
  if (here || doing_ != Doing::kNothing) return;
  for (const auto& session : sessions_) {
    if (!session->over() && !session->has_begun()) session->kill_client();
  }
}

// A place, and the processes.

void SimVgpu::place() {
  doing_ = Doing::kPlacing;
  at_ = room_.hosts()[chance_.below(room_.hosts().size())]->name();
  epoch_ = ++last_epoch_;
  ask(
      at_,
      [this, lease = terms(epoch_)](Agent& agent) -> kj::Promise<void> {
        const Outcome placed = agent.place(lease);
        if (!placed.ok()) return refusal(0, placed.message());
        return kj::READY_NOW;
      },
      [this](Said said, const std::string&) {
        if (said != Said::kDone) {
          cancel(at_, epoch_);  // it may have taken it
          return world_.after(kAgain, [weak = weak_from_this()] {
            if (const auto self = weak.lock()) self->place();
          });
        }
        doing_ = Doing::kNothing;
        begin_sessions();
      });
}

void SimVgpu::begin_sessions() {
  std::shared_ptr<SimSession> owner;
  const uint64_t processes = chance_.one_in(2) ? 2 : 1;
  for (uint64_t i = 0; i < processes; ++i) {
    const auto session = std::make_shared<SimSession>(room_, *this, 10 * number_ + i,
                                                      uint32_t(chance_.between(40, 400)), hold_ms_, owner);
    sessions_.push_back(session);
    if (i == 0) owner = session;
    session->start();
  }
}

void SimVgpu::look() {
  world_.after(chance_.between(20 * kMs, 200 * kMs), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->look();
  });
  if (doing_ == Doing::kGone || doing_ == Doing::kReleasing || doing_ == Doing::kPlacing) return;
  if (over() && (doing_ == Doing::kNothing || chance_.one_in(4))) return release();
  if (world_.healed() || doing_ != Doing::kNothing || !chance_.one_in(3)) return;
  const auto is_live = [this](const auto& session) {
    const auto worker = room_.worker(*session, epoch_);
    return session->over() || (worker != nullptr && worker->live());
  };
  if (std::all_of(sessions_.begin(), sessions_.end(), is_live) || chance_.one_in(20)) order_move();
}

// A move.

Agent::MoveOrder SimVgpu::order(const std::string& to, uint64_t epoch) const {
  Agent::MoveOrder order;
  order.job = job();
  order.epoch = epoch_;
  order.next = terms(epoch);
  order.address = order.endpoint = room_.host(to)->endpoint();
  return order;
}

void SimVgpu::order_move() {
  const auto& hosts = room_.hosts();
  do {
    to_ = hosts[chance_.below(hosts.size())]->name();
  } while (to_ == at_);
  next_ = ++last_epoch_;
  doing_ = Doing::kMoving;
  called_off_ = false;
  struck_ = {};
  ++room_.totals()->session_moves.begun;
  world_.note("move ordered", number_, next_);
  enter(MoveStep::kAdmit);
  ask(
      to_,
      [lease = terms(next_)](Agent& agent) -> kj::Promise<void> {
        const Outcome placed = agent.place(lease);
        if (!placed.ok()) return refusal(0, placed.message());
        return kj::READY_NOW;
      },
      [this](Said said, const std::string&) {
        if (doing_ != Doing::kMoving) return;
        said == Said::kDone ? order_source() : settle(false);
      });
}

void SimVgpu::order_source() {
  ask(
      at_,
      [this, what = order(to_, next_)](Agent& agent) {
        at_source_ = true;
        return agent.move(what).ignoreResult().attach(kj::defer([this, weak = weak_from_this()] {
          if (const auto self = weak.lock()) at_source_ = false;
        }));
      },
      [this, epoch = next_](Said said, const std::string&) {
        if (doing_ != Doing::kMoving || epoch != next_) return;
        if (said != Said::kGone) return settle(said == Said::kDone);
        doing_ = Doing::kInDoubt;  // it alone knows what came of it
        if (room_.host(at_)->up()) agent_is_back(at_);
      });
}

void SimVgpu::settle(bool at_destination) {
  MoveTotals& totals = room_.totals()->session_moves;
  world_.note(at_destination ? "moved" : "move failed", number_, next_, uint64_t(step_));
  if (is_decided(epoch_) && !at_destination) {
    world_.violate("place", "vGPU %s: it was decided that it leaves, and its move failed", job().c_str());
  }
  doing_ = Doing::kNothing;
  if (at_destination) {
    ++totals.moved;
    at_ = to_;
    epoch_ = next_;
  } else {
    ++(called_off_ ? totals.off : totals.failed);
    ++totals.failed_at[size_t(step_)];
    cancel(to_, next_);
  }
  step_ = MoveStep::kNone;
}

void SimVgpu::cancel(const std::string& server, uint64_t epoch) {
  ask(
      server,
      [job = job(), epoch](Agent& agent) -> kj::Promise<void> {
        agent.cancel(job, 0, epoch);
        return kj::READY_NOW;
      },
      [this, server, epoch](Said said, const std::string&) {
        if (said != Said::kGone) return;
        world_.after(kAgain, [weak = weak_from_this(), server, epoch] {
          if (const auto self = weak.lock()) self->cancel(server, epoch);
        });
      });
}

// Another one leads, who had not ordered it; or a second order, which must be refused.
void SimVgpu::want_something_else() {
  if (doing_ != Doing::kMoving) return;
  struck();
  if (chance_.one_in(2)) {
    world_.note("called off", number_);
    called_off_ = true;
    room_.host(at_)->call([](Agent& agent) -> kj::Promise<void> {
      agent.call_off_moves();
      return kj::READY_NOW;
    });
    return;
  }
  const uint64_t epoch = last_epoch_ + 1;
  room_.host(at_)->call([weak = weak_from_this(), what = order(to_, epoch)](Agent& agent) -> kj::Promise<void> {
    if (const auto self = weak.lock(); self == nullptr || !self->at_source_) return kj::READY_NOW;
    return agent.move(what).then(
        [weak](AgentMoveReport) {
          if (const auto self = weak.lock())
            self->world_.violate("place", "vGPU %s is moved twice at once", self->job().c_str());
        },
        [](kj::Exception&&) {});
  });
}

// The end.

void SimVgpu::release() {
  releasing_ = {at_};
  if (moves()) {
    struck();
    releasing_.insert(to_);
  }
  doing_ = Doing::kReleasing;
  step_ = MoveStep::kNone;
  for (const std::string& server : std::set(releasing_)) release_at(server);
}

void SimVgpu::release_at(const std::string& server) {
  ask(
      server, [job = job(), epoch = last_epoch_](Agent& agent) { return agent.release(job, 0, epoch); },
      [this, server](Said said, const std::string&) {
        if (said == Said::kDone) {
          releasing_.erase(server);
          if (releasing_.empty()) doing_ = Doing::kGone;
          return;
        }
        world_.after(kAgain, [weak = weak_from_this(), server] {
          if (const auto self = weak.lock()) self->release_at(server);
        });
      });
}

// What is seen of it.

void SimVgpu::enter(MoveStep step) {
  if (!moves() || step <= step_) return;
  step_ = step;
  room_.aim(shared_from_this());
}

// Once for each step of a move.
void SimVgpu::struck() {
  if (moves() && !std::exchange(struck_[size_t(step_)], true)) ++room_.totals()->session_moves.struck[size_t(step_)];
}

void SimVgpu::wrote(const AgentState& state) {
  for (const AgentState::Lease& lease : state.leases) {
    if (lease.terms.job != job() || !lease.committed || !decided_.insert(lease.terms.epoch).second) continue;
    world_.note("decided", number_, lease.terms.epoch);
    enter(MoveStep::kDecided);
    for (const auto& session : sessions_) session->decided(lease.terms.epoch);
  }
}

}  // namespace tide::simulation
