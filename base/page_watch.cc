#include "base/page_watch.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/log.h"

namespace tide {
namespace {

constexpr uint64_t kPage = 4096;

// Debian 12's headers are older than these (linux/userfaultfd.h, linux/fs.h of 6.7).
constexpr int kUserModeOnly = 1;
constexpr uint64_t kShmemToo = 1u << 12, kUnpopulatedToo = 1u << 13, kAsynchronous = 1u << 15;
constexpr uint64_t kProtectWhatMatches = 1, kOnlyAsynchronous = 2;
constexpr uint64_t kWritten = 2;
struct PagemapScan {  // `struct pm_scan_arg`
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask,
      category_anyof_mask, return_mask;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScan);

struct System {
  int faults = -1;   // userfaultfd
  int pagemap = -1;  // of this process
};

bool enrol(const System& system, uint64_t address, uint64_t bytes) {
  uffdio_register about = {.range = {address, bytes}, .mode = UFFDIO_REGISTER_MODE_WP, .ioctls = 0};
  return ioctl(system.faults, UFFDIO_REGISTER, &about) == 0;
}

// The runs of written pages behind *from, which moves on; less than 0: none of this can be known.
int scan(const System& system, uint64_t* from, uint64_t end, void* runs, uint64_t room) {
  PagemapScan scan = {};
  scan.size = sizeof scan;
  scan.flags = kProtectWhatMatches | kOnlyAsynchronous;
  scan.start = *from;
  scan.end = end;
  scan.vec = reinterpret_cast<uint64_t>(runs);
  scan.vec_len = room;
  scan.category_anyof_mask = scan.return_mask = kWritten;
  const int found = ioctl(system.pagemap, kPagemapScan, &scan);
  if (found < 0 || scan.walk_end <= *from) return -1;
  *from = scan.walk_end;
  return found;
}

// A page that was written and then left this process, as under memory pressure, must count as written.
bool remembers_what_left(const System& system) {
  void* const page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  const auto written = [&] {
    auto from = reinterpret_cast<uint64_t>(page);
    uint64_t run[3];
    return scan(system, &from, from + kPage, run, 1);
  };
  auto* const byte = static_cast<volatile char*>(page);
  *byte = 1;
  bool remembers = enrol(system, reinterpret_cast<uint64_t>(page), kPage) && written() == 1 && written() == 0;
  *byte = 2;
  madvise(page, kPage, MADV_DONTNEED);
  remembers = remembers && written() == 1 && written() == 0;
  munmap(page, kPage);
  return remembers;
}

System open_system() {
  System system;
  const char* const wanted = getenv("TIDE_PAGE_WATCH");
  if (wanted != nullptr && strcmp(wanted, "off") == 0) return system;
  system.faults = int(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUserModeOnly));
  uffdio_api api = {.api = UFFD_API, .features = kShmemToo | kUnpopulatedToo | kAsynchronous, .ioctls = 0};
  if (system.faults >= 0 && ioctl(system.faults, UFFDIO_API, &api) == 0)
    system.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (system.pagemap >= 0 && remembers_what_left(system)) return system;
  log(LogLevel::kInfo, "the system does not say which pages are written, which Linux 6.7 can: they are compared");
  if (system.pagemap >= 0) close(system.pagemap);
  if (system.faults >= 0) close(system.faults);
  return {};
}

// Open for good, like the driver's own descriptors.
const System& the_system() {
  static const System system = open_system();
  return system;
}

}  // namespace

bool PageWatch::start(uint64_t address, uint64_t bytes) {
  stop();
  if (bytes == 0 || address % kPage != 0 || bytes % kPage != 0 || the_system().pagemap < 0) return false;
  if (!enrol(the_system(), address, bytes)) return false;
  address_ = address;
  bytes_ = bytes;
  return true;
}

void PageWatch::stop() {
  if (bytes_ == 0) return;
  uffdio_range range = {address_, bytes_};
  ioctl(the_system().faults, UFFDIO_UNREGISTER, &range);
  bytes_ = 0;
}

int PageWatch::next_written(uint64_t* at, uint64_t end, Run* runs) {
  uint64_t from = address_ + *at;
  const int found = scan(the_system(), &from, address_ + end, runs, kRuns);
  if (found < 0) stop();
  *at = from - address_;
  return found;
}

bool is_private_memory(uint64_t address, uint64_t bytes) {
  FILE* const maps = fopen("/proc/self/maps", "re");
  if (maps == nullptr) return false;
  uint64_t known = address;  // up to here
  char line[4096];
  while (known < address + bytes && fgets(line, sizeof line, maps) != nullptr) {
    unsigned long begin = 0, end = 0, inode = 0;
    char rights[5] = {};
    if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &begin, &end, rights, &inode) != 4) continue;
    if (begin > known) break;
    if (end <= known) continue;
    if (rights[3] != 'p' || inode != 0) break;
    known = end;
  }
  fclose(maps);
  return known >= address + bytes;
}

}  // namespace tide
