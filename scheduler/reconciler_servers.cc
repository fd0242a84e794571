// Servers that come, go and come back.

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/reconciler.h"

namespace tide::sched {

kj::Maybe<control::Agent::Client> Reconciler::agent(const std::string& server) {
  const auto found = links_.find(server);
  if (found == links_.end()) return nullptr;
  return found->second->agent;
}

Outcome Reconciler::register_agent(Server server, std::vector<control::Lease::Reader> leases,
                                   control::Agent::Client agent, uint64_t* generation) {
  const Server* known = ledger_.server(server.name);
  // Nobody else can have its door: the connection of before has ended, though nothing has told us.
  if (known != nullptr && known->online && known->endpoint == server.endpoint && !server.endpoint.empty()) {
    agent_gone(server.name, known->generation);
    known = ledger_.server(server.name);
  }
  if (known != nullptr && known->online) {
    return Outcome::fail("a server named " + server.name + " is in the pool already; give this one another name");
  }
  server.online = true;
  server.generation = *generation = ++generation_;
  server.last_seen_ns = now_ns();
  log(LogLevel::kInfo, "server %s: %zu GPUs, %zu leases", server.name.c_str(), server.gpus.size(), leases.size());
  links_[server.name] = kj::heap<Link>(agent);
  adopt(server, leases, agent);
  ledger_.describe(&server);
  ledger_.servers[server.name] = std::move(server);
  poke();
  return {};
}

// Whether the vGPU is where an agent says. During a move both ends have a lease, and the source decides: the
// destination's claim is open until the source has said that it has none any more.
Reconciler::Claim Reconciler::judge(const GpuId& here, const control::Lease::Reader& lease, Vgpu* vgpu) {
  const uint64_t epoch = lease.getEpoch();
  if (vgpu == nullptr || epoch > vgpu->last_epoch) return Claim::kVoid;
  if (vgpu->at == here) return Claim::kRight;
  if (epoch != vgpu->last_epoch) return Claim::kVoid;
  // From one GPU of a server to another it speaks for both; the older lease comes first.
  if (vgpu->at.none() || vgpu->missing || vgpu->at.server == here.server) return Claim::kRight;
  if (vgpu->doing == Doing::kMoving) return vgpu->to == here ? Claim::kOpen : Claim::kVoid;
  const Server* source = ledger_.server(vgpu->at.server);
  if (source != nullptr && source->online) return Claim::kVoid;  // it has said that it has it
  vgpu->doing = Doing::kMoving;
  vgpu->to = here;
  return Claim::kOpen;
}

// Of a move that was under way its server has decided.
void Reconciler::take_word(const GpuId& here, const control::Lease::Reader& lease, Vgpu* vgpu) {
  const std::string id = lease.getJob().cStr();
  const bool moving = vgpu->doing == Doing::kMoving;
  vgpu->missing = false;
  found_again(vgpu);
  if (moving && vgpu->to == here) return moved(id, lease.getVgpu(), vgpu->last_epoch, {.vgpus = 1});
  vgpu->at = here;
  vgpu->epoch = lease.getEpoch();
  if (moving) move_failed(id, lease.getVgpu(), vgpu->last_epoch, "server " + here.server + " was restarted", true);
}

// What the agent serves already is compared with what we believe: the rest of either is given up.
void Reconciler::adopt(const Server& server, const std::vector<control::Lease::Reader>& leases,
                       control::Agent::Client& agent) {
  std::set<std::pair<std::string, uint32_t>> confirmed, guarded;
  for (const auto& lease : leases) {
    const std::string id = lease.getJob().cStr();
    const std::pair<std::string, uint32_t> name(id, lease.getVgpu());
    if (lease.getGpu() == control::GUARDING) {
      if (confirm_guard(server.name, lease))
        guarded.insert(name);
      else
        cancel_at(server.name, id, lease.getVgpu(), lease.getEpoch());
      continue;
    }
    const GpuId here{server.name, lease.getGpu()};
    Vgpu* vgpu = vgpu_of(id, lease.getVgpu());
    const Claim claim = judge(here, lease, vgpu);
    if (claim == Claim::kOpen) continue;
    if (claim == Claim::kRight && confirmed.insert(name).second) {
      take_word(here, lease, vgpu);
      continue;
    }
    log(LogLevel::kInfo, "server %s serves %s:%u, which it should not; released", server.name.c_str(), id.c_str(),
        lease.getVgpu());
    if (confirmed.count(name) != 0) {  // another epoch of it is right
      cancel_at(server.name, id, lease.getVgpu(), lease.getEpoch());
      continue;
    }
    auto release = agent.releaseRequest();
    release.setJob(lease.getJob());
    release.setVgpu(lease.getVgpu());
    release.setEpoch(lease.getEpoch());
    tasks_.add(release.send().ignoreResult().catch_([](kj::Exception&&) {}));
  }
  lose_guards(server.name, guarded);
  for (auto& [number, job] : ledger_.jobs) {
    for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
      const bool ought = job.vgpus[v].at.server == server.name;
      if (ought && confirmed.count({job.record.id(), v}) == 0) miss(&job, v, server.name);
    }
  }
}

// The server has no lease of a vGPU that we know to be there.
void Reconciler::miss(Job* job, uint32_t v, const std::string& server) {
  Vgpu& vgpu = job->vgpus[v];
  // On its way to another place of the same server it is in neither: that would be known by now.
  const bool elsewhere = vgpu.to.server != server && ledger_.server(vgpu.to.server) != nullptr;
  if (vgpu.doing == Doing::kMoving && elsewhere) {
    return moved(job->record.id(), v, vgpu.last_epoch, {.vgpus = 1});
  }
  // We may have died when it was on its way to a server that has not come back to us yet.
  if (recover_until_ns_ != 0 && !job->ended()) {
    vgpu.missing = true;
    return;
  }
  const bool recovering = recovers(job, v, "server " + server + " was restarted without it");
  vgpu.at = vgpu.to = {};
  vgpu.doing = Doing::kNothing;
  if (job->started && !recovering)
    end_job(job, format("its virtual GPU %u was lost when server %s restarted", v, server.c_str()), -1);
}

bool Reconciler::heartbeat(const std::string& name, uint64_t generation) {
  Server* server = ledger_.servers.quietly(name);
  if (server == nullptr || !server->online || server->generation != generation) return false;
  server->last_seen_ns = now_ns();
  return true;
}

void Reconciler::agent_gone(const std::string& name, uint64_t generation) {
  Server* server = ledger_.servers.quietly(name);
  if (stopped_ || server == nullptr || !server->online || server->generation != generation) return;
  log(LogLevel::kWarning, "server %s is gone; it has %u ms to come back", name.c_str(), kOfflineGraceMs);
  ledger_.servers.mark(name);
  server->online = false;
  server->give_up_ns = now_ns() + uint64_t(kOfflineGraceMs) * 1'000'000;
  const auto link = links_.find(name);
  if (link != links_.end()) {
    link->second->canceler.cancel("its server is gone");
    links_.erase(link);
  }
  poke();
}

// Who runs there has lost its vGPU; who did not run yet goes elsewhere.
void Reconciler::lose_server(const std::string& name) {
  log(LogLevel::kWarning, "server %s is lost", name.c_str());
  const auto link = links_.find(name);
  if (link != links_.end()) {
    link->second->canceler.cancel("its server is lost");
    links_.erase(link);
  }
  lose_guards(name, {});
  for (auto& [number, job] : ledger_.jobs) {
    bool lost = false;
    for (Vgpu& vgpu : job.vgpus) {
      const uint32_t v = uint32_t(&vgpu - job.vgpus.data());
      lost |= vgpu.at.server == name && !recovers(&job, v, "its server " + name + " is lost");
      if (vgpu.at.server == name) {
        vgpu.at = {};
        vgpu.missing = false;
        if (vgpu.doing == Doing::kMoving) drop_move(&job, uint32_t(&vgpu - job.vgpus.data()));
        vgpu.doing = Doing::kNothing;
      }
      if (vgpu.wish.server == name) vgpu.wish = {};
      if (vgpu.home.server == name) vgpu.home = {};
    }
    if (lost && job.started) end_job(&job, "its GPU server " + name + " was lost (no sign of life from its agent)", -1);
  }
  ledger_.servers.erase(name);
  poke();
}

}  // namespace tide::sched
