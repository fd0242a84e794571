#pragma once

// The link of the transports without common memory: a replica of the region on each side and a carrier in between.
//
// The client has a pump thread that carries what nobody waits for. A thread that waits carries by itself, so a round
// trip costs no change of threads; the pump keeps out of its way then. The worker has no pump: its own loop calls
// progress() or wait_until(), and its copy of `ClientPage::asleep` is always 1, so that notify() sends at once from
// whatever thread publishes.

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/threads.h"
#include "transport/carrier.h"
#include "transport/lifeline.h"
#include "transport/link.h"
#include "transport/replica.h"

namespace tide {

class ReplicaLink : public Link {
 public:
  // Worker: takes over the region, which map_private_region made.
  ReplicaLink(Region region, Side own, int lifeline, std::unique_ptr<Carrier> carrier,
              std::optional<uint64_t> resumed_at = {});
  ~ReplicaLink() override;  // what was published still leaves, for at most 2 s

  bool ready() override { return replica_.synced(); }
  bool progress() override;
  void note(const Word& word) override { replica_.note(word); }
  void wake() override;
  void sleep(uint32_t timeout_us, uint32_t seen) override;
  void interrupt() override;
  bool alive() override;
  const char* transport() const override { return carrier_->name(); }
  bool lends() const override { return carrier_->lends(); }
  bool lend(uint64_t begin, const std::byte* from, uint64_t bytes) override {
    return replica_.lend(begin, from, bytes);
  }
  void land_in(Landings* landings) override;
  void land_commands_in(CommandLandings* landings) override;
  void know_memory(const std::byte* base, uint64_t bytes, bool written) override;
  RemotePlace place_for(const std::byte* to, uint64_t bytes) override;
  bool lend_to(uint64_t begin, const std::byte* from, uint64_t bytes, const RemotePlace& to) override {
    return replica_.lend(begin, from, bytes, carrier_->writes_to(to.connection) ? to : RemotePlace{});
  }
  void forget_memory(const std::byte* base) override;
  void take_back() override;
  uint64_t bytes_per_s() const override { return replica_.bytes_per_s(); }
  uint64_t on_the_way() const override { return replica_.on_the_way(); }
  uint64_t carried() const override { return replica_.carried(); }
  bool part_has_come() const override { return replica_.part_has_come(); }
  uint64_t round_trip_us() const override { return lifeline_.round_trip_us(); }
  void abandon() override;
  void release() override;
  bool resumes() const override { return true; }
  void expect_answers(uint32_t patience_ms) override { patience_ms_ = patience_ms; }
  bool fell_silent() override { return silent_.load(); }
  bool closed() override { return lifeline_.state() == LifelineState::kClosed; }
  KeptRegion leave_region() override;

  // Client, once, before anything else. For connect functions.
  Outcome start_pump();
  // Client: waits until the far side has been heard. For connect functions.
  Outcome wait_for_far_side(uint32_t timeout_ms);
  // Gives the lifeline back to the caller of a connect function that failed.
  // The caller keeps the socket. Nothing is carried any more.
  void release_lifeline();

 private:
  bool try_lock() { return !locked_.exchange(true, std::memory_order_seq_cst); }
  void lock();
  void unlock() { locked_.store(false, std::memory_order_seq_cst); }
  bool carry();  // under the lock
  void wake_own_sleepers();
  bool still_heard(uint64_t now);
  void pump();
  void stop_pump();
  bool pump_sleep(bool armed, uint32_t timeout_us);
  void worker_sleep(uint32_t timeout_us, uint32_t seen);
  bool wait_for_events(bool carrier_too, bool lifeline_too, uint32_t timeout_us);
  void kick();
  void flush();

  const Side own_;
  const pid_t pid_;
  Lifeline lifeline_;
  Replica replica_;
  std::unique_ptr<Carrier> carrier_;
  Parcel parcel_;
  uint64_t applied_ = 0;
  std::mutex known_mu_;                  // before the link's lock
  std::vector<const std::byte*> known_;  // what the carrier was told of; guarded by known_mu_

  std::atomic<bool> locked_{false};
  std::atomic<bool> broken_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> polling_{false};   // a thread sleeps in poll()
  std::atomic<uint64_t> heard_ns_{0};  // when the far side was heard last
  std::atomic<uint64_t> driven_{0};    // progress() calls by others than the pump
  std::atomic<bool> silent_{false};    // broken_, because of that
  uint32_t patience_ms_ = 0;           // 0: the system's
  bool left_region_ = false;
  int kick_fd_ = -1;
  Thread pump_;
};

// The transport that these carriers make.
Transport carried_by(const CarrierKind& kind, bool same_host);

}  // namespace tide
