#include "scheduler/kv_memory.h"

#include <algorithm>

#include "base/clock.h"

namespace tide::sched {

class MemoryWatch final : public Watch {
 public:
  explicit MemoryWatch(MemoryKv& kv) : kv_(kv) {}
  bool changed() override {
    kv_.expire();
    const bool is = seen_ != kv_.revision_;
    seen_ = kv_.revision_;
    return is;
  }

 private:
  MemoryKv& kv_;
  uint64_t seen_ = 0;
};

// What fails, if it shall; else, or after it was done, nothing.
Outcome MemoryKv::away(bool asks) {
  expire();
  if (!fails_ || (!asks && done_all_the_same_)) return {};
  return Outcome::fail("the store in memory was told to fail; tell it to work again");
}

void MemoryKv::drop(uint64_t lease) {
  const auto erased = std::erase_if(entries_, [&](const auto& each) { return each.second.lease == lease; });
  if (erased != 0) ++revision_;
  leases_.erase(lease);
}

void MemoryKv::expire() {
  const uint64_t now = now_ns();
  std::vector<uint64_t> over;
  for (const auto& [id, lease] : leases_) {
    if (lease.until_ns <= now) over.push_back(id);
  }
  for (const uint64_t id : over) drop(id);
}

bool MemoryKv::holds(const Compare& compare) const {
  const auto found = entries_.find(compare.key);
  if (found == entries_.end()) return compare.revision == 0;
  return (compare.what == Compare::What::kCreated ? found->second.created : found->second.modified) == compare.revision;
}

Outcome MemoryKv::commit(const Transaction& transaction, Committed* committed) {
  if (Outcome o = away(false); !o.ok()) return o;
  const auto& compares = transaction.compares;
  const bool done = std::all_of(compares.begin(), compares.end(), [this](const Compare& c) { return holds(c); });
  for (const Change& change : transaction.changes) {
    if (change.lease != 0 && leases_.count(change.lease) == 0) return Outcome::fail("there is no such lease any more");
  }
  if (done && !transaction.changes.empty()) ++revision_;
  for (const Change& change : transaction.changes) {
    if (!done) break;
    if (!change.value) {
      entries_.erase(change.key);
      continue;
    }
    Entry& entry = entries_[change.key];
    entry.key = change.key;
    entry.value = *change.value;
    entry.lease = change.lease;
    entry.modified = revision_;
    if (entry.created == 0) entry.created = revision_;
  }
  if (fails_) return away(true);
  *committed = {.done = done, .revision = done ? revision_ : 0};
  return {};
}

Outcome MemoryKv::range(const Range& range, std::vector<Entry>* entries) {
  if (Outcome o = away(true); !o.ok()) return o;
  std::vector<Entry> found;
  for (auto it = entries_.lower_bound(range.from); it != entries_.end() && it->first < range.to; ++it) {
    found.push_back(it->second);
  }
  if (range.last_first) std::reverse(found.begin(), found.end());
  if (range.limit != 0 && found.size() > range.limit) found.resize(range.limit);
  *entries = std::move(found);
  return {};
}

Outcome MemoryKv::grant(uint32_t ttl_ms, uint64_t* lease) {
  if (Outcome o = away(true); !o.ok()) return o;
  const uint64_t ttl_ns = uint64_t(ttl_ms) * 1'000'000;
  leases_[++last_lease_] = {.ttl_ns = ttl_ns, .until_ns = now_ns() + ttl_ns};
  *lease = last_lease_;
  return {};
}

Outcome MemoryKv::renew(uint64_t lease, bool* alive) {
  if (Outcome o = away(true); !o.ok()) return o;
  const auto found = leases_.find(lease);
  *alive = found != leases_.end();
  if (*alive) found->second.until_ns = now_ns() + found->second.ttl_ns;
  return {};
}

Outcome MemoryKv::revoke(uint64_t lease) {
  if (Outcome o = away(true); !o.ok()) return o;
  drop(lease);
  return {};
}

std::unique_ptr<Watch> MemoryKv::watch(const Range&) { return std::make_unique<MemoryWatch>(*this); }

}  // namespace tide::sched
