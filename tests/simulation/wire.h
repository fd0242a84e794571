#pragma once

// A simulated connection for parcels (transport/carrier.h): late, broken, cut, and at times not in order, which a real
// carrier may not be and the replicas must notice. What a carrier promises besides, that a loss is noticed in the end,
// it keeps.

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "tests/simulation/world.h"
#include "transport/carrier.h"

namespace tide::simulation {

// Which hosts cannot reach each other now; between the two ends of whatever asks.
class Cut {
 public:
  bool is_cut(uint64_t now) const { return now < until_; }
  uint64_t until() const { return until_; }
  void cut_until(uint64_t when) { until_ = std::max(until_, when); }

 private:
  uint64_t until_ = 0;
};

class Wire : public std::enable_shared_from_this<Wire> {
 public:
  // `wake` is called when something has come for that side, or it is over.
  Wire(World& world, std::shared_ptr<Cut> cut, std::function<void(Side)> wake);
  ~Wire();
  std::unique_ptr<Carrier> carrier(Side side);
  // That end of the lifeline; the caller owns it.
  int lifeline(Side side);
  // The process at that end has ended, or closed it: the far side hears of it when the network says so.
  void close_end(Side side);

 private:
  friend class WireCarrier;
  struct Flying {
    ParcelHeader header;
    std::vector<ParcelEntry> entries;
    std::vector<std::byte> ring;
  };
  struct Direction {
    std::deque<std::shared_ptr<Flying>> come;
    uint64_t floor = 0;  // nothing arrives before what was sent before
    uint32_t on_the_way = 0;
    bool lost_some = false;
  };
  void send(Side from, const Parcel& parcel);
  void deliver(Side from, std::shared_ptr<Flying> parcel, uint64_t when);
  void fail_end(Side side, const char* why, uint64_t after_ns);
  void fail_both(const char* why, uint64_t after_ns);
  Direction& of(Side from) { return directions_[size_t(from)]; }

  World& world_;
  Chance chance_;
  std::shared_ptr<Cut> cut_;
  std::function<void(Side)> wake_;
  uint64_t latency_ns_ = 0;
  uint32_t ring_bytes_most_ = 0;
  bool lends_ = false;
  Direction directions_[2];
  const char* failed_[2] = {nullptr, nullptr};
  int network_end_[2] = {-1, -1}, process_end_[2] = {-1, -1};
};

}  // namespace tide::simulation
