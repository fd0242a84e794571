#pragma once

// Addresses that stand for the same place of several devices' memory at once, for `multimem` instructions. No other
// access finds anything there.

#include <cstddef>
#include <cstdint>
#include <map>
#include <shared_mutex>
#include <vector>

namespace softgpu {

class Multicast {
 public:
  static constexpr size_t kMost = 64;  // members

  // Makes [address, address + bytes) mean host[0, bytes) of every member.
  void bind(uint64_t address, uint64_t bytes, std::vector<std::byte*> members);
  void unbind(uint64_t address);
  // The host memory of each member behind [address, address + bytes): how many; 0 where nothing is bound.
  size_t find(uint64_t address, uint64_t bytes, std::byte* (&out)[kMost]) const;

 private:
  struct Range {
    uint64_t bytes;
    std::vector<std::byte*> members;
  };
  mutable std::shared_mutex mu_;
  std::map<uint64_t, Range> ranges_;  // by their address
};

}  // namespace softgpu
