#include "server/peer_lane.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/log.h"
#include "server/driver_library.h"
#include "server/rectangle.h"

namespace tide {
namespace {

constexpr uint64_t kSlotsBytes = kPeerSlots * kPeerPieceBytes;
constexpr uint64_t kMappedBytes = kSlotsBytes + 4096;
constexpr size_t kRetiredMax = 16;  // above it, new slots stay as they are: slower, but nothing grows

Outcome system_failure(const char* what) { return Outcome::fail(std::string(what) + ": " + strerror(errno)); }

std::byte* map_all(int fd) {
  void* const data = mmap(nullptr, kMappedBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return data == MAP_FAILED ? nullptr : static_cast<std::byte*>(data);
}

}  // namespace

Outcome PeerSlots::make(std::unique_ptr<PeerSlots>* slots) {
  auto made = std::make_unique<PeerSlots>();
  made->fd_ = memfd_create("tide-peer-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  // Sealed: nobody who maps it can make it shorter under us.
  if (made->fd_ < 0 || ftruncate(made->fd_, kMappedBytes) != 0 ||
      fcntl(made->fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return system_failure("cannot make memory for copies between vGPUs");
  }
  made->data_ = map_all(made->fd_);
  if (made->data_ == nullptr) return system_failure("cannot map memory for copies between vGPUs");
  uint8_t* const nonce = reinterpret_cast<uint8_t*>(made->at(kPeerSlots));
  if (getrandom(nonce, kPeerNonceBytes, 0) != ssize_t(kPeerNonceBytes)) return system_failure("no random bytes");
  *slots = std::move(made);
  return {};
}

Outcome PeerSlots::map(pid_t pid, int fd, const uint8_t* nonce, std::unique_ptr<PeerSlots>* slots) {
  auto made = std::make_unique<PeerSlots>();
  made->fd_ = open(format("/proc/%d/fd/%d", int(pid), fd).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  struct stat file {};
  constexpr int kSealed = F_SEAL_SHRINK | F_SEAL_GROW;
  if (made->fd_ < 0 || fstat(made->fd_, &file) != 0 || file.st_size != off_t(kMappedBytes) ||
      (fcntl(made->fd_, F_GET_SEALS) & kSealed) != kSealed) {
    return Outcome::fail("the far side's memory is not within reach");
  }
  made->data_ = map_all(made->fd_);
  if (made->data_ == nullptr) return system_failure("cannot map the far side's memory");
  // Another process may have that number where this one does not see it.
  if (memcmp(made->nonce(), nonce, kPeerNonceBytes) != 0) return Outcome::fail("that memory is somebody else's");
  *slots = std::move(made);
  return {};
}

PeerSlots::~PeerSlots() {
  if (data_ != nullptr) munmap(data_, kMappedBytes);
  if (fd_ >= 0) close(fd_);
}

Outcome PeerLane::failure(CUresult result) const {
  return Outcome::fail("a copy between vGPUs failed: " + error_text(*driver_, result));
}

Outcome PeerLane::start(const Driver& driver, CUcontext context) {
  driver_ = &driver;
  CUresult result = driver.cuCtxSetCurrent(context);
  if (result == CUDA_SUCCESS) result = driver.cuStreamCreateWithPriority(&stream_, CU_STREAM_NON_BLOCKING, 0);
  for (CUevent& done : done_) {
    if (result == CUDA_SUCCESS) result = driver.cuEventCreate(&done, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
  }
  return result == CUDA_SUCCESS ? Outcome() : failure(result);
}

PeerLane::~PeerLane() {
  if (stream_ == nullptr) return;
  driver_->cuStreamSynchronize(stream_);
  for (CUevent done : done_) {
    if (done != nullptr) driver_->cuEventDestroy_v2(done);
  }
  driver_->cuStreamDestroy_v2(stream_);
}

Outcome PeerLane::begin(uint32_t slot, std::byte* bytes, uint64_t address, uint64_t pitch, const Part& part, bool in) {
  const Rectangle rows{part.rows == 1 ? part.columns : pitch, part.columns, part.rows};
  CUresult result = copy_rows(*driver_, stream_, address + part.row * pitch + part.column, rows, bytes, in);
  if (result == CUDA_SUCCESS) result = driver_->cuEventRecord(done_[slot], stream_);
  return result == CUDA_SUCCESS ? Outcome() : failure(result);
}

Outcome PeerLane::wait(uint32_t slot) {
  const CUresult result = driver_->cuEventSynchronize(done_[slot]);
  return result == CUDA_SUCCESS ? Outcome() : failure(result);
}

void PeerLane::rest() { driver_->cuStreamSynchronize(stream_); }

void PeerPins::pin(PeerSlots& slots) {
  const std::lock_guard lock(mu_);
  if (driver_.cuMemHostRegister_v2 == nullptr || driver_.cuMemHostUnregister == nullptr) return;
  if (retired_.size() >= kRetiredMax) return;
  slots.pinned_ = driver_.cuMemHostRegister_v2(slots.at(0), kSlotsBytes, CU_MEMHOSTREGISTER_PORTABLE) == CUDA_SUCCESS;
}

void PeerPins::retire(std::unique_ptr<PeerSlots> slots) {
  if (slots == nullptr || !slots->pinned_) return;
  const std::lock_guard lock(mu_);
  retired_.push_back(std::move(slots));
  any_retired_ = true;
}

void PeerPins::unpin_retired() {
  std::vector<std::unique_ptr<PeerSlots>> retired;
  {
    const std::lock_guard lock(mu_);
    retired.swap(retired_);
    any_retired_ = false;
  }
  for (const auto& slots : retired) driver_.cuMemHostUnregister(slots->at(0));
}

}  // namespace tide
