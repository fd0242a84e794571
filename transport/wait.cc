#include "transport/wait.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace tide {
namespace {

// A round trip over shared memory takes under 1 us, over TCP under 10 us where nobody sleeps; a sleeper's wake-up costs
// 4 to 26 us. On one core nothing is gained by spinning, and yielding after each look lets the far side run.
constexpr uint64_t kSpinNs = 2'000;
constexpr uint64_t kYieldNs = 50'000;
constexpr uint64_t kEventYieldNs = 5'000;
constexpr uint64_t kBusyYieldNs = 20'000'000;
// Nobody wakes a sleeper when the far side dies, so sleeps are sliced and the lifeline looked at in between.
constexpr uint64_t kFirstSliceUs = 2'000;
constexpr uint64_t kLastSliceUs = 64'000;
constexpr uint64_t kAliveNs = 4'000'000;

struct Patience {
  uint64_t spin_ns, yield_ns;
};

const Patience& patience() {
  static const Patience patience = [] {
    const char* text = getenv("TIDE_POLL");
    const uint64_t spin_ns = is_one_core() ? 0 : kSpinNs;
    if (text != nullptr && strcmp(text, "event") == 0) return Patience{0, kEventYieldNs};
    if (text != nullptr && strcmp(text, "busy") == 0) return Patience{spin_ns, kBusyYieldNs};
    return Patience{spin_ns, kYieldNs};
  }();
  return patience;
}

struct Words {
  std::atomic<uint32_t>& asleep;
  std::atomic<uint32_t>& futex;
};

Words own_words(Region region, Side side) {
  if (side == Side::kClient) return {region.client().asleep, region.worker().wake};
  return {region.worker().asleep, region.client().doorbell};
}

}  // namespace

bool is_one_core() {
  static const bool one = sysconf(_SC_NPROCESSORS_ONLN) == 1;
  return one;
}

Waiter::Waiter(Link& link, Side side, uint64_t timeout_us)
    : link_(link), side_(side), begin_ns_(now_ns()), slice_us_(kFirstSliceUs), alive_ns_(begin_ns_) {
  const bool forever = timeout_us > (kNoTimeout - begin_ns_) / 1000;
  deadline_ns_ = forever ? kNoTimeout : begin_ns_ + timeout_us * 1000;
}

bool Waiter::must_sleep() {
  const uint64_t now = now_ns();
  if (now >= deadline_ns_) return true;
  const uint64_t waited = now - begin_ns_;
  if (waited < patience().spin_ns) return false;
  if (waited < patience().yield_ns) {
    sched_yield();
    return false;
  }
  return true;
}

uint32_t Waiter::announce() {
  const Words words = own_words(link_.region(), side_);
  if (side_ == Side::kClient) words.asleep.fetch_add(1, std::memory_order_relaxed);
  const uint32_t seen = words.futex.load(std::memory_order_acquire);
  if (side_ == Side::kWorker) words.asleep.store(asleep_mark(seen), std::memory_order_relaxed);
  // Pairs with the fence in notify().
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return seen;
}

void Waiter::sleep(uint32_t seen) {
  const uint64_t now = now_ns();
  if (now >= deadline_ns_) return;
  const uint64_t left_us = deadline_ns_ == kNoTimeout ? kLastSliceUs : (deadline_ns_ - now) / 1000 + 1;
  link_.sleep(uint32_t(std::min(left_us, slice_us_)), seen);
  slice_us_ = std::min(slice_us_ * 2, kLastSliceUs);
}

void Waiter::withdraw() {
  std::atomic<uint32_t>& asleep = own_words(link_.region(), side_).asleep;
  if (side_ == Side::kClient) {
    asleep.fetch_sub(1, std::memory_order_relaxed);
  } else {
    asleep.store(0, std::memory_order_relaxed);
  }
}

bool Waiter::check() {
  const uint64_t now = now_ns();
  if (now - alive_ns_ >= kAliveNs) {
    alive_ns_ = now;
    if (!link_.alive()) {
      result_ = WaitResult::kGone;
      return false;
    }
  }
  return now < deadline_ns_;
}

}  // namespace tide
