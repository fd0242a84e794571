// Green contexts: a share of a device's multiprocessors, and contexts that say they have it. The share is kept and
// reported; kernels are not held to it, since the device behind may be any other tomorrow.

#include <cstring>
#include <memory>
#include <mutex>
#include <set>

#include "api/composed/composed.h"

using namespace tide::composed;  // an entry point is C; everything it uses is ours

// Opaque in cuda.h.
struct CUdevResourceDesc_st {
  CUdevice device;
  CUdevResource resource;
};
struct CUgreenCtx_st {
  CUdevice device;
  CUdevResource resource;
  CUcontext context;
};

namespace {

struct Registry {
  std::mutex mutex;
  std::set<CUdevResourceDesc> descriptions;
  std::set<CUgreenCtx> contexts;
};
Registry& registry() {
  static auto* all = new Registry;  // outlives calls from atexit
  return *all;
}

// What is hidden in a resource: that it is ours, and of which device.
struct Hidden {
  uint32_t magic;
  CUdevice device;
  bool whole;  // may be split
};
constexpr uint32_t kMagic = 0x71646570;

Hidden hidden_of(const CUdevResource& resource) {
  Hidden hidden;
  std::memcpy(&hidden, resource._internal_padding, sizeof hidden);
  return hidden;
}

CUdevResource resource_of(CUdevice device, const CUdevSmResource& sm, bool whole) {
  CUdevResource resource = {};
  resource.type = CU_DEV_RESOURCE_TYPE_SM;
  resource.sm = sm;
  const Hidden hidden = {kMagic, device, whole};
  std::memcpy(resource._internal_padding, &hidden, sizeof hidden);
  return resource;
}

CUresult whole_device(CUdevice device, CUdevResource* resource) {
  int processors = 0, major = 0;
  CUresult result = cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
  if (result == CUDA_SUCCESS) {
    result = cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
  }
  if (result != CUDA_SUCCESS) return result;
  const unsigned least = major >= 9 ? 8 : major == 8 ? 4 : 2, alignment = major >= 9 ? 8 : 2;
  *resource = resource_of(device, {static_cast<unsigned>(processors), least, alignment}, true);
  return CUDA_SUCCESS;
}

// Calls `body` with a live green context.
template <typename Body>
CUresult of_green(CUgreenCtx green, Body body) {
  {
    const std::lock_guard lock(registry().mutex);
    if (!registry().contexts.contains(green)) return CUDA_ERROR_INVALID_CONTEXT;
  }
  return body(*green);
}

CUgreenCtx green_of(CUcontext context) {
  const std::lock_guard lock(registry().mutex);
  for (const CUgreenCtx green : registry().contexts) {
    if (green->context == context) return green;
  }
  return nullptr;
}

CUresult check(CUdevResource* resource, CUdevResourceType type) {
  if (resource == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return type == CU_DEV_RESOURCE_TYPE_SM ? CUDA_SUCCESS : CUDA_ERROR_INVALID_RESOURCE_TYPE;
}

// Multiprocessors of each group, and how many groups there can be.
void plan(const CUdevSmResource& all, unsigned flags, unsigned wanted, unsigned* each, unsigned* groups) {
  const bool fine = (flags & CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING) != 0;
  const unsigned least = fine ? 2 : all.minSmPartitionSize, step = fine ? 2 : all.smCoscheduledAlignment;
  *each = wanted < least ? least : (wanted + step - 1) / step * step;
  *groups = all.smCount / *each;
}

CUresult split(CUdevResource* result, unsigned* groups, const CUdevResource& input, CUdevResource* remaining,
               unsigned flags, unsigned wanted) {
  const Hidden hidden = hidden_of(input);
  constexpr unsigned kFlags =
      CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING | CU_DEV_SM_RESOURCE_SPLIT_MAX_POTENTIAL_CLUSTER_SIZE;
  if (hidden.magic != kMagic || (flags & ~kFlags) != 0 || wanted > input.sm.smCount) return CUDA_ERROR_INVALID_VALUE;
  if (!hidden.whole) return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
  unsigned each = 0, possible = 0;
  plan(input.sm, flags, wanted, &each, &possible);
  if (result == nullptr) {
    *groups = possible;
    return CUDA_SUCCESS;
  }
  if (possible == 0) return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
  *groups = *groups < possible ? *groups : possible;
  CUdevSmResource sm = input.sm;
  sm.smCount = each;
  for (unsigned i = 0; i < *groups; i++) result[i] = resource_of(hidden.device, sm, false);
  sm.smCount = input.sm.smCount - *groups * each;
  if (remaining != nullptr) *remaining = sm.smCount == 0 ? CUdevResource{} : resource_of(hidden.device, sm, false);
  return CUDA_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource* resource, CUdevResourceType type) {
  const CUresult result = check(resource, type);
  return result != CUDA_SUCCESS ? result : whole_device(device, resource);
}

CUresult cuCtxGetDevResource(CUcontext context, CUdevResource* resource, CUdevResourceType type) {
  CUresult result = check(resource, type);
  CUdevice device = 0;
  if (result == CUDA_SUCCESS) result = cuCtxGetDevice_v2(&device, context);
  if (result != CUDA_SUCCESS) return result;
  const CUgreenCtx green = green_of(context);
  if (green == nullptr) return whole_device(device, resource);
  *resource = resource_of(green->device, green->resource.sm, true);
  return CUDA_SUCCESS;
}

CUresult cuGreenCtxGetDevResource(CUgreenCtx handle, CUdevResource* resource, CUdevResourceType type) {
  return of_green(handle, [=](CUgreenCtx_st& green) {
    const CUresult result = check(resource, type);
    if (result == CUDA_SUCCESS) *resource = resource_of(green.device, green.resource.sm, true);
    return result;
  });
}

CUresult cuDevSmResourceSplitByCount(CUdevResource* result, unsigned int* groups, const CUdevResource* input,
                                     CUdevResource* remaining, unsigned int flags, unsigned int least) {
  if (groups == nullptr || input == nullptr || (result != nullptr && *groups == 0)) return CUDA_ERROR_INVALID_VALUE;
  if (input->type != CU_DEV_RESOURCE_TYPE_SM) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
  return split(result, groups, *input, remaining, flags, least);
}

CUresult cuDevResourceGenerateDesc(CUdevResourceDesc* description, CUdevResource* resources, unsigned int count) {
  if (description == nullptr || resources == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  CUdevResource all = resources[0];
  for (unsigned i = 0; i < count; i++) {
    const Hidden hidden = hidden_of(resources[i]);
    if (resources[i].type != CU_DEV_RESOURCE_TYPE_SM) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    if (hidden.magic != kMagic || hidden.device != hidden_of(all).device) {
      return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
    }
    if (i > 0) all.sm.smCount += resources[i].sm.smCount;
  }
  auto made = std::make_unique<CUdevResourceDesc_st>(CUdevResourceDesc_st{hidden_of(all).device, all});
  const std::lock_guard lock(registry().mutex);
  registry().descriptions.insert(made.get());
  *description = made.release();  // there is no call that gives it back
  return CUDA_SUCCESS;
}

CUresult cuGreenCtxCreate(CUgreenCtx* handle, CUdevResourceDesc description, CUdevice device, unsigned int flags) {
  if (handle == nullptr || (flags & CU_GREEN_CTX_DEFAULT_STREAM) == 0) return CUDA_ERROR_INVALID_VALUE;
  {
    const std::lock_guard lock(registry().mutex);
    if (!registry().descriptions.contains(description)) return CUDA_ERROR_INVALID_VALUE;
  }
  if (description->device != device) return CUDA_ERROR_INVALID_DEVICE;
  CUcontext context = nullptr;
  CUresult result = cuCtxCreate_v2(&context, 0, device);
  if (result != CUDA_SUCCESS) return result;
  cuCtxPopCurrent_v2(nullptr);
  auto made = std::make_unique<CUgreenCtx_st>(CUgreenCtx_st{device, description->resource, context});
  const std::lock_guard lock(registry().mutex);
  registry().contexts.insert(made.get());
  *handle = made.release();
  return CUDA_SUCCESS;
}

CUresult cuGreenCtxDestroy(CUgreenCtx handle) {
  {
    const std::lock_guard lock(registry().mutex);
    if (registry().contexts.erase(handle) == 0) return CUDA_ERROR_INVALID_CONTEXT;
  }
  const std::unique_ptr<CUgreenCtx_st> green(handle);
  return cuCtxDestroy_v2(green->context);
}

CUresult cuCtxFromGreenCtx(CUcontext* context, CUgreenCtx handle) {
  if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return of_green(handle, [=](CUgreenCtx_st& green) {
    *context = green.context;
    return CUDA_SUCCESS;
  });
}

CUresult cuGreenCtxGetId(CUgreenCtx handle, unsigned long long* id) {
  return of_green(handle, [=](CUgreenCtx_st& green) { return cuCtxGetId(green.context, id); });
}

CUresult cuGreenCtxRecordEvent(CUgreenCtx handle, CUevent event) {
  return of_green(handle, [=](CUgreenCtx_st& green) { return record_all(green.context, event); });
}
CUresult cuGreenCtxWaitEvent(CUgreenCtx handle, CUevent event) {
  return of_green(handle, [=](CUgreenCtx_st& green) { return wait_all(green.context, event); });
}

CUresult cuGreenCtxStreamCreate(CUstream* stream, CUgreenCtx handle, unsigned int flags, int priority) {
  if (stream == nullptr || flags != CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  return of_green(handle, [=](CUgreenCtx_st& green) {
    CUresult result = cuCtxPushCurrent_v2(green.context);
    if (result != CUDA_SUCCESS) return result;
    result = cuStreamCreateWithPriority(stream, flags, priority);
    cuCtxPopCurrent_v2(nullptr);
    return result;
  });
}

CUresult cuStreamGetGreenCtx(CUstream stream, CUgreenCtx* green) {
  if (green == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUcontext context = nullptr;
  const CUresult result = cuStreamGetCtx(stream, &context);
  if (result == CUDA_SUCCESS) *green = green_of(context);
  return result;
}

CUresult cuStreamGetCtx_v2(CUstream stream, CUcontext* context, CUgreenCtx* green) {
  if (context == nullptr || green == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = cuStreamGetCtx(stream, context);
  if (result != CUDA_SUCCESS) return result;
  *green = green_of(*context);
  if (*green != nullptr) *context = nullptr;
  return result;
}

}  // extern "C"
#pragma GCC visibility pop
