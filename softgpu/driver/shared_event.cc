#include "softgpu/driver/shared_event.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/clock.h"

namespace softgpu {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr uint64_t kMagic = 0x746e6576652d6573;

}  // namespace

std::shared_ptr<SharedEvent> SharedEvent::map(int fd) {
  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page != MAP_FAILED) return std::shared_ptr<SharedEvent>(new SharedEvent(static_cast<Page*>(page), fd));
  close(fd);
  return nullptr;
}

std::shared_ptr<SharedEvent> SharedEvent::make() {
  const int fd = memfd_create("softgpu-event", MFD_CLOEXEC);
  if (fd < 0) return nullptr;
  if (ftruncate(fd, kPageBytes) == 0) return map(fd);
  close(fd);
  return nullptr;
}

std::shared_ptr<SharedEvent> SharedEvent::open(const SharedPlace& place) {
  if (place.kind != kMagic) return nullptr;
  const int fd = open_file(place);
  struct stat about = {};
  if (fd < 0) return nullptr;
  if (fstat(fd, &about) == 0 && about.st_size == static_cast<off_t>(kPageBytes)) return map(fd);
  close(fd);
  return nullptr;
}

SharedEvent::~SharedEvent() {
  munmap(page_, kPageBytes);
  close(fd_);
}

uint64_t SharedEvent::begin() {
  page_->recorder = getpid();
  return ++page_->begun;
}

void SharedEvent::complete(uint64_t record) {
  uint64_t before = page_->completed;
  while (before < record && !page_->completed.compare_exchange_weak(before, record)) {
  }
}

uint64_t SharedEvent::last() const { return page_->begun; }

bool SharedEvent::done(uint64_t record) const {
  if (page_->completed >= record) return true;
  return kill(page_->recorder, 0) != 0 && errno == ESRCH;
}

void SharedEvent::wait(uint64_t record, const std::atomic<bool>& cancel) const {
  for (int i = 0; !done(record) && !cancel; ++i) tide::sleep_us(i < 100 ? 20 : 500);
}

CUresult SharedEvent::share(SharedPlace* place) const {
  struct stat about = {};
  if (fstat(fd_, &about) != 0) return CUDA_ERROR_UNKNOWN;
  *place = {kSharedPlaceMagic, getpid(), fd_, about.st_ino, 0, 0, 0, kMagic};
  return CUDA_SUCCESS;
}

}  // namespace softgpu
