#include "scheduler/simulate/repack.h"

#include <algorithm>
#include <numeric>

#include "scheduler/simulate/packing.h"

namespace tide::simulate {
namespace {

int32_t sum_of(const std::vector<int32_t>& parts) { return std::accumulate(parts.begin(), parts.end(), 0); }

// Of two GPUs' parts, the largest first: what both have, in thousandths.
int32_t shared_by(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  std::vector<int32_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both), std::greater<>());
  return sum_of(both);
}

void remove(std::vector<int32_t>* from, const std::vector<int32_t>& parts) {
  std::vector<int32_t> rest;
  std::set_difference(from->begin(), from->end(), parts.begin(), parts.end(), std::back_inserter(rest),
                      std::greater<>());
  *from = rest;
}

}  // namespace

bool SharedGpus::place_part(int32_t milli, bool may_move) {
  Parts* best = nullptr;
  int32_t fullest = -1;
  for (Parts& each : shared_) {
    const int32_t taken = sum_of(each);
    if (taken + milli > kWholeGpu_milli || taken <= fullest) continue;
    best = &each;
    fullest = taken;
  }
  if (best == nullptr && free_ > 0) {
    --free_;
    best = &shared_.emplace_back();
  }
  Sizes parts = parts_;
  ++parts[milli];
  if (best != nullptr) {
    best->insert(std::upper_bound(best->begin(), best->end(), milli, std::greater<>()), milli);
  } else if (!may_move || !repack(parts, 0)) {
    return false;
  } else {
    --moves_;  // that which comes
  }
  parts_ = std::move(parts);
  return true;
}

bool SharedGpus::place_whole(uint32_t gpus, bool may_move) {
  if (gpus > free_ && !(may_move && repack(parts_, gpus))) return false;
  free_ -= gpus;
  return true;
}

// So that `gpus` are free beside them.
bool SharedGpus::repack(const Sizes& parts, uint32_t gpus) {
  std::vector<Parts> after = packed(parts);
  const size_t all = shared_.size() + free_;
  if (after.size() + gpus > all) return false;
  moves_ += moved(shared_, after);
  free_ = uint32_t(all - after.size());
  shared_ = std::move(after);
  return true;
}

// The largest first, each where it leaves the least.
std::vector<SharedGpus::Parts> SharedGpus::packed(const Sizes& parts) {
  std::vector<Parts> gpus;
  std::multimap<int32_t, size_t> room;  // GPUs by what is left of them
  for (const auto& [milli, count] : parts) {
    for (uint32_t i = 0; i < count; ++i) {
      const auto found = room.lower_bound(milli);
      const bool is_new = found == room.end();
      const size_t at = is_new ? gpus.size() : found->second;
      const int32_t left = (is_new ? kWholeGpu_milli : found->first) - milli;
      if (is_new) {
        gpus.emplace_back();
      } else {
        room.erase(found);
      }
      gpus[at].push_back(milli);
      room.insert({left, at});
    }
  }
  return gpus;
}

// Each GPU of before becomes the one of after with which it has the most in common; what else lies there has moved.
uint64_t SharedGpus::moved(const std::vector<Parts>& before, const std::vector<Parts>& after) {
  std::map<Parts, uint32_t> olds;
  for (const Parts& each : before) ++olds[each];
  std::vector<Parts> fresh;
  for (const Parts& each : after) {
    const auto same = olds.find(each);
    if (same == olds.end()) {
      fresh.push_back(each);
    } else if (--same->second == 0) {
      olds.erase(same);
    }
  }
  uint64_t moves = 0;
  for (Parts& each : fresh) {
    auto best = olds.end();
    int32_t most = 0;
    for (auto old = olds.begin(); old != olds.end(); ++old) {
      if (const int32_t common = shared_by(each, old->first); common > most) {
        most = common;
        best = old;
      }
    }
    if (best != olds.end()) {
      remove(&each, Parts(best->first));
      if (--best->second == 0) olds.erase(best);
    }
    moves += each.size();
  }
  return moves;
}

// Of the parts that are at least 1 - a, each leaves a gap of at most a, which only parts up to a can fill. If u of them
// are left out, the gaps of the others make (gaps - u a) - fillers at least; what is left out, u (1 - a), is wasted,
// too, since all that came would fill the GPUs. The larger of the two is least at u = gaps - fillers.
int64_t packing_bound_milli(uint32_t gpus, const std::map<int32_t, uint32_t, std::greater<>>& parts) {
  int64_t waste = 0, gaps = 0;
  for (const auto& [milli, count] : parts) {
    const int64_t gap = kWholeGpu_milli - milli;
    if (gap > milli) break;
    gaps += gap * count;
    int64_t fillers = 0;
    for (auto small = parts.lower_bound(int32_t(gap)); small != parts.end(); ++small) {
      fillers += int64_t(small->first) * small->second;
    }
    waste = std::max(waste, (gaps - fillers) * milli / kWholeGpu_milli);
  }
  return int64_t(gpus) * kWholeGpu_milli - waste;
}

}  // namespace tide::simulate
