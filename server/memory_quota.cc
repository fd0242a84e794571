#include "server/memory_quota.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/descriptors.h"
#include "base/limits.h"

namespace tide {
namespace {

// Byte 0 of the file is locked by who holds all; the slots follow.
constexpr uint64_t kAllAt = 0, kSlotsAt = 1;

uint64_t slots_of(uint64_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }

struct flock range(short type, uint64_t at, uint64_t bytes) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = off_t(at);
  lock.l_len = off_t(bytes);
  return lock;
}

}  // namespace

MemoryQuota::~MemoryQuota() {
  if (fd_ >= 0) close(fd_);
}

Outcome MemoryQuota::start(const std::string& path, uint64_t bytes) {
  const uint64_t slots = slots_of(bytes);
  if (slots > kSlotsMax) return Outcome::fail("a quota of so much memory is not kept for several processes");
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) return errno_failure("cannot open " + path);
  mine_.resize(slots);
  all_ = false;
  return {};
}

bool MemoryQuota::lock(uint64_t first, uint64_t slots, short type) const {
  struct flock lock = range(type, kSlotsAt + first, slots);
  return fcntl(fd_, F_OFD_SETLK, &lock) == 0;
}

// How many slots from `first` on, up to `end`, no other holds; if none, *next is behind the other's. The system names
// some lock that is in the way, not the first.
uint64_t MemoryQuota::free_run(uint64_t first, uint64_t end, uint64_t* next) const {
  while (first < end) {
    struct flock lock = range(F_WRLCK, kSlotsAt + first, end - first);
    if (fcntl(fd_, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) break;
    const auto begin = uint64_t(lock.l_start);
    if (begin <= kSlotsAt + first) {
      *next = lock.l_len == 0 ? mine_.size() : begin + uint64_t(lock.l_len) - kSlotsAt;
      return 0;
    }
    end = begin - kSlotsAt;
  }
  return end - first;
}

uint64_t MemoryQuota::end_of_run(uint64_t first, bool mine) const {
  return uint64_t(std::find(mine_.begin() + ptrdiff_t(first), mine_.end(), !mine) - mine_.begin());
}

// As many as there are, up to that; how many it were.
uint64_t MemoryQuota::take(uint64_t slots) {
  uint64_t taken = 0;
  for (uint64_t at = end_of_run(0, true); at < mine_.size() && taken < slots; at = end_of_run(at, true)) {
    const uint64_t end = std::min(end_of_run(at, false), at + slots - taken);
    uint64_t next = end;
    const uint64_t run = free_run(at, end, &next);
    if (run == 0) {
      at = next;
      continue;
    }
    if (!lock(at, run, F_WRLCK)) {
      if (errno != EAGAIN && errno != EACCES) break;
      continue;  // somebody was faster
    }
    std::fill(mine_.begin() + ptrdiff_t(at), mine_.begin() + ptrdiff_t(at + run), true);
    taken += run;
  }
  held_ += taken;
  return taken;
}

void MemoryQuota::hold_all() {
  if (fd_ < 0) return;
  all_ = said_all_ = true;
  struct flock all = range(F_WRLCK, kAllAt, 1);
  fcntl(fd_, F_OFD_SETLK, &all);
  take(mine_.size());
}

bool MemoryQuota::grow_to(uint64_t bytes) {
  const uint64_t wanted = slots_of(bytes), before = held_;
  if (fd_ < 0 || wanted <= held_ || held_ == mine_.size()) return true;
  if (wanted > mine_.size()) return false;
  if (take(wanted - held_) == wanted - before) return true;
  if (!all_) shrink_to(before * kChunkBytes);
  return false;
}

void MemoryQuota::shrink_to(uint64_t bytes) {
  const uint64_t wanted = slots_of(bytes);
  if (fd_ < 0 || all_) return;
  if (said_all_) {
    struct flock all = range(F_UNLCK, kAllAt, 1);
    fcntl(fd_, F_OFD_SETLK, &all);
    said_all_ = false;
  }
  for (uint64_t end = mine_.size(); held_ > wanted && end > 0;) {
    if (!mine_[end - 1]) {
      --end;
      continue;
    }
    uint64_t begin = end;
    while (begin > 0 && mine_[begin - 1] && end - begin < held_ - wanted) --begin;
    if (!lock(begin, end - begin, F_UNLCK)) return;
    std::fill(mine_.begin() + ptrdiff_t(begin), mine_.begin() + ptrdiff_t(end), false);
    held_ -= end - begin;
    end = begin;
  }
}

uint64_t MemoryQuota::left() {
  if (fd_ < 0) return 0;
  uint64_t free = 0;
  for (uint64_t at = end_of_run(0, true); at < mine_.size(); at = end_of_run(at, true)) {
    uint64_t next = at;
    const uint64_t run = free_run(at, end_of_run(at, false), &next);
    free += run;
    at = run == 0 ? next : at + run;
  }
  return free * kChunkBytes;
}

bool MemoryQuota::others_will_give() {
  if (fd_ < 0) return false;
  struct flock all = range(F_WRLCK, kAllAt, 1);
  return fcntl(fd_, F_OFD_GETLK, &all) == 0 && all.l_type != F_UNLCK;
}

}  // namespace tide
