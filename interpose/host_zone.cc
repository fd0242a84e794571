#include "interpose/host_zone.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/limits.h"
#include "base/log.h"

namespace tide {
namespace {

constexpr uint64_t kAlign = 65536;  // some GPUs' page: blocks do not share one
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::byte* place(uint64_t address) { return reinterpret_cast<std::byte*>(address); }

int make_file() {
  rlimit limit = {};
  // Beyond the limit on files the system would send a signal.
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < kHostZoneBytes) return -1;
  const int fd = memfd_create("tide-host-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  if (ftruncate(fd, off_t(kHostZoneBytes)) == 0 && fcntl(fd, F_ADD_SEALS, kSeals) == 0) return fd;
  close(fd);
  return -1;
}

}  // namespace

HostZone& HostZone::instance() {
  static auto* zone = new HostZone;
  return *zone;
}

bool HostZone::open() {
  if (opened_) return reserved_;
  opened_ = true;
  void* const got = mmap(place(kHostZoneBase), kHostZoneBytes, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  reserved_ = got == place(kHostZoneBase);
  if (!reserved_) {
    log(LogLevel::kError, "cannot reserve 4 TiB of addresses for host memory (%s); is there a limit on virtual memory?",
        strerror(errno));
    if (got != MAP_FAILED) munmap(got, kHostZoneBytes);
    return false;
  }
  free_.add(kHostZoneBase, kHostZoneBytes);
  fd_ = make_file();
  if (fd_ < 0) log(LogLevel::kInfo, "no memory file (%s): host memory is not shared with workers", strerror(errno));
  return true;
}

uint64_t HostZone::allocate(uint64_t bytes, bool mapped) {
  uint64_t at = 0;
  if (!open() || bytes > kHostZoneBytes / 2) return 0;
  const uint64_t taken = (bytes + kAlign - 1) / kAlign * kAlign;
  if (!free_.take(taken, kAlign, &at)) return 0;
  if (!mapped) return at;
  const int kind = fd_ >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* const got = mmap(place(at), whole_pages(bytes), PROT_READ | PROT_WRITE, kind | MAP_FIXED, fd_,
                         fd_ >= 0 ? off_t(at - kHostZoneBase) : 0);
  if (got != MAP_FAILED) return at;
  free_.add(at, taken);
  return 0;
}

void HostZone::release(uint64_t address, uint64_t bytes) {
  // The addresses stay reserved.
  mmap(place(address), whole_pages(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (fd_ >= 0) {
    fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(address - kHostZoneBase),
              off_t(whole_pages(bytes)));
  }
  free_.add(address, (bytes + kAlign - 1) / kAlign * kAlign);
}

bool HostZone::next_data(uint64_t* address, uint64_t end, uint64_t* bytes) const {
  uint64_t from = *address, to = end;
  if (fd_ >= 0) {
    const off_t data = lseek(fd_, off_t(from - kHostZoneBase), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return false;  // otherwise it is not known, and all of it may be
    const off_t hole = data < 0 ? -1 : lseek(fd_, data, SEEK_HOLE);
    if (data >= 0) from = kHostZoneBase + uint64_t(data);
    if (hole > data) to = std::min(end, kHostZoneBase + uint64_t(hole));
  }
  *address = from;
  *bytes = to - from;
  return from < end;
}

}  // namespace tide
