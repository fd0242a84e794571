#include "interpose/crossing.h"

#include "api/payload.h"
#include "commands.h"

namespace tide {

namespace {

// Not found by its handle yet.
CUresult begin_event(Process& p, Context& context, uint32_t flags, Event** event) {
  uint32_t slot = 0;
  if (CUresult r = context.vgpu->take_event_slot(&slot); r != CUDA_SUCCESS) return r;
  Event* made = p.events.create();
  if (made == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  made->context = &context;
  made->vgpu = context.vgpu;
  made->slot = slot;
  made->flags = flags;
  made->recorded.store(0);
  made->name.store(0);
  *event = made;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult make_event(Process& p, Context& context, uint32_t flags, Event** event) {
  Event* made = nullptr;
  if (CUresult r = begin_event(p, context, flags, &made); r != CUDA_SUCCESS) return r;
  const CUresult r = send_command(context, Call::tideCreateEvent, command::CreateEvent{made->slot, flags});
  p.events.publish(made);
  *event = made;
  return r;
}

CUresult share_event(Event& event) {
  Process& p = *process();
  const std::lock_guard lock(p.sharing_mu);
  if (event.name.load() != 0) return CUDA_SUCCESS;
  const uint64_t name = p.next_id++;
  Reply reply;
  const command::ShareEvent command{name, event.slot, 0};
  const CUresult r = ask_command(*event.context, Call::tideShareEvent, command, &reply);
  if (r == CUDA_SUCCESS) event.name.store(name);
  return r;
}

CUresult open_event(Process& p, Context& context, const SharedHandle& handle, Event** event) {
  Event* made = nullptr;
  const uint32_t flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
  if (CUresult r = begin_event(p, context, flags, &made); r != CUDA_SUCCESS) return r;
  Reply reply;
  const command::OpenEvent command{made->slot, 0, handle.owner_low, handle.owner_high, handle.name};
  const CUresult r = ask_command(context, Call::tideOpenEvent, command, &reply);
  p.events.publish(made);
  if (r == CUDA_SUCCESS) {
    *event = made;
  } else if (p.events.destroy(made)) {
    context.vgpu->events.give(made->slot, 0);
  }
  return r;
}

CUresult watch(Event& event, bool* pending, bool* recorded_here) {
  Reply reply;
  uint64_t sequence = 0;
  const command::WatchEvent command{event.slot, 0};
  if (CUresult r = ask_command(*event.context, Call::tideWatchEvent, command, &reply, kNoStream, &sequence);
      r != CUDA_SUCCESS) {
    return r;
  }
  WatchAnswer answer;
  if (reply.payload.size() < sizeof answer) return CUDA_ERROR_UNKNOWN;
  __builtin_memcpy(&answer, reply.payload.data(), sizeof answer);
  *pending = answer.pending != 0;
  if (recorded_here != nullptr) *recorded_here = answer.recorded != 0;
  uint64_t last = event.recorded.load();
  while (*pending && last < sequence && !event.recorded.compare_exchange_weak(last, sequence)) {
  }
  return CUDA_SUCCESS;
}

CUresult record(Event& event, Stream& stream, uint32_t flags) {
  uint64_t sequence = 0;
  const command::RecordEvent command{event.slot, flags};
  if (between_processes(event)) {
    Reply reply;  // only what the worker has executed is there for other processes
    return ask_command(*stream.context, Call::tideRecordEvent, command, &reply, stream.slot);
  }
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
  bool by_driver = event.vgpu == stream.vgpu;
  if (between_processes(event)) {
    bool pending = false, here = false;
    if (CUresult r = watch(event, &pending, &here); r != CUDA_SUCCESS || !pending) return r;
    by_driver = by_driver && here;  // another process's record is waited for like another vGPU's
  }
  const uint64_t recorded = event.recorded.load(std::memory_order_acquire);
  if (recorded == 0 || event.vgpu->channel().event_done(event.slot, recorded)) return CUDA_SUCCESS;
  if (by_driver) {
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
