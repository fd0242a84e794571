#pragma once

// Numbers that look random and are the same on every machine: the step of splitmix64. Not for secrets.

#include <cstdint>

namespace tide {

constexpr uint64_t mix(uint64_t state) {
  state += 0x9E3779B97F4A7C15;
  state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9;
  state = (state ^ (state >> 27)) * 0x94D049BB133111EB;
  return state ^ (state >> 31);
}

}  // namespace tide
