#include "scheduler/election.h"

#include "base/clock.h"
#include "base/log.h"

namespace tide::sched {
namespace {

uint64_t after_ms(uint64_t now_ns, uint32_t ms) { return now_ns + uint64_t(ms) * 1'000'000; }

}  // namespace

Election::Election(Kv& kv, const std::string& root, kj::Timer& timer, Me me)
    : kv_(kv),
      root_(root),
      timer_(timer),
      me_(std::move(me)),
      watch_(kv.watch(one_key(leader_key(root)))),
      doors_watch_(kv.watch(range_of(root + "schedulers/"))) {}

bool Election::leads() const { return term_ != 0 && why_lost_.empty() && boot_ns() < until_ns_; }

std::string Election::doors() const {
  std::string text = me_.door;
  for (const auto& [control, door] : doors_) {
    if (control != me_.control) text += "," + door;
  }
  return text;
}

kj::Promise<void> Election::won() {
  round();
  if (leads()) return kj::READY_NOW;
  return timer_.afterDelay(kElectionTickMs * kj::MILLISECONDS).then([this] { return won(); });
}

kj::Promise<std::string> Election::lost(std::function<bool()> deposed) {
  if (deposed()) lose("another scheduler leads");
  round();
  if (!why_lost_.empty()) return why_lost_;
  return timer_.afterDelay(kElectionTickMs * kj::MILLISECONDS).then([this, deposed = std::move(deposed)]() mutable {
    return lost(std::move(deposed));
  });
}

void Election::lose(const std::string& why) {
  if (term_ != 0 && why_lost_.empty()) why_lost_ = why;
}

void Election::complain(const Outcome& outcome) {
  if (!complained_) log(LogLevel::kWarning, "%s", outcome.message().c_str());
  complained_ = true;
}

void Election::round() {
  if (!why_lost_.empty()) return;
  const bool held = keep_lease();
  if (term_ != 0 && boot_ns() >= until_ns_) return lose("its lease could not be renewed in time");
  if (!held) return;
  const uint64_t now = boot_ns();
  if (term_ != 0) return lead_on();
  if (!watch_->changed() && now < look_ns_) return;
  look_ns_ = after_ms(now, kLeaderLookMs);
  look();
}

bool Election::keep_lease() {
  const uint64_t now = boot_ns();
  if (lease_ == 0) return take_lease(now);
  if (now < renew_ns_) return true;
  bool alive = false;
  const Outcome renewed = kv_.renew(lease_, &alive);
  if (!renewed.ok()) complain(renewed);
  if (!renewed.ok()) return false;
  complained_ = false;
  if (!alive) {
    lose("its lease is over");
    lease_ = 0;
    return false;
  }
  until_ns_ = after_ms(now, kLeaderLeaseMs);  // from when we asked
  renew_ns_ = after_ms(now, kLeaderRenewMs);
  return true;
}

bool Election::take_lease(uint64_t now) {
  uint64_t lease = 0;
  Outcome outcome = kv_.grant(kLeaderLeaseMs, &lease);
  Committed committed;
  if (outcome.ok()) {
    outcome =
        kv_.commit({.compares = {}, .changes = {{root_ + "schedulers/" + me_.control, me_.door, lease}}}, &committed);
  }
  if (!outcome.ok()) complain(outcome);
  if (!outcome.ok()) return false;
  complained_ = false;
  lease_ = lease;
  until_ns_ = after_ms(now, kLeaderLeaseMs);
  renew_ns_ = after_ms(now, kLeaderRenewMs);
  look_ns_ = 0;
  return true;
}

void Election::look() {
  std::vector<Entry> entries;
  if (const Outcome o = kv_.range(one_key(leader_key()), &entries); !o.ok()) return complain(o);
  if (entries.empty()) {
    leader_.clear();
    return stand();
  }
  leader_ = entries[0].value;
  if (entries[0].lease == lease_) term_ = entries[0].created;  // the answer to our standing was lost
}

void Election::stand() {
  Committed committed;
  const Transaction take = {.compares = {{leader_key(), Compare::What::kCreated, 0}},
                            .changes = {{leader_key(), me_.control, lease_}}};
  look_ns_ = 0;  // whatever comes of it
  if (const Outcome o = kv_.commit(take, &committed); !o.ok()) return complain(o);
  if (!committed.done) return;
  term_ = committed.revision;
  leader_ = me_.control;
  lead_on();
}

// What who leads does beside: it learns of the others' doors, and has the store forget what was.
void Election::lead_on() {
  const uint64_t now = boot_ns();
  if (doors_watch_->changed() || now >= doors_ns_) {
    std::vector<Entry> entries;
    const std::string prefix = root_ + "schedulers/";
    doors_ns_ = after_ms(now, kDoorsLookMs);
    if (kv_.range(range_of(prefix), &entries).ok()) {
      doors_.clear();
      for (const Entry& entry : entries) doors_[entry.key.substr(prefix.size())] = entry.value;
    }
  }
  if (now < compact_ns_) return;
  compact_ns_ = after_ms(now, kCompactEveryMs);
  Committed committed;
  if (compact_to_ != 0) (void)kv_.compact(compact_to_);  // another time, then
  const Outcome marked =
      kv_.commit({.compares = {}, .changes = {{root_ + "schedulers/" + me_.control, me_.door, lease_}}}, &committed);
  compact_to_ = marked.ok() ? committed.revision : 0;
}

void Election::resign() {
  lose("it was stopped");
  if (lease_ != 0) (void)kv_.revoke(lease_);  // else it ends by itself
  lease_ = 0;
}

}  // namespace tide::sched
