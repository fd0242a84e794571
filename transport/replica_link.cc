#include "transport/replica_link.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "base/threads.h"
#include "transport/region.h"

namespace tide {
namespace {

constexpr uint64_t kLingerNs = 50'000;          // the pump looks on for so long after the last movement
constexpr uint64_t kEventLingerNs = 2'000;      // with TIDE_POLL=event
constexpr uint32_t kParkUs = 1'000;             // while others drive the link
constexpr uint32_t kSoonUs = 200;               // what is due so soon is not slept for: a sleeper wakes some 60 us late
constexpr uint32_t kPumpSleepUs = 100'000;      // what comes ends it; it grows to the next while nothing does
constexpr uint32_t kPumpSleepMostUs = 800'000;  // as often as the lifeline is kept
constexpr uint64_t kFlushNs = 2'000'000'000;
constexpr int kParcelsAtOnce = 64;
constexpr uint64_t kSilenceNs = 2'000'000'000;
constexpr uint64_t kQuietNs = 200'000'000;      // as long as TCP waits at least before it sends again
constexpr uint32_t kConnectTimeoutMs = 60'000;  // where the network is there, and a machine that lives

thread_local bool is_pump = false;

// So long may be slept before something is due.
uint32_t before(uint32_t due_us) { return due_us > kSoonUs ? due_us - kSoonUs / 2 : std::max(due_us, 1u); }

uint64_t linger_ns() {
  const char* text = getenv("TIDE_POLL");
  return text != nullptr && strcmp(text, "event") == 0 ? kEventLingerNs : kLingerNs;
}

}  // namespace

ReplicaLink::ReplicaLink(Region region, Side own, int lifeline, std::unique_ptr<Carrier> carrier,
                         std::optional<uint64_t> resumed_at)
    : own_(own),
      pid_(getpid()),
      lifeline_(lifeline),
      replica_(region, own, resumed_at),
      carrier_(std::move(carrier)),
      kick_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  region_ = region;
  if (own == Side::kWorker) {
    region.client().asleep.store(1);
    lifeline_.follow_path();
    return;
  }
  region.worker().asleep.store(0);
}

Outcome ReplicaLink::start_pump() {
  const SignalsBlocked blocked;
  return pump_.start([this] { pump(); });
}

void ReplicaLink::stop_pump() {
  if (!pump_.joinable()) return;
  stop_ = true;
  kick();
  pump_.join();
}

// The pump speaks on it, too.
void ReplicaLink::release_lifeline() {
  stop_pump();
  lifeline_.release();
}

ReplicaLink::~ReplicaLink() {
  if (getpid() != pid_) {  // a forked child: nothing here is its own
    lifeline_.close();
    if (pump_.joinable()) pump_.detach();
    [[maybe_unused]] Carrier* leaked = carrier_.release();
    return;
  }
  stop_pump();
  flush();
  carrier_.reset();
  close(kick_fd_);
  if (own_ == Side::kWorker && !left_region_) unmap_region(region_);
}

KeptRegion ReplicaLink::leave_region() {
  left_region_ = true;
  return {region_, replica_.received()};
}

void ReplicaLink::flush() {
  const uint64_t end = now_ns() + kFlushNs;
  while (replica_.synced() && alive() && (replica_.has_more() || !carrier_->idle()) && now_ns() < end) {
    if (!progress()) sched_yield();
  }
}

void ReplicaLink::lock() {
  while (!try_lock()) sched_yield();
}

bool ReplicaLink::progress() {
  if (!is_pump) driven_.fetch_add(1, std::memory_order_relaxed);
  bool moved = false;
  // Who published while another held the lock relies on that one to look again.
  do {
    if (broken_.load(std::memory_order_relaxed) || !try_lock()) return moved;
    const bool now = carry();
    const bool more = carrier_->may_send();
    unlock();
    moved |= now;
    if (!more) return moved;
  } while (replica_.has_more());
  return moved;
}

bool ReplicaLink::carry() {
  if (broken_.load(std::memory_order_relaxed)) return false;
  bool moved = carrier_->progress(&replica_);
  for (int i = 0; i < kParcelsAtOnce && carrier_->may_send() && replica_.next(&parcel_, carrier_->ring_bytes_most());
       ++i) {
    carrier_->send(parcel_);
    moved = true;
  }
  const char* failure = carrier_->failure();
  if (failure != nullptr) {
    log(LogLevel::kInfo, "%s: the connection broke: %s", carrier_->name(), failure);
    broken_.store(true);
  }
  if (failure != nullptr || carrier_->applied() != applied_) wake_own_sleepers();
  if (applied_ != carrier_->applied()) heard_ns_.store(now_ns(), std::memory_order_relaxed);
  applied_ = carrier_->applied();
  return moved;
}

void ReplicaLink::wake_own_sleepers() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (own_ == Side::kClient) {
    if (region_.client().asleep.load(std::memory_order_relaxed) != 0) futex_bump(region_.worker().wake);
    return;
  }
  region_.client().doorbell.fetch_add(1, std::memory_order_release);
  if (polling_.load(std::memory_order_relaxed)) kick();
}

void ReplicaLink::wake() {
  if (own_ == Side::kWorker) {
    progress();
  } else if (replica_.has_more()) {
    region_.worker().asleep.store(0, std::memory_order_relaxed);
    kick();
  }
}

void ReplicaLink::kick() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(kick_fd_, &one, sizeof one);
}

void ReplicaLink::sleep(uint32_t timeout_us, uint32_t seen) {
  if (own_ == Side::kWorker) return worker_sleep(timeout_us, seen);
  // The pump must look after us now; what we did may have taken the event that it waits for.
  if (polling_.load(std::memory_order_seq_cst)) kick();
  futex_wait(region_.worker().wake, seen, timeout_us);
}

void ReplicaLink::interrupt() {
  if (own_ == Side::kClient) return futex_bump(region_.worker().wake);
  region_.client().doorbell.fetch_add(1, std::memory_order_release);
  kick();
}

void ReplicaLink::worker_sleep(uint32_t timeout_us, uint32_t seen) {
  lock();
  bool busy = carry() || region_.client().doorbell.load(std::memory_order_acquire) != seen;
  busy = busy || (!broken_.load() && (carrier_->due_us() < kSoonUs || !carrier_->arm()));
  const uint32_t due_us = carrier_->due_us();
  if (!busy) polling_.store(true, std::memory_order_seq_cst);
  unlock();
  if (busy) {
    sched_yield();
    return;
  }
  // A broken one waits for its client to come back, or for the end of its time.
  const bool whole = !broken_.load();
  wait_for_events(whole, whole, std::min(timeout_us, before(due_us)));
  polling_.store(false, std::memory_order_seq_cst);
}

bool ReplicaLink::wait_for_events(bool carrier_too, bool lifeline_too, uint32_t timeout_us) {
  pollfd fds[3] = {{.fd = kick_fd_, .events = POLLIN, .revents = 0},
                   {.fd = carrier_too ? carrier_->fd() : -1, .events = POLLIN, .revents = 0},
                   {.fd = lifeline_too ? lifeline_.fd() : -1, .events = POLLRDHUP, .revents = 0}};
  const timespec timeout{.tv_sec = timeout_us / 1'000'000, .tv_nsec = long(timeout_us % 1'000'000) * 1000};
  const bool any = ppoll(fds, 3, &timeout, nullptr) > 0;
  if ((fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0 && !broken_.exchange(true)) {
    log(LogLevel::kInfo, "%s: the connection broke: its descriptor did", carrier_->name());
  }
  uint64_t count;
  if (fds[0].revents != 0) [[maybe_unused]]
    const ssize_t n = read(kick_fd_, &count, sizeof count);
  return any;
}

void ReplicaLink::pump() {
  is_pump = true;
  const uint64_t linger = linger_ns();
  uint64_t moved_ns = now_ns(), driven = 0;
  uint32_t sleep_us = kPumpSleepUs;
  while (!stop_.load()) {
    const bool moved = progress();
    const uint64_t now = now_ns();
    if (moved) moved_ns = now;
    if (!broken_.load(std::memory_order_relaxed)) lifeline_.keep(now);
    const uint64_t driven_now = driven_.load(std::memory_order_relaxed);
    const bool others_drive = driven_now != driven && region_.client().asleep.load() == 0;
    driven = driven_now;
    if (others_drive) {
      pump_sleep(false, kParkUs);
    } else if (now - moved_ns < linger) {
      sched_yield();
    } else {
      const bool woken = pump_sleep(true, sleep_us);
      sleep_us = woken ? kPumpSleepUs : std::min(2 * sleep_us, kPumpSleepMostUs);
      if (woken) moved_ns = now_ns();
    }
  }
}

// `armed`: also for what comes. Else only until somebody publishes or the time has passed. Whether there is something.
bool ReplicaLink::pump_sleep(bool armed, uint32_t timeout_us) {
  // The mark is the next link's when this one is broken.
  std::atomic<uint32_t>& asleep = region_.worker().asleep;
  if (!broken_.load()) {
    asleep.store(asleep_mark(region_.client().doorbell.load(std::memory_order_relaxed)), std::memory_order_relaxed);
  }
  polling_.store(true, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  lock();
  bool busy = false;
  if (!broken_.load()) {
    const bool moved = carry();
    busy = (armed && moved) || (carrier_->may_send() && replica_.has_more());
    busy = busy || (armed && carrier_->due_us() < kSoonUs);
    if (!busy && armed) busy = !carrier_->arm();
    timeout_us = std::min(timeout_us, before(carrier_->due_us()));
  }
  unlock();
  if (!busy) busy = wait_for_events(armed && !broken_.load(), false, timeout_us);
  polling_.store(false, std::memory_order_relaxed);
  if (!broken_.load()) asleep.store(0, std::memory_order_relaxed);
  return busy;
}

// The lifeline may be starved on a slow link by what is carried; then the carrier is a sign of life.
bool ReplicaLink::alive() {
  if (broken_.load()) return false;
  const bool reads = own_ == Side::kWorker && carrier_ != nullptr && !carrier_->reads_lifeline();
  const LifelineState state = reads ? lifeline_.read_on() : lifeline_.state();
  const uint64_t now = now_ns(), heard_ns = heard_ns_.load(std::memory_order_relaxed);
  if (state == LifelineState::kBroken)
    return now - std::min(now, heard_ns) < std::max(kSilenceNs, lifeline_.peer_timeout_ns());
  return state == LifelineState::kAlive && still_heard(now);
}

// The system notices silence after 2 s, and what it sends again it sends ever less often. Who waits asks sooner; not
// behind much that is under way, which a word would have to wait for, too.
bool ReplicaLink::still_heard(uint64_t now) {
  const uint64_t heard_ns = heard_ns_.load(std::memory_order_relaxed);
  if (patience_ms_ == 0 || now - std::min(now, heard_ns) < kQuietNs || !replica_.little_on_the_way()) return true;
  if (lifeline_.answers(now, heard_ns, patience_ms_)) return true;
  silent_.store(true);
  if (!broken_.exchange(true))
    log(LogLevel::kInfo, "%s: the connection broke: the network is silent", carrier_->name());
  return false;
}

void ReplicaLink::release() {
  const std::lock_guard known(known_mu_);
  lock();
  broken_.store(true);
  carrier_->release();
  unlock();
  // The client may not have noticed. Nothing is said about our own reading, by which closed() tells how it went.
  if (own_ == Side::kWorker) shutdown(lifeline_.fd(), SHUT_WR);
  wake_own_sleepers();
}

// Where the bytes do not come through our hands (verbs), they are in the ring before their place is known.
void ReplicaLink::land_in(Landings* landings) {
  lock();
  replica_.land_in(carrier_->lands() ? landings : nullptr);
  unlock();
}

void ReplicaLink::land_commands_in(CommandLandings* landings) {
  lock();
  replica_.land_commands_in(carrier_->lands() ? landings : nullptr);
  unlock();
}

// Asked before each large copy: where it is known already, nobody waits for who carries.
void ReplicaLink::know_memory(const std::byte* base, uint64_t bytes, bool written) {
  if (!carrier_->asks_for_memory()) return;
  const std::lock_guard known(known_mu_);
  if (std::find(known_.begin(), known_.end(), base) != known_.end()) return;
  known_.push_back(base);
  lock();
  if (!broken_.load()) carrier_->know_memory(base, bytes, written);
  unlock();
}

// What the carrier knows changes with both locks held.
RemotePlace ReplicaLink::place_for(const std::byte* to, uint64_t bytes) {
  if (!carrier_->asks_for_memory()) return {};
  const std::lock_guard known(known_mu_);
  return broken_.load() ? RemotePlace{} : carrier_->place_for(to, bytes);
}

void ReplicaLink::forget_memory(const std::byte* base) {
  if (!carrier_->asks_for_memory()) return;
  const std::lock_guard known(known_mu_);
  if (std::erase(known_, base) == 0) return;
  lock();
  if (!broken_.load()) carrier_->forget_memory(base);
  unlock();
}

void ReplicaLink::take_back() {
  lock();
  replica_.take_back();
  unlock();
}

void ReplicaLink::abandon() { lifeline_.close(); }

Outcome ReplicaLink::wait_for_far_side(uint32_t timeout_ms) {
  const uint64_t end = now_ns() + uint64_t(timeout_ms) * 1'000'000;
  while (true) {
    progress();
    lock();
    const bool heard = carrier_->applied() != 0;
    const char* const failure = carrier_->failure();
    const std::string why = failure == nullptr ? "" : std::string(": ") + failure;
    unlock();
    if (heard) return {};
    if (broken_.load()) return Outcome::fail("the connection to the worker broke at once" + why);
    if (!lifeline_.alive()) return Outcome::fail("the worker ended while it was being connected");
    if (now_ns() >= end) return Outcome::fail("the worker does not answer");
    sched_yield();
  }
}

namespace {

Outcome connect_over(const CarrierKind& kind, Region region, int lifeline, const char* data,
                     std::unique_ptr<Link>* link) {
  std::unique_ptr<Carrier> carrier;
  Outcome outcome = kind.connect(region, lifeline, data, &carrier);
  if (!outcome.ok()) return outcome;
  auto made = std::make_unique<ReplicaLink>(region, Side::kClient, lifeline, std::move(carrier));
  outcome = made->start_pump();
  if (outcome.ok()) outcome = made->wait_for_far_side(kConnectTimeoutMs);
  if (!outcome.ok()) {
    made->release_lifeline();
    return outcome;
  }
  *link = std::move(made);
  return {};
}

Outcome accept_over(const CarrierKind& kind, int lifeline, int region_fd, std::string* data,
                    std::unique_ptr<Link>* link) {
  Region region;
  Outcome outcome = map_private_region(&region);
  if (!outcome.ok()) return outcome;
  std::unique_ptr<Carrier> carrier;
  outcome = kind.listen(region, lifeline, data, &carrier);
  if (!outcome.ok()) {
    unmap_region(region);
    return outcome;
  }
  if (region_fd >= 0) close(region_fd);  // a client of the same host may send one; nobody needs it
  *link = std::make_unique<ReplicaLink>(region, Side::kWorker, lifeline, std::move(carrier));
  return {};
}

Outcome resume_over(const CarrierKind& kind, const KeptRegion& kept, int lifeline, std::string* data,
                    std::unique_ptr<Link>* link) {
  std::unique_ptr<Carrier> carrier;
  if (Outcome outcome = kind.listen(kept.region, lifeline, data, &carrier); !outcome.ok()) return outcome;
  *link = std::make_unique<ReplicaLink>(kept.region, Side::kWorker, lifeline, std::move(carrier), kept.received);
  return {};
}

}  // namespace

Transport carried_by(const CarrierKind& kind, bool same_host) {
  using namespace std::placeholders;
  return {kind.name,
          same_host,
          std::bind(connect_over, kind, _1, _2, _3, _4),
          std::bind(accept_over, kind, _1, _2, _3, _4),
          kind.prepare,
          std::bind(resume_over, kind, _1, _2, _3, _4)};
}

}  // namespace tide
