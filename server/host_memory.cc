#include "server/host_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <iterator>
#include <utility>

#include "api/payload.h"
#include "base/limits.h"
#include "base/log.h"

namespace tide {
namespace {

constexpr uint64_t kPage = 4096;
constexpr size_t kRefusedMax = 4096;

bool in_zone(uint64_t address, uint64_t bytes) {
  return address >= kHostZoneBase && address - kHostZoneBase <= kHostZoneBytes && bytes != 0 &&
         bytes <= kHostZoneBytes - (address - kHostZoneBase);
}

// A client that could shorten its file would kill us.
bool trustworthy(int fd) {
  struct stat status;
  const int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(fd, &status) == 0 &&
         uint64_t(status.st_size) == kHostZoneBytes;
}

}  // namespace

HostMemory::~HostMemory() {
  for (auto& [address, block] : blocks_) remove(address, &block);
  if (fd_ >= 0) close(fd_);
}

void HostMemory::attach(Link* link) {
  if (link == link_) return;
  link_ = link;
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

bool HostMemory::take_descriptor() {
  if (fd_ >= 0) return true;
  if (link_ == nullptr || !link_->shares_memory()) return false;
  fd_ = link_->take_descriptor();
  if (fd_ >= 0 && !trustworthy(fd_)) {
    log(LogLevel::kWarning, "the client's host memory is not a sealed file of this version's size");
    close(fd_);
    fd_ = -1;
  }
  return fd_ >= 0;
}

bool HostMemory::ready(bool* broken) {
  *broken = false;
  for (auto& [address, block] : blocks_) {
    if (block.mapped) continue;
    if (!take_descriptor()) {
      *broken = link_ != nullptr && !link_->shares_memory();
      return false;
    }
    *broken = place(address, &block) != CUDA_SUCCESS;
    if (*broken) return false;
  }
  return true;
}

CUresult HostMemory::place(uint64_t address, Block* block) {
  void* const wanted = reinterpret_cast<void*>(address);
  const int kind = block->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const got = mmap(wanted, block->bytes, PROT_READ | PROT_WRITE, kind | MAP_FIXED_NOREPLACE,
                         block->shared ? fd_ : -1, block->shared ? off_t(address - kHostZoneBase) : 0);
  if (got != wanted) {
    if (got != MAP_FAILED) munmap(got, block->bytes);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  contexts_.use(0);
  const uint32_t flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
  CUresult result = CUDA_ERROR_NOT_SUPPORTED;
  if (driver_.cuMemHostRegister_v2 != nullptr) result = driver_.cuMemHostRegister_v2(wanted, block->bytes, flags);
  if (result != CUDA_SUCCESS) {
    munmap(wanted, block->bytes);
    return result;
  }
  block->mapped = true;
  CUdeviceptr device = 0;
  if (driver_.cuMemHostGetDevicePointer_v2(&device, wanted, 0) == CUDA_SUCCESS && device == address)
    return CUDA_SUCCESS;
  log(LogLevel::kWarning, "kernels do not reach host memory at its own address on this GPU");
  remove(address, block);
  return CUDA_ERROR_NOT_SUPPORTED;
}

void HostMemory::remove(uint64_t address, Block* block) {
  if (!block->mapped) return;
  contexts_.use(0);
  driver_.cuMemHostUnregister(reinterpret_cast<void*>(address));
  munmap(reinterpret_cast<void*>(address), block->bytes);
  block->mapped = false;
}

CUresult HostMemory::map(uint64_t address, uint64_t bytes, bool shared, bool told, bool replaying) {
  if (address % kPage != 0 || bytes % kPage != 0 || !in_zone(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
  if (told && (shared || bytes > kToldBlockBytes || bytes > kToldBytes - telling_bytes_))
    return CUDA_ERROR_INVALID_VALUE;
  const auto next = blocks_.lower_bound(address);
  if (next != blocks_.end() && next->first < address + bytes) return CUDA_ERROR_ALREADY_MAPPED;
  if (next != blocks_.begin()) {
    const auto& [before, block] = *std::prev(next);
    if (before + block.bytes > address) return CUDA_ERROR_ALREADY_MAPPED;
  }
  Block block{bytes, shared, false, nullptr};
  if (!shared && bytes > limit_ - own_bytes_) return CUDA_ERROR_OUT_OF_MEMORY;
  if (!shared || !replaying) {
    if (shared && !take_descriptor()) {
      return link_ != nullptr && link_->shares_memory() ? CUDA_ERROR_NOT_READY : CUDA_ERROR_NOT_SUPPORTED;
    }
    if (const CUresult result = place(address, &block); result != CUDA_SUCCESS) return result;
  }
  if (!shared) {
    own_bytes_ += bytes;
    block.told = std::make_unique<PagesTold>(bytes / kPage, !replaying, told);
  }
  if (told) {
    telling_[address] = block.told.get();
    telling_bytes_ += bytes;
  }
  blocks_[address] = std::move(block);
  return CUDA_SUCCESS;
}

void HostMemory::refuse(uint64_t address, uint64_t bytes) {
  if (refused_.size() < kRefusedMax && bytes <= kHostZoneBytes) refused_[address] = bytes;
}

bool HostMemory::refused(uint64_t address, uint64_t bytes) const {
  const auto after = refused_.upper_bound(address);
  if (after == refused_.begin()) return false;
  const auto& [start, length] = *std::prev(after);
  return address - start <= length && bytes <= length - (address - start);
}

CUresult HostMemory::unmap(uint64_t address, uint64_t bytes) {
  if (refused_.erase(address) != 0) return CUDA_SUCCESS;
  const auto found = blocks_.find(address);
  if (found == blocks_.end() || found->second.bytes != bytes) return CUDA_ERROR_INVALID_VALUE;
  remove(address, &found->second);
  if (!found->second.shared) own_bytes_ -= bytes;
  if (telling_.erase(address) != 0) telling_bytes_ -= bytes;
  blocks_.erase(found);
  return CUDA_SUCCESS;
}

bool HostMemory::covers(uint64_t address, uint64_t bytes) const {
  if (blocks_.empty() || address < kHostZoneBase) return false;
  const auto after = blocks_.upper_bound(address);
  if (after == blocks_.begin()) return false;
  const auto& [start, block] = *std::prev(after);
  return block.mapped && address - start <= block.bytes && bytes <= block.bytes - (address - start);
}

PagesTold* HostMemory::told(uint64_t address, uint64_t bytes, uint64_t* first_page) {
  if (!covers(address, bytes)) return nullptr;
  const auto& [start, block] = *std::prev(blocks_.upper_bound(address));
  *first_page = (address - start) / kPage;
  return block.told.get();
}

bool HostMemory::tell(uint64_t executed, AnswerWriter& to) {
  for (const auto& [address, pages] : telling_) {
    if (!pages->tell(address, executed, to)) return false;
  }
  return true;
}

bool HostMemory::shares() const {
  for (const auto& [address, block] : blocks_) {
    if (block.shared) return true;
  }
  return false;
}

std::vector<MemoryRange> HostMemory::own_ranges() const {
  std::vector<MemoryRange> ranges;
  for (const auto& [address, block] : blocks_) {
    if (!block.shared) ranges.push_back({address, block.bytes});
  }
  return ranges;
}

}  // namespace tide
