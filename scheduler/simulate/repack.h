#pragma once

// GPUs that jobs with parts share, where running jobs may move: when one that comes does not fit, all parts are packed
// anew, if that makes room for it, and as few move as come to lie with others.

#include <cstdint>
#include <map>
#include <vector>

namespace tide::simulate {

class SharedGpus {
 public:
  explicit SharedGpus(uint32_t gpus) : free_(gpus) {}

  // False: there is no room, if others `may_move` however they lie (as far as packing the largest first shows).
  bool place_part(int32_t milli, bool may_move = true);
  bool place_whole(uint32_t gpus, bool may_move = true);

  uint64_t moves() const { return moves_; }

 private:
  using Parts = std::vector<int32_t>;                         // of one GPU, the largest first
  using Sizes = std::map<int32_t, uint32_t, std::greater<>>;  // how many there are of each

  bool repack(const Sizes& parts, uint32_t gpus);
  static std::vector<Parts> packed(const Sizes& parts);
  static uint64_t moved(const std::vector<Parts>& before, const std::vector<Parts>& after);

  uint32_t free_;  // GPUs that nobody is on
  std::vector<Parts> shared_;
  Sizes parts_;
  uint64_t moves_ = 0;
};

// What no packing can better: the most that can be had of parts that fill `gpus` GPUs to the last thousandth if they
// are cut, and no part lies on two GPUs; in thousandths. Parts that leave a gap which too few are small enough for
// waste it, or do not come at all.
int64_t packing_bound_milli(uint32_t gpus, const std::map<int32_t, uint32_t, std::greater<>>& parts);

}  // namespace tide::simulate
