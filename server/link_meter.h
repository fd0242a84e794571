#pragma once

// How much of the last seconds the program waited for the network: for its worker, which had nothing to do. Time is
// given in; one thread.
//
// The client says how long it waits, but late where much is queued before that. So what the worker sees counts as well:
// it has a part of a command, and cannot go on before the rest has come.

#include <algorithm>
#include <cstdint>

namespace tide {

class LinkMeter {
 public:
  // Time has come to `now`. `worked`: work was under way since the last call; `starved`: a part of a command was there.
  void at(uint64_t now, bool worked, bool starved) {
    const uint64_t since = last_ns_ == 0 ? now : std::min(now, last_ns_);
    last_ns_ = std::max(now, last_ns_);
    if (worked) {
      sum_.busy_ns += now - since;
    } else if (starved) {
      sum_.starved_ns += now - since;
    }
  }
  bool due(uint64_t now) const { return taken_ == 0 || now - last().ns >= kStepNs; }
  // What the client has said of its waits, all in all, and how many bytes have come and gone.
  void take(uint64_t now, uint64_t waited_ns, uint64_t carried) {
    samples_[taken_++ % kSamples] = {now, waited_ns, carried, sum_.busy_ns, sum_.starved_ns};
  }

  struct Wait {
    uint64_t window_ns = 0, wait_ns = 0, bytes = 0;  // of the window's time; of the network's bytes in it
  };
  // Up to the last sample.
  Wait wait() const {
    if (taken_ < 2) return {};
    const Sample &to = last(), &from = samples_[taken_ < kSamples ? 0 : taken_ % kSamples];
    Wait wait{.window_ns = to.ns - from.ns, .bytes = to.carried - std::min(from.carried, to.carried)};
    const uint64_t busy = std::min(to.busy_ns - from.busy_ns, wait.window_ns);
    const uint64_t waited = to.waited_ns - std::min(from.waited_ns, to.waited_ns);
    wait.wait_ns = std::max(to.starved_ns - from.starved_ns, waited - std::min(busy, waited));
    wait.wait_ns = std::min(wait.wait_ns, wait.window_ns - busy);
    return wait;
  }

 private:
  static constexpr uint64_t kStepNs = 1'000'000'000, kSamples = 11;

  struct Sample {
    uint64_t ns = 0, waited_ns = 0, carried = 0, busy_ns = 0, starved_ns = 0;
  };
  const Sample& last() const { return samples_[(taken_ - 1) % kSamples]; }

  Sample sum_;
  Sample samples_[kSamples];
  uint64_t taken_ = 0, last_ns_ = 0;
};

}  // namespace tide
