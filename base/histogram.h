#pragma once

// Times in ns, each kept within 0.8 %, in constant memory: 128 steps for each power of two.

#include <cstdint>
#include <vector>

namespace tide {

class Histogram {
 public:
  Histogram() : counts_(kPowers * kSteps) {}
  void add(uint64_t ns);
  uint64_t count() const { return count_; }
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  uint64_t max() const { return max_; }
  // The time within which `part` (0 to 1) of all were.
  double quantile(double part) const;
  // How many were in [from, to).
  uint64_t between(double from_ns, double to_ns) const;

 private:
  static constexpr uint32_t kSteps = 128, kPowers = 44;  // up to 2^43 ns: two hours
  static uint32_t slot_of(uint64_t ns);
  static double middle_of(uint32_t slot);

  std::vector<uint64_t> counts_;
  uint64_t count_ = 0, min_ = UINT64_MAX, max_ = 0;
};

}  // namespace tide
