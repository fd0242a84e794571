#pragma once

// What the CUDA runtime asks of a driver library beside its public functions: entry points by name and version, and the
// private export tables. Used by both libraries of ours that answer as a driver: the preload library (interpose/) and
// the software GPU (softgpu/). docs/interoperability.md says what this is and why.
//
// Threads: any, after set_hooks(). Nothing here allocates on the paths that run on every runtime call.

#include <cuda.h>

#include <cstddef>
#include <cstdint>

namespace tide::handshake {

// What the tables need to know of the library that they belong to. All functions may be called in any thread.
struct Hooks {
  CUresult (*primary_context)(CUcontext* context, CUdevice device);  // the handle, without retaining or creating it
  CUresult (*current_context)(CUcontext* context);                   // of the calling thread; null when there is none
  CUresult (*context_id)(CUcontext context, unsigned long long* id);
  CUresult (*stream_id)(CUcontext context, CUstream stream, unsigned long long* id);
  int (*driver_version)();
  int (*device_count)();
  CUresult (*load_fat_binary)(CUmodule* module, const void* image);                    // cuModuleLoadFatBinary
  CUresult (*function_count)(unsigned* count, CUmodule module);                        // cuModuleGetFunctionCount
  CUresult (*list_functions)(CUfunction* functions, unsigned count, CUmodule module);  // cuModuleEnumerateFunctions
  // UUID as cuDeviceGetUuid reports it, and PCI domain, bus, device as the attributes 50, 33, 34 do.
  void (*device_identity)(int device, uint8_t uuid[16], int32_t pci[3]);
};
void set_hooks(const Hooks& hooks);

// cuGetExportTable. Unknown tables are refused with an error and logged once.
CUresult get_export_table(const void** table, const CUuuid* id);

// Context-local storage: runs the destructors of everything that libraries attached to `context`, and forgets it.
// To be called at primary-context reset and context destroy.
void destroy_context_storage(CUcontext context);

// One symbol that cuGetProcAddress may answer with. The generator makes the table (all rows of procaddress.tsv).
struct Entry {
  const char* name;  // "cuMemAlloc"
  int version;       // least cudaVersion that gets this symbol
  bool per_thread;   // the _ptsz/_ptds form
  void* function;
  void* refusal;  // equal to `function` when the library does not serve it: answered with NULL
};

// cuGetProcAddress_v2 over a table sorted by name: the entry with the largest version <= cuda_version, per-thread forms
// preferred when `flags` asks for them. Not found or refused: CUDA_SUCCESS, *function null, *status not-found.
// cuda_version above driver_version: CUDA_ERROR_INVALID_VALUE.
CUresult get_proc_address(const Entry* entries, size_t count, int driver_version, const char* name, void** function,
                          int cuda_version, cuuint64_t flags, CUdriverProcAddressQueryResult* status);

// Error names and texts as the driver gives them; null for unknown codes.
const char* error_name(CUresult code);
const char* error_text(CUresult code);

}  // namespace tide::handshake
