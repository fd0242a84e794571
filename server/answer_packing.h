#pragma once

// Packs the data of copies out where their command allows it and it pays. A few pieces in a turn of the worker's loop:
// commands wait meanwhile. One thread.

#include <cstdint>
#include <span>

#include "base/pack.h"

namespace tide {

class AnswerPacking {
 public:
  void begin_turn() { left_ = kPiecesInTurn; }
  // False: no more in this turn.
  bool may_pack() const { return left_ != 0; }
  // The piece in fewer bytes, valid until the next call; empty: it goes as it is.
  std::span<const std::byte> pack(PackMode mode, std::span<const std::byte> piece, const PackChoice::Path& path);

 private:
  static constexpr uint32_t kPiecesInTurn = 2;  // about 2 ms

  Packer packer_;
  PackChoice choice_;
  uint32_t left_ = kPiecesInTurn;
};

}  // namespace tide
