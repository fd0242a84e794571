// Entry points: memory and events of other processes.

#include <unistd.h>

#include <cstring>

#include "softgpu/driver/driver.h"
#include "softgpu/driver/shared_event.h"
#include "softgpu/driver/shared_place.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

template <typename Handle>
void pack(const SharedPlace& place, Handle* handle) {
  static_assert(sizeof(place) <= sizeof(*handle));
  *handle = {};
  std::memcpy(handle, &place, sizeof(place));
}

template <typename Handle>
SharedPlace unpack(const Handle& handle) {
  SharedPlace place = {};
  std::memcpy(&place, &handle, sizeof(place));
  return place;
}

CUresult open_memory(CUdeviceptr* address, const CUipcMemHandle& handle, unsigned flags) {
  return in_context([&](Context& context) -> CUresult {
    if (address == nullptr || (flags & ~unsigned{CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS}) != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const SharedPlace place = unpack(handle);
    if (place.pid == getpid()) return CUDA_ERROR_INVALID_CONTEXT;  // a process's own memory is there already
    uint64_t at = 0;
    const CUresult result = open_shared(place, &context, nullptr, context.device, &at);
    if (result == CUDA_SUCCESS) *address = at;
    return result;
  });
}

}  // namespace

extern "C" CUresult cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr address) {
  return in_context([&](Context&) -> CUresult {
    const auto range = driver().memory.find(address);
    if (handle == nullptr || !range || range->kind != RangeKind::kDevice) return CUDA_ERROR_INVALID_VALUE;
    SharedPlace place = {};
    const CUresult result = share_range(*range, &place);
    if (result == CUDA_SUCCESS) pack(place, handle);
    return result;
  });
}

extern "C" CUresult cuIpcOpenMemHandle_v2(CUdeviceptr* address, CUipcMemHandle handle, unsigned int flags) {
  return open_memory(address, handle, flags);
}

extern "C" CUresult cuIpcCloseMemHandle(CUdeviceptr address) {
  return in_context([&](Context& context) -> CUresult {
    context.synchronize();
    return driver().memory.close_imported(address);
  });
}

extern "C" CUresult cuIpcGetEventHandle(CUipcEventHandle* handle, CUevent event_handle) {
  return in_context([&](Context&) -> CUresult {
    const auto event = driver().events.find(event_handle);
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (handle == nullptr || event->shared == nullptr) return CUDA_ERROR_INVALID_VALUE;
    SharedPlace place = {};
    const CUresult result = event->shared->share(&place);
    if (result == CUDA_SUCCESS) pack(place, handle);
    return result;
  });
}

extern "C" CUresult cuIpcOpenEventHandle(CUevent* event, CUipcEventHandle handle) {
  return in_context([&](Context& context) -> CUresult {
    if (event == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto shared = SharedEvent::open(unpack(handle));
    if (shared == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto made = std::make_shared<Event>(context, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING);
    made->shared = std::move(shared);
    *event = driver().events.next();
    driver().events.add(*event, std::move(made));
    return CUDA_SUCCESS;
  });
}
