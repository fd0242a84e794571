// Entry points: cuStream*, host functions and the waits and writes of single values.

#include <algorithm>

#include "api/composed/composed.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/graph_host.h"
#include "softgpu/driver/work.h"

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

constexpr int kGreatestPriority = -5;  // as on cards of the profiles; it has no effect

CUresult create_stream(CUstream* stream, unsigned flags, int priority) {
  return in_context([&](Context& context) -> CUresult {
    if (stream == nullptr || (flags & ~unsigned{CU_STREAM_NON_BLOCKING}) != 0) return CUDA_ERROR_INVALID_VALUE;
    *stream = context.create_stream(flags, std::clamp(priority, kGreatestPriority, 0))->handle();
    return CUDA_SUCCESS;
  });
}

// Calls that only ask about a stream.
template <typename Body>
CUresult about_stream(CUstream handle, const void* output, Body body) {
  return in_context([&](Context& context) -> CUresult {
    if (output == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    body(*stream);
    return CUDA_SUCCESS;
  });
}

// For calls that ask whether a stream is done or wait for that.
CUresult may_ask(Stream& stream) {
  const CUresult result = tide::graph::refuse_in(id_of(stream));
  return result != CUDA_SUCCESS ? result : tide::graph::unsafe_call();
}

CUresult put_values(CUstream handle, const CUstreamBatchMemOpParams* steps, unsigned count, unsigned flags) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    WorkRef work;
    const CUresult result = make_values_work(steps, count, flags, &work);
    return result != CUDA_SUCCESS ? result : enqueue(context, stream, std::move(work));
  });
}

CUresult put_value(CUstream handle, CUstreamBatchMemOpType type, CUdeviceptr address, uint64_t value, unsigned flags) {
  CUstreamBatchMemOpParams step = {};
  const bool wait = type == CU_STREAM_MEM_OP_WAIT_VALUE_32 || type == CU_STREAM_MEM_OP_WAIT_VALUE_64;
  if (wait) {
    step.waitValue.address = address;
    step.waitValue.value64 = value;
    step.waitValue.flags = flags;
  } else {
    step.writeValue.address = address;
    step.writeValue.value64 = value;
    step.writeValue.flags = flags;
  }
  step.operation = type;
  return put_values(handle, &step, 1, 0);
}

}  // namespace

extern "C" CUresult cuStreamCreate(CUstream* stream, unsigned int flags) { return create_stream(stream, flags, 0); }

extern "C" CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned int flags, int priority) {
  return create_stream(stream, flags, priority);
}

extern "C" CUresult cuStreamDestroy_v2(CUstream handle) {
  return in_context([&](Context&) -> CUresult {
    const auto stream = driver().streams.find(handle);  // the default streams are not in the table
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    stream->context().forget_stream(stream);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuStreamGetPriority(CUstream stream, int* priority) {
  return about_stream(stream, priority, [&](Stream& s) { *priority = s.priority(); });
}

extern "C" CUresult cuStreamGetFlags(CUstream stream, unsigned int* flags) {
  return about_stream(stream, flags, [&](Stream& s) { *flags = s.flags(); });
}

extern "C" CUresult cuStreamGetId(CUstream stream, unsigned long long* id) {
  return about_stream(stream, id, [&](Stream& s) { *id = s.id(); });
}

extern "C" CUresult cuStreamGetDevice(CUstream stream, CUdevice* device) {
  return about_stream(stream, device, [&](Stream& s) { *device = s.context().device.index; });
}

extern "C" CUresult cuStreamGetCtx(CUstream stream, CUcontext* context) {
  return about_stream(stream, context, [&](Stream& s) { *context = s.context().handle; });
}

extern "C" CUresult cuStreamQuery(CUstream handle) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    const CUresult result = may_ask(*stream);
    if (result != CUDA_SUCCESS) return result;
    // Whoever asks the legacy default stream asks for what it would wait for, too.
    bool idle = stream->idle();
    if (stream == context.legacy_stream()) {
      for (const auto& other : context.all_streams()) idle = idle && (!other->blocking() || other->idle());
    }
    const CUresult error = context.error();
    if (error != CUDA_SUCCESS) return error;
    if (idle) return CUDA_SUCCESS;
    for (const auto& other : context.all_streams()) {
      if (other == stream || (stream == context.legacy_stream() && other->blocking())) other->polled();
    }
    return CUDA_ERROR_NOT_READY;
  });
}

extern "C" CUresult cuStreamSynchronize(CUstream handle) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    const CUresult result = may_ask(*stream);
    if (result != CUDA_SUCCESS) return result;
    if (stream == context.legacy_stream()) {
      for (const auto& other : context.all_streams()) {
        if (other->blocking()) other->last().wait();
      }
    } else {
      stream->last().wait();
    }
    return context.error();
  });
}

extern "C" CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned int flags) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    const auto event = driver().events.find(event_handle);
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return wait_in_stream(context, stream, event_handle, *event, flags);
  });
}

extern "C" CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return enqueue(context, stream, std::make_shared<HostWork>(function, data));
  });
}

extern "C" CUresult cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void* data, unsigned int flags) {
  return on_stream(handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    if (callback == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    // It is told of an error, so it runs in a poisoned context, too.
    return enqueue_uncaptured(context, stream,
                              {[callback, data, handle, &context] {
                                 run_host_function([&] { callback(handle, context.error(), data); });
                                 return CUDA_SUCCESS;
                               },
                               {},
                               true});
  });
}

extern "C" CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags) {
  return put_value(stream, CU_STREAM_MEM_OP_WAIT_VALUE_32, address, value, flags);
}

extern "C" CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned int flags) {
  return put_value(stream, CU_STREAM_MEM_OP_WAIT_VALUE_64, address, value, flags);
}

extern "C" CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                            unsigned int flags) {
  return put_value(stream, CU_STREAM_MEM_OP_WRITE_VALUE_32, address, value, flags);
}

extern "C" CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                            unsigned int flags) {
  return put_value(stream, CU_STREAM_MEM_OP_WRITE_VALUE_64, address, value, flags);
}

extern "C" CUresult cuStreamBatchMemOp_v2(CUstream stream, unsigned int count, CUstreamBatchMemOpParams* steps,
                                          unsigned int flags) {
  return put_values(stream, steps, count, flags);
}

namespace {

bool attribute_of_streams(CUstreamAttrID id) {
  switch (id) {
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
      return true;
    default:
      return false;
  }
}

}  // namespace

extern "C" CUresult cuStreamGetAttribute(CUstream handle, CUstreamAttrID id, CUstreamAttrValue* value) {
  return on_stream(handle, [&](Context&, const std::shared_ptr<Stream>& stream) -> CUresult {
    if (value == nullptr || !attribute_of_streams(id)) return CUDA_ERROR_INVALID_VALUE;
    const std::lock_guard lock(stream->attributes_mu);
    const auto found = stream->attributes.find(id);
    *value = found == stream->attributes.end() ? CUstreamAttrValue{} : found->second;
    if (found != stream->attributes.end()) return CUDA_SUCCESS;
    if (id == CU_LAUNCH_ATTRIBUTE_PRIORITY) value->priority = stream->priority();
    if (id == CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY) value->syncPolicy = CU_SYNC_POLICY_AUTO;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuStreamSetAttribute(CUstream handle, CUstreamAttrID id, const CUstreamAttrValue* value) {
  return on_stream(handle, [&](Context&, const std::shared_ptr<Stream>& stream) -> CUresult {
    if (value == nullptr || !attribute_of_streams(id)) return CUDA_ERROR_INVALID_VALUE;
    const std::lock_guard lock(stream->attributes_mu);
    stream->attributes[id] = *value;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuStreamCopyAttributes(CUstream to, CUstream from) {
  return on_stream(from, [&](Context& context, const std::shared_ptr<Stream>& source) -> CUresult {
    const auto target = find_stream(context, to);
    if (target == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (target == source) return CUDA_SUCCESS;
    const std::scoped_lock lock(target->attributes_mu, source->attributes_mu);
    target->attributes = source->attributes;
    return CUDA_SUCCESS;
  });
}

CUresult tide::composed::streams_of(CUcontext handle, std::vector<CUstream>* streams) {
  return guarded([&]() -> CUresult {
    const auto context = driver().contexts.find(handle);
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    for (const auto& stream : context->all_streams()) {
      // The default streams are not in the table.
      if (driver().streams.find(stream->handle()) == stream) streams->push_back(stream->handle());
    }
    return CUDA_SUCCESS;
  });
}
