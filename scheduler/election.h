#pragma once

// Which of the pool's schedulers leads: the one whose key lies under a lease in the store they share. Its term is the
// revision at which the key was made; every write of its record compares it (Store::write_only_in). Who leads believes
// so only as long as the lease must live by its own clock, which is less long than the others wait. One kj event loop.

#include <kj/async.h>
#include <kj/timer.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "scheduler/kv.h"

namespace tide::sched {

inline constexpr uint32_t kLeaderLeaseMs = 3000;
inline constexpr uint32_t kLeaderRenewMs = 700;
inline constexpr uint32_t kElectionTickMs = 100;
inline constexpr uint32_t kLeaderLookMs = 1000;  // without a hint
inline constexpr uint32_t kDoorsLookMs = 2000;
inline constexpr uint32_t kCompactEveryMs = 300'000;  // and so long what was before is kept

class Election final {
 public:
  struct Me {
    std::string control, door;  // addresses, for others
  };
  Election(Kv& kv, const std::string& root, kj::Timer& timer, Me me);

  // Fulfilled when this scheduler has the term.
  kj::Promise<void> won();
  // After that: fulfilled with the reason when it leads no longer. `deposed`: whether a write was refused.
  kj::Promise<std::string> lost(std::function<bool()> deposed);
  // Gives the lease back, so that nobody waits for its end.
  void resign();

  bool leads() const;
  uint64_t term() const { return term_; }
  static std::string leader_key(const std::string& root) { return root + "leader"; }
  std::string leader_key() const { return leader_key(root_); }
  // Who leads, as far as known; empty: nobody.
  const std::string& leader() const { return leader_; }
  // All schedulers' doors, comma-separated, this one's first.
  std::string doors() const;

 private:
  void round();
  bool keep_lease();
  bool take_lease(uint64_t now);
  void look();
  void stand();
  void lead_on();
  void lose(const std::string& why);
  void complain(const Outcome& outcome);

  Kv& kv_;
  const std::string root_;
  kj::Timer& timer_;
  const Me me_;
  std::unique_ptr<Watch> watch_, doors_watch_;
  uint64_t lease_ = 0;
  uint64_t until_ns_ = 0;  // so long it lives at least (boot_ns())
  uint64_t renew_ns_ = 0, look_ns_ = 0, doors_ns_ = 0, compact_ns_ = 0;
  uint64_t compact_to_ = 0;
  uint64_t term_ = 0;
  std::string leader_;
  std::string why_lost_;
  std::map<std::string, std::string> doors_;  // by control address
  bool complained_ = false;
};

}  // namespace tide::sched
