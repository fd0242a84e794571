#include "interpose/staging.h"

#include <sched.h>

#include "base/clock.h"
#include "base/log.h"
#include "interpose/process.h"

namespace tide {
namespace {
constexpr uint64_t kPatienceNs = 5'000'000;
}

bool Staging::open(Vgpu& vgpu) {
  uint64_t address = 0;
  const CUresult made = process()->host.allocate(*vgpu.primary, kPieces * kPieceBytes, 0, HostKind::kStaging, &address);
  if (made != CUDA_SUCCESS) {
    log(LogLevel::kInfo, "vGPU %u: no staging memory (CUDA error %d); large copies go through the rings", vgpu.number,
        int(made));
    state_ = State::kNone;
    return false;
  }
  for (uint32_t i = 0; i < kPieces; ++i) {
    pieces_[i] = {};
    pieces_[i].data = reinterpret_cast<std::byte*>(address + i * kPieceBytes);
  }
  state_ = State::kOpen;
  return true;
}

Staging::Piece* Staging::take_at_once(Vgpu& vgpu) {
  if (!vgpu.channel().shares_host_memory()) return nullptr;
  const std::lock_guard lock(mu_);
  if (state_ == State::kNone || (state_ == State::kNew && !open(vgpu))) return nullptr;
  for (Piece& piece : pieces_) {
    if (piece.taken || !vgpu.channel().done(piece.slot, piece.sequence)) continue;
    piece.taken = true;
    return &piece;
  }
  return nullptr;
}

Staging::Piece* Staging::take(Vgpu& vgpu) {
  Piece* piece = take_at_once(vgpu);
  const uint64_t end = now_ns() + kPatienceNs;
  while (piece == nullptr && state_ == State::kOpen && now_ns() < end && !vgpu.channel().failed()) {
    sched_yield();
    piece = take_at_once(vgpu);
  }
  return piece;
}

void Staging::give_back(Piece* piece, uint32_t slot, uint64_t sequence) {
  const std::lock_guard lock(mu_);
  piece->slot = slot;
  piece->sequence = sequence;
  piece->taken = false;
}

void Staging::forget() {
  const std::lock_guard lock(mu_);
  if (state_ == State::kOpen) process()->host.release(pieces_[0].address(), HostKind::kStaging);
  state_ = State::kNew;
}

}  // namespace tide
