// The agent's part in checkpoints (docs/decisions/0019-*.md): of vGPUs that are served here, as the guard of others,
// and the news of protected vGPUs that the scheduler waits for.

#include <string.h>

#include <algorithm>

#include "base/log.h"
#include "server/agent.h"

namespace tide {
namespace {

constexpr auto kGuardPatience = 40 * kj::SECONDS;
constexpr auto kProgressPatience = 45 * kj::SECONDS;  // with a copy that comes to nothing
constexpr auto kGivePatience = 600 * kj::SECONDS;
constexpr int kNoDevice = 100;  // CUresults
constexpr int kSystemNotReady = 802;

}  // namespace

struct Agent::CheckpointState {
  std::shared_ptr<const AgentCheckpointOrder> order;
  AgentCheckpointReport report;
  void note(const ControlCheckpointed& one);
};

// Sessions are sent at the same time: the slowest says how long a phase took.
void Agent::CheckpointState::note(const ControlCheckpointed& one) {
  AgentMoveReport& all = report.all;
  all.bytes += one.report.bytes;
  all.pause_bytes += one.report.pause_bytes;
  all.rounds = std::max(all.rounds, uint32_t(one.report.rounds));
  all.pause_ms = std::max(all.pause_ms, double(one.report.pause_ns) / 1e6);
  all.drain_ms = std::max(all.drain_ms, double(one.report.drain_ns) / 1e6);
  all.copy_ms = std::max(all.copy_ms, double(one.report.copy_ns) / 1e6);
  all.total_ms = std::max(all.total_ms, double(one.total_ns) / 1e6);
  report.cpu_ms += double(one.cpu_ns) / 1e6;
  ++report.sessions;
}

void AgentNews::tell() {
  if (!any()) return;
  for (auto& fulfiller : waiting) fulfiller->fulfill();
  waiting.clear();
}

kj::Promise<AgentCheckpointReport> Agent::checkpoint(const AgentCheckpointOrder& order) {
  AgentLease* const lease = find(order.job, order.vgpu, order.epoch);
  if (lease == nullptr) return refusal(0, format("vGPU %u of job %s is not here", order.vgpu, order.job.c_str()));
  if (lease->moving) return refusal(0, "the vGPU is being moved");
  auto state = std::make_shared<CheckpointState>();
  state->order = lease->guarded = std::make_shared<AgentCheckpointOrder>(order);
  lease->news.wanted = false;
  kj::Vector<kj::Promise<void>> sent;
  const auto sessions = lease->sessions;
  for (const auto& session : sessions) sent.add(checkpoint_one(state, session, false));
  return kj::joinPromises(sent.releaseAsArray()).then([this, state] {
    if (!state->report.refused.empty()) unprotect(*state->order, state->report.refused);
    return state->report;
  });
}

// Where one session cannot be protected none is: from one alone the vGPU could not go on.
void Agent::unprotect(const AgentCheckpointOrder& order, const std::string& why) {
  AgentLease* const lease = find(order.job, order.vgpu, order.epoch);
  if (lease == nullptr) return;
  lease->terms.is_protected = false;
  lease->guarded = nullptr;
  save();
  ControlText text;
  set_text(text.text, why.substr(0, sizeof(text.text) - 1));
  for (const auto& session : lease->sessions) session->worker->send(ControlType::kUnprotect, text);
}

// Over the stream of the last one, if there is one; a new stream carries all of it once more.
kj::Promise<void> Agent::checkpoint_one(std::shared_ptr<CheckpointState> state, std::shared_ptr<AgentSession> session,
                                        bool anew) {
  if (session->worker->gone()) return kj::READY_NOW;
  if (session->receiving || session->restored) return refusal(0, "its program has not come here yet");
  const AgentCheckpointOrder& order = *state->order;
  const std::string there = format("%llu ", static_cast<unsigned long long>(order.guard.epoch)) + order.address;
  const bool goes_on = !anew && session->guard == there;
  session->guard.clear();
  const MoveOrder to{.job = order.job,
                     .vgpu = order.vgpu,
                     .epoch = order.epoch,
                     .next = order.guard,
                     .address = order.address,
                     .endpoint = {}};
  auto& timer = io_.provider->getTimer();
  kj::Promise<std::string> address = std::string();
  if (!goes_on) address = timer.timeoutAfter(kGuardPatience, ask_receiver(to, *session, kGuardTransport));
  auto done = address.then([this, state, session](std::string stream) {
    ControlMove move;
    move.next_epoch = state->order->guard.epoch;
    memcpy(move.token, state->order->guard.token, sizeof(move.token));
    set_text(move.stream_address, stream);
    auto made = session->worker->await(ControlType::kCheckpointed);
    session->worker->send(ControlType::kCheckpoint, move);
    auto stuck = while_it_goes_on(session).then([]() -> ControlMessage { return {}; });
    return made.exclusiveJoin(kj::mv(stuck));
  });
  return done.then([this, state, session, there, goes_on](ControlMessage&& message) -> kj::Promise<void> {
    const auto* one = message.as<ControlCheckpointed>();
    if (one == nullptr) return refusal(0, "the worker said something else");
    if (one->refused != 0) {
      state->report.refused = one->text;
      return kj::READY_NOW;
    }
    if (one->failed != 0 && goes_on) return checkpoint_one(state, session, true);
    if (one->failed != 0) return refusal(0, one->text);
    session->guard = there;
    state->note(*one);
    return kj::READY_NOW;
  });
}

kj::Promise<std::string> Agent::guard(const DoorOpen& wish) {
  std::string why;
  int code = 0;
  AgentLease* const lease = admit(wish, &why, &code);
  if (lease == nullptr) return refusal(code, why);
  if (!is_guard(lease->terms)) return refusal(kNoDevice, "this server does not guard that vGPU");
  const LeaseKey key{{lease->terms.job, lease->terms.vgpu}, lease->terms.epoch};
  std::shared_ptr<AgentSession> session;
  for (const auto& known : lease->sessions) {
    const bool same = memcmp(known->identity.session, wish.session, sizeof(wish.session)) == 0;
    if (same && !known->worker->gone()) session = known;
  }
  if ((wish.flags & kOpenAgain) != 0) {
    if (session == nullptr) return std::string();
    rendezvous_.remove(Rendezvous::name_of(session->identity.session, key.second));
    end_session(key, session);
    lease->sessions.remove(session);
    save();
    return std::string();
  }
  if (session == nullptr) {
    if (const Outcome begun = begin_session(lease, wish, &session); !begun.ok())
      return refusal(kSystemNotReady, begun.message());
  }
  auto address = session->worker->await(ControlType::kReceiving).then([](ControlMessage&& message) {
    const auto* text = message.as<ControlText>();
    return std::string(text == nullptr ? "" : text->text);
  });
  send_to_keeper(lease->terms.job, ControlType::kGuard, *session);
  return io_.provider->getTimer().timeoutAfter(kGuardPatience, kj::mv(address));
}

kj::Promise<AgentMoveReport> Agent::give(const MoveOrder& order) {
  AgentLease* const lease = find(order.job, order.vgpu, order.epoch);
  if (lease == nullptr || !is_guard(lease->terms) || lease->sessions.empty()) {
    return refusal(0, format("there is no checkpoint of vGPU %u of job %s here", order.vgpu, order.job.c_str()));
  }
  auto report = std::make_shared<AgentMoveReport>();
  kj::Vector<kj::Promise<void>> given;
  const auto sessions = lease->sessions;
  for (const auto& session : sessions) given.add(give_one(report, order, session));
  return kj::joinPromises(given.releaseAsArray())
      .then([report]() -> kj::Promise<AgentMoveReport> { return *report; },
            [](kj::Exception&& e) -> kj::Promise<AgentMoveReport> {
              // The other agent may be gone, and then says so with the exception's type: who ordered would believe it
              // of us.
              return refusal(0, e.getDescription().cStr());
            });
}

kj::Promise<void> Agent::give_one(std::shared_ptr<AgentMoveReport> report, const MoveOrder& order,
                                  std::shared_ptr<AgentSession> session) {
  auto& timer = io_.provider->getTimer();
  return timer.timeoutAfter(kGuardPatience, ask_receiver(order, *session, kMoveTransport))
      .then([this, session, next = order.next](std::string address) {
        ControlMove move;
        move.next_epoch = next.epoch;
        memcpy(move.token, next.token, sizeof(move.token));
        set_text(move.stream_address, address);
        auto given = session->worker->await(ControlType::kTransferred);
        session->worker->send(ControlType::kGive, move);
        return io_.provider->getTimer().timeoutAfter(kGivePatience, kj::mv(given));
      })
      .then([report](ControlMessage&& message) {
        if (const auto* moved = message.as<ControlMoved>()) report->bytes += moved->bytes;
      });
}

kj::Promise<bool> Agent::watch_vgpu(const std::string& job, uint32_t vgpu, uint64_t epoch) {
  AgentLease* const lease = find(job, vgpu, epoch);
  if (lease == nullptr) return refusal(0, format("vGPU %u of job %s is not here", vgpu, job.c_str()));
  if (lease->news.any()) return lease->news.lost;
  auto pair = kj::newPromiseAndFulfiller<void>();
  lease->news.waiting.push_back(kj::mv(pair.fulfiller));
  return pair.promise.then([this, job, vgpu, epoch] {
    const AgentLease* const now = find(job, vgpu, epoch);
    return now != nullptr && now->news.lost;
  });
}

// One that its client has left is not kept by the guard either.
void Agent::note_end(AgentLease& lease, const AgentSession& session) {
  if (!lease.terms.is_protected || lease.committed) return;  // it has moved, and lives there
  if (!session.worker->ended_well()) {
    lease.news.lost = true;
    return lease.news.tell();
  }
  if (lease.guarded == nullptr) return;
  const AgentCheckpointOrder& order = *lease.guarded;
  DoorOpen wish;
  set_text(wish.job, order.job);
  memcpy(wish.token, order.guard.token, sizeof(wish.token));
  memcpy(wish.session, session.identity.session, sizeof(wish.session));
  wish.vgpu = order.vgpu;
  wish.epoch = order.guard.epoch;
  wish.flags = kOpenAgain;
  set_text(wish.transport, kGuardTransport);
  tasks_.add(io_.provider->getTimer().timeoutAfter(kGuardPatience, ask_door(order.address, wish)).ignoreResult());
}

void Agent::tell_lease(const LeaseTerms& terms, AgentSession& session) {
  if (!terms.is_protected || lease_until_ns_ == 0) return;
  session.worker->send(ControlType::kLease, ControlLease{.until_ns = lease_until_ns_});
}

void Agent::renew_leases(uint64_t until_ns) {
  lease_until_ns_ = until_ns;
  for (const auto& [key, lease] : leases_) {
    for (const auto& session : lease->sessions) tell_lease(lease->terms, *session);
  }
}

}  // namespace tide
