// Events.

#include "api/payload.h"
#include "commands.h"
#include "interpose/crossing.h"
#include "interpose/entry/entry.h"
#include "interpose/graphs.h"

using namespace tide;

namespace {

constexpr unsigned kEventFlags = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;

CUresult find_event(CUevent handle, Event** event) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  *event = p->events.find(handle);
  return *event != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult ask_elapsed(Event& start, Event& end, float* milliseconds) {
  Reply reply;
  ElapsedAnswer answer;
  TIDE_TRY(ask_command(*start.context, Call::tideElapsed, command::Elapsed{start.slot, end.slot}, &reply));
  TIDE_TRY(read_answer(reply, &answer));
  *milliseconds = answer.milliseconds;
  return CUDA_SUCCESS;
}

CUresult elapsed(float* milliseconds, CUevent start_handle, CUevent end_handle) {
  Event *start = nullptr, *end = nullptr;
  TIDE_TRY(find_event(start_handle, &start));
  TIDE_TRY(find_event(end_handle, &end));
  if (milliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (start->vgpu != end->vgpu || ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING) != 0)
    return CUDA_ERROR_INVALID_HANDLE;
  TIDE_TRY(graph::refuse_captured(start_handle));
  TIDE_TRY(graph::refuse_captured(end_handle));
  Channel& channel = start->vgpu->channel();
  for (const Event* event : {start, end}) {
    const uint64_t recorded = event->recorded.load();
    if (recorded == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (!channel.event_done(event->slot, recorded)) return CUDA_ERROR_NOT_READY;
  }
  TIDE_TRY(channel.take_error());
  return ask_elapsed(*start, *end, milliseconds);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuEventCreate(CUevent* handle, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (handle == nullptr || (flags & ~kEventFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & CU_EVENT_INTERPROCESS) != 0 && (flags & CU_EVENT_DISABLE_TIMING) == 0) return CUDA_ERROR_INVALID_VALUE;
  Event* event = nullptr;
  TIDE_TRY(make_event(*e.process, *e.context, flags, &event));
  *handle = handle_of<CUevent>(*event);
  return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent handle) {
  Event* event = nullptr;
  TIDE_TRY(find_event(handle, &event));
  drop_event(*process(), *event);
  return CUDA_SUCCESS;
}

CUresult cuEventRecordWithFlags(CUevent handle, CUstream stream_handle, unsigned int flags) {
  Entered e;
  Stream* stream = nullptr;
  Event* event = nullptr;
  TIDE_TRY(enter(&e));
  TIDE_TRY(find_event(handle, &event));
  TIDE_TRY(use_stream(e, stream_handle, &stream));
  if (event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
  if (flags > CU_EVENT_RECORD_EXTERNAL) return CUDA_ERROR_INVALID_VALUE;
  if (flags == CU_EVENT_RECORD_EXTERNAL) {
    return capture_external_event(*stream, CU_GRAPH_NODE_TYPE_EVENT_RECORD, handle);
  }
  bool captured = false;
  TIDE_TRY(graph::capture_record(id_of(*stream), handle, &captured));
  return captured ? CUDA_SUCCESS : record(*event, *stream, flags);
}

CUresult cuEventRecord(CUevent handle, CUstream stream) { return cuEventRecordWithFlags(handle, stream, 0); }

CUresult cuEventQuery(CUevent handle) {
  Event* event = nullptr;
  TIDE_TRY(find_event(handle, &event));
  TIDE_TRY(ask_event(handle));
  Channel& channel = event->vgpu->channel();
  TIDE_TRY(channel.take_error());
  uint64_t recorded = event->recorded.load(std::memory_order_acquire);
  if (between_processes(*event) && (recorded == 0 || channel.event_done(event->slot, recorded))) {
    bool pending = false;  // nothing older is
    TIDE_TRY(watch(*event, &pending));
    if (pending) return CUDA_ERROR_NOT_READY;
    recorded = 0;
  }
  if (recorded != 0 && !channel.event_done(event->slot, recorded)) return CUDA_ERROR_NOT_READY;
  return process()->host.after_wait(*event->vgpu, channel.take_error());
}

CUresult cuEventSynchronize(CUevent handle) {
  Event* event = nullptr;
  TIDE_TRY(find_event(handle, &event));
  TIDE_TRY(ask_event(handle));
  Channel& channel = event->vgpu->channel();
  TIDE_TRY(channel.take_error());
  if (between_processes(*event)) {
    bool pending = false;
    TIDE_TRY(watch(*event, &pending));
    if (!pending) return process()->host.after_wait(*event->vgpu, CUDA_SUCCESS);
  }
  const uint64_t recorded = event->recorded.load(std::memory_order_acquire);
  if (recorded == 0) return CUDA_SUCCESS;
  return process()->host.after_wait(*event->vgpu, channel.wait_event(event->slot, recorded));
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return elapsed(milliseconds, start, end);
}
CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return elapsed(milliseconds, start, end);
}

}  // extern "C"
#pragma GCC visibility pop
