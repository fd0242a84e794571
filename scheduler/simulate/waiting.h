#pragma once

// Jobs that wait, by how many GPUs they ask for: the first in line among those that fit is found without looking at
// all. Traces have few different sizes.

#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "scheduler/simulate/policies.h"

namespace tide::simulate {

struct Waiter {
  Rank rank;
  uint32_t job = 0;
  auto operator<=>(const Waiter&) const = default;
};

class Waiting {
 public:
  // Requires: `sizes` ascending, each once.
  explicit Waiting(std::vector<uint32_t> sizes);

  void add(uint32_t gpus, const Waiter& waiter);
  void remove(uint32_t gpus, const Waiter& waiter);
  bool empty() const { return count_ == 0; }
  // The first in line of those that ask for `free` GPUs at most; null: none. Valid until the next change.
  const Waiter* first(uint32_t free = std::numeric_limits<uint32_t>::max());

 private:
  struct Line {
    uint32_t gpus = 0;
    std::set<Waiter> waiters;
  };
  Line& line(uint32_t gpus);

  std::vector<Line> lines_;
  size_t count_ = 0;
  // The last answer: it holds for fewer free GPUs, too, as long as it fits.
  bool known_ = false;
  const Waiter* best_ = nullptr;
  uint32_t best_gpus_ = 0, asked_ = 0;
};

// Values at fixed places; finds the first place with a value of at most some limit.
class FirstAtMost {
 public:
  explicit FirstAtMost(size_t places);
  void set(size_t place, double value);
  // The number of places where there is none.
  size_t find(double limit) const;

 private:
  size_t places_, leaves_ = 1;
  std::vector<double> least_;  // a binary tree, its root at 1
};

}  // namespace tide::simulate
