// Streams.

#include <algorithm>

#include "api/composed/composed.h"
#include "base/log.h"
#include "interpose/crossing.h"
#include "interpose/entry/entry.h"
#include "interpose/graphs.h"
#include "interpose/thread.h"

using namespace tide;

namespace {

CUresult enter_stream(CUstream handle, Entered* e, Stream** stream) {
  TIDE_TRY(enter(e));
  return use_stream(*e, handle, stream);
}

CUresult look_up_stream(CUstream handle, Stream** stream) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  return find_stream(e, handle, stream);
}

// Runs `task` when everything before it on the stream is done; everything behind it waits.
CUresult call_host(Stream& stream, std::unique_ptr<Task> task) {
  if (Outcome o = process()->service.start_callbacks(); !o.ok()) {
    log(LogLevel::kError, "a host function cannot be called: %s", o.message().c_str());
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  task->after.resize(1);
  task->signals.resize(1);
  TIDE_TRY(mark(stream, &task->after[0]));
  TIDE_TRY(hold(stream, &task->signals[0]));
  process()->service.add(std::move(task));
  return CUDA_SUCCESS;
}

struct Work {
  uint32_t slot;
  uint64_t sequence;
};

// What the stream has to do until it is idle. The legacy stream is idle when all blocking streams of its context are.
std::vector<Work> work_of(Process& p, const Stream& stream) {
  const Channel& channel = stream.vgpu->channel();
  std::vector<Work> work{{stream.slot, channel.last_work(stream.slot)}};
  if (&stream != stream.context->legacy.load()) return work;
  p.streams.each([&](const Stream* s) {
    if (s->context == stream.context && s != &stream && (s->flags & CU_STREAM_NON_BLOCKING) == 0) {
      work.push_back({s->slot, channel.last_work(s->slot)});
    }
  });
  return work;
}

}  // namespace

CUresult tide::composed::streams_of(CUcontext handle, std::vector<CUstream>* streams) {
  const Context* context = process()->contexts.find(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  process()->streams.each([&](const Stream* s) {
    if (s->handle == context->builder) return;  // not the program's
    if (s->context == context && s != context->legacy.load()) streams->push_back(handle_of<CUstream>(*s));
  });
  return CUDA_SUCCESS;
}

CUresult tide::launch_host_function(Stream& stream, CUhostFn function, void* data) {
  auto task = std::make_unique<Task>();
  task->host_function = function;
  task->user_data = data;
  task->callback_stream = handle_of<CUstream>(stream);
  return call_host(stream, std::move(task));
}

#pragma GCC visibility push(default)
extern "C" {

CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned int flags, int priority) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (handle == nullptr || (flags & ~unsigned(CU_STREAM_NON_BLOCKING)) != 0) return CUDA_ERROR_INVALID_VALUE;
  const DeviceInfo& info = e.vgpu->info;
  priority = std::clamp(priority, std::min(info.greatest_stream_priority, info.least_stream_priority),
                        std::max(info.greatest_stream_priority, info.least_stream_priority));
  Stream* stream = nullptr;
  TIDE_TRY(make_stream(*e.process, *e.context, flags, priority, false, &stream));
  *handle = handle_of<CUstream>(*stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream* handle, unsigned int flags) { return cuStreamCreateWithPriority(handle, flags, 0); }

CUresult cuStreamDestroy_v2(CUstream handle) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  Stream* stream = p->streams.find(handle);
  if (stream == nullptr || stream->implicit) return CUDA_ERROR_INVALID_HANDLE;
  drop_stream(*p, *stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamGetPriority(CUstream handle, int* priority) {
  Stream* stream = nullptr;
  TIDE_TRY(look_up_stream(handle, &stream));
  if (priority == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *priority = stream->priority;
  return CUDA_SUCCESS;
}

CUresult cuStreamGetId(CUstream handle, unsigned long long* id) {
  Stream* stream = nullptr;
  TIDE_TRY(look_up_stream(handle, &stream));
  if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *id = stream->id;
  return CUDA_SUCCESS;
}

CUresult cuStreamGetFlags(CUstream handle, unsigned int* flags) {
  Stream* stream = nullptr;
  TIDE_TRY(look_up_stream(handle, &stream));
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = stream->flags;
  return CUDA_SUCCESS;
}

CUresult cuStreamGetDevice(CUstream handle, CUdevice* device) {
  Stream* stream = nullptr;
  TIDE_TRY(look_up_stream(handle, &stream));
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = stream->vgpu->ordinal;
  return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext* context) {
  Stream* stream = nullptr;
  TIDE_TRY(look_up_stream(handle, &stream));
  if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *context = handle_of<CUcontext>(*stream->context);
  return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned int flags) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter_stream(handle, &e, &stream));
  Event* event = e.process->events.find(event_handle);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (flags > CU_EVENT_WAIT_EXTERNAL) return CUDA_ERROR_INVALID_VALUE;
  if (flags == CU_EVENT_WAIT_EXTERNAL) {
    return capture_external_event(*stream, CU_GRAPH_NODE_TYPE_WAIT_EVENT, event_handle);
  }
  bool captured = false;
  TIDE_TRY(graph::capture_wait(id_of(*stream), event_handle, event->recorded.load() != 0, &captured));
  return captured ? CUDA_SUCCESS : wait_for(*e.process, *stream, *event);
}

CUresult cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void* user_data, unsigned int flags) {
  if (callback == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter_stream(handle, &e, &stream));
  TIDE_TRY(graph::refuse_in(id_of(*stream)));
  auto task = std::make_unique<Task>();
  task->callback = callback;
  task->user_data = user_data;
  task->callback_stream = handle;
  return call_host(*stream, std::move(task));
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* user_data) {
  if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter_stream(handle, &e, &stream));
  if (capturing(*stream)) return capture_host_function(*stream, function, user_data);
  return launch_host_function(*stream, function, user_data);
}

CUresult cuStreamQuery(CUstream handle) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter_stream(handle, &e, &stream));
  TIDE_TRY(ask_stream(*stream));
  Channel& channel = stream->vgpu->channel();
  for (const Work& w : work_of(*e.process, *stream)) {
    if (!channel.done(w.slot, w.sequence)) return CUDA_ERROR_NOT_READY;
  }
  return e.process->host.after_wait(*stream->vgpu, channel.take_error());
}

CUresult cuStreamSynchronize(CUstream handle) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter_stream(handle, &e, &stream));
  TIDE_TRY(ask_stream(*stream));
  Channel& channel = stream->vgpu->channel();
  for (const Work& w : work_of(*e.process, *stream)) TIDE_TRY(channel.wait_stream(w.slot, w.sequence));
  return e.process->host.after_wait(*stream->vgpu, CUDA_SUCCESS);
}

}  // extern "C"
#pragma GCC visibility pop
