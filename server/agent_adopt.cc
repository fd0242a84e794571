// What an agent does with what the last one left: its leases, and the workers that still run.

#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "api/uuid.h"
#include "base/log.h"
#include "server/agent.h"

namespace tide {
namespace {
// A worker may be busy in its driver for as long, or stopped; from then on nobody can know what it does.
constexpr auto kAdoptPatience = 60 * kj::SECONDS;
constexpr auto kLeavePatience = 20 * kj::SECONDS;  // of sessions that an earlier agent had decided to send away
}  // namespace

void Agent::take_over() {
  fences_ = last_.fences;
  door_ = last_.door;
  for (const AgentState::Lease& lease : last_.leases) take_over_lease(lease);
  std::set<std::string> known;
  for (const auto& [key, lease] : leases_) {
    for (const auto& session : lease->sessions)
      known.insert(Rendezvous::name_of(session->identity.session, key.second));
  }
  // What is left of workers that have ended. One that lives and is in no lease finds nobody, and ends.
  for (const std::string& name : rendezvous_.names()) {
    if (!known.contains(name)) rendezvous_.remove(name);
  }
  if (!leases_.empty()) {
    log(LogLevel::kInfo, "an earlier agent left %zu leases; %zu workers are taken over", leases_.size(), known.size());
  }
  save();
}

void Agent::take_over_lease(const AgentState::Lease& from) {
  const LeaseTerms& terms = from.terms;
  const LeaseKey key{{terms.job, terms.vgpu}, terms.epoch};
  auto lease = std::make_unique<AgentLease>();
  lease->terms = terms;
  lease->committed = from.committed;
  bool lost = false;
  for (const AgentState::Session& session : from.sessions) lost |= !adopt(key, *lease, session);
  const bool here = terms.gpu < gpus_.devices().size();
  const bool same_gpu = is_on_no_gpu(terms) ||
                        (here && memcmp(terms.gpu_uuid, gpus_.devices()[terms.gpu].uuid, sizeof(terms.gpu_uuid)) == 0);
  if (!same_gpu) {
    log(LogLevel::kWarning,
        "job %s: vGPU %u ends: it was on GPU %u, %s, and this agent has %s there; start it with the GPUs of before",
        terms.job.c_str(), terms.vgpu, terms.gpu, uuid_text(terms.gpu_uuid).c_str(),
        here ? gpus_.uuid(terms.gpu).c_str() : "none");
  }
  if (!same_gpu || (from.committed && lease->sessions.empty())) {
    for (const auto& session : lease->sessions) end_session(key, session);
    fence(terms);
    unlink(quota_path(terms).c_str());
    return;
  }
  if (lost) {
    for (const AgentState::Session& session : from.sessions) {
      SessionId id;
      memcpy(&id, session.id, sizeof(id));
      const auto lives = [&](const auto& one) { return memcmp(one->identity.session, session.id, sizeof(id)) == 0; };
      if (std::none_of(lease->sessions.begin(), lease->sessions.end(), lives)) tell_ended(*lease, id);
    }
  }
  if (lost && terms.is_protected && !from.committed) lease->news.lost = true;
  leases_[key] = kj::mv(lease);
  if (from.committed) {
    tasks_.add(io_.provider->getTimer().afterDelay(kLeavePatience).then([this, key] { forget(key); }));
  }
}

// False: its worker has ended. What is said here is heard as soon as the worker looks: nothing of it waits.
bool Agent::adopt(const LeaseKey& key, AgentLease& lease, const AgentState::Session& from) {
  const std::string name = Rendezvous::name_of(from.id, key.second);
  auto session = std::make_shared<AgentSession>();
  int socket = -1;
  pid_t pid = -1;
  Outcome found = rendezvous_.connect(name, &socket, &pid);
  if (found.ok()) found = WorkerProcess::adopt(io_.unixEventPort, socket, pid, &session->worker);
  if (!found.ok()) {
    log(LogLevel::kDebug, "a session of an earlier agent is gone: %s", found.message().c_str());
    rendezvous_.remove(name);
    return false;
  }
  DoorOpen wish;
  memcpy(wish.session, from.id, sizeof(wish.session));
  wish.pid = from.client_pid;
  session->identity = identity_of(lease.terms, wish, hold_ms_);
  session->gpu = lease.terms.gpu;
  session->unheard = true;
  session->worker->on_adopted(
      [to = session.get()](ControlMessage* message) { to->shelf = JobShelfFiles::take(message->fds, kControlFdsMax); });
  ControlAdopt word;
  memcpy(word.token, lease.terms.token, sizeof(word.token));
  memcpy(word.session, from.id, sizeof(word.session));
  word.epoch = key.second;
  tasks_.add(io_.provider->getTimer()
                 .timeoutAfter(kAdoptPatience, session->worker->await(ControlType::kAdopted))
                 .then(
                     [this, key, session](ControlMessage&& message) {
                       const auto* adopted = message.as<ControlAdopted>();
                       session->unheard = false;
                       session->restored = adopted != nullptr && adopted->restored != 0;
                       if (AgentLease* now = find(key.first.first, key.first.second, key.second); now != nullptr)
                         now->moves += session->restored ? 1 : 0;
                     },
                     [session](kj::Exception&& e) {
                       if (session->worker->gone()) return;
                       log(LogLevel::kWarning, "worker %u of an earlier agent cannot be taken over: %s; it is ended",
                           session->worker->pid(), e.getDescription().cStr());
                       session->worker->kill();
                     }));
  session->worker->send(ControlType::kAdopt, word);
  // Of a move that was under way: what was decided, else that it is off.
  session->worker->send(lease.committed ? ControlType::kCommit : ControlType::kAbort, nullptr, 0);
  lease.sessions.push_back(session);
  watch(key, session);
  return true;
}

}  // namespace tide
