#include "softgpu/driver/event.h"

#include "softgpu/driver/driver.h"
#include "softgpu/driver/graph_host.h"
#include "softgpu/driver/shared_event.h"
#include "softgpu/driver/simulation.h"

namespace softgpu {

std::shared_ptr<Record> Event::last() {
  const std::lock_guard lock(mu_);
  return record_;
}

void Event::set(std::shared_ptr<Record> record) {
  const std::lock_guard lock(mu_);
  record_ = std::move(record);
}

void record_event(Context& context, const std::shared_ptr<Stream>& stream, Event& event) {
  auto made = std::make_shared<Record>();
  const uint64_t number = event.shared == nullptr ? 0 : event.shared->begin();
  made->ticket = context.submit(stream, {[weak = std::weak_ptr<Record>(made), number, shared = event.shared] {
                                           if (shared != nullptr) shared->complete(number);
                                           if (const auto kept = weak.lock())
                                             kept->time_ns = simulation().event_time_ns();
                                           return CUDA_SUCCESS;
                                         },
                                         {},
                                         true,
                                         true});
  event.set(std::move(made));
}

void wait_event(Context& context, const std::shared_ptr<Stream>& stream, Event& event) {
  if (event.shared != nullptr && !event.shared->done(event.shared->last())) {
    context.submit(stream, {[shared = event.shared, number = event.shared->last(), &context] {
                              shared->wait(number, context.cancel);
                              return CUDA_SUCCESS;
                            },
                            {},
                            false});
    return;
  }
  const auto record = event.last();
  if (record == nullptr || record->ticket.done()) return;
  context.submit(stream, {[] { return CUDA_SUCCESS; }, {record->ticket}, false});
}

namespace {

// Recorded or waited for at each launch of the graph, rather than a dependency inside it.
CUresult capture_external(Stream& stream, CUgraphNodeType type, CUevent handle) {
  if (!stream.capturing()) return CUDA_ERROR_INVALID_VALUE;
  auto content = std::make_shared<tide::graph::Content>();
  content->type = type;
  content->context = stream.context().handle;
  content->event = handle;
  return tide::graph::capture_node(id_of(stream), std::move(content));
}

}  // namespace

CUresult record_in_stream(Context& context, const std::shared_ptr<Stream>& stream, CUevent handle, Event& event,
                          unsigned flags) {
  if (flags > CU_EVENT_RECORD_EXTERNAL) return CUDA_ERROR_INVALID_VALUE;
  if (flags == CU_EVENT_RECORD_EXTERNAL) return capture_external(*stream, CU_GRAPH_NODE_TYPE_EVENT_RECORD, handle);
  bool captured = false;
  const CUresult result = tide::graph::capture_record(id_of(*stream), handle, &captured);
  if (!captured && result == CUDA_SUCCESS) record_event(context, stream, event);
  return result;
}

CUresult wait_in_stream(Context& context, const std::shared_ptr<Stream>& stream, CUevent handle, Event& event,
                        unsigned flags) {
  if (flags > CU_EVENT_WAIT_EXTERNAL) return CUDA_ERROR_INVALID_VALUE;
  if (flags == CU_EVENT_WAIT_EXTERNAL) return capture_external(*stream, CU_GRAPH_NODE_TYPE_WAIT_EVENT, handle);
  bool captured = false;
  const CUresult result = tide::graph::capture_wait(id_of(*stream), handle, event.last() != nullptr, &captured);
  if (!captured && result == CUDA_SUCCESS) wait_event(context, stream, event);
  return result;
}

}  // namespace softgpu

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

constexpr unsigned kEventFlags = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;

template <typename Body>
CUresult with_event(CUevent handle, Body body) {
  return in_context([&](Context&) -> CUresult {
    const auto event = driver().events.find(handle);
    return event == nullptr ? CUDA_ERROR_INVALID_HANDLE : body(*event);
  });
}

CUresult record(CUevent handle, CUstream stream_handle, unsigned flags) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    const auto event = driver().events.find(handle);
    if (event == nullptr || &event->context != &context) return CUDA_ERROR_INVALID_HANDLE;
    return record_in_stream(context, stream, handle, *event, flags);
  });
}

// For calls that ask whether an event has come: not those of captures, and not while one must not be disturbed.
CUresult may_ask(CUevent handle) {
  const CUresult result = tide::graph::refuse_captured(handle);
  return result != CUDA_SUCCESS ? result : tide::graph::unsafe_call();
}

CUresult elapsed(float* milliseconds, CUevent start_handle, CUevent end_handle) {
  return in_context([&](Context& context) -> CUresult {
    if (milliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto start = driver().events.find(start_handle);
    const auto end = driver().events.find(end_handle);
    if (start == nullptr || end == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING) != 0) return CUDA_ERROR_INVALID_HANDLE;
    for (const CUevent handle : {start_handle, end_handle}) {
      const CUresult result = tide::graph::refuse_captured(handle);
      if (result != CUDA_SUCCESS) return result;
    }
    const auto from = start->last();
    const auto to = end->last();
    if (from == nullptr || to == nullptr || &start->context.device != &end->context.device)
      return CUDA_ERROR_INVALID_HANDLE;
    if (!from->ticket.done() || !to->ticket.done()) return CUDA_ERROR_NOT_READY;
    if (context.error() != CUDA_SUCCESS) return context.error();
    const auto nanoseconds = static_cast<int64_t>(to->time_ns - from->time_ns);
    *milliseconds = static_cast<float>(static_cast<double>(nanoseconds) / 1e6);
    return CUDA_SUCCESS;
  });
}

}  // namespace

extern "C" CUresult cuEventCreate(CUevent* event, unsigned int flags) {
  return in_context([&](Context& context) -> CUresult {
    if (event == nullptr || (flags & ~kEventFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
    if ((flags & CU_EVENT_INTERPROCESS) != 0) {
      if ((flags & CU_EVENT_DISABLE_TIMING) == 0) return CUDA_ERROR_INVALID_VALUE;
    }
    auto made = std::make_shared<Event>(context, flags);
    if ((flags & CU_EVENT_INTERPROCESS) != 0 && (made->shared = SharedEvent::make()) == nullptr) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    const CUevent handle = driver().events.next();
    driver().events.add(handle, std::move(made));
    *event = handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuEventDestroy_v2(CUevent handle) {
  return in_context([&](Context&) -> CUresult {
    tide::graph::forget_event(handle);
    return driver().events.remove(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
  });
}

extern "C" CUresult cuEventRecord(CUevent event, CUstream stream) { return record(event, stream, 0); }

extern "C" CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags) {
  return record(event, stream, flags);
}

extern "C" CUresult cuEventQuery(CUevent handle) {
  return with_event(handle, [&](Event& event) -> CUresult {
    const CUresult result = may_ask(handle);
    if (result != CUDA_SUCCESS) return result;
    const auto last = event.last();
    if (last != nullptr && !last->ticket.done()) {
      last->ticket.stream->polled();
      return CUDA_ERROR_NOT_READY;
    }
    if (event.shared != nullptr && !event.shared->done(event.shared->last())) return CUDA_ERROR_NOT_READY;
    return event.context.error();
  });
}

extern "C" CUresult cuEventSynchronize(CUevent handle) {
  return with_event(handle, [&](Event& event) -> CUresult {
    const CUresult result = may_ask(handle);
    if (result != CUDA_SUCCESS) return result;
    const auto last = event.last();
    if (last != nullptr) last->ticket.wait();
    if (event.shared != nullptr) event.shared->wait(event.shared->last(), event.context.cancel);
    return event.context.error();
  });
}

extern "C" CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return elapsed(milliseconds, start, end);
}

extern "C" CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return elapsed(milliseconds, start, end);
}
