#include "server/shelf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace tide {
namespace {
constexpr uint64_t kBlockBytes = 4096;
}  // namespace

int open_shelf_file(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return -1;
  int fd = open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {  // a file system without such files
    std::string name = directory + "/parked-XXXXXX";
    fd = mkostemp(name.data(), O_CLOEXEC);
    if (fd >= 0) unlink(name.c_str());
  }
  return fd;
}

bool write_at(int fd, const std::byte* data, uint64_t bytes, uint64_t at) {
  while (bytes != 0) {
    const ssize_t n = pwrite(fd, data, bytes, off_t(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n, at += uint64_t(n), bytes -= uint64_t(n);
  }
  return true;
}

bool read_at(int fd, std::byte* data, uint64_t bytes, uint64_t at) {
  while (bytes != 0) {
    const ssize_t n = pread(fd, data, bytes, off_t(at));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;
    if (n <= 0) return false;
    data += n, at += uint64_t(n), bytes -= uint64_t(n);
  }
  return true;
}

uint64_t on_disk_bytes(uint64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }

bool DiskLook::leaves_room(int fd, uint64_t bytes) {
  unlooked_ += bytes;
  if (room_ && unlooked_ < kEveryBytes) return true;
  unlooked_ = 0;
  struct statvfs system {};
  room_ = fstatvfs(fd, &system) != 0 || system.f_bavail >= system.f_blocks / 20;
  return room_;
}

}  // namespace tide
