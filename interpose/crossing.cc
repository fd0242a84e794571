#include "interpose/crossing.h"

#include "commands.h"

namespace tide {

CUresult make_event(Process& p, Context& context, uint32_t flags, Event** event) {
  uint32_t slot = 0;
  if (CUresult r = context.vgpu->take_event_slot(&slot); r != CUDA_SUCCESS) return r;
  Event* made = p.events.create();
  if (made == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  made->context = &context;
  made->vgpu = context.vgpu;
  made->slot = slot;
  made->flags = flags;
  made->recorded.store(0);
  const CUresult r = send_command(context, Call::tideCreateEvent, command::CreateEvent{slot, flags});
  p.events.publish(made);
  *event = made;
  return r;
}

CUresult record(Event& event, Stream& stream, uint32_t flags) {
  uint64_t sequence = 0;
  const command::RecordEvent command{event.slot, flags};
  const CUresult r = send_command(*stream.context, Call::tideRecordEvent, command, stream.slot, &sequence);
  if (r == CUDA_SUCCESS) event.recorded.store(sequence, std::memory_order_release);
  return r;
}

CUresult mark(Stream& stream, Point* point) {
  Process& p = *process();
  Context& context = *stream.context;
  Event* marker = p.events.find(context.marker.load());
  if (marker == nullptr) {
    if (CUresult r = make_event(p, context, CU_EVENT_DISABLE_TIMING, &marker); r != CUDA_SUCCESS) return r;
    context.marker.store(marker->handle);
  }
  *point = {.vgpu = stream.vgpu, .slot = stream.slot};
  return send_command(context, Call::tideRecordEvent, command::RecordEvent{marker->slot, 0}, stream.slot,
                      &point->sequence);
}

CUresult hold(Stream& stream, SignalPoint* signal) {
  signal->vgpu = stream.vgpu;
  if (CUresult r = stream.vgpu->take_signal(&signal->slot, &signal->value); r != CUDA_SUCCESS) return r;
  const command::WaitSignal command{signal->slot, 0, signal->value};
  const CUresult r = send_command(*stream.context, Call::tideWaitSignal, command, stream.slot);
  if (r == CUDA_SUCCESS) {
    stream.vgpu->holds.fetch_add(1);
  } else {
    stream.vgpu->signals.give(signal->slot, 0);
  }
  return r;
}

CUresult copy_stream(Process& p, Vgpu& vgpu, Stream** stream) {
  if (CUresult r = activate(*vgpu.primary); r != CUDA_SUCCESS) return r;
  const std::lock_guard lock(p.implicit_mu);
  *stream = p.streams.find(vgpu.copy_stream.load());
  if (*stream != nullptr) return CUDA_SUCCESS;
  const CUresult r = make_stream(p, *vgpu.primary, CU_STREAM_NON_BLOCKING, 0, true, stream);
  if (r == CUDA_SUCCESS) vgpu.copy_stream.store((*stream)->handle);
  return r;
}

CUresult wait_for(Process& p, Stream& stream, Event& event) {
  const uint64_t recorded = event.recorded.load(std::memory_order_acquire);
  if (recorded == 0 || event.vgpu->channel().event_done(event.slot, recorded)) return CUDA_SUCCESS;
  if (event.vgpu == stream.vgpu) {
    return send_command(*stream.context, Call::tideWaitEvent, command::WaitEvent{event.slot, 0}, stream.slot);
  }
  auto task = std::make_unique<Task>();
  task->after.push_back({.vgpu = event.vgpu, .event = true, .slot = event.slot, .sequence = recorded});
  task->signals.resize(1);
  if (CUresult r = hold(stream, &task->signals[0]); r != CUDA_SUCCESS) return r;
  p.service.add(std::move(task));
  return CUDA_SUCCESS;
}

}  // namespace tide
