#include "tests/simulation/move_stream.h"

#include <algorithm>
#include <utility>

namespace tide::simulation {
namespace {

constexpr uint64_t kSilence = 30 * kS;  // then it counts as broken

MoveStream::Side far(MoveStream::Side side) {
  return side == MoveStream::kSource ? MoveStream::kDestination : MoveStream::kSource;
}

}  // namespace

MoveStream::MoveStream(World& world, SimNetwork& network, End source, End destination)
    : world_(world), network_(network), latency_ns_(network.chance().between(20 * kUs, 2 * kMs)) {
  ends_[kSource] = std::move(source);
  ends_[kDestination] = std::move(destination);
}

uint64_t MoveStream::due(Side to) {
  uint64_t when = world_.now() + latency_ns_;
  if (world_.strikes(Fault::kDelay, 40)) when += network_.chance().between(kMs, 60 * kMs);
  return floor_[to] = std::max(when, floor_[to]);
}

void MoveStream::send(Side from, MoveFrame frame) {
  if (broken_[from]) return;
  if (world_.strikes(Fault::kReset, 400)) return reset();
  const Side to = far(from);
  const auto self = shared_from_this();
  arrive(to, due(to), [self, to, frame = std::move(frame)] {
    if (!self->broken_[to]) self->ends_[to].hear(frame);
  });
}

void MoveStream::reset() {
  break_end(kSource, "the stream was reset");
  break_end(kDestination, "the stream was reset");
}

void MoveStream::arrive(Side at, uint64_t when, std::function<void()> what) {
  const auto self = shared_from_this();
  world_.at(when, [self, at, what = std::move(what)]() mutable {
    World& world = self->world_;
    const uint64_t until = self->network_.cut_until(self->ends_[0].server, self->ends_[1].server);
    if (until > world.now() + kSilence) {
      for (const Side side : {kSource, kDestination}) {
        world.after(kSilence, [self, side] { self->break_end(side, "the far side is silent"); });
      }
    }
    if (until > world.now()) return self->arrive(at, until, std::move(what));
    world.after(self->ends_[at].process, 0, std::move(what));
  });
}

void MoveStream::break_end(Side side, const char* why) {
  const auto self = shared_from_this();
  world_.after(ends_[side].process, 0, [self, side, why] {
    if (std::exchange(self->broken_[side], true)) return;
    if (self->ends_[side].lose) self->ends_[side].lose(why);
  });
}

void MoveStream::close(Side side) {
  if (std::exchange(broken_[side], true)) return;
  const auto self = shared_from_this();
  const Side to = far(side);
  arrive(to, due(to), [self, to] {
    if (std::exchange(self->broken_[to], true)) return;
    if (self->ends_[to].lose) self->ends_[to].lose("the far side is gone");
  });
}

}  // namespace tide::simulation
