#include "tools/rdma_bench/benchmarks.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/log.h"
#include "tools/rdma_bench/ticks.h"

namespace tide::fabric {
namespace {

constexpr double kQuietNs = 3'000;  // without anything new, until others may have the core
constexpr double kLookNs = 1e6;     // between two looks at the control connection, each a system call
constexpr uint64_t kWarmUpTrips = 200, kWarmUpBytes = 1 << 20;
constexpr uint32_t kBurst = 16;       // steps between two looks around
constexpr uint32_t kSpinBurst = 256;  // of one that yields to nobody: a look takes a tenth of a small message's time
constexpr uint32_t kSendBurst = 64;   // of one that only sends: looking is a system call on some paths

uint64_t ticks_of(double ns) { return uint64_t(ns / ns_per_tick()); }

struct Flow {  // of one direction, as its receiver saw it
  uint64_t messages = 0;
  double seconds = 0;
  template <class F>
  void fields(F& f) {
    f("messages", messages), f("seconds", seconds);
  }
  double per_s() const { return seconds > 0 ? double(messages) / seconds : 0; }
};

// Sees to it that no loop over a channel goes on when the other side is gone, says something, or nothing moves.
class Watch {
 public:
  explicit Watch(Session& session) : session_(session), moved_(ticks()), look_(moved_ + ticks_of(kLookNs)) {}

  // After every turn of a loop. False: see outcome().
  bool turn(bool moved) {
    stirred_ |= moved;
    if (moved) quiet_since_ = 0;
    if (moved && ++turns_ % kBurst != 0) return true;
    const uint64_t now = ticks();
    if (!moved && quiet_since_ == 0) quiet_since_ = now;
    if (!moved && now - quiet_since_ > patience_) sched_yield();  // the other side may need this core
    return now < look_ || look(now);
  }
  void look_at_once() { look_ = 0; }
  bool came() const { return came_; }
  // What the other side said.
  Word take(std::string* payload) {
    came_ = false;
    *payload = payload_;
    return word_;
  }
  const Outcome& outcome() const { return outcome_; }

 private:
  bool look(uint64_t now) {
    look_ = now + ticks_of(kLookNs);
    if (stirred_) moved_ = now;
    stirred_ = false;
    const double quiet_ms = double(now - moved_) * ns_per_tick() / 1e6;
    if (!session_.channel.failure().empty()) {
      outcome_ = Outcome::fail(session_.channel.failure());
    } else if (quiet_ms > session_.control.timeout_ms()) {
      outcome_ = Outcome::fail(format("nothing moved for %.0f ms (--timeout)", quiet_ms));
    } else if (!came_ && session_.control.readable()) {
      outcome_ = session_.control.receive(&word_, &payload_, session_.control.timeout_ms());
      came_ = outcome_.ok();
      if (came_ && word_ == Word::kError) outcome_ = Outcome::fail("the other side: " + payload_);
    }
    return outcome_.ok();
  }

  Session& session_;
  uint64_t moved_, look_;
  uint64_t quiet_since_ = 0, patience_ = session_.run.spin ? UINT64_MAX : ticks_of(kQuietNs);
  uint32_t turns_ = 0;
  bool stirred_ = false, came_ = false;
  Word word_ = Word::kError;
  std::string payload_;
  Outcome outcome_;
};

// Makes progress until `received` have come, at most for a while: looking around takes time, too.
bool arrived(Session& session, uint64_t received) {
  Channel& channel = session.channel;
  const uint32_t most = session.run.spin ? kSpinBurst : kBurst;
  for (uint32_t i = 0; i < most && channel.received() < received; ++i) channel.progress();
  return channel.received() >= received;
}

bool post_one(Channel& channel, Watch& watch) {
  while (!channel.post()) {
    channel.progress();
    if (!watch.turn(false)) return false;
  }
  return true;
}

bool wait_until_received(Session& session, Watch& watch, uint64_t received) {
  for (;;) {
    const bool done = arrived(session, received);
    if (!watch.turn(done)) return false;
    if (done) return true;
  }
}

bool drain(Channel& channel, Watch& watch) {
  while (channel.sent() < channel.posted()) {
    channel.progress();
    if (!watch.turn(false)) return false;
  }
  return true;
}

Outcome ping(Session& session, Histogram* histogram) {
  Channel& channel = session.channel;
  Watch watch(session);
  uint64_t trips = 0;
  const uint64_t duration = ticks_of(session.run.duration_ms * 1e6);
  // Where the two sides share a core that others want, too, a trip takes as long as the others like.
  for (const uint64_t begin = ticks(); trips < kWarmUpTrips && ticks() - begin < duration;) {
    if (!post_one(channel, watch) || !wait_until_received(session, watch, ++trips)) return watch.outcome();
  }
  const double half_ns = ns_per_tick() / 2;
  const uint64_t end = ticks() + duration;
  uint64_t last = 0;  // noted while the next one is under way, so that noting takes no part of its time
  for (uint64_t begin = ticks(); begin < end;) {
    if (!post_one(channel, watch)) return watch.outcome();
    if (last != 0) histogram->add(uint64_t(double(last) * half_ns + 0.5));
    if (!wait_until_received(session, watch, ++trips)) return watch.outcome();
    const uint64_t now = ticks();
    last = now - begin;
    begin = now;
  }
  histogram->add(uint64_t(double(last) * half_ns + 0.5));
  if (!drain(channel, watch)) return watch.outcome();
  return session.control.send(Word::kStop);
}

Outcome pong(Session& session) {
  Channel& channel = session.channel;
  Watch watch(session);
  for (uint64_t answered = 0; !watch.came();) {
    const bool moved = arrived(session, answered + 1);
    if (moved && channel.post()) ++answered;
    if (!watch.turn(moved)) return watch.outcome();
  }
  return drain(channel, watch) ? Outcome{} : watch.outcome();
}

// One side's part of a flow of messages, one way or both. The first messages wait for connections to be made, and for
// pages and caches: a receiver that has them says so, and nothing is under way when the measurement begins. A sender
// says how many it sent; a receiver, when it has them all, at what rate they came. Both make progress until then,
// because what was sent may still lie in a library.
class FlowRun {
 public:
  FlowRun(Session& session, bool sends, bool receives)
      : session_(session), channel_(session.channel), watch_(session), sends_(sends), receives_(receives) {}

  Outcome run() {
    while ((sends_ && !all_heard_) || (receives_ && !all_said_)) {
      const bool posted = sends_ && !over_ && post();
      const bool received = progress();
      Outcome outcome = say();
      if (outcome.ok() && !watch_.turn(posted || received)) outcome = watch_.outcome();
      if (outcome.ok() && watch_.came()) outcome = hear();
      if (!outcome.ok()) return outcome;
    }
    return {};
  }
  const Flow& here() const { return here_; }
  const Flow& there() const { return there_; }

 private:
  bool post() {
    uint32_t count = 0;
    const uint64_t most = end_ == 0 ? warm_up_ - channel_.posted() : receives_ ? kBurst : kSendBurst;
    while (count < most && channel_.post()) ++count;
    const uint64_t now = ticks();
    if (end_ == 0 && channel_.sent() == warm_up_) watch_.look_at_once();  // for the receiver's kReady
    over_ = end_ != 0 && now >= end_ && channel_.posted() > warm_up_;
    return count > 0;
  }

  bool progress() {
    const uint64_t before = channel_.received(), sent = channel_.sent();
    channel_.progress();
    const uint64_t received = channel_.received();
    // The last one's time is taken when no other follows at once: a look at the clock costs as much as a message.
    if (received == before && before != timed_) last_ = ticks(), timed_ = before;
    return received != before || channel_.sent() != sent;
  }

  Outcome say() {
    if (receives_ && begin_ == 0 && channel_.received() == warm_up_) {
      begin_ = ticks();
      return session_.control.send(Word::kReady);
    }
    if (over_ && !counted_ && channel_.sent() == channel_.posted()) {
      counted_ = true;
      return session_.control.send(Word::kCount, std::to_string(channel_.posted()));
    }
    if (!receives_ || all_said_ || !expected_ || channel_.received() < *expected_) return {};
    all_said_ = true;
    if (channel_.received() != timed_) last_ = ticks();
    here_.messages = channel_.received() - warm_up_;
    here_.seconds = double(last_ - begin_) * ns_per_tick() / 1e9;
    return session_.control.send(Word::kResult, pack(here_));
  }

  Outcome hear() {
    std::string payload;
    const Word word = watch_.take(&payload);
    if (word == Word::kReady && sends_ && end_ == 0) {
      end_ = ticks() + ticks_of(session_.run.duration_ms * 1e6);
      return {};
    }
    if (word == Word::kCount && receives_ && !expected_) {
      expected_ = strtoull(payload.c_str(), nullptr, 10);
      return {};
    }
    if (word == Word::kResult && sends_ && unpack(payload, &there_)) {
      all_heard_ = true;
      return {};
    }
    return Outcome::fail(format("the other side said %u in the middle of a measurement", unsigned(word)));
  }

  Session& session_;
  Channel& channel_;
  Watch watch_;
  bool sends_, receives_;
  bool over_ = false, counted_ = false, all_said_ = false, all_heard_ = false;
  std::optional<uint64_t> expected_;
  const uint64_t warm_up_ = std::clamp<uint64_t>(kWarmUpBytes / session_.run.bytes, 1, 32);
  uint64_t begin_ = 0, last_ = 0, timed_ = 0;  // of the receiver; last_: when it had timed_
  uint64_t end_ = 0;                           // of the sender
  Flow here_, there_;
};

Outcome flow(Session& session, bool to_server, bool to_client, Row* row) {
  const bool sends = session.client() ? to_server : to_client;
  const bool receives = session.client() ? to_client : to_server;
  FlowRun run(session, sends, receives);
  const Outcome outcome = run.run();
  if (!outcome.ok()) return outcome;
  row->messages_per_s = run.here().per_s() + run.there().per_s();
  row->gbytes_per_s = row->messages_per_s * double(session.run.bytes) / 1e9;
  return {};
}

}  // namespace

Times times_of(const Histogram& histogram) {
  Times times;
  times.count = histogram.count();
  times.min = double(histogram.min()) / 1e3;
  times.p50 = histogram.quantile(0.5) / 1e3;
  times.p99 = histogram.quantile(0.99) / 1e3;
  times.p999 = histogram.quantile(0.999) / 1e3;
  times.max = double(histogram.max()) / 1e3;
  times.jitter = times.p999 - times.p50;
  // Four for each doubling, from the one with the least to the one with p99.9; the last one takes the rest.
  const double factor = std::exp2(0.25);
  double from = std::exp2(std::floor(std::log2(std::max(double(histogram.min()), 1.0)) * 4) / 4);
  while (times.count > 0 && times.histogram.size() < 64) {
    const bool last = from * factor > times.p999 * 1e3;
    const double to = last ? std::max(from * factor, double(histogram.max()) + 1) : from * factor;
    times.histogram.push_back({from / 1e3, to / 1e3, histogram.between(from, last ? 1e18 : to)});
    if (last) break;
    from = to;
  }
  return times;
}

Outcome measure_latency(Session& session, Row* row) {
  if (!session.client()) return pong(session);
  Histogram histogram;
  const Outcome outcome = ping(session, &histogram);
  if (outcome.ok()) row->us = times_of(histogram);
  return outcome;
}

Outcome measure_to(Session& session, Row* row) { return flow(session, true, false, row); }
Outcome measure_back(Session& session, Row* row) { return flow(session, false, true, row); }
Outcome measure_both(Session& session, Row* row) { return flow(session, true, true, row); }

Outcome measure_registration(Session& session, Row* row) {
  Histogram histogram;
  if (session.channel.registration(session.run.bytes, session.run.duration_ms, &histogram)) {
    row->us = times_of(histogram);
    return {};
  }
  return session.channel.failure().empty() ? Outcome{} : Outcome::fail(session.channel.failure());
}

const Benchmark* benchmark_named(const std::string& name) {
  for (const Benchmark& benchmark : kBenchmarks) {
    if (name == benchmark.name) return &benchmark;
  }
  return nullptr;
}

std::vector<uint64_t> sizes_of(const Benchmark& benchmark, uint64_t bytes_max) {
  std::vector<uint64_t> sizes = {8};
  if (benchmark.sizes == Sizes::kLatency) sizes.push_back(4096);
  if (benchmark.sizes == Sizes::kSeries) {
    sizes.clear();
    for (uint64_t bytes = 4096; bytes < bytes_max; bytes *= 16) sizes.push_back(bytes);
    sizes.push_back(bytes_max);
  }
  std::erase_if(sizes, [&](uint64_t bytes) { return bytes > bytes_max; });
  return sizes;
}

}  // namespace tide::fabric
