// Entry points: cuModule* and cuFunc*.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "api/composed/references.h"
#include "softgpu/driver/attributes.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/load_options.h"

namespace softgpu {

JitLog read_load_options(const CUjit_option* options, void* const* values, unsigned count) {
  JitLog log;
  if (options == nullptr || values == nullptr) return log;
  for (unsigned i = 0; i < count; ++i) {
    const auto number = static_cast<unsigned>(reinterpret_cast<uintptr_t>(values[i]));
    switch (options[i]) {
      case CU_JIT_ERROR_LOG_BUFFER:
        log.error_buffer = static_cast<char*>(values[i]);
        break;
      case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        log.error_bytes = number;
        break;
      case CU_JIT_INFO_LOG_BUFFER:
        log.info_buffer = static_cast<char*>(values[i]);
        break;
      case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        log.info_bytes = number;
        break;
      default:
        break;
    }
  }
  return log;
}

bool read_image_file(const char* path, std::string* image) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  image->assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  return true;
}

CUresult get_function_attribute(CUfunction function, CUfunction_attribute attribute, int* value) {
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Launchable found;
  const CUresult result = find_launchable(function, nullptr, &found);
  if (result != CUDA_SUCCESS) return result;
  const KernelInfo& info = found.info();
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = static_cast<int>(info.max_threads_per_block);
      break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      *value = static_cast<int>(info.static_shared_bytes);
      break;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
      *value = static_cast<int>(info.constant_bytes);
      break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      *value = static_cast<int>(info.local_bytes);
      break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = found.registers();
      break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
      *value = static_cast<int>(info.ptx_version);
      break;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *value = static_cast<int>(driver().devices[0]->profile.capability());
      break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = found.dynamic_shared_max();
      break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      *value = found.settings().carveout;
      break;
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
      *value = static_cast<int>(info.cluster.x);
      break;
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
      *value = static_cast<int>(info.cluster.y);
      break;
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
      *value = static_cast<int>(info.cluster.z);
      break;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
      *value = found.settings().large_clusters ? 1 : 0;
      break;
    default:
      if (attribute < 0 || attribute >= CU_FUNC_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
      *value = 0;
  }
  return CUDA_SUCCESS;
}

CUresult set_function_attribute(CUfunction function, CUfunction_attribute attribute, int value) {
  Launchable found;
  const CUresult result = find_launchable(function, nullptr, &found);
  if (result != CUDA_SUCCESS) return result;
  if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
    const int most =
        driver().devices[0]->profile.shared_per_block_optin - static_cast<int>(found.info().static_shared_bytes);
    if (value < 0 || value > most) return CUDA_ERROR_INVALID_VALUE;
    found.settings().dynamic_shared_max = value;
    return CUDA_SUCCESS;
  }
  if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) {
    if (value < -1 || value > 100) return CUDA_ERROR_INVALID_VALUE;
    found.settings().carveout = value;
    return CUDA_SUCCESS;
  }
  if (attribute == CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED) {
    found.settings().large_clusters = value != 0;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

}  // namespace softgpu

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

CUresult load_module(CUmodule* module, const void* image, const JitLog& log) {
  return in_context([&](Context& context) -> CUresult {
    if (module == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const uint64_t image_base = std::exchange(this_thread().image_base, 0);
    std::shared_ptr<Code> code;
    CUresult result = load_code(image, log, &code);
    if (result != CUDA_SUCCESS) return result;
    std::shared_ptr<Module> made;
    result = make_module(context, std::move(code), image_base, nullptr, &made);
    if (result == CUDA_SUCCESS) *module = made->handle;
    return result;
  });
}

// Calls that ask about a function or a kernel.
template <typename Body>
CUresult of_function(CUfunction function, Body body) {
  return guarded([&]() -> CUresult {
    Launchable found;
    const CUresult result = find_head(function, nullptr, &found);
    return result != CUDA_SUCCESS ? result : body(found);
  });
}

template <typename Body>
CUresult of_module(CUmodule module, Body body) {
  return in_context([&](Context&) -> CUresult {
    const auto found = driver().modules.find(module);
    return found == nullptr ? CUDA_ERROR_INVALID_HANDLE : body(found);
  });
}

}  // namespace

extern "C" CUresult cuModuleLoad(CUmodule* module, const char* file) {
  return guarded([&]() -> CUresult {
    if (module == nullptr || file == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::string image;
    if (!read_image_file(file, &image)) return CUDA_ERROR_FILE_NOT_FOUND;
    return load_module(module, image.c_str(), {});
  });
}

extern "C" CUresult cuModuleLoadData(CUmodule* module, const void* image) { return load_module(module, image, {}); }

extern "C" CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int count, CUjit_option* options,
                                       void** values) {
  return load_module(module, image, read_load_options(options, values, count));
}

extern "C" CUresult cuModuleLoadFatBinary(CUmodule* module, const void* image) {
  return load_module(module, image, {});
}

extern "C" CUresult cuModuleUnload(CUmodule module) {
  return of_module(module, [](const std::shared_ptr<Module>& found) -> CUresult {
    found->context->synchronize();
    tide::composed::forget_references(found->handle);
    destroy_module(found);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  return guarded([&]() -> CUresult {
    if (mode == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const char* text = std::getenv("CUDA_MODULE_LOADING");
    *mode = text != nullptr && std::strcmp(text, "EAGER") == 0 ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return of_module(module, [&](const std::shared_ptr<Module>& found) -> CUresult {
    if (function == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto index = found->code->kernel_index.find(name);
    if (index == found->code->kernel_index.end()) return CUDA_ERROR_NOT_FOUND;
    const KernelInfo* info = nullptr;
    const CUresult result = found->code->lower(index->second, &info);
    if (result == CUDA_SUCCESS) *function = found->functions[index->second];
    return result;
  });
}

extern "C" CUresult cuModuleGetFunctionCount(unsigned int* count, CUmodule module) {
  return of_module(module, [&](const std::shared_ptr<Module>& found) -> CUresult {
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *count = static_cast<unsigned>(found->functions.size());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleEnumerateFunctions(CUfunction* functions, unsigned int count, CUmodule module) {
  return of_module(module, [&](const std::shared_ptr<Module>& found) -> CUresult {
    if (functions == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::copy_n(found->functions.begin(), std::min<size_t>(count, found->functions.size()), functions);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuModuleGetGlobal_v2(CUdeviceptr* address, size_t* bytes, CUmodule module, const char* name) {
  return of_module(module, [&](const std::shared_ptr<Module>& found) -> CUresult {
    if (name == nullptr || (address == nullptr && bytes == nullptr)) return CUDA_ERROR_INVALID_VALUE;
    const GlobalInfo* global = found->code->global(name);
    if (global == nullptr) return CUDA_ERROR_NOT_FOUND;
    if (address != nullptr) *address = found->image.address + global->offset;
    if (bytes != nullptr) *bytes = global->bytes;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
  return guarded([&] { return get_function_attribute(function, attribute, value); });
}

extern "C" CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  return guarded([&] { return set_function_attribute(function, attribute, value); });
}

extern "C" CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) {
  return of_function(function, [&](const Launchable&) -> CUresult {
    return config > CU_FUNC_CACHE_PREFER_EQUAL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

extern "C" CUresult cuFuncSetSharedMemConfig(CUfunction function, CUsharedconfig config) {
  return of_function(function, [&](const Launchable&) -> CUresult {
    return config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

extern "C" CUresult cuFuncGetModule(CUmodule* module, CUfunction function) {
  return of_function(function, [&](const Launchable& found) -> CUresult {
    if (module == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (found.module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *module = found.module->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuFuncGetName(const char** name, CUfunction function) {
  return of_function(function, [&](const Launchable& found) -> CUresult {
    if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *name = found.head().name.c_str();  // lives as long as the library or module
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t* offset, size_t* bytes) {
  return of_function(function, [&](const Launchable& found) -> CUresult {
    const auto& params = found.head().params;
    if (offset == nullptr || index >= params.size()) return CUDA_ERROR_INVALID_VALUE;
    *offset = params[index].offset;
    if (bytes != nullptr) *bytes = params[index].bytes;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuFuncIsLoaded(CUfunctionLoadingState* state, CUfunction function) {
  return of_function(function, [&](const Launchable&) -> CUresult {
    if (state == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *state = CU_FUNCTION_LOADING_STATE_LOADED;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuFuncLoad(CUfunction function) {
  return of_function(function, [](const Launchable& found) {
    const KernelInfo* info = nullptr;
    return found.code->lower(found.index, &info);
  });
}
