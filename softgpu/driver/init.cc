// Entry points: start-up, versions, errors, the handshake.

#include <atomic>

#include "api/composed/composed.h"
#include "api/handshake/handshake.h"
#include "base/log.h"
#include "softgpu/driver/driver.h"

namespace softgpu {

// Made by api/generate.py from the table of all exported symbols.
extern const tide::handshake::Entry kEntries[];
extern const size_t kEntryCount;

int refuse(const char* name, std::atomic<bool>* logged) noexcept;

// What every entry point does that nobody wrote.
int refuse(const char* name, std::atomic<bool>* logged) noexcept {
  if (!logged->exchange(true)) {
    tide::log(tide::LogLevel::kWarning, "%s is not served by the software GPU: CUDA_ERROR_NOT_SUPPORTED", name);
  }
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace softgpu

using namespace softgpu;  // an entry point is C; everything it uses is ours

extern "C" CUresult cuInit(unsigned int flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  tide::composed::keep_logs();
  return initialize();
}

extern "C" CUresult cuDriverGetVersion(int* version) {
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = kDriverVersion;
  return CUDA_SUCCESS;
}

extern "C" CUresult cuGetErrorString(CUresult error, const char** text) {
  if (text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *text = tide::handshake::error_text(error);
  return *text == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

extern "C" CUresult cuGetErrorName(CUresult error, const char** name) {
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *name = tide::handshake::error_name(error);
  return *name == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

extern "C" CUresult cuGetProcAddress_v2(const char* name, void** function, int cuda_version, cuuint64_t flags,
                                        CUdriverProcAddressQueryResult* status) {
  return tide::handshake::get_proc_address(kEntries, kEntryCount, kDriverVersion, name, function, cuda_version, flags,
                                           status);
}

extern "C" CUresult cuGetExportTable(const void** table, const CUuuid* id) {
  return tide::handshake::get_export_table(table, id);
}

extern "C" CUresult cuProfilerInitialize(const char*, const char*, CUoutput_mode) { return CUDA_ERROR_NOT_SUPPORTED; }

extern "C" CUresult cuProfilerStart() {
  return in_context([](Context&) { return CUDA_SUCCESS; });
}

extern "C" CUresult cuProfilerStop() {
  return in_context([](Context&) { return CUDA_SUCCESS; });
}
