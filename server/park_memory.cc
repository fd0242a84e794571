#include "server/park_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/descriptors.h"
#include "base/limits.h"

namespace tide {
namespace {

constexpr uint64_t kSlotBytes = kChunkBytes;
constexpr uint64_t kSlotsMax = 1u << 24;  // 32 TiB

// False where the system does not say.
bool is_plenty() {
  FILE* const file = fopen("/proc/meminfo", "re");
  if (file == nullptr) return false;
  unsigned long long total = 0, available = 0, value = 0;
  char line[128];
  while (fgets(line, sizeof(line), file) != nullptr) {
    if (sscanf(line, "MemTotal: %llu", &value) == 1) total = value;
    if (sscanf(line, "MemAvailable: %llu", &value) == 1) available = value;
  }
  fclose(file);
  return total != 0 && available > total / 4;
}

struct flock slot_lock(uint64_t slot) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = off_t(slot);
  lock.l_len = 1;
  return lock;
}

}  // namespace

bool MemoryLook::plenty(uint64_t bytes) {
  unlooked_ += bytes;
  if (unlooked_ >= kEveryBytes) {
    plenty_ = is_plenty();
    unlooked_ = 0;
  }
  return plenty_;
}

ParkMemory::ParkMemory(std::optional<uint64_t> bytes_max, std::string ledger)
    : bytes_max_(bytes_max), ledger_(std::move(ledger)) {
  if (bytes_max_) mine_.resize(std::min(*bytes_max_ / kSlotBytes, kSlotsMax));
}

ParkMemory::~ParkMemory() {
  if (fd_ >= 0) close(fd_);
}

Outcome ParkMemory::start() {
  if (!bytes_max_ || ledger_.empty()) return {};
  fd_ = open(ledger_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  return fd_ >= 0 ? Outcome() : errno_failure("cannot open " + ledger_);
}

bool ParkMemory::take(uint64_t bytes) {
  if (bytes_max_) {
    const uint64_t slots = (used_ + bytes + kSlotBytes - 1) / kSlotBytes;
    if (slots > held_slots_ && !lock_slots(slots - held_slots_)) return false;
  } else if (!look_.plenty(bytes)) {
    return false;
  }
  used_ += bytes;
  return true;
}

// What was locked of too few stays: it is asked for again.
bool ParkMemory::lock_slots(uint64_t slots) {
  for (int round = 0; slots != 0 && round < 2; ++round) {
    for (; slots != 0 && next_slot_ < mine_.size(); ++next_slot_) {
      if (mine_[next_slot_] || (fd_ >= 0 && !lock_ledger_slot(fd_, &next_slot_))) continue;
      mine_[next_slot_] = true;
      ++held_slots_;
      --slots;
    }
    if (slots != 0) next_slot_ = 0;  // what others had may be free now
  }
  return slots == 0;
}

bool lock_ledger_slot(int ledger, uint64_t* slot) {
  struct flock lock = slot_lock(*slot);
  if (fcntl(ledger, F_OFD_SETLK, &lock) == 0) return true;
  lock = slot_lock(*slot);
  const bool taken = fcntl(ledger, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_len > 0;
  if (taken) *slot = uint64_t(lock.l_start + lock.l_len) - 1;
  return false;
}

}  // namespace tide
