#pragma once

// How everybody waits on a channel: spin briefly, yield, sleep. And how who publishes tells who sleeps.
// TIDE_POLL=event (one core, CI) goes to sleep almost at once.

#include <cstdint>

#include "base/clock.h"
#include "transport/link.h"

namespace tide {

enum class Side : uint8_t { kClient, kWorker };  // the caller's own

// After publishing: a system call only if the far side (or the pump) sleeps. About 10 ns otherwise.
inline void notify(Link& link, Side side) {
  // Pairs with the fence in wait_until: either we see `asleep`, or the sleeper sees what we published.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const Region region = link.region();
  const auto& asleep = side == Side::kClient ? region.worker().asleep : region.client().asleep;
  if (asleep.load(std::memory_order_relaxed) != 0) link.wake();
}

enum class WaitResult { kReady, kTimeout, kGone };

inline constexpr uint64_t kNoTimeout = ~uint64_t{0};

// The steps of one wait; use wait_until.
class Waiter {
 public:
  Waiter(Link& link, Side side, uint64_t timeout_us);
  // Spins, yields or sleeps a little. False when it is time to give up; result() says why.
  template <class Predicate>
  bool step(Predicate& ready) {
    if (!must_sleep()) return true;
    const uint32_t seen = announce();
    if (!ready()) sleep(seen);
    withdraw();
    return check();
  }
  WaitResult result() const { return result_; }

 private:
  bool must_sleep();
  uint32_t announce();
  void sleep(uint32_t seen);
  void withdraw();
  bool check();

  Link& link_;
  const Side side_;
  WaitResult result_ = WaitResult::kTimeout;
  uint64_t begin_ns_, deadline_ns_, slice_us_, alive_ns_;
};

// Until ready() is true. Drives the link meanwhile and tells the far side first, so who publishes and then waits need
// not call notify(). kGone: the far side has ended (ready() was false after that was known). `ready` must be cheap.
template <class Predicate>
WaitResult wait_until(Link& link, Side side, Predicate&& ready, uint64_t timeout_us = kNoTimeout) {
  if (ready()) return WaitResult::kReady;
  link.progress();
  notify(link, side);
  Waiter waiter(link, side, timeout_us);
  while (true) {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return WaitResult::kReady;
      if (!link.progress()) __builtin_ia32_pause();
    }
    if (!waiter.step(ready)) return ready() ? WaitResult::kReady : waiter.result();
  }
}

}  // namespace tide
