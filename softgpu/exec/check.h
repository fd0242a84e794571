#pragma once

// Looks at what kernels do to memory before they do it: accesses outside of allocations, reads of what nobody wrote,
// races. A kernel that is checked runs a copy of its operations in which those that touch memory go through here first;
// one that is not checked pays nothing.
//
// What counts as a race: two accesses of different warps to one byte, one of them a write, not both atomic or volatile,
// in one launch; within a block without a barrier between them; between blocks, unless the first one's block has passed
// a fence since (or the access was itself atomic) and the second one's block has done an atomic or volatile access.
// And: lanes of one store that write different values to one place. So programs that publish by fence and flag are
// quiet; a wrong use of such a flag may stay unseen.
//
// Threads: any.

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "softgpu/exec/warp.h"

namespace softgpu {

struct CheckOptions {
  uint64_t granularity = 0;  // of bounds: 0 not checked, 1 to the byte, 4096 to the page
  bool uninitialised = false;
  bool races = false;
  bool fatal = false;        // what is only logged otherwise ends the kernel
  bool count_bytes = false;  // Counters::bytes
  bool memory() const { return granularity != 0 || uninitialised || races; }
  bool any() const { return memory() || count_bytes; }
};

// What the checker has to know of device memory.
class Allocations {
 public:
  virtual ~Allocations() = default;
  // The live allocation that holds the address.
  virtual bool find(uint64_t address, uint64_t* start, uint64_t* bytes) const = 0;
  // What is known of an address outside of them: "40 bytes behind an allocation of 400 bytes".
  virtual std::string describe(uint64_t address) const = 0;
};

// One byte range that somebody touched, and who.
struct AccessMark {
  uint32_t launch = 0;  // 0: nobody
  uint32_t block = 0;
  uint32_t barriers = 0;  // that the block had passed
  uint16_t fences = 0;    // that the block had passed
  uint16_t thread = 0;
  uint8_t bytes = 0;  // of the word, one bit each
  bool strong = false;
  bool several = false;  // others did it too
};
struct WordMarks {
  AccessMark write, read;
};

// Of one launch.
struct LaunchChecks {
  class Checker* checker = nullptr;
  uint32_t id = 0;
  std::vector<uint16_t> fences;             // of blocks, by their number modulo the size
  std::vector<bool> acquired;               // the same: whether the block has done an atomic access
  std::set<std::pair<uint32_t, int>> told;  // operations that a line was written about
};

class Checker {
 public:
  Checker(const CheckOptions& options, const Allocations& allocations, std::function<void(const std::string&)> report);

  // Device memory: nobody wrote it yet; somebody did; a copy brought it there.
  void allocated(uint64_t address, uint64_t bytes);
  void written(uint64_t address, uint64_t bytes);
  void copied(uint64_t to, uint64_t from, uint64_t bytes);

  std::unique_ptr<LaunchChecks> begin();

  enum class Kind { kLoad, kStore, kAtomic };
  struct Lanes {
    std::array<uint64_t, 32> address;  // generic
    uint32_t mask;
    uint32_t bytes;
    Kind kind;
    bool strong;
    const std::byte* values = nullptr;  // of a store: the first register
    uint32_t value_bytes = 0;
    uint32_t pc;
  };
  // False when the operation must not run: a fault was raised.
  bool look(Warp& warp, const Lanes& lanes);
  void fence(Warp& warp);

  const CheckOptions options;

 private:
  struct Bits;
  struct Place {
    Warp* warp;
    uint32_t lane, pc;
    uint64_t address;
  };
  bool inside(Block& block, uint64_t address, uint64_t bytes);
  bool bounds(Warp& warp, const Lanes& lanes);
  bool read_unwritten(Warp& warp, uint64_t address, uint32_t bytes);
  void mark_written(Warp& warp, uint64_t address, uint32_t bytes);
  void race(Warp& warp, const Lanes& lanes, uint32_t lane);
  void same_place(Warp& warp, const Lanes& lanes);
  WordMarks* marks_of(Warp& warp, uint64_t address);
  void tell(const Place& place, int kind, const std::string& what);
  void change(uint64_t address, uint64_t bytes, bool unwritten);
  bool unwritten(uint64_t address, uint64_t bytes) const;

  const Allocations& allocations_;
  const std::function<void(const std::string&)> report_;
  std::mutex mu_;  // guards what follows and LaunchChecks
  uint32_t launches_ = 0;
  std::unordered_map<uint64_t, std::vector<uint64_t>> unwritten_;     // chunk -> one bit a byte
  std::unordered_map<uint64_t, std::unique_ptr<WordMarks[]>> marks_;  // chunk -> one for 4 bytes
};

// The kernel with its accesses checked: a copy that lives as long as the code itself. Any thread.
const KernelCode& with_checks(const KernelCode& code);

}  // namespace softgpu
