#pragma once

// Faults that a device shall have, as text and as a plan that is asked before each piece of work.
//
//   faults = fault { ";" fault }
//   fault  = [ device "/" ] kind [ ":" key "=" value { "," key "=" value } ]
//
// Kinds of kernels: ecc, bus, illegal, hang, slow, flip. Of copies: lostcopy, slowcopy. Of allocations: oom.
// When: after=N (the N-th such operation, default 1), time=S (not before so many seconds), kernel=NAME (with * at its
// end: what begins so), chance=P with seed=N. How often: times=N (default 1, 0 always). How: factor=F (slow), ms=N
// (slowcopy), address=A and bit=N (flip).
//
// Threads: any.

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace softgpu::sim {

enum class FaultSite : uint8_t { kKernel, kCopy, kAllocation };
enum class FaultAction : uint8_t { kEcc, kBus, kIllegal, kHang, kSlow, kFlip, kLostCopy, kSlowCopy, kOutOfMemory };

const char* name_of(FaultAction action);
FaultSite site_of(FaultAction action);

struct PlannedFault {
  std::string text;  // as it was given
  int device = -1;   // -1: every one
  FaultAction action = FaultAction::kEcc;
  std::string kernel;  // empty: every one
  uint64_t after = 1;
  uint64_t times = 1;
  double time_s = 0;
  double chance = 1;
  uint64_t seed = 1;
  double factor = 10;
  uint64_t ms = 100;
  uint64_t address = 0;  // 0: drawn from the seed
  uint64_t bit = ~uint64_t{0};
  uint64_t seen = 0;  // operations so far that it could have met
  uint64_t done = 0;  // times that it happened
};

// False, with *error naming the place in the text, when it cannot be read; *out is not touched then.
bool parse_faults(std::string_view text, std::vector<PlannedFault>* out, std::string* error);

struct Occasion {
  FaultSite site = FaultSite::kKernel;
  int device = 0;
  std::string_view kernel;
  double elapsed_s = 0;  // since the driver began
};

class FaultPlan {
 public:
  void add(std::vector<PlannedFault> faults);
  void clear(int device);  // -1: all of them
  std::vector<PlannedFault> list() const;
  bool empty() const { return count_ == 0; }
  // What happens now; counts the occasion.
  std::vector<PlannedFault> due(const Occasion& occasion);

 private:
  mutable std::mutex mu_;
  std::atomic<size_t> count_{0};      // of faults_
  std::vector<PlannedFault> faults_;  // guarded by mu_
};

}  // namespace softgpu::sim
