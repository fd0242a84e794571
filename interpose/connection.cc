// The life of a channel's connection: first open, moves, loss.

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "commands.h"
#include "interpose/channel.h"
#include "interpose/counted_trip.h"
#include "interpose/door_answers.h"
#include "interpose/pool.h"
#include "interpose/thread.h"
#include "transport/door.h"

namespace tide {
namespace {

constexpr uint32_t kConnectTimeoutMs = 10'000;
constexpr uint32_t kOpenedTimeoutMs = 65'000;     // an agent lets a client wait for the end of a move
constexpr uint64_t kSearchNs = 5'000'000'000;     // how long a vanished worker is looked for elsewhere
constexpr uint64_t kNowhereNs = 2'000'000'000;    // and if the scheduler knows of no other place in all that time
constexpr uint64_t kRecoverNs = 120'000'000'000;  // and a protected one, since the scheduler said that it is coming
constexpr uint32_t kSearchPauseUs = 100'000;
constexpr uint64_t kAskEveryNs = 200'000'000;
constexpr uint32_t kSuspendedPauseUs = 250'000;
constexpr uint32_t kEndPauseUs = 200;
constexpr uint32_t kAgainEveryMs = 50;  // while the network is down, so that it is soon noticed when it is back
constexpr uint32_t kAgainPauseUs = 20'000;
constexpr uint32_t kPatienceMostMs = 6'400;
constexpr uint64_t kFalseAlarmNs = 250'000'000;  // a network that was silent, and is there so soon, was not away
constexpr uint64_t kTripsToConnect = 16;
constexpr uint64_t kAlarmsForgottenNs = 60'000'000'000;
constexpr const char* kGone = "its worker ended, or the network to it broke";
constexpr uint64_t kAgentBackNs = 20'000'000'000;  // longer than the scheduler waits before it ends the job

const char* wanted_transport() {
  const char* wanted = getenv("TIDE_TRANSPORT");
  return wanted != nullptr && *wanted != 0 ? wanted : nullptr;
}

std::string transport_to(const Endpoint& endpoint) {
  const char* wanted = wanted_transport();
  if (wanted != nullptr) return wanted;
  return endpoint.same_host() && !endpoint.unix_path.empty() ? "shm" : transport_between_hosts();
}

Outcome reach(const Endpoint& endpoint, Redial* again, const Transport** transport, std::string* name, int* lifeline,
              bool* nobody_there) {
  const char* wanted = wanted_transport();
  *name = transport_to(endpoint);
  *transport = find_transport(name->c_str());
  if (*transport == nullptr) {
    return Outcome::fail("there is no transport \"" + *name +
                         "\"; TIDE_TRANSPORT is one of shm, verbs, ucx, fastest, sim");
  }
  if ((*transport)->same_host) {
    Outcome o = connect_unix(endpoint.unix_path, kConnectTimeoutMs, lifeline);
    *nobody_there = !o.ok();
    if (o.ok() || wanted != nullptr) return o;
    *name = transport_between_hosts();  // the boot id is ours, but not the file system (a container)
    *transport = find_transport(name->c_str());
    if (*transport == nullptr) return o;
  }
  if (again != nullptr) return again->next(endpoint.tcp_address, kAgainEveryMs, lifeline, nobody_there);
  return connect_tcp(endpoint.tcp_address, kConnectTimeoutMs, lifeline, nobody_there);
}

// What an agent's door says of a vGPU that is on its way: it was here, or has not arrived.
bool may_be_moving(int refusal) { return refusal == CUDA_ERROR_NO_DEVICE || refusal == CUDA_ERROR_NOT_READY; }

Outcome read_opened(int lifeline, DoorOpened* opened, int* refusal) {
  DoorType type{};
  std::string payload;
  if (Outcome o = receive_frame(lifeline, kOpenedTimeoutMs, &type, &payload); !o.ok()) return o;
  return parse_opened(type, payload, opened, refusal);
}

}  // namespace

bool Channel::shares_memory_with(const std::string& text) {
  Endpoint endpoint;
  if (!Endpoint::parse(text, &endpoint).ok()) return false;
  const Transport* transport = find_transport(transport_to(endpoint).c_str());
  return transport != nullptr && transport->same_host;
}

Outcome Channel::open(const ChannelOrigin& origin, std::unique_ptr<Channel>* channel) {
  std::unique_ptr<Channel> made(new Channel(origin));
  Region region;
  if (Outcome o = create_region(&made->region_fd_, &region); !o.ok()) return o;
  made->start(region);
  if (getentropy(made->session_, sizeof made->session_) != 0) return Outcome::fail("the system gives no entropy");
  const std::lock_guard lock(made->reconnect_mu_);
  if (Outcome o = made->connect_first(); !o.ok()) {
    return Outcome::fail(format("cannot open vGPU %u: %s", origin.vgpu, o.message().c_str()));
  }
  *channel = std::move(made);
  return {};
}

// The vGPU may move between the scheduler's first answer and this: then its place of that time refuses, and the
// scheduler knows the new one, at the latest when the move is over. Or its agent is being restarted. Requires:
// reconnect_mu_.
Outcome Channel::connect_first() {
  uint64_t epoch = origin_.epoch;
  std::string endpoint = origin_.endpoint;
  uint64_t deadline = now_ns() + kSearchNs;
  bool said = false;
  while (true) {
    Attempt attempt;
    const Outcome o = connect(endpoint, epoch, &attempt);
    const bool suspended = attempt.refusal == kSuspendedRefusal;
    if (suspended) deadline = now_ns() + kSearchNs;
    if (o.ok() || origin_.pool == nullptr || now_ns() >= deadline) return o;
    Pool::Place place;
    if (!counted_trip([&] { return origin_.pool->where(origin_.vgpu, &place); }).ok()) return o;
    if (place.coming) deadline = now_ns() + kSearchNs;
    if (place.epoch > std::exchange(epoch, place.epoch)) {
      endpoint = place.endpoint;
      continue;
    }
    if (suspended || place.coming) {  // for as long as it takes, as a program that had begun before would wait
      if (!std::exchange(said, true)) log(LogLevel::kInfo, "vGPU %u: %s", origin_.vgpu, o.message().c_str());
      sleep_us(kSuspendedPauseUs);
      continue;
    }
    if (!may_be_moving(attempt.refusal) && !attempt.unanswered) return o;
    sleep_us(kSearchPauseUs);
  }
}

Outcome Channel::dial(const std::string& text, uint64_t epoch, const Transport** transport, int* lifeline,
                      Attempt* attempt) {
  Endpoint endpoint;
  std::string name;
  if (Outcome o = Endpoint::parse(text, &endpoint); !o.ok()) return o;
  Outcome o = reach(endpoint, attempt->again, transport, &name, lifeline, &attempt->nobody_there);
  attempt->unanswered = attempt->nobody_there;
  if (!o.ok()) return o;
  if (*transport == nullptr) return Outcome::fail("there is no transport \"" + name + "\"");  // for the analyzer
  DoorOpen open;
  memcpy(open.job, origin_.pool->identity().job, sizeof open.job);
  memcpy(open.token, origin_.pool->identity().token, sizeof open.token);
  memcpy(open.session, session_, sizeof open.session);
  open.vgpu = origin_.vgpu;
  open.pid = uint32_t(getpid());
  open.epoch = epoch;
  open.memory_bytes = origin_.memory_bytes;
  strncpy(open.transport, name.c_str(), sizeof open.transport - 1);
  open.flags = attempt->again != nullptr ? kOpenAgain : 0;
  open.attempt = ++attempts_;
  const int fd = (*transport)->same_host ? region_fd_ : -1;
  const Preparation beside(**transport);  // while the worker starts
  o = send_frame(*lifeline, DoorType::kOpen, &open, sizeof open, fd);
  if (o.ok()) o = counted_trip([&] { return read_opened(*lifeline, &attempt->opened, &attempt->refusal); });
  if (o.ok()) {
    hold_ms_ = attempt->opened.hold_ms;
  } else {
    attempt->unanswered = attempt->refusal == 0;
    close(*lifeline);
    *lifeline = -1;
  }
  return o;
}

// Requires: reconnect_mu_.
Outcome Channel::connect(const std::string& endpoint, uint64_t epoch, Attempt* attempt) {
  const Transport* transport = nullptr;
  int lifeline = -1;
  const Outcome dialled = dial(endpoint, epoch, &transport, &lifeline, attempt);
  if (!dialled.ok()) return dialled;
  take_back_lent();
  const DoorOpened& opened = attempt->opened;
  if (link_.load() == nullptr && (opened.flags & kOpenedProtected) != 0) protect();
  std::string why;
  if ((opened.flags & kOpenedRecovered) != 0 && !set_back(opened, &why)) {
    close(lifeline);
    attempt->hopeless = true;
    return Outcome::fail(why);
  }
  std::unique_ptr<Link> link;
  if (Outcome o = transport->connect(region_, lifeline, opened.transport_data, &link); !o.ok()) {
    close(lifeline);  // else the worker believes that we are there
    return o;
  }
  link->expect_answers(patience_ms_);
  // Before any command that needs it can come there.
  shares_.store(origin_.host_memory_fd >= 0 && link->give_descriptor(origin_.host_memory_fd));
  replace_link(std::move(link));
  epoch_.store(epoch);
  if ((opened.flags & kOpenedShares) != 0) opened_shared_.store(epoch);
  origin_.endpoint = endpoint;
  return {};
}

// What the worker has not consumed is sent again, to another one, and from the ring. Requires: reconnect_mu_.
void Channel::take_back_lent() {
  {
    const std::lock_guard lock(lock_);
    lender_ = nullptr;
  }
  if (link_.load() != nullptr) LinkUse(*this)->take_back();
}

void Channel::stop_reading() {
  if (lost_.load()) LinkUse(*this)->release();
}

void Channel::replace_link(std::unique_ptr<Link> link) {
  auto* holder = new LinkHolder;
  holder->link = std::move(link);
  {
    const std::lock_guard lock(lock_);
    writer_.reuse_start(holder->link->shares_memory());
    // What is kept has to be in the ring, and answers are looked at before the program has them.
    lender_ = holder->link->lends() && !is_protected() ? holder->link.get() : nullptr;
  }
  if (!is_protected()) holder->link->land_in(this);
  LinkHolder* old = link_.exchange(holder);
  if (old == nullptr) return;
  // Given while it was being connected, they were noted on the old one.
  for (const Word& signal : own_->signals) {
    if (signal.load(std::memory_order_acquire) != 0) holder->link->note(signal);
  }
  old->link->release();
  retired_.push_back(old);
  retired_links_.fetch_add(1, std::memory_order_relaxed);
  own_->counters.reconnects.fetch_add(1, std::memory_order_relaxed);
  LinkUse use(*this);
  notify(*use, Side::kClient);
}

// Requires: reconnect_mu_. The holder itself stays: a thread may still look at its counter.
void Channel::reap_links() {
  for (LinkHolder* holder : retired_) {
    if (holder->link == nullptr || holder->users.load() != 0) continue;
    holder->link.reset();
    retired_links_.fetch_sub(1, std::memory_order_relaxed);
  }
}

Outcome Channel::renew() {
  const std::lock_guard lock(reconnect_mu_);
  const command::End command{0};
  const CUresult sent = send({.call = Call::tideEnd, .payload_bytes = sizeof command},
                             [&](std::byte* payload) { memcpy(payload, &command, sizeof command); });
  if (sent != CUDA_SUCCESS) return Outcome::fail("its worker is gone");
  const uint64_t deadline = now_ns() + kSearchNs;
  while (page_->state.load(std::memory_order_acquire) != uint64_t(ChannelState::kEnded)) {
    if (now_ns() > deadline || !LinkUse(*this)->alive()) return Outcome::fail("its worker does not come to its end");
    drain();
    LinkUse(*this)->progress();
    sleep_us(kEndPauseUs);
  }
  own_->renewed.store(page_->acknowledged.load());
  if (getentropy(session_, sizeof session_) != 0) return Outcome::fail("the system gives no entropy");
  origin_.epoch = epoch_.load();
  page_->content_slots.store(0);  // of the old worker
  if (Outcome o = connect_first(); !o.ok()) {
    fail(CUDA_ERROR_DEVICE_UNAVAILABLE, o.message());
    return o;
  }
  reap_links();  // the old worker ends when its link does
  errors_seen_.store(page_->errors.load());
  failure_.store(0);
  return {};
}

bool Channel::look_after() {
  if (lost_.load()) return false;
  const auto state = ChannelState(page_->state.load(std::memory_order_acquire));
  if (state == ChannelState::kMoved && page_->next_epoch.load() > epoch_.load()) return follow_move();
  if (state == ChannelState::kFailed) {
    const uint64_t error = page_->error.load(std::memory_order_acquire);
    fail(error != 0 ? CUresult(error) : CUDA_ERROR_DEVICE_UNAVAILABLE, "its worker gave up");
    return false;
  }
  if (protection_ != nullptr) look_after_log();
  bool alive;
  {
    LinkUse link(*this);
    alive = link->alive();
  }
  if (alive && state == ChannelState::kFenced) return look_elsewhere();
  if (!alive) {
    const bool moved = page_->state.load(std::memory_order_acquire) == uint64_t(ChannelState::kMoved) &&
                       page_->next_epoch.load() > epoch_.load();
    return moved ? follow_move() : find_again();
  }
  if (retired_links_.load(std::memory_order_relaxed) != 0 && reconnect_mu_.try_lock()) {
    reap_links();
    reconnect_mu_.unlock();
  }
  return true;
}

// Another thread may hold it for as long as a vGPU takes to come back, and the library's own threads have others to
// serve: false for one of those, it looks again later.
bool Channel::lock_to_connect(std::unique_lock<std::mutex>* lock) {
  if (thread_state.call != 0) {
    lock->lock();
    return true;
  }
  return lock->try_lock();
}

bool Channel::follow_move() {
  std::unique_lock lock(reconnect_mu_, std::defer_lock);
  if (!lock_to_connect(&lock)) return true;
  if (lost_.load()) return false;
  const uint64_t next = page_->next_epoch.load(std::memory_order_acquire);
  if (next <= epoch_.load()) return true;  // another thread was faster
  char endpoint[kEndpointBytes];
  memcpy(endpoint, page_->next_endpoint, sizeof endpoint);
  endpoint[sizeof endpoint - 1] = 0;
  // Its worker has left for good. Memory that may be locked need not be enough for two.
  LinkUse(*this)->release();
  Attempt attempt;
  const Outcome o = connect(endpoint, next, &attempt);
  if (o.ok()) {
    log(LogLevel::kInfo, "vGPU %u: moved, epoch %llu", origin_.vgpu, static_cast<unsigned long long>(next));
    return feed_log();
  }
  log(LogLevel::kInfo, "vGPU %u: cannot follow the move: %s", origin_.vgpu, o.message().c_str());
  lock.unlock();
  return find_again();
}

bool Channel::find_again() {
  std::unique_lock lock(reconnect_mu_, std::defer_lock);
  if (!lock_to_connect(&lock)) return true;
  if (lost_.load()) return false;
  {
    LinkUse link(*this);
    const bool moved =
        page_->state.load() == uint64_t(ChannelState::kMoved) && page_->next_epoch.load() > epoch_.load();
    if (link->alive() && !moved) return true;  // another thread was faster
  }
  std::string cause;
  bool later = false;
  const bool found = (search_.begin_ns == 0 && come_back(&cause)) || search(cause, &later);
  return later || (found && feed_log());
}

// Of a protected session. Whether the scheduler has given the vGPU to another worker; it is not asked too often.
// Requires: reconnect_mu_.
bool Channel::has_moved_on() {
  if (!is_protected() || origin_.pool == nullptr || now_ns() - asked_ns_ < kAskEveryNs) return false;
  Pool::Place place;
  const bool known = counted_trip([&] { return origin_.pool->where(origin_.vgpu, &place); }).ok();
  asked_ns_ = now_ns();
  return known && place.epoch > epoch_.load();
}

// Its worker may not go on, and does not know whether another one has the session by now.
bool Channel::look_elsewhere() {
  const std::unique_lock lock(reconnect_mu_, std::try_to_lock);
  if (!lock.owns_lock() || !has_moved_on()) {
    sleep_us(kAgainPauseUs);
    return true;
  }
  LinkUse(*this)->release();
  bool later = false;
  const bool found = search("its server is cut off", &later);
  return later || (found && feed_log());
}

// To the same worker over another connection: it waits for us, and neither side misses anything. Requires:
// reconnect_mu_.
bool Channel::come_back(std::string* cause) {
  bool silent;
  {
    LinkUse link(*this);
    if (!link->resumes() || hold_ms_ == 0) return false;
    silent = link->fell_silent();
    link->release();  // nothing that is still under way there may come any more
  }
  const uint64_t begin = now_ns();
  if (begin - alarm_ns_ > kAlarmsForgottenNs) patience_ms_ = kPatienceMs;
  uint64_t deadline = begin + hold_ms_ * 1'000'000ull;
  Redial redial;
  while (now_ns() < deadline) {
    Attempt attempt{.again = &redial};
    const Outcome o = counted_trip([&] { return connect(origin_.endpoint, epoch_.load(), &attempt); });
    if (o.ok()) {
      const uint64_t took = now_ns() - begin;
      log(LogLevel::kInfo, "vGPU %u: the connection broke and is there again, %llu ms after that was noticed",
          origin_.vgpu, static_cast<unsigned long long>(took / 1'000'000));
      if (silent && took < kFalseAlarmNs + kTripsToConnect * LinkUse(*this)->round_trip_us() * 1000) be_patient();
      return true;
    }
    *cause = o.message();
    if (attempt.refusal != 0 && attempt.refusal != CUDA_ERROR_NOT_READY) break;  // it moved, or has ended
    if (attempt.hopeless || has_moved_on()) break;
    // The worker goes on without its agent, and the next agent finds it.
    if (attempt.nobody_there) deadline = std::min(deadline, begin + kAgentBackNs);
    sleep_us(kAgainPauseUs);
  }
  return false;
}

// The network was there after all, and is only slow. Were it given up each time, nothing large would ever get through.
void Channel::be_patient() {
  alarm_ns_ = now_ns();
  patience_ms_ = std::min(4 * patience_ms_, kPatienceMostMs);
  LinkUse(*this)->expect_answers(patience_ms_);
}

// Where the scheduler, or the last worker, says that the vGPU is. One that is to come back from a checkpoint is waited
// for as long as the scheduler says so; with `later` the library's own threads look once, and then have others to
// serve: true and *later, where it is not there yet. Requires: reconnect_mu_.
bool Channel::search(std::string cause, bool* later) {
  const bool comes_back = is_protected(), waits = later == nullptr || !comes_back || thread_state.call != 0;
  if (search_.begin_ns == 0) search_ = {now_ns(), now_ns() + (comes_back ? kRecoverNs : kSearchNs)};
  cause = cause.empty() ? kGone : std::string(kGone) + ": " + cause;
  Found found = Found::kNotYet;
  // In turn where the last worker sent us, and where the scheduler knows the vGPU to be: it may have moved on before we
  // came, and the scheduler may be away.
  for (; found == Found::kNotYet; search_.asks = !search_.asks) {
    if (origin_.pool == nullptr || now_ns() >= search_.deadline_ns) {
      found = Found::kLost;
    } else if (!waits && now_ns() - search_.looked_ns < kAskEveryNs) {
      return *later = true;
    } else {
      search_.looked_ns = now_ns();
      found = look_for_place(search_.asks, comes_back, waits, &cause);
    }
  }
  search_ = {};
  if (found == Found::kLost) fail(CUDA_ERROR_DEVICE_UNAVAILABLE, cause);
  return found == Found::kThere;
}

bool Channel::was_sent_on() const {
  return page_->state.load() == uint64_t(ChannelState::kMoved) && page_->next_epoch.load() > epoch_.load();
}

// Once, with a pause after it where the caller waits. `ask`: the scheduler, else the last worker if that has said
// something.
Channel::Found Channel::look_for_place(bool ask, bool comes_back, bool waits, std::string* cause) {
  Pool::Place place;
  const bool sent = was_sent_on();
  if (sent && !ask) {
    char text[kEndpointBytes];
    memcpy(text, page_->next_endpoint, sizeof text);
    text[sizeof text - 1] = 0;
    place = {page_->next_epoch.load(), text, false};
  } else {
    bool refused = false;
    const Outcome o = counted_trip([&] { return origin_.pool->where(origin_.vgpu, &place, &refused); });
    if (!o.ok()) {
      *cause = std::string(kGone) + ", and the scheduler does not help: " + o.message();
      if (!sent && (refused || !comes_back)) return Found::kLost;
    } else if (!sent && !comes_back && place.epoch <= epoch_.load() && now_ns() - search_.begin_ns >= kNowhereNs) {
      return Found::kLost;
    }
    if (comes_back && place.coming) await_place();
  }
  if (place.epoch > epoch_.load()) {
    Attempt attempt;
    const Outcome o = connect(place.endpoint, place.epoch, &attempt);
    if (o.ok()) return Found::kThere;
    *cause = std::string(kGone) +
             (attempt.hopeless ? ", and cannot be made up for: " : ", and its new place does not answer: ") +
             o.message();
    if (attempt.hopeless) return Found::kLost;
  }
  if (waits && (!sent || ask)) sleep_us(kSearchPauseUs);
  return Found::kNotYet;
}

// The scheduler says that it will be there.
void Channel::await_place() {
  search_.deadline_ns = now_ns() + kRecoverNs;
  if (std::exchange(search_.said, true)) return;
  log(LogLevel::kInfo, "vGPU %u: its worker is lost; the program waits until the pool has restored it (`tide why %s`)",
      origin_.vgpu, origin_.pool->identity().job);
}

void Channel::abandon() {
  if (LinkHolder* holder = link_.load(); holder != nullptr && holder->link != nullptr) holder->link->abandon();
  for (LinkHolder* holder : retired_) {
    if (holder->link != nullptr) holder->link->abandon();
  }
  if (region_fd_ >= 0) close(region_fd_);
  region_fd_ = -1;
}

}  // namespace tide
