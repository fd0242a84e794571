#include "softgpu/driver/shared_place.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "softgpu/driver/driver.h"

namespace softgpu {

CUresult share_range(const Range& range, SharedPlace* place) {
  synchronize_all();  // what is written while the memory moves into a file would be lost
  const int fd = range.backing->share();
  struct stat about = {};
  if (fd < 0 || fstat(fd, &about) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  *place = {kSharedPlaceMagic, getpid(), fd, about.st_ino, range.backing->bytes, range.backing_offset, range.bytes, 0};
  return CUDA_SUCCESS;
}

int open_file(const SharedPlace& place) {
  if (place.magic != kSharedPlaceMagic || place.pid <= 0 || place.fd < 0) return -1;
  const std::string path = "/proc/" + std::to_string(place.pid) + "/fd/" + std::to_string(place.fd);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  struct stat about = {};
  if (fstat(fd, &about) == 0 && about.st_ino == place.file) return fd;
  close(fd);
  return -1;
}

CUresult open_shared(const SharedPlace& place, Context* context, const std::shared_ptr<Pool>& pool, Device& device,
                     uint64_t* address) {
  if (place.magic != kSharedPlaceMagic || place.bytes == 0 || place.backing_bytes % kChunkBytes != 0 ||
      place.offset > place.backing_bytes || place.bytes > place.backing_bytes - place.offset) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const auto open_backing = [&]() -> std::shared_ptr<Backing> {
    const int fd = open_file(place);
    int owner = 0;
    if (fd < 0) return nullptr;
    if (!Backing::device_of(fd, &owner)) owner = device.index;
    return Backing::import(*driver().devices[static_cast<size_t>(owner)], fd, place.backing_bytes);
  };
  uint64_t base = 0;
  const CUresult result = driver().memory.open_imported(context, place.file, open_backing, pool, device, &base);
  if (result == CUDA_SUCCESS) *address = base + place.offset;
  return result;
}

}  // namespace softgpu
