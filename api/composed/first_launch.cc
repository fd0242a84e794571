// The first version's launches: the block's shape and the parameters are set on the function beforehand.

#include <map>
#include <mutex>
#include <vector>

#include "api/composed/composed.h"

namespace {

// What cuFuncSet* and cuParamSet* said of a function.
struct Prepared {
  int x = 1, y = 1, z = 1;
  unsigned shared = 0;
  std::vector<unsigned char> parameters;
};

std::mutex& prepared_mutex() {
  static auto* mutex = new std::mutex;  // outlives calls from atexit
  return *mutex;
}
std::map<CUfunction, Prepared>& all_prepared() {
  static auto* all = new std::map<CUfunction, Prepared>;
  return *all;
}

constexpr size_t kMostParameters = 32764;

// Calls `change` for what is prepared for a function; the driver decides whether there is such a function.
template <typename Change>
CUresult prepare(CUfunction function, Change change) {
  int threads = 0;
  const CUresult result = cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function);
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(prepared_mutex());
  return change(all_prepared()[function]);
}

CUresult set_parameter(CUfunction function, int offset, const void* value, size_t bytes) {
  if (offset < 0 || value == nullptr || static_cast<size_t>(offset) + bytes > kMostParameters) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return prepare(function, [&](Prepared& p) {
    const size_t end = static_cast<size_t>(offset) + bytes;
    if (p.parameters.size() < end) p.parameters.resize(end);
    __builtin_memcpy(p.parameters.data() + offset, value, bytes);
    return CUDA_SUCCESS;
  });
}

CUresult launch(CUfunction function, int width, int height, CUstream stream) {
  if (width <= 0 || height <= 0) return CUDA_ERROR_INVALID_VALUE;
  Prepared p;
  const CUresult result = prepare(function, [&](Prepared& known) {
    p = known;
    return CUDA_SUCCESS;
  });
  if (result != CUDA_SUCCESS) return result;
  size_t bytes = p.parameters.size();
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, p.parameters.data(), CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                   CU_LAUNCH_PARAM_END};
  return cuLaunchKernel(function, static_cast<unsigned>(width), static_cast<unsigned>(height), 1,
                        static_cast<unsigned>(p.x), static_cast<unsigned>(p.y), static_cast<unsigned>(p.z), p.shared,
                        stream, nullptr, bytes == 0 ? nullptr : extra);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuFuncSetBlockShape(CUfunction function, int x, int y, int z) {
  if (x <= 0 || y <= 0 || z <= 0) return CUDA_ERROR_INVALID_VALUE;
  return prepare(function, [=](Prepared& p) {
    p.x = x;
    p.y = y;
    p.z = z;
    return CUDA_SUCCESS;
  });
}
CUresult cuFuncSetSharedSize(CUfunction function, unsigned int bytes) {
  return prepare(function, [=](Prepared& p) {
    p.shared = bytes;
    return CUDA_SUCCESS;
  });
}
CUresult cuParamSetSize(CUfunction function, unsigned int bytes) {
  if (bytes > kMostParameters) return CUDA_ERROR_INVALID_VALUE;
  return prepare(function, [=](Prepared& p) {
    p.parameters.resize(bytes);
    return CUDA_SUCCESS;
  });
}
CUresult cuParamSeti(CUfunction function, int offset, unsigned int value) {
  return set_parameter(function, offset, &value, sizeof value);
}
CUresult cuParamSetf(CUfunction function, int offset, float value) {
  return set_parameter(function, offset, &value, sizeof value);
}
CUresult cuParamSetv(CUfunction function, int offset, void* value, unsigned int bytes) {
  return set_parameter(function, offset, value, bytes);
}
CUresult cuLaunch(CUfunction function) { return launch(function, 1, 1, nullptr); }
CUresult cuLaunchGrid(CUfunction function, int width, int height) { return launch(function, width, height, nullptr); }
CUresult cuLaunchGridAsync(CUfunction function, int width, int height, CUstream stream) {
  return launch(function, width, height, stream);
}

}  // extern "C"
#pragma GCC visibility pop
