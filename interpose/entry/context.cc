// Contexts: a stack per thread, one primary context per device.

#include "api/graph/capture.h"
#include "interpose/entry/entry.h"
#include "interpose/thread.h"

using namespace tide;

namespace {

constexpr unsigned kContextFlags = CU_CTX_FLAGS_MASK;
constexpr unsigned kApiVersion = 3020;  // what every context of a driver since CUDA 3.2 says

CUresult find_context(CUcontext handle, Context** context) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  const uint64_t wanted = handle != nullptr ? reinterpret_cast<uint64_t>(handle) : current_context_handle();
  *context = p->contexts.find(wanted);
  return *context != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult push(uint64_t handle) {
  if (thread_state.depth == kContextStackMax) return CUDA_ERROR_OUT_OF_MEMORY;
  thread_state.contexts[thread_state.depth++] = handle;
  return CUDA_SUCCESS;
}

CUresult create(CUcontext* handle, unsigned int flags, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (handle == nullptr || (flags & ~kContextFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  Process& p = *process();
  Context* context = p.contexts.create();
  if (context == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  context->vgpu = vgpu;
  context->primary = false;
  context->number.store(0);
  context->flags.store(flags);
  context->legacy.store(nullptr);
  context->marker.store(0);
  context->cache_config.store(0);
  context->id = p.next_id++;
  p.contexts.publish(context);
  CUresult r = activate(*context);
  if (r == CUDA_SUCCESS) r = push(context->handle);
  if (r != CUDA_SUCCESS) {
    p.contexts.destroy(context);
    return r;
  }
  *handle = handle_of<CUcontext>(*context);
  return CUDA_SUCCESS;
}

CUresult synchronize(Context& context) {
  if (context.number.load() == 0) return CUDA_SUCCESS;
  return process()->host.after_wait(*context.vgpu, context.vgpu->sync_all());
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(activate(*vgpu->primary));
  vgpu->primary->retains.fetch_add(1);
  *context = handle_of<CUcontext>(*vgpu->primary);
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  Context& primary = *vgpu->primary;
  uint32_t retains = primary.retains.load();
  do {
    if (retains == 0) return CUDA_ERROR_INVALID_CONTEXT;
  } while (!primary.retains.compare_exchange_weak(retains, retains - 1));
  if (retains == 1) destroy_context(*process(), primary);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return cuDevicePrimaryCtxRelease_v2(device); }

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if ((flags & ~kContextFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  vgpu->primary->flags.store(flags);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags) {
  return cuDevicePrimaryCtxSetFlags_v2(device, flags);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int* flags, int* active) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (flags == nullptr || active == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = vgpu->primary->flags.load();
  *active = vgpu->primary->number.load() != 0;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(device, &vgpu));
  if (vgpu->primary->number.load() == 0) return CUDA_SUCCESS;
  destroy_context(*process(), *vgpu->primary);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxReset(CUdevice device) { return cuDevicePrimaryCtxReset_v2(device); }

CUresult cuCtxCreate_v2(CUcontext* context, unsigned int flags, CUdevice device) {
  return create(context, flags, device);
}

CUresult cuCtxCreate_v3(CUcontext* context, CUexecAffinityParam*, int count, unsigned int flags, CUdevice device) {
  if (count != 0) return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
  return create(context, flags, device);
}

CUresult cuCtxCreate_v4(CUcontext* context, CUctxCreateParams* parameters, unsigned int flags, CUdevice device) {
  if (parameters != nullptr && parameters->numExecAffinityParams != 0) return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
  if (parameters != nullptr && parameters->cigParams != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  return create(context, flags, device);
}

CUresult cuCtxDestroy_v2(CUcontext handle) {
  Context* context = nullptr;
  if (handle == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  TIDE_TRY(find_context(handle, &context));
  if (context->primary) return CUDA_ERROR_INVALID_CONTEXT;
  destroy_context(*process(), *context);
  const auto ending = process()->contexts.end(context);
  if (ending && current_context_handle() == context->handle) --thread_state.depth;
  return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  Context* context = nullptr;
  if (handle == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  TIDE_TRY(find_context(handle, &context));
  return push(context->handle);
}

CUresult cuCtxPopCurrent_v2(CUcontext* handle) {
  if (process() == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (thread_state.depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
  const uint64_t current = thread_state.contexts[--thread_state.depth];
  if (handle != nullptr) *handle = reinterpret_cast<CUcontext>(current);
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext handle) {
  if (process() == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (handle == nullptr) {
    if (thread_state.depth > 0) --thread_state.depth;
    return CUDA_SUCCESS;
  }
  Context* context = nullptr;
  TIDE_TRY(find_context(handle, &context));
  if (thread_state.depth == 0) return push(context->handle);
  thread_state.contexts[thread_state.depth - 1] = context->handle;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext* handle) {
  if (process() == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *handle = reinterpret_cast<CUcontext>(current_context_handle());
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = e.vgpu->ordinal;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice_v2(CUdevice* device, CUcontext handle) {
  Context* context = nullptr;
  TIDE_TRY(find_context(handle, &context));
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = context->vgpu->ordinal;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetFlags(unsigned int* flags) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = e.context->flags.load();
  return CUDA_SUCCESS;
}

CUresult cuCtxSetFlags(unsigned int flags) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  if ((flags & ~kContextFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  e.context->flags.store(flags);
  return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext handle, unsigned long long* id) {
  Context* context = nullptr;
  TIDE_TRY(find_context(handle, &context));
  if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *id = context->id;
  return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
  Entered e;
  TIDE_TRY(enter(&e));
  TIDE_TRY(graph::refuse_in_context(e.context));
  return synchronize(*e.context);
}

CUresult cuCtxSynchronize_v2(CUcontext handle) {
  Context* context = nullptr;
  TIDE_TRY(find_context(handle, &context));
  if (context->number.load() == 0) TIDE_TRY(activate(*context));
  TIDE_TRY(context->vgpu->channel().take_error());
  TIDE_TRY(graph::refuse_in_context(context));
  return synchronize(*context);
}

CUresult cuCtxGetCacheConfig(CUfunc_cache* config) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *config = CUfunc_cache(e.context->cache_config.load());
  return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext handle, unsigned int* version) {
  Context* context = nullptr;
  TIDE_TRY(find_context(handle, &context));
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = kApiVersion;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  if (least != nullptr) *least = e.vgpu->info.least_stream_priority;
  if (greatest != nullptr) *greatest = e.vgpu->info.greatest_stream_priority;
  return CUDA_SUCCESS;
}

// Shared memory banks have one size since Volta; setting it has no effect there either.
CUresult cuCtxGetSharedMemConfig(CUsharedconfig* config) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *config = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetSharedMemConfig(CUsharedconfig) {
  Entered e;
  return enter_quietly(&e);
}

}  // extern "C"
#pragma GCC visibility pop
