#pragma once

// Pinned host memory in which bytes wait between the rings and the GPU. Bounded: take() gives null when it is used up,
// and the caller tries again after something has completed. One thread.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/contexts.h"

namespace tide {

inline constexpr uint64_t kStagingBytesMax = 256u << 20;  // a worker's; enough to keep two directions of any link busy
inline constexpr uint64_t kStagingPieceMax = 1u << 20;    // the largest piece: one record

class Staging {
 public:
  struct Piece {
    std::byte* data = nullptr;
    uint64_t size = 0;
    explicit operator bool() const { return data != nullptr; }
  };

  void start(const Driver& driver, Contexts& contexts, uint64_t limit = kStagingBytesMax);
  // At least `bytes` (1 to kStagingPieceMax), or null. `beyond`: above the limit if need be, for what must not wait.
  Piece take(uint64_t bytes, bool beyond = false);
  void give_back(Piece piece);
  uint64_t in_use() const { return in_use_; }
  // What `at`, in a piece, was pinned with.
  std::span<const std::byte> slab_of(const std::byte* at) const;

 private:
  // Each has a part of the limit for itself: what a flood of small copies took would else be missing for ever.
  struct Class {
    uint64_t size = 0;
    uint64_t share = 0;  // of the limit, in quarters
    uint64_t reserved = 0;
    std::vector<std::byte*> free;
  };
  bool grow(Class* c, bool beyond);

  const Driver* driver_ = nullptr;
  Contexts* contexts_ = nullptr;
  uint64_t limit_ = 0;
  uint64_t in_use_ = 0;
  std::vector<const std::byte*> slabs_;  // sorted
  Class classes_[3] = {{4u << 10, 1, 0, {}}, {64u << 10, 1, 0, {}}, {kStagingPieceMax, 2, 0, {}}};
};

}  // namespace tide
