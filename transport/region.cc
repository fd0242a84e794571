#include "transport/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <new>

#include "base/log.h"
#include "transport/link.h"

namespace tide {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Outcome fail_with_errno(const char* what) { return Outcome::fail(format("%s: %s", what, strerror(errno))); }

Outcome map_fd(int fd, Region* region) {
  void* base = mmap(nullptr, kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return fail_with_errno("cannot map a channel's region");
  region->base = static_cast<std::byte*>(base);
  return {};
}

}  // namespace

Outcome create_region(int* fd, Region* region) {
  const int memory = memfd_create("tide-region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0) return fail_with_errno("cannot create a channel's region");
  Outcome outcome;
  if (ftruncate(memory, off_t(kRegionBytes)) != 0) outcome = fail_with_errno("cannot size a channel's region");
  if (outcome.ok() && fcntl(memory, F_ADD_SEALS, kSeals) != 0) outcome = fail_with_errno("cannot seal a region");
  if (outcome.ok()) outcome = map_fd(memory, region);
  if (!outcome.ok()) {
    close(memory);
    return outcome;
  }
  // The worker's page is all zero, which is its initial state.
  new (&region->client()) ClientPage;
  region->client().region_bytes = kRegionBytes;
  *fd = memory;
  return {};
}

void destroy_region(int fd, Region region) {
  unmap_region(region);
  if (fd >= 0) close(fd);
}

Outcome map_shared_region(int fd, Region* region) {
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0 || uint64_t(status.st_size) != kRegionBytes) {
    return Outcome::fail("the client's region does not have the size of this version");
  }
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return Outcome::fail("the client's region is not sealed");
  Region mapped;
  const Outcome outcome = map_fd(fd, &mapped);
  if (!outcome.ok()) return outcome;
  const ClientPage& page = mapped.client();
  if (page.magic != kRegionMagic || page.version != kRegionVersion || page.region_bytes != kRegionBytes) {
    unmap_region(mapped);
    return Outcome::fail("the client's region is of another version; use one version of Tidepool on both sides");
  }
  *region = mapped;
  return {};
}

Outcome map_private_region(Region* region) {
  void* base = mmap(nullptr, kRegionBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return fail_with_errno("cannot map a channel's region");
  region->base = static_cast<std::byte*>(base);
  return {};
}

void unmap_region(Region region) {
  if (region.base != nullptr) munmap(region.base, kRegionBytes);
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, uint32_t timeout_us) {
  const timespec timeout{.tv_sec = timeout_us / 1'000'000, .tv_nsec = long(timeout_us % 1'000'000) * 1000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

void futex_bump(std::atomic<uint32_t>& word) {
  word.fetch_add(1, std::memory_order_release);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace tide
