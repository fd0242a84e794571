#include "server/contexts.h"

#include "base/clock.h"

namespace tide {

Outcome Contexts::start(const Driver& driver) {
  driver_ = &driver;
  epoch_ns_ = now_ns();
  CUresult result = driver.cuDeviceGet(&device_, 0);
  if (result == CUDA_SUCCESS) result = driver.cuDevicePrimaryCtxRetain(&primary_, device_);
  if (result == CUDA_SUCCESS) result = driver.cuCtxSetCurrent(primary_);
  if (result != CUDA_SUCCESS) return Outcome::fail("cannot use the GPU: " + error_text(driver, result));
  current_ = primary_;
  return {};
}

CUresult Contexts::create(uint32_t number, uint32_t legacy_stream, uint32_t flags, bool primary) {
  if (number == 0 || contexts_.count(number) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (contexts_.size() >= kContextsMax) return CUDA_ERROR_OUT_OF_MEMORY;
  Context context;
  context.primary = primary;
  context.legacy_stream = legacy_stream;
  if (primary) {
    context.handle = primary_;
  } else {
    // Core dump flags would write files on the server.
    const uint32_t allowed = flags & (CU_CTX_SCHED_MASK | CU_CTX_MAP_HOST | CU_CTX_LMEM_RESIZE_TO_MAX);
    CUresult result = CUDA_ERROR_NOT_SUPPORTED;
    if (driver_->cuCtxCreate_v4 != nullptr)
      result = driver_->cuCtxCreate_v4(&context.handle, nullptr, allowed, device_);
    if (result == CUDA_ERROR_NOT_SUPPORTED && driver_->cuCtxCreate_v2 != nullptr) {
      result = driver_->cuCtxCreate_v2(&context.handle, allowed, device_);
    }
    if (result != CUDA_SUCCESS) return result;
    // Creating pushed it; the stack shall not grow.
    CUcontext popped = nullptr;
    driver_->cuCtxPopCurrent_v2(&popped);
  }
  driver_->cuCtxSetCurrent(context.handle);
  current_ = context.handle;
  record_base(&context);
  contexts_[number] = context;
  return CUDA_SUCCESS;
}

void Contexts::record_base(Context* context) {
  if (driver_->cuEventCreate(&context->base, CU_EVENT_DEFAULT) != CUDA_SUCCESS) {
    context->base = nullptr;
    return;
  }
  driver_->cuEventRecord(context->base, CU_STREAM_LEGACY);
  context->base_ms = time_ms();
}

CUresult Contexts::destroy(uint32_t number) {
  const auto found = contexts_.find(number);
  if (found == contexts_.end()) return CUDA_ERROR_INVALID_CONTEXT;
  const Context context = found->second;
  use(number);
  if (context.base != nullptr) driver_->cuEventDestroy_v2(context.base);
  contexts_.erase(found);
  use(0);
  return context.primary ? CUDA_SUCCESS : driver_->cuCtxDestroy_v2(context.handle);
}

CUresult Contexts::use(uint32_t number) {
  CUcontext handle = primary_;
  if (number != 0) {
    const auto found = contexts_.find(number);
    if (found == contexts_.end()) return CUDA_ERROR_INVALID_CONTEXT;
    handle = found->second.handle;
  }
  if (handle == current_) return CUDA_SUCCESS;
  const CUresult result = driver_->cuCtxSetCurrent(handle);
  if (result == CUDA_SUCCESS) current_ = handle;
  return result;
}

void Contexts::enter_thread() {
  current_ = nullptr;
  use(0);
}

const Context* Contexts::find(uint32_t number) const {
  const auto found = contexts_.find(number);
  return found == contexts_.end() ? nullptr : &found->second;
}

void Contexts::set_time(double ms) { epoch_ns_ = now_ns() - uint64_t(ms * 1e6); }

double Contexts::time_ms() const { return double(now_ns() - epoch_ns_) / 1e6; }

}  // namespace tide
