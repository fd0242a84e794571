#pragma once

// Which pages of the process kernels may touch at their own addresses: pinned, registered and mapped host memory. Whole
// pages of 4 KiB, as on hardware: a range that begins or ends inside a page makes all of that page reachable.
//
// Threads: holds() may run in any number of threads beside add() and remove(), and takes no lock.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace softgpu {

class HostPages {
 public:
  HostPages();
  ~HostPages();
  HostPages(const HostPages&) = delete;
  HostPages& operator=(const HostPages&) = delete;

  // Ranges may share pages; each add() is undone by one remove() of the same range.
  void add(uint64_t address, uint64_t bytes);
  void remove(uint64_t address, uint64_t bytes);

  // Every byte lies in an added range's pages; bytes > 0.
  bool holds(uint64_t address, uint64_t bytes) const {
    const uint64_t last = address + bytes - 1;
    if (last >= kEnd || last < address) return false;
    for (uint64_t page = address >> kPageShift; page <= last >> kPageShift; ++page) {
      const Leaf* leaf = table_[page / kLeafPages].load(std::memory_order_acquire);
      if (leaf == nullptr) return false;
      const uint64_t word = leaf->present[page % kLeafPages / 64].load(std::memory_order_relaxed);
      if ((word >> (page % 64) & 1) == 0) return false;
    }
    return true;
  }

 private:
  static constexpr uint64_t kPageShift = 12;
  static constexpr uint64_t kLeafPages = 512;
  static constexpr uint64_t kEnd = uint64_t{1} << 47;  // of what Linux gives to a process
  struct Leaf {
    std::atomic<uint64_t> present[kLeafPages / 64] = {};
    uint16_t uses[kLeafPages] = {};  // guarded by mu_
  };

  std::atomic<Leaf*>* table_;  // one for 2 MiB; lazily backed by the kernel
  std::mutex mu_;
  std::vector<std::unique_ptr<Leaf>> leaves_;  // all that were made; guarded by mu_
};

}  // namespace softgpu
