#pragma once

// A set of disjoint address ranges: what is free. Neighbours are merged; takes the smallest range that fits, the lowest
// among equals. Not thread-safe.

#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace tide {

class Ranges {
 public:
  // Requires: [begin, begin + bytes) is not in the set. Returns the merged range {begin, bytes} that it became part of.
  std::pair<uint64_t, uint64_t> add(uint64_t begin, uint64_t bytes);
  // Takes `bytes` from the best range, at an address that is a multiple of `align`; false when nothing fits.
  bool take(uint64_t bytes, uint64_t align, uint64_t* begin);
  // Requires: [begin, begin + bytes) lies in one range of the set.
  void remove(uint64_t begin, uint64_t bytes);
  // The largest range, {0, 0} when empty.
  std::pair<uint64_t, uint64_t> largest() const;
  uint64_t total() const { return total_; }
  bool empty() const { return by_begin_.empty(); }

 private:
  void insert(uint64_t begin, uint64_t bytes);
  void erase(std::map<uint64_t, uint64_t>::iterator it);

  std::map<uint64_t, uint64_t> by_begin_;            // begin -> bytes
  std::set<std::pair<uint64_t, uint64_t>> by_size_;  // {bytes, begin}
  uint64_t total_ = 0;
};

}  // namespace tide
