#pragma once

// Everything of the process, made by the first cuInit and never destroyed, because libraries call in while the process
// exits. And the checks that begin every entry point.

#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "api/composed/environment.h"
#include "softgpu/driver/array.h"
#include "softgpu/driver/context.h"
#include "softgpu/driver/cuda_api.h"
#include "softgpu/driver/device.h"
#include "softgpu/driver/event.h"
#include "softgpu/driver/handle_table.h"
#include "softgpu/driver/memory.h"
#include "softgpu/driver/module.h"
#include "softgpu/driver/texture.h"
#include "softgpu/driver/thread.h"

namespace softgpu {

inline constexpr int kDriverVersion = 13000;

struct LinkState;  // link_api.cc

struct Driver {
  std::vector<std::unique_ptr<Device>> devices;
  Memory memory;
  HandleTable<CUcontext, Context> contexts{0x51};  // never shrinks: a destroyed context must still be recognised
  HandleTable<CUstream, Stream> streams{0x52};
  HandleTable<CUevent, Event> events{0x53};
  HandleTable<CUmodule, Module> modules{0x54};
  HandleTable<CUlibrary, Library> libraries{0x55};
  HandleTable<CUkernel, Kernel> kernels{0x56};
  HandleTable<CUfunction, Function> functions{0x57};
  HandleTable<Physical*, Physical> physicals{0x58};  // a CUmemGenericAllocationHandle is the handle's number
  HandleTable<CUmemoryPool, Pool> pools{0x59};
  HandleTable<CUarray, Array> arrays{0x61};
  HandleTable<CUmipmappedArray, MipmappedArray> mipmaps{0x62};
  TextureObjects textures{false}, surfaces{true};
  TextureTables texture_tables;
  HandleTable<CUlinkState, LinkState> links{0x5a};

  const bool launch_blocking = tide::composed::launch_blocking();

  BlockPool& pool();
  void forget_modules_of(Context& context);

 private:
  std::once_flag pool_made_;
  std::unique_ptr<BlockPool> pool_;
};

// The process's. Before initialize() it has no devices.
Driver& driver();
CUresult initialize();

// CUDA_SUCCESS when calls are possible: initialised, not in a forked child, not inside a host function.
CUresult ready();
// The calling thread's context, usable. Else null and *why.
std::shared_ptr<Context> current_context(CUresult* why);
std::shared_ptr<Context> current_or_null();
Device* find_device(CUdevice device);

// Waits for everything submitted before, in every context.
void synchronize_all();

// The stream that a handle means to the calling thread in its context; null when it means none.
std::shared_ptr<Stream> find_stream(Context& context, CUstream handle);
// Fails where using the stream would disturb a capture; always, before a stream is used for anything.
CUresult check_capture(Stream& stream);
// The stream for calls without one.
std::shared_ptr<Stream> default_stream(Context& context);

// Writes a line for a call that did not succeed, at level debug. Returns the result.
CUresult note_result(const char* entry, CUresult result) noexcept;

template <typename Body>
CUresult guarded(Body body, const char* entry = __builtin_FUNCTION()) noexcept {
  try {
    CUresult result = ready();
    if (result == CUDA_SUCCESS) result = body();
    return result == CUDA_SUCCESS ? result : note_result(entry, result);
  } catch (const std::bad_alloc&) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  } catch (...) {
    return CUDA_ERROR_UNKNOWN;
  }
}

// For calls that need a context: fails with the error that poisoned it.
template <typename Body>
CUresult in_context(Body body, const char* entry = __builtin_FUNCTION()) noexcept {
  return guarded(
      [&]() -> CUresult {
        CUresult why = CUDA_SUCCESS;
        const auto context = current_context(&why);
        return context == nullptr ? why : body(*context);
      },
      entry);
}

// For calls that put work on a stream.
template <typename Body>
CUresult on_stream(CUstream handle, Body body, const char* entry = __builtin_FUNCTION()) noexcept {
  return in_context(
      [&](Context& context) -> CUresult {
        const auto stream = find_stream(context, handle);
        if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        // A stream may belong to another context than the current one; its context runs it.
        CUresult error = stream->context().error();
        if (error == CUDA_SUCCESS) error = check_capture(*stream);
        return error != CUDA_SUCCESS ? error : body(stream->context(), stream);
      },
      entry);
}

}  // namespace softgpu
