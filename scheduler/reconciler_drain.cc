// Servers that are being drained (docs/decisions/0024-*.md): the policy takes their GPUs for unhealthy ones, and so
// moves what is on them. Here is what no GPU serves: vGPUs that are parked there, and guards.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/policy.h"
#include "scheduler/reconciler.h"

namespace tide::sched {

Outcome Reconciler::drain(const std::string& name, bool on) {
  const bool known = ledger_.is_draining(name);
  const uint64_t since_ms = known ? ledger_.drains[name] : wall_seconds() * 1000;
  if (known != on) {
    const Outcome saved = store_.set_drain(name, on ? since_ms : 0);
    if (!saved.ok()) return saved;
    log(LogLevel::kInfo, "server %s %s", name.c_str(), on ? "is being drained" : "takes jobs again");
    if (on) {
      ledger_.drains[name] = since_ms;
    } else {
      ledger_.drains.erase(name);
    }
  }
  // Somebody asks: what has failed does not wait out its backoff.
  for (const auto& [number, job] : ledger_.jobs.read()) {
    const auto here = [&](const Vgpu& vgpu) { return vgpu.at.server == name; };
    if (std::none_of(job.vgpus.begin(), job.vgpus.end(), here)) continue;
    for (Vgpu& vgpu : ledger_.jobs.at(number).vgpus) vgpu.retry_ns = 0;
  }
  ledger_.servers.mark(name);
  poke();
  return {};
}

std::map<std::string, std::vector<Left>> Reconciler::left() {
  std::map<std::string, std::vector<Left>> left;
  if (ledger_.drains.empty()) return left;
  const State state = look();
  const Assignment wanted = assign(state);
  for (const auto& [name, since_ms] : ledger_.drains) left[name] = left_on(ledger_, state, wanted, name);
  return left;
}

// Where a vGPU that is parked on this server can be kept instead; empty: nowhere.
std::string Reconciler::other_keeper(const Vgpu& vgpu) const {
  std::string refused;
  for (const auto& [name, each] : ledger_.servers) {
    if (name == vgpu.at.server || ledger_.is_draining(name) || links_.find(name) == links_.end()) continue;
    if (vgpu.keepers_refused.count(name) == 0) return name;
    refused = name;
  }
  return refused;  // all have: one of them is asked again, when its pause is over
}

// Called in every round. A drain is rare, so all jobs may be looked at.
void Reconciler::leave_drained_servers() {
  if (ledger_.drains.empty()) return;
  std::vector<Action> moves;
  for (const auto& [number, job] : ledger_.jobs.read()) leave_drained_server(job, &moves);
  for (const Action& move : moves) looked_.insert(parse_number(move.job));
  start(moves);
}

// What is parked, and not about to run, goes from one keeper to another, one vGPU at a time.
void Reconciler::leave_drained_server(const Job& job, std::vector<Action>* moves) const {
  if (job.ended() || job.admitted() || !job.is_quiet()) return;
  for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
    const Vgpu& vgpu = job.vgpus[v];
    if (!vgpu.at.parked() || !ledger_.is_draining(vgpu.at.server) || vgpu.retry_ns > now_ns()) continue;
    const std::string keeper = other_keeper(vgpu);
    if (keeper.empty() || links_.find(vgpu.at.server) == links_.end()) return;
    moves->push_back({.kind = Action::Kind::kMove,
                      .job = job.record.id(),
                      .vgpu = v,
                      .from = vgpu.at,
                      .to = {keeper, kParked},
                      .ready = true});
    return;
  }
}

// Whether its guard is on a server that is being drained and there is another one; then it has none any more. Until the
// next one has a checkpoint there is none.
bool Reconciler::leave_guard(Job* job, uint32_t v) {
  const Vgpu& vgpu = job->vgpus[v];
  const std::string server = vgpu.protection.guard.server;
  if (server.empty() || !ledger_.is_draining(server) || ledger_.is_draining(choose_guard(vgpu.at))) return false;
  log(LogLevel::kInfo, "job %s: %s is being drained, so it guards vGPU %u no more", job->record.id().c_str(),
      server.c_str(), v);
  drop_guard(job, v);
  return true;
}

}  // namespace tide::sched
