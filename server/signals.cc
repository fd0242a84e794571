#include "server/signals.h"

#include "base/clock.h"

namespace tide {
namespace {
constexpr uint32_t kLookEveryUs = 20;
}

Signals::~Signals() { attach(nullptr); }

void Signals::attach(ClientPage* page) {
  contexts_.use(0);
  if (device_page_ != 0) driver_.cuMemHostUnregister(page_);
  device_page_ = 0;
  // Host functions of the old page end at their next look; they hold their own share of the flag.
  shared_->stop.store(true, std::memory_order_release);
  shared_ = std::make_shared<Shared>();
  awaited_.clear();
  page_ = page;
  if (page == nullptr || !driver_waits()) return;
  const uint32_t flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
  if (driver_.cuMemHostRegister_v2(page, kWorkerPageOffset, flags) != CUDA_SUCCESS) return;
  if (driver_.cuMemHostGetDevicePointer_v2(&device_page_, page, 0) == CUDA_SUCCESS) return;
  device_page_ = 0;
  driver_.cuMemHostUnregister(page);
}

bool Signals::driver_waits() {
  int can = 0;
  if (driver_.cuStreamWaitValue64_v2 == nullptr || driver_.cuMemHostRegister_v2 == nullptr) return false;
  driver_.cuDeviceGetAttribute(&can, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, contexts_.device());
  return can != 0;
}

CUresult Signals::wait(CUstream stream, uint32_t slot, uint64_t value) {
  if (slot >= kSignalSlots || page_ == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Word* word = &page_->signals[slot];
  if (word->load(std::memory_order_acquire) >= value) return CUDA_SUCCESS;
  outstanding();
  awaited_.push_back({slot, value});
  if (device_page_ != 0) {
    const uint64_t offset =
        uint64_t(reinterpret_cast<const std::byte*>(word) - reinterpret_cast<const std::byte*>(page_));
    const CUresult result =
        driver_.cuStreamWaitValue64_v2(stream, device_page_ + offset, value, CU_STREAM_WAIT_VALUE_GEQ);
    if (result != CUDA_ERROR_NOT_SUPPORTED) return result;
  }
  auto wait = std::make_unique<Wait>(Wait{shared_, word, value});
  const CUresult result = driver_.cuLaunchHostFunc(stream, run, wait.get());
  if (result == CUDA_SUCCESS) wait.release();
  return result;
}

bool Signals::outstanding() {
  std::erase_if(awaited_, [this](const Awaited& awaited) {
    return page_->signals[awaited.slot].load(std::memory_order_acquire) >= awaited.value;
  });
  return !awaited_.empty();
}

void CUDA_CB Signals::run(void* argument) {
  const std::unique_ptr<Wait> wait(static_cast<Wait*>(argument));
  while (wait->word->load(std::memory_order_acquire) < wait->value) {
    if (wait->shared->stop.load(std::memory_order_acquire)) break;
    sleep_us(kLookEveryUs);
  }
}

}  // namespace tide
