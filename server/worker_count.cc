// What a worker says of itself: what its client did, how its link is, whether it has anything to do.

#include "base/clock.h"
#include "server/worker.h"
#include "transport/wait.h"

namespace tide {
namespace {

constexpr uint64_t kHeardAfterNs = 300'000'000;

}  // namespace

ControlStats Worker::count() const {
  ControlStats stats;
  stats.busy_ms = uint32_t(meter_.total_ns() / 1'000'000);
  if (kept_ != nullptr) {
    const JobShelf::Share kept = kept_->kept();
    stats.kept_in_memory = kept.in_memory, stats.kept_on_disk = kept.on_disk;
    stats.kept_apart = kept_->bytes_apart();
    stats.quiet = quiet();
  }
  if (link_ == nullptr || !serves()) return stats;
  const ClientCounters& counters = link_->region().client().counters;
  stats.commands = counters.commands;
  stats.bytes_in = counters.bytes_in, stats.bytes_out = counters.bytes_out, stats.wait_ns = counters.wait_ns;
  stats.saved_in = counters.saved_in, stats.saved_out = counters.saved_out, stats.kept_in = counters.kept_in;
  stats.resident_bytes = session_ != nullptr ? session_->memory().mapped_bytes() : 0;
  stats.objects = session_ != nullptr ? uint32_t(session_->objects().size()) : kept_->outline().objects;
  stats.busy_permille = meter_.permille();
  stats.quiet = quiet();
  count_trips(&stats);
  measure_link(&stats);
  set_text(stats.transport, link_->transport());
  if (session_ != nullptr) {
    stats.landed_direct = session_->landings().direct(), stats.landed_staged = session_->landings().staged();
  }
  return stats;
}

// Who had asked for it may be gone: it ends by itself.
void Worker::hold(bool on) {
  if (on && held_until_ns_ == 0) held_ns_ = now_ns();
  held_until_ns_ = on ? now_ns() + uint64_t{kHoldMs} * 1'000'000 : 0;
  if (!live_) return;
  tell_held();
  link_->progress();
  notify(*link_, Side::kWorker);
}

void Worker::tell_held() {
  Word& held = link_->region().worker().held;
  held.store(held_until_ns_ != 0 ? ++holds_ : 0, std::memory_order_release);
  link_->note(held);
}

// Of one that is held: and it has heard of that (a program that does nothing looks every 100 ms). Of one that is kept:
// it wants nothing.
bool Worker::quiet() const {
  if (kept_ != nullptr) return !live_ || !reader_.ready();
  if (held_until_ns_ != 0 && now_ns() - held_ns_ < kHeardAfterNs) return false;
  return live_ && !reader_.ready() && session_->streams().idle() && session_->outbox().empty() &&
         !session_->signals().outstanding();
}

// In this order: the client counts a function first, so what no function has is not negative.
void Worker::count_trips(ControlStats* stats) const {
  const ClientPage& client = link_->region().client();
  stats->round_trips = client.counters.round_trips;
  stats->round_trips_per_s = trips_.per_second(now_ns(), stats->round_trips);
  for (uint32_t i = 0; i < kTripSlots; ++i) stats->trips[i] = client.trips.words[i];
}

void Worker::measure_link(ControlStats* stats) const {
  const ClientCounters& counters = link_->region().client().counters;
  const LinkMeter::Wait wait = link_meter_.wait();
  // Before the client has said it: as it was when it connected.
  const uint64_t told_us = counters.link_round_trip_us;
  stats->link = {told_us != 0 ? told_us : link_->round_trip_us(), counters.link_bytes_per_s, wait.window_ns,
                 wait.wait_ns, wait.bytes};
}

}  // namespace tide
