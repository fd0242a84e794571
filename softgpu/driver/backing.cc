#include "softgpu/driver/backing.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "softgpu/driver/driver.h"
#include "softgpu/mem/address_space.h"

namespace softgpu {
namespace {

constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

// Aligned to a chunk so that huge pages can lie behind it; null when the host has no address space left.
std::byte* reserve_aligned(uint64_t bytes) {
  void* pages = mmap(nullptr, bytes + kChunkBytes, PROT_NONE, kPrivate, -1, 0);
  if (pages == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uint64_t>(pages);
  const uint64_t aligned = (start + kChunkBytes - 1) / kChunkBytes * kChunkBytes;
  if (aligned != start) munmap(pages, aligned - start);
  const uint64_t tail = start + kChunkBytes - aligned;
  if (tail != 0) munmap(reinterpret_cast<void*>(aligned + bytes), tail);
  return reinterpret_cast<std::byte*>(aligned);
}

// Replaces what lies at the place.
bool map_fixed(std::byte* place, uint64_t bytes, int fd, uint64_t offset = 0) {
  const int flags = MAP_FIXED | (fd < 0 ? kPrivate : MAP_SHARED | MAP_NORESERVE);
  if (mmap(place, bytes, PROT_READ | PROT_WRITE, flags, fd, static_cast<off_t>(offset)) == MAP_FAILED) return false;
  // Large kernels walk all of it; without huge pages they mostly wait for page tables. Only a wish.
  if (fd < 0) madvise(place, bytes, MADV_HUGEPAGE);
  return true;
}

// The name tells another process which GPU the memory is of, whatever number that has there.
constexpr char kName[] = "softgpu-of-bus-";

int make_memfd(const Device& device, uint64_t bytes) {
  const std::string name = kName + std::to_string(device.identity.pci_bus);
  const int fd = memfd_create(name.c_str(), MFD_CLOEXEC);
  if (fd < 0) return -1;
  if (ftruncate(fd, static_cast<off_t>(bytes)) == 0) return fd;
  close(fd);
  return -1;
}

// Pages of zeros stay holes.
bool fill_memfd(int fd, const std::byte* from, uint64_t bytes) {
  constexpr uint64_t kPage = 4096;
  static constexpr std::byte kZeros[kPage] = {};
  for (uint64_t at = 0; at < bytes; at += kPage) {
    if (std::memcmp(from + at, kZeros, kPage) == 0) continue;
    if (pwrite(fd, from + at, kPage, static_cast<off_t>(at)) != static_cast<ssize_t>(kPage)) return false;
  }
  return true;
}

}  // namespace

std::shared_ptr<Backing> Backing::make_kept(Device& device, uint64_t bytes) {
  KeptMemory& memory = *device.kept_memory();
  std::vector<uint64_t> chunks = memory.take(bytes / kChunkBytes);
  std::byte* const place = chunks.empty() ? nullptr : reserve_aligned(bytes);
  bool mapped = place != nullptr;
  for (size_t i = 0; mapped && i < chunks.size(); ++i) {
    mapped = map_fixed(place + i * kChunkBytes, kChunkBytes, memory.fd(), chunks[i]);
  }
  if (mapped) {
    auto made = std::shared_ptr<Backing>(new Backing(device, place, bytes, Kind::kKept, -1));
    made->kept_at_ = std::move(chunks);
    return made;
  }
  if (place != nullptr) munmap(place, bytes);
  memory.give(chunks);
  return nullptr;
}

std::shared_ptr<Backing> Backing::make(Device& device, uint64_t bytes, bool shared) {
  if (!device.take(bytes)) return nullptr;
  if (device.kept_memory() != nullptr && !shared) {
    auto made = make_kept(device, bytes);
    if (made == nullptr) device.give(bytes);
    return made;
  }
  std::byte* const place = reserve_aligned(bytes);
  const int fd = shared ? make_memfd(device, bytes) : -1;
  if (place != nullptr && (!shared || fd >= 0) && map_fixed(place, bytes, fd)) {
    return std::shared_ptr<Backing>(new Backing(device, place, bytes, Kind::kAccounted, fd));
  }
  if (place != nullptr) munmap(place, bytes);
  if (fd >= 0) close(fd);
  device.give(bytes);
  return nullptr;
}

std::shared_ptr<Backing> Backing::make_at(Device& device, uint64_t address, uint64_t bytes) {
  auto* const place = reinterpret_cast<std::byte*>(address);
  if (!map_fixed(place, bytes, -1)) return nullptr;
  return std::shared_ptr<Backing>(new Backing(device, place, bytes, Kind::kAtAddress, -1));
}

std::shared_ptr<Backing> Backing::import(Device& device, int fd, uint64_t bytes) {
  struct stat about = {};
  std::byte* place = nullptr;
  if (fstat(fd, &about) == 0 && static_cast<uint64_t>(about.st_size) >= bytes) place = reserve_aligned(bytes);
  if (place != nullptr && map_fixed(place, bytes, fd)) {
    return std::shared_ptr<Backing>(new Backing(device, place, bytes, Kind::kImported, fd));
  }
  if (place != nullptr) munmap(place, bytes);
  close(fd);
  return nullptr;
}

int Backing::make_token(const Device& device) { return make_memfd(device, 0); }

bool Backing::device_of(int fd, int* device) {
  char name[64] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  if (readlink(link.c_str(), name, sizeof(name) - 1) <= 0) return false;
  const char* bus = std::strstr(name, kName);
  if (bus == nullptr) return false;
  const long number = std::strtol(bus + sizeof(kName) - 1, nullptr, 10);
  *device = 0;  // one that this process does not see
  for (const auto& candidate : driver().devices) {
    if (candidate->identity.pci_bus == number) *device = candidate->index;
  }
  return true;
}

Backing::~Backing() {
  hashes_.forget();  // before the place is another's
  if (kind_ == Kind::kAtAddress) {
    // The window keeps the address; it only loses its contents.
    mmap(host, bytes, PROT_NONE, kPrivate | MAP_FIXED, -1, 0);
  } else {
    munmap(host, bytes);
  }
  if (fd_ >= 0) close(fd_);
  if (kind_ == Kind::kKept) device.kept_memory()->give(kept_at_);
  if (kind_ == Kind::kAccounted || kind_ == Kind::kKept) device.give(bytes);
}

void Backing::clear() {
  if (kind_ == Kind::kKept) std::memset(host, 0, bytes);
}

bool Backing::is_shared() {
  const std::lock_guard lock(mu_);
  return fd_ >= 0;
}

int Backing::share() {
  const std::lock_guard lock(mu_);
  if (fd_ >= 0) return fd_;
  const int fd = make_memfd(device, bytes);
  if (fd < 0) return -1;
  hashes_.forget();
  if (!fill_memfd(fd, host, bytes) || !map_fixed(host, bytes, fd)) {
    close(fd);
    return -1;
  }
  return fd_ = fd;
}

void Backing::hash(const tide::ChunkSecret& secret, uint64_t first, uint64_t count, tide::ChunkHash* hashes) {
  const std::lock_guard lock(mu_);
  hashes_.hash({host, bytes, fd_ < 0 && kind_ != Kind::kKept}, secret, first, count, hashes);
}

void Backing::forget_hashes() {
  const std::lock_guard lock(mu_);
  hashes_.forget();
}

}  // namespace softgpu
