#include "interpose/staging.h"

#include <sched.h>

#include "base/clock.h"
#include "base/log.h"
#include "interpose/process.h"

namespace tide {
namespace {

constexpr uint64_t kPatienceNs = 5'000'000;

bool is_unwanted(Vgpu& vgpu) {
  return vgpu.channel().region().worker().staging_unwanted.load(std::memory_order_acquire) != 0;
}

}  // namespace

bool Staging::open(Vgpu& vgpu) {
  const CUresult made =
      process()->host.allocate(*vgpu.primary, kPieces * kPieceBytes, 0, HostKind::kStaging, &address_);
  if (made != CUDA_SUCCESS) {
    log(LogLevel::kInfo, "vGPU %u: no staging memory (CUDA error %d); large copies go through the rings", vgpu.number,
        int(made));
    state_ = State::kNone;
    return false;
  }
  for (Place& place : places_) place = {};
  ++generation_;
  state_ = State::kOpen;
  return true;
}

Staging::Piece Staging::take_at_once(Vgpu& vgpu) {
  Channel& channel = vgpu.channel();
  if (!channel.shares_host_memory() || channel.is_protected() || is_unwanted(vgpu)) return {};
  const std::lock_guard lock(mu_);
  if (state_ == State::kNone || (state_ == State::kNew && !open(vgpu))) return {};
  for (uint32_t i = 0; i < kPieces; ++i) {
    Place& place = places_[i];
    if (place.taken || !vgpu.channel().done(place.slot, place.sequence)) continue;
    place.taken = true;
    starved_ = false;
    return {reinterpret_cast<std::byte*>(address_ + i * kPieceBytes), i, generation_};
  }
  return {};
}

Staging::Piece Staging::take(Vgpu& vgpu) {
  Piece piece = take_at_once(vgpu);
  const uint64_t end = now_ns() + kPatienceNs;
  while (!piece && state_ == State::kOpen && !starved_) {
    if (now_ns() >= end) starved_ = true;
    if (vgpu.channel().failed() || is_unwanted(vgpu)) break;
    sched_yield();
    piece = take_at_once(vgpu);
  }
  return piece;
}

void Staging::give_back(const Piece& piece, uint32_t slot, uint64_t sequence) {
  const std::lock_guard lock(mu_);
  if (piece.generation == generation_) places_[piece.index] = {false, slot, sequence};
}

void Staging::forget() {
  const std::lock_guard lock(mu_);
  if (state_ == State::kOpen) process()->host.release(address_, HostKind::kStaging);
  ++generation_;
  state_ = State::kNew;
}

void Staging::give_up_if_asked(Vgpu& vgpu) {
  if (state_ != State::kOpen || !is_unwanted(vgpu)) return;
  const std::unique_lock lock(mu_, std::try_to_lock);
  if (!lock.owns_lock() || state_ != State::kOpen) return;
  for (const Place& place : places_) {
    if (place.taken || !vgpu.channel().done(place.slot, place.sequence)) return;
  }
  if (!process()->host.try_release(address_, HostKind::kStaging)) return;
  ++generation_;
  state_ = State::kNew;
}

}  // namespace tide
