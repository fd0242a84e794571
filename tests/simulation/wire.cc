#include "tests/simulation/wire.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

namespace tide::simulation {
namespace {

constexpr uint32_t kWindow = 12;             // parcels on the way in one direction
constexpr uint64_t kSilence = 2 * kS;        // then a connection counts as broken
constexpr uint64_t kGivesUpLeast = 5 * kMs;  // a loss that was not made good

Side other(Side side) { return side == Side::kClient ? Side::kWorker : Side::kClient; }

}  // namespace

class WireCarrier final : public Carrier {
 public:
  WireCarrier(std::shared_ptr<Wire> wire, Side side) : wire_(std::move(wire)), side_(side) {}
  const char* name() const override { return "simulated"; }
  bool progress(Replica* replica) override {
    auto& come = wire_->of(other(side_)).come;
    bool any = false;
    while (!come.empty() && failure() == nullptr) {
      const auto parcel = come.front();
      come.pop_front();
      any = true;
      refused_ = replica->apply(parcel->header, parcel->entries.data(), parcel->ring.data());
      if (refused_ == nullptr) ++applied_;
      wire_->world_.note(refused_ == nullptr ? "applied" : "refused", uint64_t(side_), parcel->header.serial,
                         parcel->header.ring_begin);
    }
    if (refused_ != nullptr) wire_->fail_end(other(side_), "the far side refused", wire_->latency_ns_);
    return any;
  }
  uint32_t ring_bytes_most() const override { return wire_->ring_bytes_most_; }
  bool lends() const override { return wire_->lends_; }
  bool may_send() override { return failure() == nullptr && wire_->of(side_).on_the_way < kWindow; }
  void send(const Parcel& parcel) override { wire_->send(side_, parcel); }
  bool idle() override { return wire_->of(side_).on_the_way == 0; }
  uint64_t applied() const override { return applied_; }
  bool arm() override { return true; }
  int fd() const override { return -1; }
  const char* failure() const override {
    if (released_) return "it was given up";
    return refused_ != nullptr ? refused_ : wire_->failed_[size_t(side_)];
  }
  void release() override { released_ = true; }

 private:
  const std::shared_ptr<Wire> wire_;
  const Side side_;
  uint64_t applied_ = 0;
  const char* refused_ = nullptr;
  bool released_ = false;
};

Wire::Wire(World& world, std::shared_ptr<Cut> cut, std::function<void(Side)> wake)
    : world_(world), chance_(world.fork()), cut_(std::move(cut)), wake_(std::move(wake)) {
  latency_ns_ = chance_.between(20 * kUs, 4 * kMs);
  static constexpr uint32_t kMost[] = {1u << 10, 4u << 10, 64u << 10, 256u << 10};
  ring_bytes_most_ = kMost[chance_.below(4)];
  lends_ = chance_.one_in(2);
  for (const Side side : {Side::kClient, Side::kWorker}) {
    int pair[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) abort();
    process_end_[size_t(side)] = pair[0];
    network_end_[size_t(side)] = pair[1];
  }
}

Wire::~Wire() {
  for (const int end : {process_end_[0], process_end_[1], network_end_[0], network_end_[1]}) {
    if (end >= 0) close(end);
  }
}

std::unique_ptr<Carrier> Wire::carrier(Side side) { return std::make_unique<WireCarrier>(shared_from_this(), side); }

int Wire::lifeline(Side side) {
  const int end = process_end_[size_t(side)];
  process_end_[size_t(side)] = -1;
  return end;
}

void Wire::close_end(Side side) {
  auto self = shared_from_this();
  const Side far = other(side);
  const uint64_t heard = std::max(world_.now() + latency_ns_, cut_->is_cut(world_.now()) ? cut_->until() : 0);
  world_.at(heard, [self, far] {
    int& end = self->network_end_[size_t(far)];
    if (end < 0) return;
    close(end);
    end = -1;
    self->wake_(far);
  });
  fail_end(far, "the far side closed it", heard - world_.now());
}

void Wire::fail_end(Side side, const char* why, uint64_t after_ns) {
  auto self = shared_from_this();
  world_.after(after_ns, [self, side, why] {
    if (self->failed_[size_t(side)] != nullptr) return;
    self->failed_[size_t(side)] = why;
    self->world_.note("broke", uint64_t(side));
    self->wake_(side);
  });
}

void Wire::fail_both(const char* why, uint64_t after_ns) {
  fail_end(Side::kClient, why, after_ns);
  fail_end(Side::kWorker, why, after_ns + chance_.below(50 * kMs));
}

void Wire::send(Side from, const Parcel& parcel) {
  Direction& way = of(from);
  auto flying = std::make_shared<Flying>();
  flying->header = parcel.header;
  flying->entries.assign(parcel.entries, parcel.entries + parcel.header.entry_count);
  flying->ring.assign(parcel.ring, parcel.ring + parcel.header.ring_bytes);
  world_.note("sent", uint64_t(from), parcel.header.serial, parcel.header.ring_bytes);
  uint64_t when = world_.now() + latency_ns_ + chance_.below(latency_ns_ / 4 + 1);
  if (world_.strikes(Fault::kReset, 300)) fail_both("reset", chance_.below(3 * kMs));
  // What is behind a loss or the wrong way round may still come before the end is noticed.
  if (world_.strikes(Fault::kDrop, 150)) {
    fail_both("lost", chance_.between(kGivesUpLeast, kSilence));
    return;
  }
  if (world_.strikes(Fault::kDuplicate, 150)) {
    deliver(from, flying, when + latency_ns_);
    fail_both("confused", chance_.between(kGivesUpLeast, kSilence));
  }
  if (world_.strikes(Fault::kReorder, 150)) {
    deliver(from, flying, when + chance_.between(latency_ns_, 8 * latency_ns_));
    fail_both("confused", chance_.between(kGivesUpLeast, kSilence));
    return;
  }
  if (world_.strikes(Fault::kDelay, 12)) when += chance_.between(kMs, 60 * kMs);
  way.floor = when = std::max(when, way.floor);
  deliver(from, flying, when);
}

void Wire::deliver(Side from, std::shared_ptr<Flying> parcel, uint64_t when) {
  auto self = shared_from_this();
  ++of(from).on_the_way;
  world_.at(when, [self, from, parcel = std::move(parcel)]() mutable {
    Direction& way = self->of(from);
    --way.on_the_way;
    if (self->cut_->is_cut(self->world_.now())) {
      const uint64_t held = self->cut_->until() - self->world_.now();
      if (held > kSilence) self->fail_both("silent", kSilence);
      // In the order of arrival: nothing overtakes where the cut ends.
      self->deliver(from, std::move(parcel), self->cut_->until());
      return;
    }
    way.come.push_back(std::move(parcel));
    self->wake_(other(from));
  });
}

}  // namespace tide::simulation
