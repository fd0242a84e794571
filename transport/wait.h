#pragma once

// How everybody waits on a channel: spin briefly, yield, sleep. And how who publishes tells who sleeps.
// TIDE_POLL=event (one core, CI) goes to sleep almost at once; TIDE_POLL=busy only after 20 ms.

#include <cstdint>

#include "base/clock.h"
#include "transport/link.h"

namespace tide {

enum class Side : uint8_t { kClient, kWorker };  // the caller's own

// What a sleeping worker writes into WorkerPage::asleep: the doorbell's value that it sleeps on, never 0.
inline uint32_t asleep_mark(uint32_t doorbell) { return doorbell | 0x8000'0000; }

// After publishing a command: whether the worker (or the pump) sleeps and nobody has rung yet. Once rung, a worker that
// is not scheduled for a while costs the next publishers nothing.
inline bool must_ring(Region region) {
  // Pairs with the sleeper's fence: either we see `asleep`, or the sleeper sees what we published.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const uint32_t asleep = region.worker().asleep.load(std::memory_order_relaxed);
  return asleep != 0 && asleep == asleep_mark(region.client().doorbell.load(std::memory_order_relaxed));
}

// After publishing: a system call only if the far side (or the pump) sleeps. About 10 ns otherwise.
inline void notify(Link& link, Side side) {
  if (side == Side::kClient) {
    if (must_ring(link.region())) link.wake();
    return;
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (link.region().client().asleep.load(std::memory_order_relaxed) != 0) link.wake();
}

enum class WaitResult { kReady, kTimeout, kGone };

// Of the machine, whatever this thread may use.
bool is_one_core();

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
  const int looks = is_one_core() ? 1 : 16;
  const auto comes = [&] {
    for (int i = 0; i < looks; ++i) {
      if (!link.progress()) __builtin_ia32_pause();
      if (ready()) return true;
    }
    return false;
  };
  if (comes()) return WaitResult::kReady;  // before the clock is looked at
  Waiter waiter(link, side, timeout_us);
  while (true) {
    if (!waiter.step(ready)) return ready() ? WaitResult::kReady : waiter.result();
    if (comes()) return WaitResult::kReady;
  }
}

}  // namespace tide
