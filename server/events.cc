#include "server/events.h"

#include <iterator>
#include <utility>

namespace tide {

Events::Events(const Driver& driver, Contexts& contexts) : driver_(driver), contexts_(contexts) {}

CUresult Events::create(uint32_t slot, uint32_t context, uint32_t flags, std::shared_ptr<SharedEvent> shared) {
  if (slot >= kEventSlots) return CUDA_ERROR_INVALID_VALUE;
  if (slot < events_.size() && events_[slot].live) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = contexts_.use(context); result != CUDA_SUCCESS) return result;
  // Sharing between processes is our own business, not the driver's; so is waiting.
  if ((flags & CU_EVENT_INTERPROCESS) != 0 && shared == nullptr) shared = SharedEvent::make();
  if ((flags & CU_EVENT_INTERPROCESS) != 0 && shared == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint32_t kept = flags & CU_EVENT_DISABLE_TIMING;
  CUevent handle = nullptr;
  if (const CUresult result = driver_.cuEventCreate(&handle, kept); result != CUDA_SUCCESS) return result;
  if (slot >= events_.size()) events_.resize(slot + 1);
  events_[slot] = Event{handle, context, kept, true, false, false, 0, std::move(shared)};
  return CUDA_SUCCESS;
}

CUresult Events::adopt(uint32_t slot, uint32_t context, std::shared_ptr<SharedEvent> shared) {
  return create(slot, context, CU_EVENT_DISABLE_TIMING, std::move(shared));
}

CUresult Events::destroy(uint32_t slot) {
  Event* event = find(slot);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  contexts_.use(event->context);
  event->live = false;
  event->shared = nullptr;
  // Nobody waits for what is gone.
  if (const auto found = watches_.find(slot); found != watches_.end()) {
    for (Watch& watch : found->second) watch.event = nullptr;
  }
  return driver_.cuEventDestroy_v2(event->handle);
}

void Events::forget_context(uint32_t context) {
  for (uint32_t slot = 0; slot < events_.size(); ++slot) {
    if (events_[slot].live && events_[slot].context == context) destroy(slot);
  }
}

Events::Event* Events::find(uint32_t slot) {
  return slot < events_.size() && events_[slot].live ? &events_[slot] : nullptr;
}

void Events::watch(uint32_t slot, uint64_t record, uint64_t sequence) {
  watches_[slot].push_back({events_[slot].shared, record, sequence});
}

bool Events::poll(Streams& streams) {
  bool any = false;
  for (auto it = watches_.begin(); it != watches_.end();) {
    auto& [slot, queue] = *it;
    while (!queue.empty() && (queue.front().event == nullptr || queue.front().event->done(queue.front().record))) {
      streams.tell_event(slot, queue.front().sequence);
      queue.pop_front();
      any = true;
    }
    it = queue.empty() ? watches_.erase(it) : std::next(it);
  }
  return any;
}

CUresult Events::elapsed(uint32_t start, uint32_t end, float* ms) {
  const Event* a = find(start);
  const Event* b = find(end);
  if (a == nullptr || b == nullptr || !a->recorded || !b->recorded) return CUDA_ERROR_INVALID_HANDLE;
  if ((a->flags | b->flags) & CU_EVENT_DISABLE_TIMING) return CUDA_ERROR_INVALID_HANDLE;
  if (a->native && b->native) {
    contexts_.use(b->context);
    return between(a->handle, b->handle, ms);
  }
  *ms = float(time_ms(*b) - time_ms(*a));
  return CUDA_SUCCESS;
}

CUresult Events::between(CUevent start, CUevent end, float* ms) const {
  // The second form came with 12.8.
  if (driver_.cuEventElapsedTime_v2 != nullptr) return driver_.cuEventElapsedTime_v2(ms, start, end);
  return driver_.cuEventElapsedTime(ms, start, end);
}

double Events::time_ms(const Event& event) const {
  if (!event.native) return event.virtual_ms;
  const Context* context = contexts_.find(event.context);
  float since = 0;
  if (context == nullptr || context->base == nullptr) return contexts_.time_ms();
  contexts_.use(event.context);
  const CUresult result = between(context->base, event.handle, &since);
  return result == CUDA_SUCCESS ? context->base_ms + double(since) : contexts_.time_ms();
}

}  // namespace tide
