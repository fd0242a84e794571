#pragma once

// Loaded images. A Library is a CUlibrary (context-free: loaded into each vGPU when first used there) or a CUmodule
// (loaded into one context at once). Loading needs no answer; what the image holds comes back meanwhile and is waited
// for when a kernel is first asked for.

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "api/library_info.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "interpose/channel.h"
#include "interpose/handles.h"

namespace tide {

struct Context;
struct Library;
struct Process;
struct Vgpu;

struct Kernel : Handled {
  Library* library = nullptr;
  uint32_t ordinal = 0;  // in Library::kernels
  std::string name;
  std::vector<ParamEntry> params;
  uint32_t param_bytes = 0;
  uint32_t max_threads = 0;
  std::atomic<int> shared_limit{-1};  // set by cuFuncSetAttribute(MAX_DYNAMIC_SHARED_SIZE_BYTES); -1: never
};

// A library in one vGPU.
struct Instance {
  Reply first, second;  // of the load; the second where the server did not have what the first named
  std::atomic<Reply*> reply{&first};
  bool named = false;              // the first load was of an image that was only named
  std::atomic<bool> taken{false};  // the answer has been read
  CUresult result = CUDA_SUCCESS;
  std::string message;          // of a failed load
  std::vector<uint32_t> index;  // by Kernel::ordinal: its number in the worker
  struct Global {
    CUresult result;
    uint64_t address, bytes;
    bool managed;
  };
  std::map<std::string, Global> globals;
};

inline constexpr uint32_t kNoKernel = 0xffffffff;

struct Library : Handled {
  uint32_t number = 0;         // on the wire
  Context* context = nullptr;  // of a module
  const std::byte* image = nullptr;
  uint64_t image_bytes = 0;
  std::vector<std::byte> copy;  // of the image, unless the program keeps it
  Sha256 sum{};                 // of the image as it was sent to some vGPU, once it was needed; under mu
  uint64_t sum_bytes = 0;       // which were so many
  unsigned sum_capability = 0;  // and chosen for this one
  bool has_sum = false;
  std::mutex mu;
  std::atomic<bool> known{false};  // `kernels` is complete
  std::vector<Kernel*> kernels;
  std::map<std::string, Kernel*, std::less<>> by_name;
  std::atomic<Instance*> instances[kVgpusMax] = {};

  bool is_module() const { return context != nullptr; }
};

// A CUlibrary, or a CUmodule; null: neither.
Library* find_library(Process& process, const void* handle);
// Takes the image over (`keep`: the program keeps it, so no copy) without sending anything.
void begin_library(Process& process, Library& library, const void* image, uint64_t bytes, bool keep, Context* context);
// Sends image and load, if that has not been done for this vGPU; does not wait.
CUresult load(Process& process, Library& library, Context& context);
// Waits until the load's answer is there; its result.
CUresult await_load(Process& process, Library& library, Context& context);
CUresult find_kernel(Process& process, Library& library, Context& context, const char* name, Kernel** kernel);
// NOT_FOUND where there is none.
CUresult find_global(Process& process, Library& library, Context& context, const char* name, uint64_t* address,
                     uint64_t* bytes, bool* managed = nullptr);
// The kernel's number on the wire of this context's vGPU; loads the library there first where needed.
CUresult wire_kernel(Process& process, const Kernel& kernel, Context& context, uint64_t* number);
void unload(Process& process, Library& library);

}  // namespace tide
