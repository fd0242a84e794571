#pragma once

// Page-locked memory of a vGPU through which large copies of pageable memory go where the worker maps memory of this
// process: the program's side is copied once, and the GPU copies the rest while the next piece is being filled. In
// pieces, of which none is waited for for long: then the rings take over. It is given up where it keeps the vGPU from
// moving to another machine.
//
// Threads: any of the program's; the service thread only calls give_up_if_asked(). mu_ is taken before HostMemory's.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace tide {

struct Vgpu;

class Staging {
 public:
  static constexpr uint64_t kPieceBytes = 512u << 10;
  static constexpr uint32_t kPieces = 8;

  struct Piece {
    std::byte* data = nullptr;  // the GPU finds it at the same address
    uint32_t index = 0;
    uint64_t generation = 0;
    explicit operator bool() const { return data != nullptr; }
    uint64_t address() const { return reinterpret_cast<uint64_t>(data); }
  };

  // The caller's until give_back(); null: there is none, or none has become free soon.
  Piece take(Vgpu& vgpu);
  // Null: none is free now.
  Piece take_at_once(Vgpu& vgpu);
  // What was sent with it is over at `sequence` on `slot`; 0: nothing was sent.
  void give_back(const Piece& piece, uint32_t slot, uint64_t sequence);
  // The worker knows of nothing any more.
  void forget();
  // The worker wants to move: as soon as no piece is in use there is none. Waits for nothing.
  void give_up_if_asked(Vgpu& vgpu);

 private:
  enum class State { kNew, kOpen, kNone };
  struct Place {
    bool taken = false;
    uint32_t slot = 0;  // free when the work on this stream has come to here
    uint64_t sequence = 0;
  };
  bool open(Vgpu& vgpu);

  std::mutex mu_;
  std::atomic<State> state_{State::kNew};
  std::atomic<bool> starved_{false};  // somebody waited in vain, and none has become free since
  uint64_t address_ = 0;
  uint64_t generation_ = 0;
  Place places_[kPieces];
};

}  // namespace tide
