#include "tests/simulation/pool.h"

#include <algorithm>

#include "scheduler/invariants.h"
#include "scheduler/policy.h"

namespace tide::simulation {
namespace {

constexpr uint32_t kServers = 3;
constexpr uint64_t kLeast = 20 * kS, kMost = 300 * kS;  // of simulated time, with faults
constexpr uint64_t kHealedMost = 200 * kS;
constexpr uint32_t kLookEvery = 8;
constexpr uint64_t kLeaseSlack = 3 * kS;

unsigned long long ull(uint64_t n) { return n; }

std::shared_ptr<Machine> new_machine(const char* name) {
  auto machine = std::make_shared<Machine>();
  machine->name = name;
  return machine;
}

// Whether what has room for `than` may have none for it. What is left of a shared GPU is time and memory.
bool needs_more(const sched::JobRecord& job, const sched::JobRecord& than) {
  if (job.min_gpus > than.min_gpus || job.part > than.part) return true;
  return than.part < sched::kWholeGpu && job.memory_bytes != than.memory_bytes;
}

}  // namespace

SimPool::SimPool(World& world, Totals* totals)
    : world_(world),
      totals_(totals),
      chance_(world.fork()),
      network_(world),
      disk_(world),
      loop_(port_),
      wait_scope_(loop_),
      scheduler_machine_(new_machine("scheduler")),
      login_machine_(new_machine("login")) {
  for (uint32_t i = 0; i < kServers; ++i) {
    servers_.push_back(std::make_unique<SimServer>(*this, "server" + std::to_string(i), 1 + i % 2));
  }
  Chance turns = world.fork();
  turns_.on = turns.one_in(2);
  turns_.fixed_ms = turns.one_in(6) ? 0 : turns.between(100, 3000);
}

SimPool::~SimPool() {
  world_.behind_every_step(nullptr);
  jobs_.clear();
  for (const auto& server : servers_) server->kill_agent();
  stop_scheduler(false);
  world_.forget_events();
  servers_.clear();
  loop_.run();
}

std::unique_ptr<SimIo> SimPool::new_io(std::shared_ptr<Machine> machine, const std::string& process) {
  return std::make_unique<SimIo>(network_, std::move(machine), world_.start_process(process), wait_scope_, port_);
}

void SimPool::bury(std::unique_ptr<SimIo> io) {
  io->retire();
  graveyard_.push_back(std::move(io));
}

SimServer* SimPool::server(const std::string& name) {
  for (const auto& server : servers_) {
    if (server->name() == name) return server.get();
  }
  return nullptr;
}

// What is told to the checkers.

void SimPool::granted(const SimJob& job) {
  ++totals_->grants;
  world_.note("granted", std::stoull(job.id()));
  if (!grants_.emplace(job.id(), job.token()).second) {
    world_.violate("id", "job %s was granted twice", job.id().c_str());
  }
}

void SimPool::leased(const LeaseKey& key, const std::string& server, uint32_t gpu) {
  const std::string where = server + "/" + std::to_string(gpu);
  world_.note("leased", std::stoull(key.job), key.vgpu, key.epoch);
  const auto [known, fresh] = leased_.emplace(key, where);
  if (fresh || known->second == where) return;
  world_.violate("epoch", "epoch %llu of vGPU %u of job %s is on %s, and was on %s", ull(key.epoch), key.vgpu,
                 key.job.c_str(), where.c_str(), known->second.c_str());
}

// What was acknowledged is in the record.
void SimPool::check_record() {
  for (const auto& [id, token] : grants_) {
    const auto record = daemon_->core().store.find(std::stoull(id));
    if (!record && disk_.frozen()) return;
    if (!record) {
      world_.violate("grant", "job %s was granted, and the restarted scheduler does not know it", id.c_str());
    } else if (record->token != token) {
      world_.violate("grant", "job %s has another token after the restart", id.c_str());
    }
  }
  for (const auto& [id, told] : told_) {
    const auto record = daemon_->core().store.find(std::stoull(id));
    if (told == Told::kNothing || !record || record->phase == sched::Phase::kEnded) continue;
    if ((record->suspended && !record->turn.yielding) == (told == Told::kSuspended)) continue;
    world_.violate("suspend", "job %s was %s, and the restarted scheduler does not know it", id.c_str(),
                   told == Told::kSuspended ? "suspended" : "resumed");
  }
}

// Who was told that a job is suspended can rely on that. And what it has left nobody gets before all of it is parked:
// of a GPU that others have parts of, its own part.
void SimPool::check_suspended() {
  if (daemon_ == nullptr) return;
  std::map<sched::GpuId, std::map<uint64_t, uint32_t>> homes;  // by job: its part
  const auto& jobs = daemon_->core().ledger.jobs.read();
  for (const auto& [number, job] : jobs) {
    const auto found = told_.find(job.record.id());
    const bool told = found != told_.end() && found->second == Told::kSuspended && !job.ended();
    for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
      const sched::Vgpu& vgpu = job.vgpus[v];
      if (job.being_suspended() && !vgpu.home.none()) homes[vgpu.home][number] = job.record.part;
      if (!told || !vgpu.at.on_gpu()) continue;
      SimServer* there = server(vgpu.at.server);
      if (there == nullptr || !there->holds(job.record.id(), v, vgpu.at.index)) continue;
      world_.violate("suspend", "job %llu was suspended, and its vGPU %u is on %s", ull(number), v,
                     sched::to_text(vgpu.at).c_str());
    }
  }
  for (const auto& [number, job] : jobs) {
    for (const sched::Vgpu& vgpu : job.vgpus) {
      const auto home = homes.find(vgpu.to);
      if (home == homes.end() || home->second.count(number) != 0) continue;
      uint32_t parts = job.record.part;
      for (const auto& [owner, part] : home->second) parts += part;
      if (parts <= sched::kWholeGpu) continue;
      world_.violate("home", "job %llu goes to %s, which is kept for job %llu", ull(number),
                     sched::to_text(vgpu.to).c_str(), ull(home->second.begin()->first));
    }
  }
}

// In the scheduler's own view, where the server agrees: what a restarted scheduler only remembers is nobody's.
void SimPool::check_owners() {
  if (daemon_ == nullptr) return;
  struct Owners {
    std::set<uint64_t> jobs;
    uint64_t parts = 0, bytes = 0;
  };
  std::map<sched::GpuId, Owners> owners;
  const auto& servers = daemon_->core().ledger.servers.read();
  for (const auto& [number, job] : daemon_->core().ledger.jobs.read()) {
    for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
      const sched::Vgpu& vgpu = job.vgpus[v];
      const auto known = servers.find(vgpu.at.server);
      if (vgpu.at.parked()) continue;
      if (known == servers.end() || !known->second.online) continue;
      if (!server(vgpu.at.server)->holds(job.record.id(), v, vgpu.at.index)) continue;
      Owners& here = owners[vgpu.at];
      if (!here.jobs.insert(number).second) continue;
      here.parts += job.record.part;
      here.bytes += job.record.memory_bytes;
      const uint64_t most = daemon_->core().ledger.gpu(vgpu.at)->memory_bytes;
      if (here.jobs.size() == 1 || (here.parts <= sched::kWholeGpu && here.bytes <= most)) continue;
      world_.violate("owner", "the scheduler has job %llu on GPU %s beside others: %llu thousandths in all",
                     ull(number), sched::to_text(vgpu.at).c_str(), ull(here.parts));
    }
  }
}

// A vGPU is executed at one place: by its source before the decision, by its destination behind it.
void SimPool::check_places() {
  std::map<std::pair<std::string, uint32_t>, std::string> places;
  for (const auto& server : servers_) {
    for (const auto& worker : server->workers()) {
      if (worker->dying || worker->arriving || worker->at_rest) continue;
      const std::string where = server->name() + "/" + std::to_string(worker->gpu);
      const auto [known, fresh] = places.try_emplace({worker->key.job, worker->key.vgpu}, where);
      if (fresh) continue;
      world_.violate("place", "vGPU %u of job %s is executed on %s and on %s", worker->key.vgpu,
                     worker->key.job.c_str(), known->second.c_str(), where.c_str());
    }
  }
}

// Whether nothing but others' turns keeps it from GPUs.
bool SimPool::could_start(const sched::Job& job) const {
  const auto& servers = daemon_->core().ledger.servers.read();
  const auto is_there = [&](const sched::Vgpu& vgpu) {
    const auto server = servers.find(vgpu.at.server);
    return vgpu.at.none() || (server != servers.end() && server->second.online && !vgpu.missing);
  };
  return job.failed_on.empty() && std::all_of(job.vgpus.begin(), job.vgpus.end(), is_there);
}

// Nobody gets GPUs before somebody who has waited longer and needs no more of them.
void SimPool::check_turns() {
  if (daemon_ == nullptr || !turns_.on) return;
  const auto& jobs = daemon_->core().ledger.jobs.read();
  // Then those that never ran wait for the one that has been passed so often.
  const bool drains = std::any_of(jobs.begin(), jobs.end(), [&](const auto& each) {
    const bool waits = !each.second.ended() && !each.second.admitted();
    return waits && daemon_->core().reconciler.times_passed(each.first) >= sched::kSkipsMax;
  });
  for (const auto& [number, job] : jobs) {
    const auto waited = waiting_.find(number);
    if (waited == waiting_.end() || !job.admitted() || job.record.suspended) continue;
    totals_->turns += waited->second.counted ? 0 : 1;
    waited->second.counted = true;
    if (waited->second.failed) continue;
    for (const auto& [other, waits] : waiting_) {
      const auto found = jobs.find(other);
      if (drains || found == jobs.end() || waits.ready_since == 0 || waits.ready_since >= waited->second.since)
        continue;
      const sched::Job& passed = found->second;
      if (passed.ended() || passed.admitted() || passed.record.suspended || !could_start(passed)) continue;
      if (passed.dirty) continue;  // that it was its turn, too, could not be written down
      if (needs_more(passed.record, job.record)) continue;
      world_.violate("turn", "job %llu, which waits since %llu ms, got its turn before job %llu, since %llu ms",
                     ull(number), ull(waited->second.since / kMs), ull(other), ull(waits.ready_since / kMs));
    }
  }
  for (const auto& [number, job] : jobs) {
    const auto on_gpu = [](const sched::Vgpu& vgpu) { return vgpu.at.on_gpu(); };
    const bool has_it = job.admitted() && std::all_of(job.vgpus.begin(), job.vgpus.end(), on_gpu);
    if (job.ended() || job.record.suspended || has_it) {
      waiting_.erase(number);
      coming_.erase(number);
      continue;
    }
    // Whose suspending failed comes back to GPUs that nobody else got. Who was admitted before a restart waited before
    // it. Who was admitted, and then was not placed, waits since a time that we do not know.
    const bool coming = job.admitted() && !restarted_ && waiting_.count(number) == 0;
    const bool failed = !coming && coming_.count(number) != 0;
    coming ? void(coming_.insert(number)) : void(coming_.erase(number));
    if (coming) continue;
    Waiting& waiting = waiting_.emplace(number, Waiting{.since = world_.now(), .failed = failed}).first->second;
    const bool ready = !job.admitted() && could_start(job);
    waiting.ready_since = !ready ? 0 : waiting.ready_since == 0 ? world_.now() : waiting.ready_since;
  }
  restarted_ = false;
}

// What the policy decides for the pool as it is, whenever it was asked.
void SimPool::check_decision() {
  if (daemon_ == nullptr || daemon_->core().reconciler.rounds() == rounds_checked_) return;
  rounds_checked_ = daemon_->core().reconciler.rounds();
  const sched::State state = daemon_->core().reconciler.look();
  const std::string wrong = sched::what_is_wrong(state, sched::assign(state));
  if (!wrong.empty()) world_.violate("decision", "%s", wrong.c_str());
}

// Nobody counts as there who has been silent for longer than a lease; a scheduler that did not run may not know yet.
void SimPool::check_leases() {
  if (daemon_ == nullptr || scheduler_io_->process()->paused_until + kLeaseSlack > world_.now()) return;
  const uint64_t now = world_.local_now(*scheduler_io_->process());
  for (const auto& [name, server] : daemon_->core().ledger.servers.read()) {
    if (!server.online || now < server.last_seen_ns + uint64_t(sched::kLeaseMs) * kMs + kLeaseSlack) continue;
    world_.violate("lease", "server %s has been silent for %llu ms and counts as there", name.c_str(),
                   ull((now - server.last_seen_ns) / kMs));
  }
}

// The scheduler's life.

void SimPool::start_scheduler() {
  world_.note("scheduler starts");
  if (!scheduler_machine_->powered) {
    disk_.thaw(true);
    scheduler_machine_->powered = true;
    network_.power_is_back(scheduler_machine_);
  } else {
    disk_.thaw(false);
  }
  scheduler_io_ = new_io(scheduler_machine_, "scheduler");
  const World::As as(world_, scheduler_io_->process().get());
  sched::PoolConfig config;
  config.listen = kSchedulerAddress;
  config.door = "scheduler:7412";
  config.turns = turns_;
  config.state = ".";               // there is such a directory; what is in it is the simulated disk's
  config.policy.journal_bytes = 0;  // the journal and the history are on the real one
  config.history = "off";
  const Outcome opened = sched::Daemon::open(config, scheduler_io_->context(), &daemon_);
  if (!opened.ok()) {
    if (!disk_.is_full()) world_.violate("record", "the scheduler does not start: %s", opened.message().c_str());
    stop_scheduler(false);
    return world_.after(kS, [this] { start_scheduler(); });
  }
  waiting_.clear();
  rounds_checked_ = 0;
  restarted_ = true;
  listening_ = daemon_->listen().eagerlyEvaluate([](kj::Exception&&) {});
  check_record();
}

void SimPool::stop_scheduler(bool power_lost) {
  if (scheduler_io_ == nullptr) return;
  world_.note("scheduler stops", power_lost ? 1 : 0);
  scheduler_io_->process()->alive = false;
  disk_.freeze();
  if (power_lost) scheduler_machine_->powered = false;
  if (daemon_ != nullptr) daemon_->stop();
  listening_ = nullptr;
  // What clients hold of it falls before it does; nothing of that gets out.
  network_.break_for(*scheduler_io_->process());
  loop_.run();
  daemon_ = nullptr;
  loop_.run();
  bury(std::move(scheduler_io_));
}

void SimPool::strike_scheduler() {
  if (daemon_ == nullptr) return;
  if (world_.strikes(Fault::kPause, 25)) world_.pause(*scheduler_io_->process(), how_long());
  if (world_.strikes(Fault::kDiskFull, 25)) disk_.fill(world_.now() + chance_.between(100 * kMs, 6 * kS));
  if (world_.strikes(Fault::kDiskCrash, 30)) {
    disk_.crash_at(chance_.between(1, 40), [this] {
      scheduler_io_->process()->alive = false;
      power_went_ = true;
    });
  }
  if (!world_.strikes(Fault::kKillScheduler, 30)) return;
  ++totals_->restarts;
  stop_scheduler(false);
  world_.after(how_long(), [this] { start_scheduler(); });
}

// The rest of the swarm.

uint64_t SimPool::how_long() { return chance_.one_in(8) ? chance_.between(kS, 25 * kS) : chance_.between(kMs, kS); }

void SimPool::strike_network() {
  if (!world_.strikes(Fault::kPartition, 6)) return;
  std::vector<std::string> names = {scheduler_machine_->name, login_machine_->name};
  for (const auto& server : servers_) names.push_back(server->name());
  const std::string& a = names[chance_.below(names.size())];
  const std::string& b = names[chance_.below(names.size())];
  world_.note("cut");
  if (a != b) network_.cut(a, b, how_long());
}

void SimPool::start_again(SimServer& server) {
  world_.after(how_long(), [this, &server] {
    if (!server.up()) server.start();
  });
}

void SimPool::strike_servers() {
  SimServer& server = *servers_[chance_.below(servers_.size())];
  if (world_.strikes(Fault::kPause, 12)) server.pause(how_long());
  if (world_.strikes(Fault::kKillWorker, 60)) server.kill_some_worker(chance_);
  if (server.up() && world_.strikes(Fault::kKillAgent, 25)) kill_agent(server, chance_.one_in(4));
}

void SimPool::kill_agent(SimServer& server, bool power) {
  if (!server.up()) return;
  if (power) {
    server.lose_power();
  } else {
    server.kill_agent();
  }
  start_again(server);
}

void SimPool::strike() {
  strike_network();
  strike_scheduler();
  strike_servers();
  if (!jobs_.empty() && world_.strikes(Fault::kKillClient, 40)) jobs_[chance_.below(jobs_.size())]->kill();
  keep_jobs();
  if (!world_.healed()) world_.after(chance_.between(20 * kMs, 300 * kMs), [this] { strike(); });
}

void SimPool::keep_jobs() {
  jobs_.erase(std::remove_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->cleared(); }), jobs_.end());
  const size_t most = turns_.on ? 7 : 4;
  if (world_.healed() || jobs_.size() >= most || !chance_.one_in(3)) return;
  ++totals_->jobs;
  jobs_.push_back(std::make_unique<SimJob>(*this, ++jobs_begun_));
  jobs_.back()->start();
}

void SimPool::behind() {
  loop_.run();
  if (power_went_) {
    power_went_ = false;
    ++totals_->restarts;
    stop_scheduler(true);
    world_.after(how_long(), [this] { start_scheduler(); });
  }
  network_.plan();
  check_turns();
  check_decision();
  if (++looks_ % kLookEvery != 0) return;
  check_owners();
  check_places();
  check_suspended();
  check_leases();
}

bool SimPool::all_done() const { return what_is_left().empty(); }

std::string SimPool::what_is_left() const {
  if (daemon_ == nullptr) return "the scheduler is not there";
  for (const auto& job : jobs_) {
    if (!job->over()) return "job " + job->id() + " waits";
  }
  const auto& ledger = daemon_->core().ledger;
  for (const auto& server : servers_) {
    if (server->holds_anything()) return server->name() + " has leases or workers of jobs that are over";
    const auto known = ledger.servers.find(server->name());
    if (known == ledger.servers.end() || !known->second.online) return server->name() + " is not in the pool";
  }
  return ledger.jobs.empty() ? "" : "the scheduler has jobs that are over";
}

void SimPool::run() {
  world_.behind_every_step([this] { behind(); });
  start_scheduler();
  for (const auto& server : servers_) server->start();
  world_.after(10 * kMs, [this] { strike(); });
  behind();
  const uint64_t begin = world_.now();
  const auto enough = [&] { return world_.faults() >= kFaultsLeast && world_.now() - begin >= kLeast; };
  while (!enough() && world_.now() - begin < kMost && world_.violations().empty()) world_.step(~uint64_t{0});
  world_.heal();
  network_.heal();
  disk_.fill(0);
  const uint64_t end = world_.now() + kHealedMost;
  uint64_t steps = 0;
  while (world_.violations().empty() && (++steps % 64 != 0 || !all_done()) && world_.step(end)) {
  }
  if (!world_.violations().empty()) return;
  const std::string left = what_is_left();
  if (!left.empty()) world_.violate("wait", "%llu s after the faults: %s", ull(kHealedMost / kS), left.c_str());
}

void run_pool(World& world, Totals* totals) { SimPool(world, totals).run(); }

}  // namespace tide::simulation
