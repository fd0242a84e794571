#pragma once

// Finds and loads the driver below: the machine's real libcuda, else the software GPU. Everything above uses the
// functions of Driver (generated) and does not know which one it is, but for what this header says.
//
// TIDE_DRIVER chooses: a path loads exactly that library; "software" skips the real driver. TIDE_SOFTGPU is the path of
// libsoftgpu.so where it is not beside this program.

#include <string>

#include "base/chunk_hash.h"
#include "base/outcome.h"
#include "driver.h"

namespace tide {

inline constexpr size_t kWriteNowMax = 512u << 10;

struct DriverLibrary {
  Driver calls;
  std::string path;
  bool software = false;
  bool memory_is_new = false;  // zeros from the system; else it holds what its last owner left
  // Only of the software GPU; else null. Where the next loaded image's globals shall lie, and where a library's do.
  CUresult (*set_image_base)(CUdeviceptr base) = nullptr;
  CUresult (*set_object_handle)(unsigned long long handle) = nullptr;  // of the next texture or surface object
  CUresult (*get_image_range)(CUlibrary library, CUdeviceptr* base, size_t* bytes) = nullptr;
  // chunk_hash.h; what it remembers for that, until it is told to forget.
  CUresult (*hash_chunks)(const ChunkSecret* secret, const CUdeviceptr* addresses, size_t count,
                          ChunkHash* hashes) = nullptr;
  CUresult (*forget_hashes)() = nullptr;
  // Writes device memory in the calling thread, in the stream's order: CUDA_ERROR_NOT_READY, and nothing is written,
  // while the stream has work. At most kWriteNowMax.
  CUresult (*write_now)(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) = nullptr;
};

// Loads a driver that has at least one device; cuInit has been called. The library stays loaded.
Outcome open_driver(DriverLibrary* library);

// "CUDA_ERROR_INVALID_VALUE (1)", for logs.
std::string error_text(const Driver& driver, CUresult result);

}  // namespace tide
