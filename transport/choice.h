#pragma once

// Two carriers between the same sides, of which the client takes the faster: it measures null round trips on both as
// soon as both are connected, and sends its parcels over the one whose median is better. Where the first parcel comes
// from, the worker answers; the other carrier is closed.

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "transport/carrier.h"

namespace tide {

class ChoiceCarrier : public Carrier {
 public:
  using Carriers = std::vector<std::unique_ptr<Carrier>>;
  using Clock = uint64_t (*)();  // ns
  ChoiceCarrier(Side own, Carriers carriers, Clock clock = now_ns);
  ~ChoiceCarrier() override;

  // *data is "NAME=DATA" of each kind that could be had, with a space between. Fails when there is none.
  static Outcome listen(const std::vector<CarrierKind>& kinds, Region region, int lifeline, std::string* data,
                        std::unique_ptr<Carrier>* carrier);
  static Outcome connect(const std::vector<CarrierKind>& kinds, Region region, int lifeline, const std::string& data,
                         std::unique_ptr<Carrier>* carrier);

  const char* name() const override { return chosen_ != nullptr ? chosen_->name() : "undecided"; }
  bool progress(Replica* replica) override;
  uint32_t ring_bytes_most() const override {
    return chosen_ != nullptr ? chosen_->ring_bytes_most() : kParcelRingBytes;
  }
  bool lends() const override { return chosen_ != nullptr && chosen_->lends(); }
  bool lands() const override { return chosen_ != nullptr && chosen_->lands(); }
  bool asks_for_memory() const override { return chosen_ != nullptr && chosen_->asks_for_memory(); }
  void know_memory(const std::byte* base, uint64_t bytes, bool written) override {
    chosen_->know_memory(base, bytes, written);
  }
  RemotePlace place_for(const std::byte* to, uint64_t bytes) const override { return chosen_->place_for(to, bytes); }
  bool writes_to(uint32_t connection) const override { return chosen_ != nullptr && chosen_->writes_to(connection); }
  void forget_memory(const std::byte* base) override { chosen_->forget_memory(base); }
  bool may_send() override { return chosen_ != nullptr && chosen_->may_send(); }
  void send(const Parcel& parcel) override { chosen_->send(parcel); }
  bool idle() override { return chosen_ == nullptr || chosen_->idle(); }
  uint64_t applied() const override { return chosen_ != nullptr ? chosen_->applied() : 0; }
  bool arm() override;
  int fd() const override { return epoll_; }
  uint32_t due_us() override { return chosen_ != nullptr ? chosen_->due_us() : ~uint32_t{0}; }
  bool reads_lifeline() const override;
  const char* failure() const override;
  void release() override {
    for (Candidate& each : candidates_) each.carrier->release();
  }

 private:
  struct Candidate {
    std::unique_ptr<Carrier> carrier;
    uint64_t asked_ns = 0;                   // 0: no answer is waited for
    std::vector<uint64_t> round_trips = {};  // ns
    const char* descriptor_broke = nullptr;

    const char* failure() const { return descriptor_broke != nullptr ? descriptor_broke : carrier->failure(); }
    bool is_ready() const { return asked_ns != 0 || carrier->may_ping(); }
    uint64_t median_ns() const;
  };

  void watch(Candidate& candidate);
  void look_at_descriptors();
  void drop_broken();
  void look_at_answers();
  bool measured(uint64_t now) const;
  void measure();
  void ask_next(uint64_t now);
  void choose(Candidate* candidate);

  const Side own_;
  const Clock clock_;
  const uint64_t begin_ns_;
  int epoll_ = -1;
  std::vector<Candidate> candidates_;
  size_t turn_ = 0;
  Carrier* chosen_ = nullptr;
};

}  // namespace tide
