// Entry points: cuLibrary* and cuKernel*.

#include <algorithm>
#include <utility>

#include "softgpu/driver/attributes.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/load_options.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

CUresult load_library(CUlibrary* library, const void* image, const JitLog& log) {
  std::shared_ptr<Code> code;
  const uint64_t image_base = std::exchange(this_thread().image_base, 0);
  const CUresult result = load_code(image, log, &code);
  if (result != CUDA_SUCCESS) return result;
  auto loaded = std::make_shared<Library>();
  loaded->handle = driver().libraries.next();
  loaded->code = code;
  loaded->image_base = image_base;
  for (uint32_t i = 0; i < code->program->kernels().size(); ++i) {
    const CUkernel handle = driver().kernels.next();
    driver().kernels.add(handle, std::make_shared<Kernel>(Kernel{loaded, i}));
    loaded->kernels.push_back(handle);
  }
  driver().libraries.add(loaded->handle, loaded);
  if (image_base != 0) {
    CUresult why = CUDA_SUCCESS;
    std::shared_ptr<Module> module;
    const auto context = current_context(&why);
    const CUresult placed = context == nullptr ? why : module_of(*loaded, *context, &module);
    if (placed != CUDA_SUCCESS) {
      cuLibraryUnload(loaded->handle);
      return placed;
    }
  }
  *library = loaded->handle;
  return CUDA_SUCCESS;
}

// A global of the library in the calling thread's context.
CUresult library_global(CUlibrary library, const char* name, CUdeviceptr* address, size_t* bytes) {
  if (name == nullptr || (address == nullptr && bytes == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  return in_context([&](Context& context) -> CUresult {
    const auto found = driver().libraries.find(library);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const GlobalInfo* global = found->code->global(name);
    if (global == nullptr) return CUDA_ERROR_NOT_FOUND;
    std::shared_ptr<Module> module;
    const CUresult result = module_of(*found, context, &module);
    if (result != CUDA_SUCCESS) return result;
    if (address != nullptr) *address = module->image.address + global->offset;
    if (bytes != nullptr) *bytes = global->bytes;
    return CUDA_SUCCESS;
  });
}

}  // namespace

extern "C" CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option* jit_options,
                                      void** jit_values, unsigned int jit_count, CUlibraryOption*, void**,
                                      unsigned int) {
  return guarded([&]() -> CUresult {
    if (library == nullptr || code == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return load_library(library, code, read_load_options(jit_options, jit_values, jit_count));
  });
}

extern "C" CUresult cuLibraryLoadFromFile(CUlibrary* library, const char* file, CUjit_option* jit_options,
                                          void** jit_values, unsigned int jit_count, CUlibraryOption*, void**,
                                          unsigned int) {
  return guarded([&]() -> CUresult {
    if (library == nullptr || file == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::string image;
    if (!read_image_file(file, &image)) return CUDA_ERROR_FILE_NOT_FOUND;
    return load_library(library, image.c_str(), read_load_options(jit_options, jit_values, jit_count));
  });
}

extern "C" CUresult cuLibraryUnload(CUlibrary library) {
  return guarded([&]() -> CUresult {
    const auto found = driver().libraries.remove(library);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    for (const CUkernel kernel : found->kernels) driver().kernels.remove(kernel);
    const std::lock_guard lock(found->mu);
    for (auto& [context, module] : found->modules) {
      context->synchronize();
      destroy_module(module);
    }
    found->modules.clear();
    if (found->managed_image.bytes != 0) driver().memory.free_image(found->managed_image.address);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary library, const char* name) {
  return guarded([&]() -> CUresult {
    if (kernel == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto found = driver().libraries.find(library);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const auto index = found->code->kernel_index.find(name);
    if (index == found->code->kernel_index.end()) return CUDA_ERROR_NOT_FOUND;
    if (!found->code->program->kernels()[index->second].missing.empty()) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    *kernel = found->kernels[index->second];
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryGetKernelCount(unsigned int* count, CUlibrary library) {
  return guarded([&]() -> CUresult {
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto found = driver().libraries.find(library);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *count = static_cast<unsigned>(found->kernels.size());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryEnumerateKernels(CUkernel* kernels, unsigned int count, CUlibrary library) {
  return guarded([&]() -> CUresult {
    if (kernels == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto found = driver().libraries.find(library);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    std::copy_n(found->kernels.begin(), std::min<size_t>(count, found->kernels.size()), kernels);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryGetModule(CUmodule* module, CUlibrary library) {
  return in_context([&](Context& context) -> CUresult {
    if (module == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto found = driver().libraries.find(library);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    std::shared_ptr<Module> made;
    const CUresult result = module_of(*found, context, &made);
    if (result == CUDA_SUCCESS) *module = made->handle;
    return result;
  });
}

extern "C" CUresult cuLibraryGetGlobal(CUdeviceptr* address, size_t* bytes, CUlibrary library, const char* name) {
  return library_global(library, name, address, bytes);
}

extern "C" CUresult cuLibraryGetManaged(CUdeviceptr* address, size_t* bytes, CUlibrary library, const char* name) {
  return guarded([&]() -> CUresult {  // no context: the runtime asks before there is one
    if (name == nullptr || (address == nullptr && bytes == nullptr)) return CUDA_ERROR_INVALID_VALUE;
    const auto found = driver().libraries.find(library);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const GlobalInfo* global = found->code->global(name);
    if (global == nullptr || !global->managed) return CUDA_ERROR_NOT_FOUND;
    const std::lock_guard lock(found->mu);
    const CUresult result = place_managed(*found);
    if (result != CUDA_SUCCESS) return result;
    if (address != nullptr) *address = found->managed_image.address + global->offset;
    if (bytes != nullptr) *bytes = global->bytes;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLibraryGetUnifiedFunction(void**, CUlibrary library, const char*) {
  return guarded([&]() -> CUresult {
    return driver().libraries.find(library) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_NOT_FOUND;
  });
}

extern "C" CUresult cuKernelGetFunction(CUfunction* function, CUkernel kernel) {
  return in_context([&](Context& context) -> CUresult {
    if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto found = driver().kernels.find(kernel);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const KernelInfo* info = nullptr;
    const CUresult lowered = found->library->code->lower(found->index, &info);
    if (lowered != CUDA_SUCCESS) return lowered;
    std::shared_ptr<Module> module;
    const CUresult result = module_of(*found->library, context, &module);
    if (result == CUDA_SUCCESS) *function = module->functions[found->index];
    return result;
  });
}

extern "C" CUresult cuKernelGetLibrary(CUlibrary* library, CUkernel kernel) {
  return guarded([&]() -> CUresult {
    if (library == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto found = driver().kernels.find(kernel);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *library = found->library->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuKernelGetName(const char** name, CUkernel kernel) {
  return cuFuncGetName(name, reinterpret_cast<CUfunction>(kernel));
}

extern "C" CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t* offset, size_t* bytes) {
  return cuFuncGetParamInfo(reinterpret_cast<CUfunction>(kernel), index, offset, bytes);
}

extern "C" CUresult cuKernelGetAttribute(int* value, CUfunction_attribute attribute, CUkernel kernel, CUdevice device) {
  return guarded([&]() -> CUresult {
    if (find_device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return get_function_attribute(reinterpret_cast<CUfunction>(kernel), attribute, value);
  });
}

extern "C" CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel, CUdevice device) {
  return guarded([&]() -> CUresult {
    if (find_device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return set_function_attribute(reinterpret_cast<CUfunction>(kernel), attribute, value);
  });
}

extern "C" CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache, CUdevice device) {
  return guarded([&]() -> CUresult {
    if (find_device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    return driver().kernels.find(kernel) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
  });
}

extern "C" CUresult softgpuSetImageBase(CUdeviceptr address) {
  return guarded([&]() -> CUresult {
    if (address % kChunkBytes != 0 || address - kWindowBase >= kWindowBytes) return CUDA_ERROR_INVALID_VALUE;
    this_thread().image_base = address;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult softgpuGetImageRange(CUlibrary library, CUdeviceptr* base, size_t* bytes) {
  return in_context([&](Context& context) -> CUresult {
    if (base == nullptr || bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto found = driver().libraries.find(library);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    std::shared_ptr<Module> module;
    const CUresult result = module_of(*found, context, &module);
    if (result != CUDA_SUCCESS) return result;
    *base = module->image.address;
    *bytes = module->image.bytes;
    return CUDA_SUCCESS;
  });
}
