// Texture and surface references: the variable holds the handle of an object that is made for its binding.

#include <cstring>

#include "api/composed/references.h"
#include "softgpu/driver/driver.h"

namespace softgpu {
namespace {

using tide::composed::Reference;

CUresult variable(CUmodule handle, const char* name, bool surface, CUdeviceptr* address) {
  const auto module = driver().modules.find(handle);
  if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const GlobalInfo* global = module->code->global(name);
  const OpaqueKind wanted = surface ? OpaqueKind::kSurface : OpaqueKind::kTexture;
  if (global == nullptr || global->opaque != wanted) return CUDA_ERROR_NOT_FOUND;
  if (address != nullptr) *address = module->image.address + global->offset;
  return CUDA_SUCCESS;
}

// Behind everything that was given before, and before everything that is given later, whatever the streams.
CUresult write_in_order(CUdeviceptr address, uint64_t value) {
  CUcontext context = nullptr;
  CUevent mark = nullptr;
  CUresult result = cuCtxGetCurrent(&context);
  if (result == CUDA_SUCCESS) result = cuEventCreate(&mark, CU_EVENT_DISABLE_TIMING);
  if (result != CUDA_SUCCESS) return result;
  result = tide::composed::record_all(context, mark);
  if (result == CUDA_SUCCESS) result = cuStreamWaitEvent(CU_STREAM_LEGACY, mark, 0);
  for (unsigned half = 0; half < 2 && result == CUDA_SUCCESS; ++half) {
    const auto bits = static_cast<unsigned>(value >> (32 * half));
    result = cuMemsetD32Async(address + 4 * half, bits, 1, CU_STREAM_LEGACY);
  }
  if (result == CUDA_SUCCESS) result = cuEventRecord(mark, CU_STREAM_LEGACY);
  if (result == CUDA_SUCCESS) result = tide::composed::wait_all(context, mark);
  cuEventDestroy_v2(mark);
  return result;
}

void destroy(uint64_t object, bool surface) {
  if (object == 0) return;
  surface ? cuSurfObjectDestroy(object) : cuTexObjectDestroy(object);
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

CUresult tide::composed::find_reference(CUmodule module, const char* name, bool surface) {
  return in_context([&](Context&) { return variable(module, name, surface, nullptr); });
}

CUresult tide::composed::bind_reference(Reference* reference, bool surface) {
  CUdeviceptr address = 0;
  CUresult result = variable(reference->module, reference->name.c_str(), surface, &address);
  if (result != CUDA_SUCCESS) return result;
  unsigned long long object = 0;
  result = surface ? cuSurfObjectCreate(&object, &reference->resource)
                   : cuTexObjectCreate(&object, &reference->resource, &reference->texture, nullptr);
  if (result != CUDA_SUCCESS) return result;
  result = write_in_order(address, object);
  // The old one's handle stays good for what was launched before.
  destroy(result == CUDA_SUCCESS ? reference->made : object, surface);
  if (result == CUDA_SUCCESS) reference->made = object;
  return result;
}
