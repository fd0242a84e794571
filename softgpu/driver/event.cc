#include "softgpu/driver/event.h"

#include "base/clock.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/shared_event.h"

namespace softgpu {

std::shared_ptr<Record> Event::last() {
  const std::lock_guard lock(mu_);
  return record_;
}

void Event::set(std::shared_ptr<Record> record) {
  const std::lock_guard lock(mu_);
  record_ = std::move(record);
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

CUresult record(CUevent handle, CUstream stream_handle) {
  return on_stream(stream_handle, [&](Context& context, const std::shared_ptr<Stream>& stream) -> CUresult {
    const auto event = driver().events.find(handle);
    if (event == nullptr || &event->context != &context) return CUDA_ERROR_INVALID_HANDLE;
    auto made = std::make_shared<Record>();
    const uint64_t number = event->shared == nullptr ? 0 : event->shared->begin();
    made->ticket = context.submit(stream, {[weak = std::weak_ptr<Record>(made), number, shared = event->shared] {
                                             if (shared != nullptr) shared->complete(number);
                                             if (const auto kept = weak.lock()) kept->time_ns = tide::now_ns();
                                             return CUDA_SUCCESS;
                                           },
                                           {},
                                           true});
    event->set(std::move(made));
    return CUDA_SUCCESS;
  });
}

CUresult elapsed(float* milliseconds, CUevent start_handle, CUevent end_handle) {
  return in_context([&](Context& context) -> CUresult {
    if (milliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto start = driver().events.find(start_handle);
    const auto end = driver().events.find(end_handle);
    if (start == nullptr || end == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING) != 0) return CUDA_ERROR_INVALID_HANDLE;
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
    return driver().events.remove(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
  });
}

extern "C" CUresult cuEventRecord(CUevent event, CUstream stream) { return record(event, stream); }

extern "C" CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags) {
  return flags > CU_EVENT_RECORD_EXTERNAL ? CUDA_ERROR_INVALID_VALUE : record(event, stream);
}

extern "C" CUresult cuEventQuery(CUevent handle) {
  return with_event(handle, [](Event& event) -> CUresult {
    const auto last = event.last();
    if (last != nullptr && !last->ticket.done()) return CUDA_ERROR_NOT_READY;
    if (event.shared != nullptr && !event.shared->done(event.shared->last())) return CUDA_ERROR_NOT_READY;
    return event.context.error();
  });
}

extern "C" CUresult cuEventSynchronize(CUevent handle) {
  return with_event(handle, [](Event& event) -> CUresult {
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
