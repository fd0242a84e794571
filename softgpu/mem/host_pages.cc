#include "softgpu/mem/host_pages.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

namespace softgpu {
namespace {

constexpr uint64_t kLeaves = uint64_t{1} << 26;

}  // namespace

HostPages::HostPages() {
  // 512 MiB of zero pages that cost nothing until a range is added.
  void* pages = mmap(nullptr, kLeaves * sizeof(std::atomic<Leaf*>), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) {
    std::fputs("softgpu: no address space for the table of host memory\n", stderr);
    std::abort();
  }
  table_ = static_cast<std::atomic<Leaf*>*>(pages);
}

HostPages::~HostPages() { munmap(table_, kLeaves * sizeof(std::atomic<Leaf*>)); }

void HostPages::add(uint64_t address, uint64_t bytes) {
  const std::lock_guard lock(mu_);
  const uint64_t last = (address + bytes - 1) >> kPageShift;
  for (uint64_t page = address >> kPageShift; page <= last && page < kEnd >> kPageShift; ++page) {
    std::atomic<Leaf*>& slot = table_[page / kLeafPages];
    Leaf* leaf = slot.load(std::memory_order_relaxed);
    if (leaf == nullptr) {
      leaf = leaves_.emplace_back(std::make_unique<Leaf>()).get();
      slot.store(leaf, std::memory_order_release);
    }
    if (leaf->uses[page % kLeafPages]++ == 0) leaf->present[page % kLeafPages / 64] |= uint64_t{1} << (page % 64);
  }
}

void HostPages::remove(uint64_t address, uint64_t bytes) {
  const std::lock_guard lock(mu_);
  const uint64_t last = (address + bytes - 1) >> kPageShift;
  for (uint64_t page = address >> kPageShift; page <= last && page < kEnd >> kPageShift; ++page) {
    Leaf* leaf = table_[page / kLeafPages].load(std::memory_order_relaxed);
    if (leaf == nullptr || leaf->uses[page % kLeafPages] == 0) continue;
    if (--leaf->uses[page % kLeafPages] == 0) leaf->present[page % kLeafPages / 64] &= ~(uint64_t{1} << (page % 64));
  }
}

}  // namespace softgpu
