#pragma once

// What every entry point begins with.

#include <cstring>

#include "interpose/nvml/job.h"

namespace tide::nvml {

// Initialised, and the handle is a vGPU's.
inline nvmlReturn_t enter(nvmlDevice_t device, const Vgpu** vgpu) {
  if (!joined()) return NVML_ERROR_UNINITIALIZED;
  *vgpu = find_vgpu(device);
  return *vgpu == nullptr ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

// The same, for functions with one output.
template <class T>
nvmlReturn_t enter(nvmlDevice_t device, const Vgpu** vgpu, const T* output) {
  const nvmlReturn_t r = enter(device, vgpu);
  return r == NVML_SUCCESS && output == nullptr ? NVML_ERROR_INVALID_ARGUMENT : r;
}

// For what is a fact of every vGPU.
template <class T, class V>
nvmlReturn_t answer(nvmlDevice_t device, T* output, V value) {
  const Vgpu* vgpu = nullptr;
  const nvmlReturn_t r = enter(device, &vgpu, output);
  if (r == NVML_SUCCESS) *output = T(value);
  return r;
}

inline nvmlReturn_t copy_text(const char* text, char* output, unsigned length) {
  if (output == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  const size_t bytes = strlen(text) + 1;
  if (bytes > length) return NVML_ERROR_INSUFFICIENT_SIZE;
  memcpy(output, text, bytes);
  return NVML_SUCCESS;
}

}  // namespace tide::nvml
