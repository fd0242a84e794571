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
  if (known != nullptr && known->online) {
    return Outcome::fail("a server named " + server.name + " is in the pool already; give this one another name");
  }
  server.online = true;
  server.generation = *generation = ++generation_;
  server.last_seen_ns = now_ns();
  log(LogLevel::kInfo, "server %s: %zu GPUs, %zu leases", server.name.c_str(), server.gpus.size(), leases.size());
  links_[server.name] = kj::heap<Link>(agent);
  adopt(server, leases, agent);
  ledger_.servers[server.name] = std::move(server);
  poke();
  return {};
}

// What the agent serves already is compared with what we believe: the rest of either is given up.
void Reconciler::adopt(const Server& server, const std::vector<control::Lease::Reader>& leases,
                       control::Agent::Client& agent) {
  std::set<std::pair<std::string, uint32_t>> confirmed;
  for (const auto& lease : leases) {
    const std::string id = lease.getJob().cStr();
    const GpuId here{server.name, lease.getGpu()};
    Vgpu* vgpu = vgpu_of(id, lease.getVgpu());
    const bool ours = vgpu != nullptr && lease.getEpoch() <= vgpu->last_epoch &&
                      (vgpu->at == here || lease.getEpoch() == vgpu->last_epoch) &&
                      confirmed.count({id, lease.getVgpu()}) == 0;
    if (ours) {
      vgpu->at = here;
      vgpu->epoch = lease.getEpoch();
      confirmed.insert({id, lease.getVgpu()});
      continue;
    }
    log(LogLevel::kInfo, "server %s serves %s:%u, which it should not; released", server.name.c_str(), id.c_str(),
        lease.getVgpu());
    auto release = agent.releaseRequest();
    release.setJob(lease.getJob());
    release.setVgpu(lease.getVgpu());
    release.setEpoch(lease.getEpoch());
    tasks_.add(release.send().ignoreResult().catch_([](kj::Exception&&) {}));
  }
  for (auto& [number, job] : ledger_.jobs) {
    for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
      Vgpu& vgpu = job.vgpus[v];
      if (vgpu.at.server != server.name || confirmed.count({job.record.id(), v}) != 0) continue;
      vgpu.at = {};
      vgpu.doing = Doing::kNothing;
      if (job.started)
        end_job(&job, format("its virtual GPU %u was lost when server %s restarted", v, server.name.c_str()), -1);
    }
  }
}

bool Reconciler::heartbeat(const std::string& name, uint64_t generation) {
  Server* server = ledger_.server(name);
  if (server == nullptr || !server->online || server->generation != generation) return false;
  server->last_seen_ns = now_ns();
  return true;
}

void Reconciler::agent_gone(const std::string& name, uint64_t generation) {
  Server* server = ledger_.server(name);
  if (stopped_ || server == nullptr || !server->online || server->generation != generation) return;
  log(LogLevel::kWarning, "server %s is gone; it has %u ms to come back", name.c_str(), kOfflineGraceMs);
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
  for (auto& [number, job] : ledger_.jobs) {
    bool lost = false;
    for (Vgpu& vgpu : job.vgpus) {
      lost |= vgpu.at.server == name;
      if (vgpu.at.server == name) {
        vgpu.at = {};
        vgpu.doing = vgpu.doing == Doing::kMoving ? Doing::kMoving : Doing::kNothing;
      }
      if (vgpu.wish.server == name) vgpu.wish = {};
    }
    if (lost && job.started) end_job(&job, "its GPU server " + name + " was lost (no sign of life from its agent)", -1);
  }
  ledger_.servers.erase(name);
  poke();
}

}  // namespace tide::sched
