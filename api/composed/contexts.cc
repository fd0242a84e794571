// Whole contexts: events over all streams, the first version's references, execution affinity.

#include <map>
#include <mutex>

#include "api/composed/composed.h"

using namespace tide::composed;  // an entry point is C; everything it uses is ours

namespace {

// Makes a context the thread's current one for as long as it lives.
class Entered {
 public:
  explicit Entered(CUcontext context) : result_(cuCtxPushCurrent_v2(context)) {}
  ~Entered() {
    if (result_ == CUDA_SUCCESS) cuCtxPopCurrent_v2(nullptr);
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  CUresult result() const { return result_; }

 private:
  CUresult result_;
};

// A stream that waits for what the context's streams hold.
CUresult behind_all(const std::vector<CUstream>& streams, CUstream last, CUevent mark) {
  for (const CUstream stream : streams) {
    CUresult result = cuEventRecord(mark, stream);
    if (result == CUDA_SUCCESS) result = cuStreamWaitEvent(last, mark, 0);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

// How often each context was attached to, beyond its creation.
std::mutex& references_mutex() {
  static auto* mutex = new std::mutex;  // outlives calls from atexit
  return *mutex;
}
std::map<CUcontext, int>& references() {
  static auto* all = new std::map<CUcontext, int>;
  return *all;
}

}  // namespace

CUresult tide::composed::record_all(CUcontext context, CUevent event) {
  const Entered entered(context);
  if (entered.result() != CUDA_SUCCESS) return entered.result();
  std::vector<CUstream> streams;
  CUresult result = streams_of(context, &streams);
  if (result != CUDA_SUCCESS) return result;
  streams.push_back(CU_STREAM_PER_THREAD);
  CUstream last = nullptr;
  CUevent mark = nullptr;
  if ((result = cuStreamCreate(&last, CU_STREAM_NON_BLOCKING)) != CUDA_SUCCESS) return result;
  result = cuEventCreate(&mark, CU_EVENT_DISABLE_TIMING);
  if (result == CUDA_SUCCESS) {
    streams.push_back(CU_STREAM_LEGACY);
    result = behind_all(streams, last, mark);
    if (result == CUDA_SUCCESS) result = cuEventRecord(event, last);
    cuEventDestroy_v2(mark);
  }
  cuStreamDestroy_v2(last);  // when its work is done
  return result;
}

CUresult tide::composed::wait_all(CUcontext context, CUevent event) {
  const Entered entered(context);
  if (entered.result() != CUDA_SUCCESS) return entered.result();
  std::vector<CUstream> streams;
  CUresult result = streams_of(context, &streams);
  streams.push_back(CU_STREAM_PER_THREAD);
  streams.push_back(CU_STREAM_LEGACY);
  for (const CUstream stream : streams) {
    if (result == CUDA_SUCCESS) result = cuStreamWaitEvent(stream, event, 0);
  }
  return result;
}

#pragma GCC visibility push(default)
extern "C" {

CUresult cuCtxRecordEvent(CUcontext context, CUevent event) { return record_all(context, event); }
CUresult cuCtxWaitEvent(CUcontext context, CUevent event) { return wait_all(context, event); }

CUresult cuCtxAttach(CUcontext* context, unsigned int flags) {
  if (context == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = cuCtxGetCurrent(context);
  if (result == CUDA_SUCCESS && *context == nullptr) result = CUDA_ERROR_INVALID_CONTEXT;
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(references_mutex());
  references()[*context]++;
  return CUDA_SUCCESS;
}

CUresult cuCtxDetach(CUcontext context) {
  CUcontext current = nullptr;
  const CUresult result = cuCtxGetCurrent(&current);
  if (result != CUDA_SUCCESS) return result;
  if (context == nullptr || context != current) return CUDA_ERROR_INVALID_CONTEXT;
  {
    const std::lock_guard lock(references_mutex());
    const auto found = references().find(context);
    if (found != references().end()) {
      if (--found->second == 0) references().erase(found);
      return CUDA_SUCCESS;
    }
  }
  return cuCtxDestroy_v2(context);
}

CUresult cuCtxGetExecAffinity(CUexecAffinityParam* parameter, CUexecAffinityType) {
  CUdevice device = 0;
  const CUresult result = cuCtxGetDevice(&device);
  if (result != CUDA_SUCCESS) return result;
  return parameter == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
}

}  // extern "C"
#pragma GCC visibility pop
