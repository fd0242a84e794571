// Entry points: cuCtx*.

#include <algorithm>

#include "api/graph/capture.h"
#include "softgpu/driver/driver.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

constexpr unsigned kApiVersion = 3020;

CUresult create_context(CUcontext* handle, unsigned flags, CUdevice device) {
  return guarded([&]() -> CUresult {
    Device* found = find_device(device);
    if (handle == nullptr || (flags & ~unsigned{CU_CTX_FLAGS_MASK}) != 0) return CUDA_ERROR_INVALID_VALUE;
    if (found == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    auto context = std::make_shared<Context>(*found, driver().contexts.next(), false);
    context->flags = flags;
    context->start();
    driver().contexts.add(context->handle, context);
    this_thread().stack.push_back(context);
    *handle = context->handle;
    return CUDA_SUCCESS;
  });
}

// The context of a handle; null means the current one.
CUresult find_context(CUcontext handle, std::shared_ptr<Context>* context) {
  *context = handle == nullptr ? current_or_null() : driver().contexts.find(handle);
  if (*context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return (*context)->alive ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

CUresult synchronize(CUcontext handle) {
  return guarded([&]() -> CUresult {
    std::shared_ptr<Context> context;
    const CUresult result = find_context(handle, &context);
    if (result != CUDA_SUCCESS) return result;
    const CUresult captured = tide::graph::refuse_in_context(context.get());
    if (captured != CUDA_SUCCESS) return captured;
    context->synchronize();
    return context->error();
  });
}

template <typename Body>
CUresult with_output(const void* output, Body body) {
  return in_context(
      [&](Context& context) -> CUresult { return output == nullptr ? CUDA_ERROR_INVALID_VALUE : body(context); });
}

CUresult pop_current(CUcontext* handle) {
  return guarded([&]() -> CUresult {
    auto& stack = this_thread().stack;
    if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (handle != nullptr) *handle = stack.back()->handle;
    stack.pop_back();
    return CUDA_SUCCESS;
  });
}

CUresult push_current(CUcontext handle) {
  return guarded([&]() -> CUresult {
    auto context = driver().contexts.find(handle);
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (!context->primary && !context->alive) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    this_thread().stack.push_back(std::move(context));
    return CUDA_SUCCESS;
  });
}

}  // namespace

extern "C" CUresult cuCtxCreate_v2(CUcontext* context, unsigned int flags, CUdevice device) {
  return create_context(context, flags, device);
}

extern "C" CUresult cuCtxCreate_v3(CUcontext* context, CUexecAffinityParam*, int affinities, unsigned int flags,
                                   CUdevice device) {
  return affinities != 0 ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : create_context(context, flags, device);
}

extern "C" CUresult cuCtxCreate_v4(CUcontext* context, CUctxCreateParams* params, unsigned int flags, CUdevice device) {
  if (params != nullptr && (params->numExecAffinityParams != 0 || params->cigParams != nullptr)) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return create_context(context, flags, device);
}

extern "C" CUresult cuCtxDestroy_v2(CUcontext handle) {
  return guarded([&]() -> CUresult {
    const auto context = driver().contexts.find(handle);
    if (context == nullptr || context->primary) return CUDA_ERROR_INVALID_CONTEXT;
    if (!context->alive.exchange(false)) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    auto& stack = this_thread().stack;
    if (!stack.empty() && stack.back() == context) stack.pop_back();
    context->stop();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxPushCurrent_v2(CUcontext context) { return push_current(context); }

extern "C" CUresult cuCtxPopCurrent_v2(CUcontext* context) { return pop_current(context); }

extern "C" CUresult cuCtxSetCurrent(CUcontext handle) {
  return guarded([&]() -> CUresult {
    auto& stack = this_thread().stack;
    if (handle == nullptr) {
      if (!stack.empty()) stack.pop_back();
      return CUDA_SUCCESS;
    }
    // A primary context may be made current before it is retained.
    auto context = driver().contexts.find(handle);
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (!context->alive && !context->primary) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (stack.empty()) {
      stack.push_back(std::move(context));
    } else {
      stack.back() = std::move(context);
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetCurrent(CUcontext* context) {
  return guarded([&]() -> CUresult {
    if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto current = current_or_null();
    *context = current == nullptr ? nullptr : current->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetDevice(CUdevice* device) { return cuCtxGetDevice_v2(device, nullptr); }

extern "C" CUresult cuCtxGetDevice_v2(CUdevice* device, CUcontext handle) {
  return guarded([&]() -> CUresult {
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Context> context;
    const CUresult result = find_context(handle, &context);
    // Asked by the runtime for a primary context that is current, but not retained yet.
    if (context == nullptr || (result != CUDA_SUCCESS && !context->primary)) return result;
    *device = context->device.index;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetFlags(unsigned int* flags) {
  return with_output(flags, [&](Context& context) {
    *flags = context.flags;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxSetFlags(unsigned int flags) {
  return in_context([&](Context& context) -> CUresult {
    if ((flags & ~unsigned{CU_CTX_FLAGS_MASK}) != 0) return CUDA_ERROR_INVALID_VALUE;
    context.flags = flags;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetId(CUcontext handle, unsigned long long* id) {
  return guarded([&]() -> CUresult {
    if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Context> context;
    const CUresult result = find_context(handle, &context);
    if (result == CUDA_SUCCESS) *id = context->id;
    return result;
  });
}

extern "C" CUresult cuCtxSynchronize() { return synchronize(nullptr); }

extern "C" CUresult cuCtxSynchronize_v2(CUcontext context) { return synchronize(context); }

extern "C" CUresult cuCtxSetLimit(CUlimit limit, size_t value) {
  return in_context([&](Context& context) { return context.set_limit(limit, value); });
}

extern "C" CUresult cuCtxGetLimit(size_t* value, CUlimit limit) {
  return with_output(value, [&](Context& context) -> CUresult {
    if (limit > CU_LIMIT_CIG_SHMEM_FALLBACK_ENABLED) return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = context.limit(limit);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetCacheConfig(CUfunc_cache* config) {
  return with_output(config, [&](Context& context) {
    *config = static_cast<CUfunc_cache>(context.cache_config.load());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxSetCacheConfig(CUfunc_cache config) {
  return in_context([&](Context& context) -> CUresult {
    if (config > CU_FUNC_CACHE_PREFER_EQUAL) return CUDA_ERROR_INVALID_VALUE;
    context.cache_config = config;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetSharedMemConfig(CUsharedconfig* config) {
  return with_output(config, [&](Context&) {
    *config = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxSetSharedMemConfig(CUsharedconfig) {
  return in_context([](Context&) { return CUDA_SUCCESS; });
}

extern "C" CUresult cuCtxGetApiVersion(CUcontext handle, unsigned int* version) {
  return guarded([&]() -> CUresult {
    if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Context> context;
    const CUresult result = find_context(handle, &context);
    if (result == CUDA_SUCCESS) *version = kApiVersion;
    return result;
  });
}

extern "C" CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return in_context([&](Context&) {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxResetPersistingL2Cache() {
  return in_context([](Context&) { return CUDA_SUCCESS; });
}

namespace {

CUresult change_peer(CUcontext handle, bool enable) {
  return in_context([&](Context& context) -> CUresult {
    const auto peer = driver().contexts.find(handle);
    if (peer == nullptr || !peer->alive) return CUDA_ERROR_INVALID_CONTEXT;
    if (&peer->device == &context.device)
      return enable ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    return context.set_peer(*peer, enable);
  });
}

}  // namespace

extern "C" CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
  return flags != 0 ? CUDA_ERROR_INVALID_VALUE : change_peer(peer, true);
}

extern "C" CUresult cuCtxDisablePeerAccess(CUcontext peer) { return change_peer(peer, false); }
