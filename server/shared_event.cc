#include "server/shared_event.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace tide {
namespace {
constexpr size_t kPageBytes = 4096;
constexpr uint64_t kPageMagic = 0x746e657665657274;
}  // namespace

std::shared_ptr<SharedEvent> SharedEvent::map(int fd) {
  static_assert(sizeof(Page) <= kPageBytes);
  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page != MAP_FAILED) return std::shared_ptr<SharedEvent>(new SharedEvent(static_cast<Page*>(page), fd));
  close(fd);
  return nullptr;
}

std::shared_ptr<SharedEvent> SharedEvent::make() {
  const int fd = memfd_create("tide-event", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return nullptr;
  // Nobody who has the page may shrink it under the others.
  if (ftruncate(fd, kPageBytes) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    close(fd);
    return nullptr;
  }
  auto made = map(fd);
  if (made != nullptr) made->page_->magic = kPageMagic;
  return made;
}

std::shared_ptr<SharedEvent> SharedEvent::open(int fd) {
  struct stat about = {};
  if (fstat(fd, &about) != 0 || about.st_size != off_t(kPageBytes)) {
    close(fd);
    return nullptr;
  }
  auto opened = map(fd);
  return opened != nullptr && opened->page_->magic == kPageMagic ? opened : nullptr;
}

SharedEvent::~SharedEvent() {
  munmap(page_, kPageBytes);
  close(fd_);
}

void SharedEvent::set_maker(const Maker& maker) {
  page_->maker_low = maker.low;
  page_->maker_high = maker.high;
  page_->number = maker.number;
}

SharedEvent::Maker SharedEvent::maker() const { return {page_->maker_low, page_->maker_high, page_->number}; }

void SharedEvent::set_complete(uint64_t begun) {
  for (uint64_t record = begun; record > 0 && begun - record < kRecords; --record) complete(record);
  page_->begun = begun;
}

// The recorder's name is there before the record, so that one that ends in between has left nothing to wait for.
uint64_t SharedEvent::begin(uint64_t recorder) {
  uint64_t last = page_->begun.load(std::memory_order_relaxed);
  do {
    page_->records[(last + 1) % kRecords].recorder.store(recorder, std::memory_order_relaxed);
  } while (!page_->begun.compare_exchange_weak(last, last + 1, std::memory_order_acq_rel));
  return last + 1;
}

void SharedEvent::complete(uint64_t record) {
  std::atomic<uint64_t>& done = page_->records[record % kRecords].done;
  uint64_t before = done.load(std::memory_order_relaxed);
  while (before < record && !done.compare_exchange_weak(before, record, std::memory_order_release)) {
  }
}

uint64_t SharedEvent::recorder(uint64_t record) const {
  return page_->records[record % kRecords].recorder.load(std::memory_order_relaxed);
}

bool SharedEvent::done(uint64_t record) const {
  return page_->records[record % kRecords].done.load(std::memory_order_acquire) >= record;
}

void SharedEvent::recorder_ended(uint64_t recorder) {
  const uint64_t last = this->last();
  for (uint64_t record = last; record > 0 && last - record < kRecords; --record) {
    if (this->recorder(record) == recorder) complete(record);
  }
}

}  // namespace tide
