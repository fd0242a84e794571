// cuInit, versions, entry points, export tables.

#include <cstring>

#include "api/composed/composed.h"
#include "api/handshake/handshake.h"
#include "api/travel.h"
#include "interpose/entry/entry.h"
#include "interpose/identity.h"
#include "interpose/thread.h"

namespace tide {
extern const handshake::Entry kEntries[];
extern const size_t kEntryCount;

namespace {

int driver_version() {
  Process* p = process();
  return p == nullptr ? CUDA_VERSION : p->driver_version;
}

TravelCounters* travel_of_this_thread() { return &thread_state.travel; }

constexpr TravelTable kTravelTable = {sizeof(TravelTable), travel_of_this_thread};

}  // namespace
}  // namespace tide

using namespace tide;

#pragma GCC visibility push(default)
extern "C" {

CUresult cuInit(unsigned int flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  composed::keep_logs();
  return initialise();
}

CUresult cuDriverGetVersion(int* version) {
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = driver_version();
  return CUDA_SUCCESS;
}

CUresult cuGetProcAddress_v2(const char* symbol, void** function, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult* status) {
  return handshake::get_proc_address(kEntries, kEntryCount, driver_version(), symbol, function, version, flags, status);
}

CUresult cuGetExportTable(const void** table, const CUuuid* id) {
  if (table == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (memcmp(id, kTravelTableId, sizeof kTravelTableId) == 0) {
    *table = &kTravelTable;
    return CUDA_SUCCESS;
  }
  install_hooks();
  return handshake::get_export_table(table, id);
}

CUresult cuProfilerInitialize(const char*, const char*, CUoutput_mode) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuProfilerStart() { return process() == nullptr ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS; }
CUresult cuProfilerStop() { return process() == nullptr ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS; }

}  // extern "C"
#pragma GCC visibility pop
