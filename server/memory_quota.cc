#include "server/memory_quota.h"

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

// Of slots of which others hold some: behind the first of these, whose begin is in *begin; 0: none is held.
uint64_t MemoryQuota::end_of_others(uint64_t first, uint64_t slots, uint64_t* begin) const {
  struct flock lock = range(F_WRLCK, kSlotsAt + first, slots);
  if (fcntl(fd_, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  *begin = std::max(uint64_t(lock.l_start), kSlotsAt + first) - kSlotsAt;
  return lock.l_len == 0 ? mine_.size() : uint64_t(lock.l_start + lock.l_len) - kSlotsAt;
}

// As many as there are, up to that; how many it were.
uint64_t MemoryQuota::take(uint64_t slots) {
  uint64_t taken = 0;
  for (uint64_t at = 0; at < mine_.size() && taken < slots;) {
    at = uint64_t(std::find(mine_.begin() + ptrdiff_t(at), mine_.end(), false) - mine_.begin());
    uint64_t end = at;
    while (end < mine_.size() && !mine_[end] && end - at < slots - taken) ++end;
    if (end == at) break;
    if (!lock(at, end - at, F_WRLCK)) {
      uint64_t begin = at;
      const uint64_t next = end_of_others(at, end - at, &begin);
      if (next == 0) continue;  // it was given back meanwhile
      if (begin == at) {
        at = std::max(next, at + 1);
        continue;
      }
      end = begin;
      if (!lock(at, end - at, F_WRLCK)) continue;
    }
    std::fill(mine_.begin() + ptrdiff_t(at), mine_.begin() + ptrdiff_t(end), true);
    taken += end - at;
    at = end;
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
  for (uint64_t at = 0; at < mine_.size();) {
    uint64_t end = at;
    while (end < mine_.size() && !mine_[end]) ++end;
    for (uint64_t from = at; from < end;) {
      uint64_t begin = end;
      const uint64_t next = end_of_others(from, end - from, &begin);
      if (next == 0) begin = end;
      free += begin - from;
      from = next == 0 ? end : next;
    }
    at = end;
    while (at < mine_.size() && mine_[at]) ++at;
  }
  return free * kChunkBytes;
}

bool MemoryQuota::others_will_give() {
  if (fd_ < 0) return false;
  struct flock all = range(F_WRLCK, kAllAt, 1);
  return fcntl(fd_, F_OFD_GETLK, &all) == 0 && all.l_type != F_UNLCK;
}

}  // namespace tide
