#include "server/move_rate.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/descriptors.h"

namespace tide {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kMadeUpNs = 20'000'000;
// Each sender owes one part at most: what says more is from before the machine was started.
constexpr uint64_t kSendersMost = 256;

}  // namespace

MoveRate::~MoveRate() {
  if (free_ns_ != nullptr) munmap(static_cast<void*>(free_ns_), kPageBytes);
}

Outcome MoveRate::start(uint64_t bytes_per_s, const std::string& page) {
  if (bytes_per_s == 0) return {};
  const int fd = open(page.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno_failure("cannot open " + page);
  void* mapped = MAP_FAILED;
  if (ftruncate(fd, kPageBytes) == 0) mapped = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const Outcome failure = mapped == MAP_FAILED ? errno_failure("cannot map " + page) : Outcome();
  close(fd);
  if (!failure.ok()) return failure;
  free_ns_ = static_cast<std::atomic<uint64_t>*>(mapped);
  bytes_per_s_ = bytes_per_s;
  return {};
}

Outcome MoveRate::start_as_told() {
  const char* const rate = getenv("TIDE_MOVE_RATE");
  const char* const page = getenv("TIDE_MOVE_PAGE");
  return rate == nullptr || page == nullptr ? Outcome() : start(strtoull(rate, nullptr, 10), page);
}

uint64_t MoveRate::sent(uint64_t bytes, uint64_t now) {
  if (free_ns_ == nullptr || bytes == 0) return 0;
  const auto cost = uint64_t(double(bytes) * 1e9 / double(bytes_per_s_));
  const uint64_t least = now - std::min(now, kMadeUpNs), most = now + kSendersMost * cost;
  uint64_t free = *free_ns_, next = 0;
  do {
    next = (free > most ? now : std::max(free, least)) + cost;
  } while (!free_ns_->compare_exchange_weak(free, next));
  return next > now ? next - now : 0;
}

}  // namespace tide
