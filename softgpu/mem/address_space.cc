#include "softgpu/mem/address_space.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace softgpu {
namespace {

constexpr uint64_t kTableBytes = (kWindowBytes >> kChunkShift) * sizeof(std::byte*);

}  // namespace

AddressSpace::AddressSpace(std::shared_ptr<HostPages> host_pages) : host_pages_(std::move(host_pages)) {
  // 128 MiB of zero pages that cost nothing until a chunk is mapped.
  void* pages = mmap(nullptr, kTableBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) {
    std::fputs("softgpu: no address space for the table of device memory\n", stderr);
    std::abort();
  }
  table_ = static_cast<std::byte**>(pages);
}

AddressSpace::~AddressSpace() { munmap(table_, kTableBytes); }

void AddressSpace::map(uint64_t address, std::byte* host, uint64_t bytes) {
  const uint64_t first = (address - kWindowBase) >> kChunkShift;
  for (uint64_t i = 0; i < bytes >> kChunkShift; ++i) table_[first + i] = host + (i << kChunkShift);
}

void AddressSpace::unmap(uint64_t address, uint64_t bytes) {
  const uint64_t first = (address - kWindowBase) >> kChunkShift;
  for (uint64_t i = 0; i < bytes >> kChunkShift; ++i) table_[first + i] = nullptr;
}

bool AddressSpace::continues(uint64_t offset, uint64_t bytes) const {
  if (bytes > kWindowBytes - offset) return false;
  const uint64_t first = offset >> kChunkShift;
  const uint64_t last = (offset + bytes - 1) >> kChunkShift;
  for (uint64_t i = first + 1; i <= last; ++i) {
    if (table_[i] == nullptr || table_[i] != table_[first] + ((i - first) << kChunkShift)) return false;
  }
  return true;
}

}  // namespace softgpu
