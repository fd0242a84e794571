// The agent's part in a move, as the source: all sessions of the vGPU are copied while they run; when a short pause can
// carry the rest of each they are paused together. When all are at rest they are sent, so that what they share is one
// cut, and only when all have arrived are the clients told to go; else all run on here.

#include <kj/async-io.h>
#include <string.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "server/agent.h"

namespace tide {
namespace {
constexpr auto kReceiverPatience = 40 * kj::SECONDS;
constexpr auto kProgressPatience = 45 * kj::SECONDS;  // with a copy that comes to nothing; one that goes on may be long
constexpr auto kStillPatience = 20 * kj::SECONDS;     // those that are at rest wait so long for the others
constexpr auto kTransferPatience = 180 * kj::SECONDS;  // from the pause on
constexpr auto kLeavePatience = 20 * kj::SECONDS;
constexpr size_t kDoneMovesMax = 256;
constexpr auto kArrivalPause = 20 * kj::MILLISECONDS;
constexpr uint32_t kArrivalLooks = 100;
}  // namespace

struct Agent::MoveState {
  MoveOrder order;
  LeaseKey key;
  uint64_t begin_ns = 0;
  AgentMoveReport report;
  bool off = false;                                  // one of its sessions cannot move
  bool alone = false;                                // there is one session, which waits for nobody
  std::vector<std::shared_ptr<AgentSession>> ready;  // to be paused
  // All of one is there; until the others are, too, it may still come to nothing.
  struct Sent {
    std::shared_ptr<AgentSession> session;
    kj::ForkedPromise<ControlMessage> left;
    kj::Promise<void> watched;
  };
  std::vector<Sent> sent;
  void count(const ControlMoved& moved);
};

namespace {
kj::Exception not_at_rest(kj::Exception&& e, bool alone) {
  if (alone || e.getType() != kj::Exception::Type::OVERLOADED) return kj::mv(e);
  return refusal(0, "its processes do not come to rest at one moment");
}
}  // namespace

// The sessions of a vGPU are sent at the same time: the slowest says how long a phase took.
void Agent::MoveState::count(const ControlMoved& moved) {
  report.bytes += moved.bytes;
  report.pause_bytes += moved.pause_bytes;
  report.rounds = std::max(report.rounds, uint32_t(moved.rounds));
  report.drain_ms = std::max(report.drain_ms, double(moved.drain_ns) / 1e6);
  report.copy_ms = std::max(report.copy_ms, double(moved.copy_ns) / 1e6);
  report.restore_ms = std::max(report.restore_ms, double(moved.restore_ns) / 1e6);
}

// One whose destination goes before it is told to leave says so: then none of them leaves. Where its own worker ends,
// all that it had is there.
kj::Promise<void> Agent::note_sent(MoveState& state, const std::shared_ptr<AgentSession>& session,
                                   kj::ForkedPromise<ControlMessage> left, ControlMessage& message) {
  auto watched = left.addBranch()
                     .then([](ControlMessage&&) {},
                           [this, &state, session](kj::Exception&& e) {
                             const auto lease = leases_.find(state.key);
                             if (lease == leases_.end() || lease->second->committed || session->worker->gone()) return;
                             call_off(*lease->second, e.getDescription().cStr());
                           })
                     .eagerlyEvaluate(nullptr);
  state.sent.push_back({session, kj::mv(left), kj::mv(watched)});
  if (const auto* moved = message.as<ControlMoved>()) state.count(*moved);
  return kj::READY_NOW;
}

kj::Promise<AgentMoveReport> Agent::move(const MoveOrder& order) {
  const LeaseKey next_key{{order.job, order.vgpu}, order.next.epoch};
  if (const auto done = done_moves_.find(next_key); done != done_moves_.end()) return done->second;
  AgentLease* lease = find(order.job, order.vgpu, order.epoch);
  if (lease == nullptr) {
    return refusal(0, format("vGPU %u of job %s is not here in epoch %llu", order.vgpu, order.job.c_str(),
                             static_cast<unsigned long long>(order.epoch)));
  }
  if (lease->moving) return refusal(0, "the vGPU is being moved already");
  if (order.next.epoch <= order.epoch) return refusal(0, "a move must lead to a newer epoch");
  lease->moving = true;
  lease->called_off.clear();
  auto state = std::make_shared<MoveState>();
  state->order = order;
  state->key = {{order.job, order.vgpu}, order.epoch};
  state->begin_ns = now_ns();
  auto copied = kj::heapArrayBuilder<kj::Promise<void>>(lease->sessions.size());
  const auto sessions = lease->sessions;
  for (const auto& session : sessions) copied.add(begin_copy(state, session));
  return kj::joinPromises(copied.finish())
      .then([this, state] { return pause_all(state); })
      .then([this, state] { return send_all(state); })
      // What its workers have said by now is heard before: it may be that one of them has lost its destination.
      .then([this, state] { return kj::evalLast([this, state] { return commit(state); }); })
      .then(
          [this, state, next_key]() -> kj::Promise<AgentMoveReport> {
            state->report.total_ms = double(now_ns() - state->begin_ns) / 1e6;
            forget(state->key);
            if (done_moves_.size() >= kDoneMovesMax) done_moves_.erase(done_moves_.begin());
            done_moves_[next_key] = state->report;
            return state->report;
          },
          [this, state](kj::Exception&& e) -> kj::Promise<AgentMoveReport> {
            abort_move(state, e.getDescription().cStr());
            // The other agent may be gone, and then says so with the exception's type: who ordered would believe it of
            // us.
            return refusal(0, e.getDescription().cStr());
          });
}

// Its client may end at any time: then there is nothing to move. Else the others need not go on either.
kj::Promise<void> Agent::unless_gone(MoveState& state, const AgentSession& session, kj::Exception&& e) {
  if (session.worker->gone()) return kj::READY_NOW;
  state.off = true;
  if (const auto lease = leases_.find(state.key); lease != leases_.end())
    call_off(*lease->second, e.getDescription().cStr());
  return kj::mv(e);
}

// Nothing is decided any more, and clients need not wait for the rest. To those that do not move it says nothing.
void Agent::call_off(AgentLease& lease, const std::string& why) {
  if (lease.called_off.empty()) lease.called_off = why;
  for (const auto& session : lease.sessions) session->worker->send(ControlType::kAbort, nullptr, 0);
}

// What the last move brought is here, and its worker has said so or is about to be heard. Counted in looks, not by the
// clock: this agent may have been stopped.
kj::Promise<void> Agent::await_arrival(std::shared_ptr<AgentSession> session, uint32_t looks) {
  if (!session->receiving || session->worker->gone() || looks == 0) return kj::READY_NOW;
  return io_.provider->getTimer().afterDelay(kArrivalPause).then([this, session, looks] {
    return await_arrival(session, looks - 1);
  });
}

// One that the last move announced and did not bring, because its client ended on the way.
void Agent::drop_unreceived(const MoveState& state, const std::shared_ptr<AgentSession>& session) {
  rendezvous_.remove(Rendezvous::name_of(session->identity.session, state.key.second));
  end_session(state.key, session);
  if (const auto lease = leases_.find(state.key); lease != leases_.end()) lease->second->sessions.remove(session);
}

kj::Promise<void> Agent::begin_copy(std::shared_ptr<MoveState> state, std::shared_ptr<AgentSession> session) {
  return await_arrival(session, kArrivalLooks).then([this, state, session]() -> kj::Promise<void> {
    if (session->receiving && !session->worker->gone()) {
      drop_unreceived(*state, session);
      return kj::READY_NOW;
    }
    return copy_one(state, session);
  });
}

kj::Promise<void> Agent::copy_one(std::shared_ptr<MoveState> state, std::shared_ptr<AgentSession> session) {
  auto& timer = io_.provider->getTimer();
  return timer.timeoutAfter(kReceiverPatience, ask_receiver(state->order, *session, kMoveTransport))
      .then([this, state, session](std::string address) -> kj::Promise<void> {
        if (state->off) return refusal(0, "another process of the job cannot move");
        const auto lease = leases_.find(state->key);
        if (lease == leases_.end()) return refusal(0, "the vGPU was released meanwhile");
        if (!lease->second->called_off.empty()) return refusal(0, lease->second->called_off);
        ControlMove move;
        move.next_epoch = state->order.next.epoch;
        memcpy(move.token, state->order.next.token, sizeof(move.token));
        set_text(move.stream_address, address);
        set_text(move.endpoint, state->order.endpoint);
        move.parks = is_parked(state->order.next) ? 1 : 0;
        auto ready = session->worker->await(ControlType::kReady).ignoreResult();
        session->worker->send(ControlType::kMove, move);
        return ready.exclusiveJoin(while_it_goes_on(session));
      })
      .then([state, session]() -> kj::Promise<void> { return state->ready.push_back(session), kj::READY_NOW; },
            [this, state, session](kj::Exception&& e) { return unless_gone(*state, *session, kj::mv(e)); });
}

// Fails when a copy does not get on.
kj::Promise<void> Agent::while_it_goes_on(std::shared_ptr<AgentSession> session) {
  return io_.provider->getTimer()
      .timeoutAfter(kProgressPatience, session->worker->await(ControlType::kProgress))
      .then([this, session](ControlMessage&&) { return while_it_goes_on(session); },
            [](kj::Exception&& e) -> kj::Promise<void> {
              if (e.getType() != kj::Exception::Type::OVERLOADED) return kj::mv(e);
              return refusal(0, "the copy of its memory does not get on");
            });
}

// They stop together, and none is sent before all are at rest: what one of them still does another one may see.
kj::Promise<void> Agent::pause_all(std::shared_ptr<MoveState> state) {
  const auto lease = leases_.find(state->key);
  if (lease == leases_.end()) return refusal(0, "the vGPU was released meanwhile");
  if (!lease->second->called_off.empty()) return refusal(0, lease->second->called_off);
  kj::Vector<kj::Promise<void>> still;
  state->alone = state->ready.size() == 1;
  for (const auto& session : state->ready) {
    if (session->worker->gone()) continue;
    auto at_rest = session->worker->await(state->alone ? ControlType::kTransferred : ControlType::kStill);
    auto left = session->worker->await(ControlType::kLeft).fork();  // from now on: the next word may be that it failed
    session->worker->send(ControlType::kPause, ControlPause{.alone = state->alone});
    still.add(
        io_.provider->getTimer()
            .timeoutAfter(state->alone ? kTransferPatience : kStillPatience, kj::mv(at_rest))
            .then(
                [this, state, session, left = kj::mv(left)](ControlMessage&& message) mutable -> kj::Promise<void> {
                  if (!state->alone) return kj::READY_NOW;
                  return note_sent(*state, session, kj::mv(left), message);
                },
                [this, state, session](kj::Exception&& e) {
                  return unless_gone(*state, *session, not_at_rest(kj::mv(e), state->alone));
                }));
  }
  return kj::joinPromises(still.releaseAsArray());
}

kj::Promise<void> Agent::send_all(std::shared_ptr<MoveState> state) {
  if (state->alone) return kj::READY_NOW;
  const auto lease = leases_.find(state->key);
  if (lease == leases_.end()) return refusal(0, "the vGPU was released meanwhile");
  if (!lease->second->called_off.empty()) return refusal(0, lease->second->called_off);
  kj::Vector<kj::Promise<void>> sent;
  for (const auto& session : state->ready) {
    if (session->worker->gone()) continue;
    auto transferred = session->worker->await(ControlType::kTransferred);
    auto left = session->worker->await(ControlType::kLeft).fork();
    session->worker->send(ControlType::kSend, nullptr, 0);
    sent.add(io_.provider->getTimer()
                 .timeoutAfter(kTransferPatience, kj::mv(transferred))
                 .then(
                     [this, state, session, left = kj::mv(left)](ControlMessage&& message) mutable {
                       return note_sent(*state, session, kj::mv(left), message);
                     },
                     [this, state, session](kj::Exception&& e) { return unless_gone(*state, *session, kj::mv(e)); }));
  }
  return kj::joinPromises(sent.releaseAsArray());
}

// Over the other agent's door: the same frame with which clients come, with "move" or "guard" for a transport.
kj::Promise<std::string> Agent::ask_receiver(const MoveOrder& order, const AgentSession& session,
                                             const char* for_what) {
  DoorOpen wish;
  set_text(wish.job, order.job);
  memcpy(wish.token, order.next.token, sizeof(wish.token));
  memcpy(wish.session, session.identity.session, sizeof(wish.session));
  wish.vgpu = order.vgpu;
  wish.pid = session.identity.client_pid;
  wish.epoch = order.next.epoch;
  wish.memory_bytes = order.next.memory_bytes;
  set_text(wish.transport, for_what);
  if (session.bereaved) wish.flags |= kOpenBereaved;
  return ask_door(order.address, wish);
}

kj::Promise<std::string> Agent::ask_door(const std::string& to, const DoorOpen& wish) {
  struct Ask {
    DoorHeader header;
    DoorOpen open;
    DoorHeader reply;
    std::string payload;
    kj::Own<kj::AsyncIoStream> stream;
  };
  Endpoint endpoint;
  if (const Outcome parsed = Endpoint::parse(to, &endpoint); !parsed.ok()) return refusal(0, parsed.message());
  const bool local = endpoint.same_host() && !endpoint.unix_path.empty();
  const std::string address = local ? "unix:" + endpoint.unix_path : endpoint.tcp_address;
  auto ask = std::make_shared<Ask>();
  ask->header.type = uint16_t(DoorType::kOpen);
  ask->header.payload_bytes = sizeof(DoorOpen);
  ask->open = wish;
  return io_.provider->getNetwork()
      .parseAddress(address)
      .then([](kj::Own<kj::NetworkAddress> to) { return to->connect().attach(kj::mv(to)); })
      .then([ask](kj::Own<kj::AsyncIoStream> stream) {
        ask->stream = kj::mv(stream);
        return ask->stream->write(&ask->header, sizeof(ask->header)).then([ask] {
          return ask->stream->write(&ask->open, sizeof(ask->open));
        });
      })
      .then([ask] { return ask->stream->read(&ask->reply, sizeof(ask->reply)); })
      .then([ask]() -> kj::Promise<void> {
        const bool ours = ask->reply.magic == kDoorMagic && ask->reply.payload_bytes <= kDoorPayloadMax;
        if (!ours) return refusal(0, "the destination does not speak our language");
        ask->payload.resize(ask->reply.payload_bytes);
        return ask->stream->read(ask->payload.data(), ask->payload.size());
      })
      .then([ask]() -> kj::Promise<std::string> {
        const auto type = DoorType(ask->reply.type);
        if (type == DoorType::kOpened && ask->payload.size() == sizeof(DoorOpened)) {
          DoorOpened opened;
          memcpy(static_cast<void*>(&opened), ask->payload.data(), sizeof(opened));
          opened.transport_data[sizeof(opened.transport_data) - 1] = '\0';
          return std::string(opened.transport_data);
        }
        DoorRefused refused;
        if (ask->payload.size() == sizeof(refused))
          memcpy(static_cast<void*>(&refused), ask->payload.data(), sizeof(refused));
        refused.message[sizeof(refused.message) - 1] = '\0';
        return refusal(0, std::string("the destination refuses: ") + refused.message);
      });
}

// Written down before anybody is told: if we die here, the next agent tells the rest.
kj::Promise<void> Agent::commit(std::shared_ptr<MoveState> state) {
  const auto lease = leases_.find(state->key);
  if (lease == leases_.end()) return refusal(0, "the vGPU was released meanwhile");
  if (!lease->second->called_off.empty()) return refusal(0, lease->second->called_off);
  lease->second->committed = true;
  if (!save()) {
    lease->second->committed = false;
    return refusal(0, "the agent cannot write down that the vGPU leaves (is its disk full?)");
  }
  auto left = kj::heapArrayBuilder<kj::Promise<void>>(state->sent.size());
  for (auto& [session, leaves, watched] : state->sent) {
    auto gone = leaves.addBranch();
    session->worker->send(ControlType::kCommit, nullptr, 0);
    left.add(
        io_.provider->getTimer()
            .timeoutAfter(kLeavePatience, kj::mv(gone))
            .then(
                [state](ControlMessage&& message) {
                  const auto* moved = message.as<ControlMoved>();
                  const double pause_ms = moved == nullptr ? 0 : double(moved->pause_ns) / 1e6;
                  state->report.pause_ms = std::max(state->report.pause_ms, pause_ms);
                },
                // The client has been told, or has ended; either way there is no way back.
                [](kj::Exception&& e) { log(LogLevel::kWarning, "after a move: %s", e.getDescription().cStr()); }));
  }
  return kj::joinPromises(left.finish());
}

void Agent::call_off_moves() {
  for (const auto& [key, lease] : leases_) {
    if (!lease->moving || lease->committed) continue;
    call_off(*lease, "the scheduler that had ordered it has gone");
  }
}

void Agent::abort_move(std::shared_ptr<MoveState> state, const std::string& why) {
  if (const auto found = leases_.find(state->key); found != leases_.end()) {
    found->second->moving = false;
    call_off(*found->second, why);
  }
  log(LogLevel::kWarning, "job %s: vGPU %u stays here, its move failed: %s", state->order.job.c_str(),
      state->order.vgpu, why.c_str());
}

}  // namespace tide
