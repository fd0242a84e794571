#include "softgpu/driver/kept_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "softgpu/mem/address_space.h"

namespace softgpu {
namespace {

// Whether the kind of lock was set on a chunk.
bool set_lock(int fd, short kind, uint64_t place) {
  struct flock lock = {};
  lock.l_type = kind;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(place);
  lock.l_len = static_cast<off_t>(kChunkBytes);
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

}  // namespace

std::unique_ptr<KeptMemory> KeptMemory::open(const std::string& path, uint64_t bytes) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0) {
    return std::unique_ptr<KeptMemory>(new KeptMemory(fd, bytes / kChunkBytes));
  }
  tide::log(tide::LogLevel::kError, "SOFTGPU_KEEP_MEMORY: %s: %s", path.c_str(), strerror(errno));
  if (fd >= 0) close(fd);
  return nullptr;
}

KeptMemory::~KeptMemory() { close(fd_); }

std::vector<uint64_t> KeptMemory::take(uint64_t count) {
  std::vector<uint64_t> places;
  {
    const std::lock_guard lock(mu_);
    for (uint64_t i = 0; i < taken_.size() && places.size() < count; ++i) {
      if (taken_[i] || !set_lock(fd_, F_WRLCK, i * kChunkBytes)) continue;
      taken_[i] = true;
      places.push_back(i * kChunkBytes);
    }
  }
  if (places.size() == count) return places;
  give(places);
  return {};
}

void KeptMemory::give(const std::vector<uint64_t>& places) {
  const std::lock_guard lock(mu_);
  for (const uint64_t place : places) {
    set_lock(fd_, F_UNLCK, place);
    taken_[place / kChunkBytes] = false;
  }
}

}  // namespace softgpu
