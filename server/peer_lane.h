#pragma once

// What a thread that copies between vGPUs works with: a few slots of page-locked memory, and a stream of its own on the
// worker's GPU. Workers of one machine map each other's slots, so that the bytes are copied in and out of them and
// nowhere else. Belongs to its thread.

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/outcome.h"
#include "base/parts.h"
#include "driver.h"

namespace tide {

inline constexpr uint64_t kPeerPieceBytes = 1u << 20;
inline constexpr uint32_t kPeerSlots = 4;
inline constexpr uint64_t kPeerNonceBytes = 32;

// Slots, and behind them 32 random bytes by which who maps them knows them again.
class PeerSlots {
 public:
  PeerSlots() = default;
  PeerSlots(const PeerSlots&) = delete;
  PeerSlots& operator=(const PeerSlots&) = delete;
  // New ones; others may map them as /proc/`pid`/fd/`fd`.
  static Outcome make(std::unique_ptr<PeerSlots>* slots);
  static Outcome map(pid_t pid, int fd, const uint8_t* nonce, std::unique_ptr<PeerSlots>* slots);
  ~PeerSlots();
  std::byte* at(uint32_t slot) const { return data_ + slot * kPeerPieceBytes; }
  const uint8_t* nonce() const { return reinterpret_cast<const uint8_t*>(at(kPeerSlots)); }
  int fd() const { return fd_; }

 private:
  friend class PeerPins;
  int fd_ = -1;
  std::byte* data_ = nullptr;
  bool pinned_ = false;
};

// Pins slots, which makes the GPU's copies faster. To unpin them, drivers wait for all work of the context, and there
// may be some that waits for the very copy that has just failed: so slots that are of no use any more wait here until
// the worker's thread finds that nothing is under way. Thread-safe.
class PeerPins {
 public:
  explicit PeerPins(const Driver& driver) : driver_(driver) {}
  // The context is current.
  void pin(PeerSlots& slots);
  // Nothing uses them any more.
  void retire(std::unique_ptr<PeerSlots> slots);
  bool any_retired() const { return any_retired_.load(std::memory_order_relaxed); }
  void unpin_retired();

 private:
  const Driver& driver_;
  std::atomic<bool> any_retired_{false};
  std::mutex mu_;
  std::vector<std::unique_ptr<PeerSlots>> retired_;
};

// One side of a copy: a rectangle of device memory whose parts go through the slots, one after another.
class PeerLane {
 public:
  PeerLane() = default;
  PeerLane(const PeerLane&) = delete;
  PeerLane& operator=(const PeerLane&) = delete;
  // `context` is made current in this thread.
  Outcome start(const Driver& driver, CUcontext context);
  ~PeerLane();
  // Puts the copy between a slot and the part of device memory at `address`, `pitch` on the stream.
  Outcome begin(uint32_t slot, std::byte* bytes, uint64_t address, uint64_t pitch, const Part& part, bool in);
  // Waits for the last copy of this slot.
  Outcome wait(uint32_t slot);
  // Waits for all of them.
  void rest();

 private:
  Outcome failure(CUresult result) const;

  const Driver* driver_ = nullptr;
  CUstream stream_ = nullptr;
  CUevent done_[kPeerSlots] = {};
};

}  // namespace tide
