// vGPUs, their sessions and moves under the swarm, then without it: all must come to an end, and nothing may be left.

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/simulation/sessions.h"

namespace tide::simulation {
namespace {

constexpr size_t kSlots = 2;
constexpr uint64_t kVgpusLeast = 3;
constexpr uint32_t kHosts = 3;
constexpr uint64_t kStepsMost = 400'000;
constexpr uint64_t kHealedMost = 200 * kS;  // more than all time-outs together

std::shared_ptr<SimWorker> as_worker(const std::shared_ptr<WorkerModel>& worker) {
  return std::static_pointer_cast<SimWorker>(worker);
}

bool is_of(const SimWorker& worker, const SimSession& session) {
  return worker.session() != nullptr && worker.session().get() == &session;
}

}  // namespace

Sessions::Sessions(World& world, Totals* totals)
    : world_(world),
      totals_(totals),
      chance_(world.fork()),
      network_(world),
      loop_(port_),
      wait_scope_(loop_),
      machines_(world, [this](const std::string& server) { return std::make_shared<SimWorker>(*this, server); }),
      slots_(kSlots) {
  hold_ms_ = uint32_t(chance_.between(5, 20)) * 1000;
  for (uint32_t i = 0; i < kHosts; ++i) {
    hosts_.push_back(
        std::make_unique<AgentHost>(machines_, network_, wait_scope_, port_, "server" + std::to_string(i), hold_ms_));
  }
  machines_.may_write = [this](const std::string& server, const AgentState& state) { return may_write(server, state); };
  machines_.written = [this](const std::string& server, const AgentState& state) { wrote(server, state); };
}

Sessions::~Sessions() {
  world_.behind_every_step(nullptr);
  for (const auto& host : hosts_) host->kill();
  hosts_.clear();
  world_.forget_events();
  loop_.run();
  slots_.clear();
}

void Sessions::run() {
  world_.behind_every_step([this] { behind(); });
  for (const auto& host : hosts_) host->start();
  world_.after(20 * kMs, [this] { strike(); });
  uint64_t steps = 0;
  for (; steps < kStepsMost && (world_.faults() < kFaultsLeast || begun_ < kVgpusLeast); ++steps) {
    fill();
    world_.step(~uint64_t{0});
    if (!world_.violations().empty()) return;
  }
  world_.heal();
  network_.heal();
  const uint64_t end = world_.now() + kHealedMost;
  while (!all_over() && world_.violations().empty() && world_.step(end)) {
  }
  close();
}

void Sessions::behind() {
  loop_.run();
  network_.plan();
}

void Sessions::fill() {
  for (auto& slot : slots_) {
    if (slot != nullptr && !slot->nothing_left()) continue;
    if (slot != nullptr) count(*slot);
    slot = std::make_shared<SimVgpu>(*this, ++begun_, hold_ms_);
    slot->start();
  }
}

bool Sessions::all_over() const {
  return std::all_of(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->nothing_left(); });
}

void Sessions::count(const SimVgpu& vgpu) {
  for (const auto& session : vgpu.sessions()) {
    ++totals_->sessions;
    totals_->commands += session->commands();
    if (session->state() == SimSession::State::kFailed) ++totals_->failed_sessions;
  }
}

void Sessions::close() {
  for (const auto& slot : slots_) {
    if (slot == nullptr || !world_.violations().empty()) continue;
    for (const auto& session : slot->sessions()) {
      if (session->over()) continue;
      world_.violate("wait", "session %llu still waits %llu s after the faults",
                     static_cast<unsigned long long>(session->number()),
                     static_cast<unsigned long long>(kHealedMost / kS));
    }
    if (slot->over() && !slot->nothing_left()) {
      world_.violate("left", "job %s is over, and still there: %s", slot->job().c_str(), slot->what_is_left().c_str());
    }
    count(*slot);
  }
}

// Who is where.

AgentHost* Sessions::host(const std::string& name) {
  for (const auto& host : hosts_) {
    if (host->name() == name) return host.get();
  }
  return nullptr;
}

std::shared_ptr<SimSession> Sessions::session(const uint8_t id[16]) const {
  for (const auto& slot : slots_) {
    if (slot == nullptr) continue;
    for (const auto& session : slot->sessions()) {
      if (memcmp(session->id(), id, 16) == 0) return session;
    }
  }
  return nullptr;
}

std::vector<std::shared_ptr<SimWorker>> Sessions::workers(const SimSession& session) const {
  std::vector<std::shared_ptr<SimWorker>> all;
  for (const auto& each : machines_.workers()) {
    if (is_of(*as_worker(each), session)) all.push_back(as_worker(each));
  }
  return all;
}

std::shared_ptr<SimWorker> Sessions::worker(const SimSession& session, uint64_t epoch) const {
  for (const auto& each : machines_.workers()) {
    if (is_of(*as_worker(each), session) && as_worker(each)->epoch() == epoch && !each->dead()) return as_worker(each);
  }
  return nullptr;
}

std::shared_ptr<SimWorker> Sessions::worker_at(const SimSession& session, const std::string& server) const {
  for (const auto& each : machines_.workers()) {
    if (each->server() == server && is_of(*as_worker(each), session) && !each->dead()) return as_worker(each);
  }
  return nullptr;
}

std::shared_ptr<SimWorker> Sessions::worker_by_pid(uint32_t pid) const {
  for (const auto& each : machines_.workers()) {
    if (each->pid() == pid && !each->dead()) return as_worker(each);
  }
  return nullptr;
}

bool Sessions::died_soon_before(const SimSession& session, uint64_t epoch, uint64_t ns) const {
  return std::any_of(machines_.workers().begin(), machines_.workers().end(), [&](const auto& each) {
    const SimWorker& worker = *as_worker(each);
    return is_of(worker, session) && worker.epoch() == epoch && worker.died_ns() + ns > world_.now();
  });
}

std::shared_ptr<SimWorker> Sessions::listener(const std::string& address) const {
  const size_t slash = address.find('/');
  return slash == std::string::npos ? nullptr : worker_by_pid(uint32_t(std::stoul(address.substr(slash + 1))));
}

// What happens to machines and processes; to parcels and frames it happens on their way.

uint64_t Sessions::how_long() {
  return chance_.one_in(12) ? chance_.between(kS, 30 * kS) : chance_.between(kMs, 800 * kMs);
}

void Sessions::strike() {
  SimVgpu& vgpu = *slots_[chance_.below(kSlots)];
  const auto& sessions = vgpu.sessions();
  if (!sessions.empty()) {
    SimSession& session = *sessions[chance_.below(sessions.size())];
    if (!session.over()) strike_session(session);
  }
  strike_hosts();
  if (!world_.healed()) world_.after(chance_.between(5 * kMs, 60 * kMs), [this] { strike(); });
}

void Sessions::strike_session(SimSession& session) {
  const uint64_t faults = world_.faults();
  if (world_.strikes(Fault::kPartition, 8)) session.cut(how_long());
  if (world_.strikes(Fault::kPause, 8)) {
    if (chance_.one_in(2)) {
      session.pause_client(how_long());
    } else {
      pause_worker(session, session.vgpu().present_epoch(), how_long());
    }
  }
  if (world_.strikes(Fault::kKillWorker, 300)) {
    if (const auto killed = worker(session, session.vgpu().present_epoch())) killed->kill("killed");
  }
  if (world_.strikes(Fault::kKillClient, 300)) session.kill_client();
  if (world_.faults() != faults) session.vgpu().struck();
}

void Sessions::pause_worker(SimSession& session, uint64_t epoch, uint64_t ns) {
  const auto paused = worker(session, epoch);
  if (paused == nullptr) return;
  world_.note("worker paused", paused->pid(), ns);
  world_.pause(*paused->process(), ns);
  if (paused->live()) session.excuse_if_long(ns, "the worker did not run");
}

void Sessions::note_struck(const std::string& server) {
  for (const auto& slot : slots_) {
    if (slot != nullptr && (slot->source() == server || slot->destination() == server)) slot->struck();
  }
}

void Sessions::strike_hosts() {
  AgentHost& host = *hosts_[chance_.below(hosts_.size())];
  if (world_.strikes(Fault::kPause, 40)) pause_agent(host);
  if (host.up() && world_.strikes(Fault::kKillAgent, 80)) kill_agent(host, chance_.one_in(8));
  AgentHost& other = *hosts_[chance_.below(hosts_.size())];
  if (&other == &host || !world_.strikes(Fault::kPartition, 30)) return;
  note_struck(host.name());
  network_.cut(host.name(), other.name(), how_long());
}

// Its workers wait for the next one, and clients at its door.
void Sessions::is_away(const std::string& server, uint64_t ns) {
  note_struck(server);
  for (const auto& slot : slots_) {
    if (slot == nullptr || (slot->source() != server && slot->destination() != server)) continue;
    for (const auto& session : slot->sessions()) session->excuse_if_long(ns, "its agent was away");
  }
}

void Sessions::pause_agent(AgentHost& host) {
  const uint64_t ns = how_long();
  is_away(host.name(), ns);
  host.pause(ns);
}

void Sessions::kill_agent(AgentHost& host, bool power) {
  const uint64_t ns = how_long();
  is_away(host.name(), ns);
  if (power) {
    host.lose_power();
  } else {
    host.kill();
  }
  for (const auto& slot : slots_) {
    if (slot != nullptr) slot->agent_has_ended(host.name());
  }
  world_.after(ns, [this, &host] {
    if (host.up()) return;
    host.start();
    for (const auto& slot : slots_) {
      if (slot != nullptr) slot->agent_is_back(host.name());
    }
  });
}

void Sessions::aim(const std::shared_ptr<SimVgpu>& vgpu) {
  if (world_.healed() || !chance_.one_in(6)) return;
  const std::weak_ptr<SimVgpu> weak = vgpu;
  const uint64_t ns = chance_.one_in(2) ? chance_.below(2 * kMs) : chance_.below(40 * kMs);
  world_.after(ns, [this, weak] {
    const auto self = weak.lock();
    if (self != nullptr && self->moves()) strike_move(*self);
  });
}

// At whatever step it is.
void Sessions::strike_move(SimVgpu& vgpu) {
  const auto& sessions = vgpu.sessions();
  if (sessions.empty()) return;
  SimSession& session = *sessions[chance_.below(sessions.size())];
  const bool at_destination = chance_.one_in(2);
  const uint64_t epoch = at_destination ? vgpu.next_epoch() : vgpu.present_epoch();
  AgentHost& agent = *host(at_destination ? vgpu.destination() : vgpu.source());
  const uint64_t faults = world_.faults();
  switch (chance_.below(9)) {
    case 0:
      if (const auto killed = worker(session, epoch); killed != nullptr && world_.strikes(Fault::kKillWorker, 1))
        killed->kill("killed");
      break;
    case 1:
      if (agent.up() && world_.strikes(Fault::kKillAgent, 1)) kill_agent(agent, chance_.one_in(4));
      break;
    case 2:
      if (agent.up() && world_.strikes(Fault::kPause, 1)) pause_agent(agent);
      break;
    case 3:
      if (world_.strikes(Fault::kPause, 1)) pause_worker(session, epoch, chance_.one_in(20) ? 50 * kS : how_long());
      break;
    case 4:
      if (world_.strikes(Fault::kPartition, 1))
        network_.cut(vgpu.source(), vgpu.destination(), chance_.one_in(10) ? 60 * kS : how_long());
      break;
    case 5:
      if (!session.over() && world_.strikes(Fault::kPartition, 1)) session.cut(how_long());
      break;
    case 6:
      if (!session.over() && chance_.one_in(4) && world_.strikes(Fault::kKillClient, 1)) session.kill_client();
      break;
    case 7:
      if (const auto source = worker(session, vgpu.present_epoch());
          source != nullptr && world_.strikes(Fault::kReset, 1))
        source->reset_stream();
      break;
    case 8:
      return vgpu.want_something_else();
  }
  if (world_.faults() != faults) vgpu.struck();
}

// The disk may be full when the decision is to be written down, and the agent may die when it has been.
bool Sessions::may_write(const std::string& server, const AgentState& state) {
  for (const auto& slot : slots_) {
    if (slot == nullptr || slot->source() != server || !slot->moves()) continue;
    for (const AgentState::Lease& lease : state.leases) {
      const bool decides = lease.terms.job == slot->job() && lease.committed && !slot->is_decided(lease.terms.epoch);
      if (!decides || !world_.strikes(Fault::kDiskFull, 12)) continue;
      slot->struck();
      return false;
    }
  }
  return true;
}

void Sessions::wrote(const std::string& server, const AgentState& state) {
  for (const auto& slot : slots_) {
    if (slot == nullptr) continue;
    const bool decided = slot->is_decided(slot->present_epoch());
    slot->wrote(state);
    if (decided || !slot->is_decided(slot->present_epoch()) || !world_.strikes(Fault::kKillAgent, 12)) continue;
    kill_agent(*host(server), chance_.one_in(4));
  }
}

void run_sessions(World& world, Totals* totals) { Sessions(world, totals).run(); }

}  // namespace tide::simulation
