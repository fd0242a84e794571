#pragma once

// Chance that is the same on every machine: everything follows from the seed.

#include <cstdint>

namespace tide::sched {

class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 7919 + 1) {}
  uint32_t roll(uint32_t sides) {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return uint32_t(state_ >> 33) % sides;
  }

 private:
  uint64_t state_;
};

}  // namespace tide::sched
