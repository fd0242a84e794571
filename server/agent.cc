#include "server/agent.h"

#include <kj/io.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "base/clock.h"
#include "base/log.h"
#include "base/secrets.h"
#include "base/shares.h"

namespace tide {
namespace {

// CUresults, by value: no CUDA header belongs into a daemon that never loads CUDA.
constexpr int kNotPermitted = 800;
constexpr int kInvalidHandle = 400;
constexpr int kNotReady = 600;
constexpr int kSystemNotReady = 802;
constexpr int kNoDevice = 100;
constexpr auto kStatsPatience = 500 * kj::MILLISECONDS;
constexpr auto kReceivePatience = 30 * kj::SECONDS;  // a driver may take seconds to wake
constexpr auto kReleasePatience = 5 * kj::SECONDS;
constexpr auto kLookEvery = 20 * kj::MILLISECONDS;
constexpr uint64_t kEndPatienceNs = 30'000'000'000;  // of a worker that was killed, or told to leave
constexpr size_t kFencesMax = 1024;
constexpr uint64_t kKnockNs = 2'000'000'000;  // it knocks again and again

SessionId session_id(const AgentSession& session) {
  SessionId id;
  static_assert(sizeof(id) == sizeof(session.identity.session));
  memcpy(&id, session.identity.session, sizeof(id));
  return id;
}

// A lease while its workers are asked.
struct Counted {
  uint32_t vgpu = 0, moves = 0;
  bool knocked = false;  // a process that begins has found it parked
  std::vector<std::shared_ptr<AgentSession>> sessions;
};

Agent::Stats sum_of(const Counted& counted) {
  Agent::Stats stats;
  stats.vgpu = counted.vgpu;
  stats.moves = counted.moves;
  ControlStats& sum = stats.sum;
  sum.quiet = counted.knocked ? 0 : 1;
  for (const auto& session : counted.sessions) {
    const ControlStats& one = session->counted;
    stats.pids.push_back(session->worker->pid());
    stats.clients.push_back({.pid = session->identity.client_pid, .resident_bytes = one.resident_bytes});
    sum.resident_bytes += one.resident_bytes;
    sum.commands += one.commands, sum.round_trips += one.round_trips;
    sum.bytes_in += one.bytes_in, sum.bytes_out += one.bytes_out;
    sum.saved_in += one.saved_in, sum.saved_out += one.saved_out, sum.kept_in += one.kept_in;
    sum.round_trips_per_s += one.round_trips_per_s;
    for (const uint64_t word : one.trips) {
      if (word != 0) stats.round_trips_of[TripCounts::function_of(word)] += TripCounts::count_of(word);
    }
    sum.wait_ns += one.wait_ns, sum.objects += one.objects;
    sum.kept_in_memory += one.kept_in_memory, sum.kept_on_disk += one.kept_on_disk;
    sum.kept_apart += one.kept_apart;
    sum.landed_direct += one.landed_direct, sum.landed_staged += one.landed_staged;
    sum.quiet &= one.quiet;
    // Of several processes, the one that waits longest.
    if (one.link.wait_ns >= sum.link.wait_ns) sum.link = one.link;
    sum.busy_permille = std::min(1000u, sum.busy_permille + one.busy_permille);
    if (one.transport[0] != 0) memcpy(sum.transport, one.transport, sizeof(sum.transport));
  }
  return stats;
}

void close_all(int socket, int region_fd) {
  if (socket >= 0) close(socket);
  if (region_fd >= 0) close(region_fd);
}

bool is_of(const AgentSession& session, const DoorOpen& wish) {
  return memcmp(session.identity.session, wish.session, sizeof(wish.session)) == 0;
}

}  // namespace

ControlSession identity_of(const LeaseTerms& terms, const DoorOpen& wish, uint32_t hold_ms) {
  ControlSession session;
  set_text(session.job, terms.job);
  memcpy(session.token, terms.token, sizeof(session.token));
  memcpy(session.session, wish.session, sizeof(session.session));
  session.vgpu = terms.vgpu;
  session.client_pid = wish.pid;
  session.epoch = terms.epoch;
  session.memory_bytes = terms.memory_bytes;
  session.hold_ms = hold_ms;
  session.keeps = is_on_no_gpu(terms) ? 1 : 0;
  session.is_protected = terms.is_protected ? 1 : 0;
  const uint32_t part = terms.part == 0 ? kWholePart : terms.part;
  session.share = part * std::clamp(terms.weight, 1u, kWeightMost);
  session.siblings = part >= kWholePart ? 1 : 0;
  session.latency = terms.is_latency ? 1 : 0;
  session.attempt = wish.attempt;
  memcpy(session.transport, wish.transport, sizeof(session.transport));
  session.transport[sizeof(session.transport) - 1] = '\0';
  return session;
}

kj::Exception refusal(int code, const std::string& message) {
  return kj::Exception(kj::Exception::Type::FAILED, "", code, kj::heapString(message.c_str()));
}

Refusal refusal_of(const kj::Exception& exception) {
  const int code = exception.getLine();
  return {code > 0 ? code : kSystemNotReady, exception.getDescription().cStr()};
}

Agent::Agent(Gpus gpus, uint32_t hold_s, const std::string& directory, kj::AsyncIoContext& io)
    : gpus_(std::move(gpus)),
      hold_ms_(hold_s * 1000),
      state_path_(directory + "/state"),
      slices_path_(directory + "/slices-"),
      quota_path_(directory + "/memory-"),
      rendezvous_(directory + "/workers"),
      last_(read_agent_state(state_path_)),
      io_(io),
      tasks_(*this) {}

void Agent::taskFailed(kj::Exception&& exception) {
  log(LogLevel::kDebug, "a task ended: %s", exception.getDescription().cStr());
}

AgentLease* Agent::find(const std::string& job, uint32_t vgpu, uint64_t epoch) {
  const auto found = leases_.find({{job, vgpu}, epoch});
  return found == leases_.end() ? nullptr : found->second.get();
}

// Those that count: a vGPU whose sessions were told to go is not here any more.
std::vector<LeaseTerms> Agent::leases() const {
  std::vector<LeaseTerms> all;
  for (const auto& [key, lease] : leases_) {
    if (!lease->committed) all.push_back(lease->terms);
  }
  return all;
}

// Before anything is done that the next agent must know of. Where the disk is full the pool goes on, only without that.
bool Agent::save() {
  AgentState state;
  state.door = door_;
  state.fences = fences_;
  for (const auto& [key, lease] : leases_) {
    state.leases.push_back({.terms = lease->terms, .committed = lease->committed, .sessions = {}});
    for (const auto& session : lease->sessions) {
      auto& to = state.leases.back().sessions.emplace_back();
      memcpy(to.id, session->identity.session, sizeof(to.id));
      to.client_pid = session->identity.client_pid;
    }
  }
  const Outcome written = write_agent_state(state_path_, state);
  if (!written.ok() && !complained_) {
    log(LogLevel::kWarning, "%s; an agent that is started after this one will not know all", written.message().c_str());
  }
  complained_ = !written.ok();
  return written.ok();
}

void Agent::keep_door(const std::string& tcp_address) {
  door_ = tcp_address;
  save();
}

void Agent::fence(const LeaseTerms& ended) {
  Fence fence{.job = ended.job, .vgpu = ended.vgpu, .epoch = ended.epoch, .token = {}};
  memcpy(fence.token, ended.token, sizeof(fence.token));
  std::erase_if(fences_, [&](const Fence& f) {
    if (f.concerns(ended)) fence.epoch = std::max(fence.epoch, f.epoch);
    return f.concerns(ended);
  });
  if (fences_.size() >= kFencesMax) fences_.erase(fences_.begin());
  fences_.push_back(fence);
}

bool Agent::fenced(const LeaseTerms& terms) const {
  return std::any_of(fences_.begin(), fences_.end(),
                     [&](const Fence& f) { return f.concerns(terms) && f.epoch >= terms.epoch; });
}

Outcome Agent::place(const LeaseTerms& terms) {
  if (!is_on_no_gpu(terms) && terms.gpu >= gpus_.devices().size())
    return Outcome::fail(format("this server has no GPU %u", terms.gpu));
  if (terms.vgpu >= kVgpusMax || terms.job.empty() || terms.job.size() >= kIdBytes) {
    return Outcome::fail("the lease is malformed");
  }
  for (const auto& [key, lease] : leases_) {
    if (is_guard(terms) || is_guard(lease->terms)) continue;
    if (key.first == std::pair(terms.job, terms.vgpu) && key.second > terms.epoch) {
      return Outcome::fail(
          format("epoch %llu is older than the present one", static_cast<unsigned long long>(terms.epoch)));
    }
  }
  if (!is_guard(terms) && fenced(terms)) {
    return Outcome::fail(
        format("epoch %llu of this vGPU has ended here", static_cast<unsigned long long>(terms.epoch)));
  }
  auto& lease = leases_[{{terms.job, terms.vgpu}, terms.epoch}];
  if (lease != nullptr) return {};
  lease = std::make_unique<AgentLease>();
  lease->terms = terms;
  std::string where = is_guard(terms) ? "guarded here" : "on no GPU, and kept here";
  if (!is_on_no_gpu(terms)) {
    memcpy(lease->terms.gpu_uuid, gpus_.devices()[terms.gpu].uuid, sizeof(lease->terms.gpu_uuid));
    where = format("on GPU %u", terms.gpu);
  }
  save();
  log(LogLevel::kInfo, "job %s: vGPU %u is %s (epoch %llu)", terms.job.c_str(), terms.vgpu, where.c_str(),
      static_cast<unsigned long long>(terms.epoch));
  return {};
}

void Agent::end_session(const LeaseKey& key, const std::shared_ptr<AgentSession>& session) {
  session->worker->kill();
  ending_.emplace_back(key, session);
}

// By a worker that has been killed, or told to leave, and has not ended yet: what the next one finds of memory would be
// less than it was promised.
bool Agent::gpu_is_held(const LeaseTerms& by) const {
  if (is_on_no_gpu(by)) return false;
  const auto on_it = [&](const auto& ending) { return ending.second->gpu == by.gpu; };
  const auto leaves = [&](const auto& other) {
    const AgentLease& lease = *other.second;
    return lease.committed && lease.terms.gpu == by.gpu && !lease.sessions.empty();
  };
  return std::any_of(ending_.begin(), ending_.end(), on_it) || std::any_of(leases_.begin(), leases_.end(), leaves);
}

kj::Promise<void> Agent::await_gpu(const LeaseTerms& terms, uint64_t end_ns) {
  if (!gpu_is_held(terms)) return kj::READY_NOW;
  if (now_ns() >= end_ns) {
    return refusal(kSystemNotReady, format("a worker that was to end still holds GPU %u (nvidia-smi, or ps on that "
                                           "server, may say why)",
                                           terms.gpu));
  }
  return io_.provider->getTimer().afterDelay(kLookEvery).then([this, terms, end_ns] {
    return await_gpu(terms, end_ns);
  });
}

std::string Agent::quota_path(const LeaseTerms& terms) const {
  std::string job = terms.job;
  std::replace(job.begin(), job.end(), '/', '_');
  return quota_path_ + format("%s-%u-%llu", job.c_str(), terms.vgpu, static_cast<unsigned long long>(terms.epoch));
}

// The watching tasks keep the workers' objects until they are reaped.
void Agent::forget(const LeaseKey& key) {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return;
  for (const auto& session : found->second->sessions) {
    rendezvous_.remove(Rendezvous::name_of(session->identity.session, key.second));
    end_session(key, session);
  }
  if (!is_guard(found->second->terms)) fence(found->second->terms);
  found->second->news.tell();
  unlink(quota_path(found->second->terms).c_str());
  leases_.erase(found);
  save();
}

void Agent::end_all() {
  while (!leases_.empty()) forget(LeaseKey(leases_.begin()->first));
}

// Also the second time it says so only when their processes are gone: the GPU is another job's then.
kj::Promise<void> Agent::release(const std::string& job, uint32_t vgpu, uint64_t epoch) {
  std::vector<LeaseKey> going;
  for (const auto& [key, lease] : leases_) {
    if (key.first != std::pair(job, vgpu) || is_guard(lease->terms)) continue;
    if (key.second > epoch) return refusal(kNotPermitted, "the vGPU has a newer assignment here");
    going.push_back(key);
  }
  for (const LeaseKey& key : going) forget(key);
  kj::Vector<kj::Promise<void>> ends;
  for (const auto& [key, session] : ending_) {
    if (key.first == std::pair(job, vgpu)) ends.add(session->worker->ended().attach(session));
  }
  return io_.provider->getTimer().timeoutAfter(kReleasePatience, kj::joinPromises(ends.releaseAsArray()));
}

void Agent::cancel(const std::string& job, uint32_t vgpu, uint64_t epoch) { forget({{job, vgpu}, epoch}); }

Outcome Agent::hold(const std::string& job, uint32_t vgpu, uint64_t epoch, bool on) {
  AgentLease* lease = find(job, vgpu, epoch);
  if (lease == nullptr) return Outcome::fail(format("vGPU %u of job %s is not here", vgpu, job.c_str()));
  for (const auto& session : lease->sessions) session->worker->send(ControlType::kHold, ControlHold{.on = on});
  return {};
}

AgentLease* Agent::admit(const DoorOpen& wish, std::string* why, int* code) {
  const std::string job(wish.job, strnlen(wish.job, sizeof(wish.job)));
  AgentLease* lease = find(job, wish.vgpu, wish.epoch);
  *code = kNoDevice;
  *why = format("this server does not hold vGPU %u of that job (epoch %llu); ask the scheduler where it is", wish.vgpu,
                static_cast<unsigned long long>(wish.epoch));
  if (lease == nullptr || (lease->committed && !lease->moving)) return nullptr;
  if (is_guard(lease->terms) && strcmp(wish.transport, kGuardTransport) != 0) return nullptr;
  *code = kNotPermitted;
  *why = "the job's token is wrong";
  return same_secret(wish.token, lease->terms.token, kTokenBytes) ? lease : nullptr;
}

kj::Promise<void> Agent::open(const DoorOpen& wish, int socket, int region_fd) {
  std::string why;
  int code = 0;
  AgentLease* lease = admit(wish, &why, &code);
  if (lease == nullptr) {
    close_all(-1, region_fd);
    return refusal(code, why);
  }
  // Its worker waits for it for a time only, and does not move without it.
  if (lease->moving && !lease->committed && (wish.flags & kOpenAgain) != 0)
    call_off(*lease, "the connection of one of its programs broke");
  const bool must_wait = begins(*lease, wish) && gpu_is_held(lease->terms);
  const bool moves = lease->moving && lease->called_off.empty();
  if (!moves && !must_wait) return serve(lease, wish, socket, region_fd);
  auto settled = [this, wish, socket, region = kj::AutoCloseFd(region_fd)]() mutable -> kj::Promise<void> {
    return open(wish, socket, region.release());
  };
  if (!moves) return await_gpu(lease->terms, now_ns() + kEndPatienceNs).then(kj::mv(settled));
  // It may stay after all, else the client must ask where it went: it hears so when that is certain.
  return io_.provider->getTimer().afterDelay(kLookEvery).then(kj::mv(settled));
}

// A worker is to be started for it.
bool Agent::begins(const AgentLease& lease, const DoorOpen& wish) const {
  const auto known = [&](const auto& session) { return is_of(*session, wish); };
  return (wish.flags & kOpenAgain) == 0 && std::none_of(lease.sessions.begin(), lease.sessions.end(), known);
}

kj::Promise<void> Agent::serve(AgentLease* lease, const DoorOpen& wish, int socket, int region_fd) {
  std::shared_ptr<AgentSession> session;
  for (const auto& known : lease->sessions) {
    if (is_of(*known, wish)) session = known;
  }
  const bool again = (wish.flags & kOpenAgain) != 0 && (session == nullptr || !session->restored);
  if (session != nullptr && !session->restored && (session->receiving || !again)) {
    close_all(-1, region_fd);
    return refusal(kNotReady,
                   session->receiving ? "the vGPU has not arrived yet; try again" : "this session is served already");
  }
  if (session != nullptr && session->unheard) {
    close_all(-1, region_fd);
    return refusal(kNotReady, "its worker has not found its new agent yet; try again");
  }
  // A client that asks without end shall not fill its worker's socket.
  if (again && session != nullptr && session->resuming) {
    close_all(-1, region_fd);
    return refusal(kNotReady, "its worker has not answered yet; try again");
  }
  if (session == nullptr && lease->news.lost) {
    close_all(-1, region_fd);
    return refusal(kNotReady, "its worker was lost; it goes on elsewhere from its checkpoint");
  }
  if (session == nullptr && again) {
    close_all(-1, region_fd);
    return refusal(kSessionIsGone, "its worker has ended");
  }
  // A process that begins finds the vGPU where it goes on, if that is soon.
  if (session == nullptr && is_parked(lease->terms)) {
    close_all(-1, region_fd);
    lease->knocked_ns = now_ns();
    return refusal(kSuspendedRefusal, "the job is suspended; `tide resume " + lease->terms.job + "` lets it go on");
  }
  if (session == nullptr) {
    if (const Outcome begun = begin_session(lease, wish, &session); !begun.ok()) {
      close_all(-1, region_fd);
      return refusal(kSystemNotReady, begun.message());
    }
  }
  session->restored = false;
  end_bereaved({{lease->terms.job, lease->terms.vgpu}, lease->terms.epoch});
  session->identity = identity_of(lease->terms, wish, hold_ms_);
  session->identity.again = again ? 1 : 0;
  session->identity.shares = lease->sessions.size() > 1 ? 1 : 0;
  tell_lease(lease->terms, *session);
  const int fds[2] = {socket, region_fd};
  const bool sent = session->worker->send(ControlType::kServe, &session->identity, sizeof(session->identity), fds,
                                          region_fd >= 0 ? 2 : 1);
  close_all(-1, region_fd);
  if (!sent) return refusal(kSystemNotReady, "the worker has ended");
  if (again) {
    session->resuming = true;
    const auto looked = [session] { session->resuming = false; };
    tasks_.add(session->worker->await(ControlType::kServing)
                   .then([looked](ControlMessage&&) { looked(); }, [looked](kj::Exception&&) { looked(); }));
  }
  return kj::READY_NOW;  // from here on the worker speaks with the client
}

Outcome Agent::begin_session(AgentLease* lease, const DoorOpen& wish, std::shared_ptr<AgentSession>* session) {
  if (lease->sessions.size() >= kSessionsMax)
    return Outcome::fail(format("%zu processes use this vGPU already", kSessionsMax));
  auto made = std::make_shared<AgentSession>();
  made->identity = identity_of(lease->terms, wish, hold_ms_);
  made->gpu = lease->terms.gpu;
  made->counted.quiet = is_on_no_gpu(lease->terms) ? 1 : 0;
  if (const Outcome outcome = begin_worker(lease, made.get()); !outcome.ok()) return outcome;
  for (const auto& other : lease->sessions) other->worker->send(ControlType::kShares, nullptr, 0);
  lease->sessions.push_back(made);
  made->identity.shares = lease->sessions.size() > 1 ? 1 : 0;
  // So that its client needs not keep all that it sends for long.
  if (lease->terms.is_protected) lease->news.wanted = true;
  lease->news.tell();
  save();
  watch({{lease->terms.job, lease->terms.vgpu}, lease->terms.epoch}, made);
  *session = made;
  return {};
}

Outcome Agent::begin_worker(AgentLease* lease, AgentSession* session) {
  const std::string name = Rendezvous::name_of(session->identity.session, lease->terms.epoch);
  int place = -1;
  if (const Outcome bound = rendezvous_.bind(name, &place); !bound.ok()) {
    log(LogLevel::kWarning, "%s; this worker ends with its agent", bound.message().c_str());
  }
  const uint32_t gpu = lease->terms.gpu;
  Environment environment = is_on_no_gpu(lease->terms) ? gpus_.keeper_environment() : gpus_.environment(gpu);
  environment.push_back({"TIDE_SLICES", is_on_no_gpu(lease->terms) ? "" : slices_path_ + std::to_string(gpu)});
  environment.push_back({"TIDE_MEMORY_QUOTA", is_on_no_gpu(lease->terms) ? "" : quota_path(lease->terms)});
  const Outcome outcome =
      WorkerProcess::start(io_.unixEventPort, gpus_.worker_program(), environment, place, &session->worker);
  if (place >= 0) close(place);
  if (!outcome.ok()) rendezvous_.remove(name);
  return outcome;
}

void Agent::watch(const LeaseKey& key, std::shared_ptr<AgentSession> session) {
  session->worker->on_shared(
      [this, key, from = session.get()](const ControlMessage& message) { carry_shared(key, *from, message); });
  session->worker->on_wanted([this, key] {
    AgentLease* const lease = find(key.first.first, key.first.second, key.second);
    if (lease == nullptr) return;
    lease->news.wanted = true;
    lease->news.tell();
  });
  session->worker->on_bereaved([this, key, session = session.get()] {
    session->bereaved = true;
    end_bereaved(key);
  });
  session->counting = !session->unheard;
  session->worker->on_counted(
      [this, key, from = session.get()](const ControlStats& counted) { count(key, from, counted); });
  tasks_.add(session->worker->ended().then([this, key, session] {
    log(session->worker->ended_well() ? LogLevel::kDebug : LogLevel::kWarning, "job %s: worker %u of vGPU %u: %s",
        key.first.first.c_str(), session->worker->pid(), key.first.second, session->worker->end_reason().c_str());
    std::erase_if(ending_, [&](const auto& ending) { return ending.second == session; });
    const auto found = leases_.find(key);
    if (found != leases_.end()) found->second->sessions.remove(session);
    const auto same = [&](const auto& other) { return session_id(*other) == session_id(*session); };
    const bool again =
        found != leases_.end() && std::any_of(found->second->sessions.begin(), found->second->sessions.end(), same);
    sweep_shelf(key.first.first, *session);
    if (!again) rendezvous_.remove(Rendezvous::name_of(session->identity.session, key.second));
    if (found == leases_.end()) return;
    save();
    note_end(*found->second, *session);
    tell_ended(*found->second, session_id(*session));
    end_bereaved(key);
  }));
}

// Those whose clients have ended stay while somebody may need what they have: on no GPU until all others have ended,
// too; on a GPU until one of the others is served, because all of them took what they need before the move was decided.
void Agent::end_bereaved(const LeaseKey& key) {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return;
  const AgentLease& lease = *found->second;
  const auto in_need = [&](const auto& session) {
    return !session->bereaved && !session->worker->gone() && (is_on_no_gpu(lease.terms) || session->awaited());
  };
  const auto served = [](const auto& session) { return !session->bereaved && !session->awaited(); };
  const bool needed = std::any_of(lease.sessions.begin(), lease.sessions.end(), in_need);
  const bool done = !is_on_no_gpu(lease.terms) && std::any_of(lease.sessions.begin(), lease.sessions.end(), served);
  if (needed && !done) return;
  for (const auto& session : lease.sessions) {
    if (session->bereaved && !session->worker->killed()) end_session(key, session);
  }
}

// A question goes to the session that is asked, its answer back to the one that asked: both of this lease, so that no
// other job's memory can be named. Answers to who is gone are dropped, and so are their descriptors.
void Agent::carry_shared(const LeaseKey& key, AgentSession& from, const ControlMessage& message) {
  ControlMessage copy = message;
  auto* shared = copy.as<ControlShared>();
  const auto lease = leases_.find(key);
  if (shared == nullptr || lease == leases_.end()) return;
  const bool question = message.type == ControlType::kAskShared;
  (question ? shared->asker : shared->owner) = session_id(from);
  const SessionId to = question ? shared->owner : shared->asker;
  for (const auto& session : lease->second->sessions) {
    if (session.get() == &from || session_id(*session) != to || session->worker->gone()) continue;
    const auto end = std::find(std::begin(message.fds), std::end(message.fds), -1);
    session->worker->send(message.type, shared, sizeof(*shared), message.fds, int(end - std::begin(message.fds)));
    return;
  }
  if (!question) return;
  shared->result = kInvalidHandle;
  shared->last = 1;
  from.worker->send(ControlType::kSharedAnswer, *shared);
}

void Agent::tell_ended(AgentLease& lease, const SessionId& ended) {
  for (const auto& other : lease.sessions) other->worker->send(ControlType::kSessionEnded, ended);
}

kj::Promise<std::string> Agent::receive(const DoorOpen& wish) {
  std::string why;
  int code = 0;
  AgentLease* lease = admit(wish, &why, &code);
  if (lease == nullptr) return refusal(code, why);
  const LeaseTerms terms = lease->terms;
  lease->sessions.remove_if([&](const std::shared_ptr<AgentSession>& known) {  // of an attempt that failed
    if (!is_of(*known, wish) || !(known->receiving || known->restored)) return false;
    end_session({{terms.job, terms.vgpu}, terms.epoch}, known);
    return true;
  });
  return await_gpu(terms, now_ns() + kEndPatienceNs).then([this, wish] { return begin_receiving(wish); });
}

kj::Promise<std::string> Agent::begin_receiving(const DoorOpen& wish) {
  std::string why;
  int code = 0;
  AgentLease* lease = admit(wish, &why, &code);
  if (lease == nullptr) return refusal(code, why);
  std::shared_ptr<AgentSession> session;
  if (const Outcome begun = begin_session(lease, wish, &session); !begun.ok())
    return refusal(kSystemNotReady, begun.message());
  session->receiving = true;
  session->bereaved = (wish.flags & kOpenBereaved) != 0;
  ++lease->moves;
  tasks_.add(session->worker->await(ControlType::kRestored).then([session](ControlMessage&&) {
    session->receiving = false;
    session->restored = true;
    if (session->identity.keeps == 0) session->shelf = nullptr;
  }));
  auto address = session->worker->await(ControlType::kReceiving).then([session](ControlMessage&& message) {
    const auto* text = message.as<ControlText>();
    return std::string(text == nullptr ? "" : text->text);
  });
  send_to_keeper(lease->terms.job, ControlType::kReceive, *session);
  return io_.provider->getTimer().timeoutAfter(kReceivePatience, kj::mv(address));
}

kj::Promise<std::vector<Agent::Stats>> Agent::stats(const std::string& job) {
  auto all = std::make_shared<std::vector<Counted>>();
  kj::Vector<kj::Promise<void>> asked;
  for (const auto& [key, lease] : leases_) {
    if (key.first.first != job || is_guard(lease->terms)) continue;
    all->push_back({.vgpu = key.first.second,
                    .moves = lease->moves,
                    .knocked = lease->knocked_ns != 0 && now_ns() - lease->knocked_ns < kKnockNs,
                    .sessions = {lease->sessions.begin(), lease->sessions.end()}});
    for (const auto& session : lease->sessions) {
      auto reply = session->worker->await(ControlType::kStatsReply).then([session](ControlMessage&& message) {
        if (const auto* counted = message.as<ControlStats>()) session->counted = *counted;
      });
      // Nobody believes that of one that does not answer; of one that is kept it is the rule.
      if (!is_parked(lease->terms)) session->counted.quiet = 0;
      session->worker->send(ControlType::kStats, nullptr, 0);
      // A worker that loads a large image is late: what it said last stands, and the others do not wait for it.
      asked.add(
          io_.provider->getTimer().timeoutAfter(kStatsPatience, kj::mv(reply)).then([] {}, [](kj::Exception&&) {}));
    }
  }
  return kj::joinPromises(asked.releaseAsArray()).then([all] {
    std::vector<Stats> result;
    for (const Counted& counted : *all) result.push_back(sum_of(counted));
    return result;
  });
}

}  // namespace tide
