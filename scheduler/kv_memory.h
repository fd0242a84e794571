#pragma once

// The store in memory, for tests and simulations: it forgets all when it falls. Several schedulers of one process may
// share one.

#include <map>

#include "scheduler/kv.h"

namespace tide::sched {

class MemoryKv final : public Kv {
 public:
  const std::string& name() const override { return name_; }
  Outcome commit(const Transaction& transaction, Committed* committed) override;
  Outcome range(const Range& range, std::vector<Entry>* entries) override;
  Outcome grant(uint32_t ttl_ms, uint64_t* lease) override;
  Outcome renew(uint64_t lease, bool* alive) override;
  Outcome revoke(uint64_t lease) override;
  std::unique_ptr<Watch> watch(const Range& range) override;
  Outcome compact(uint64_t) override { return {}; }

  // From now on each call fails, and what it asked for is done all the same with `done`; until fail(false).
  void fail(bool on, bool done = false) {
    fails_ = on;
    done_all_the_same_ = done;
  }

 private:
  friend class MemoryWatch;
  struct Lease {
    uint64_t ttl_ns = 0, until_ns = 0;
  };
  Outcome away(bool asks);
  void expire();
  void drop(uint64_t lease);
  bool holds(const Compare& compare) const;

  const std::string name_ = "memory";
  std::map<std::string, Entry> entries_;
  std::map<uint64_t, Lease> leases_;
  uint64_t revision_ = 1;
  uint64_t last_lease_ = 0;
  bool fails_ = false, done_all_the_same_ = false;
};

}  // namespace tide::sched
