// The life of contexts and streams behind the entry points.

#include <pthread.h>

#include <cstdlib>

#include "api/graph/capture.h"
#include "api/handshake/handshake.h"
#include "base/log.h"
#include "commands.h"
#include "interpose/process.h"
#include "interpose/thread.h"

namespace tide {
namespace {

constexpr uintptr_t kLegacyHandle = 1, kPerThreadHandle = 2;

// The per-thread streams of one thread, by context. Reached by plain pointer from ThreadState; freed by a pthread key,
// because a thread_local with a destructor would outlive the library's welcome.
struct OwnStreams {
  struct Item {
    uint64_t context = 0, stream = 0;  // handles
  };
  std::vector<Item> items;
};

constinit std::atomic<int> own_key_state{0};  // 0: not made, 1: made
pthread_key_t own_key;

void drop_own_streams(void* pointer) {
  auto* own = static_cast<OwnStreams*>(pointer);
  if (Process* p = process(); p != nullptr) {
    for (const auto& item : own->items) {
      if (Stream* stream = p->streams.find(item.stream); stream != nullptr) drop_stream(*p, *stream);
    }
  }
  delete own;
}

CUresult own_stream(Process& p, Context& context, Stream** stream) {
  auto* own = static_cast<OwnStreams*>(thread_state.own_streams);
  if (own != nullptr) {
    for (auto& item : own->items) {
      if (item.context != context.handle) continue;
      if (Stream* found = p.streams.find(item.stream); found != nullptr) {
        *stream = found;
        return CUDA_SUCCESS;
      }
      item.context = 0;  // ended with a reset of the context
    }
  }
  if (CUresult r = make_stream(p, context, CU_STREAM_DEFAULT, 0, true, stream); r != CUDA_SUCCESS) return r;
  if (own == nullptr) {
    own = new OwnStreams;
    thread_state.own_streams = own;
    const std::lock_guard lock(p.implicit_mu);
    if (own_key_state.load() == 0 && pthread_key_create(&own_key, drop_own_streams) == 0) own_key_state.store(1);
    if (own_key_state.load() == 1) pthread_setspecific(own_key, own);
  }
  own->items.push_back({context.handle, (*stream)->handle});
  return CUDA_SUCCESS;
}

}  // namespace

CUresult activate(Context& context) {
  Vgpu& vgpu = *context.vgpu;
  const std::lock_guard lock(vgpu.mu);
  if (context.number.load() != 0) return CUDA_SUCCESS;
  if (CUresult r = vgpu.open(); r != CUDA_SUCCESS) return r;
  Stream* legacy = nullptr;
  if (CUresult r = legacy_stream(*process(), context, &legacy); r != CUDA_SUCCESS) return r;
  const uint32_t number = vgpu.next_context++;
  const command::CreateContext command{number, legacy->slot, context.flags.load(), context.primary};
  const CUresult r =
      vgpu.channel().send({.call = Call::tideCreateContext, .payload_bytes = sizeof command},
                          [&](std::byte* payload) { __builtin_memcpy(payload, &command, sizeof command); });
  if (r == CUDA_SUCCESS) context.number.store(number, std::memory_order_release);
  return r;
}

namespace {

// The error of a kernel goes with the last context, as on a GPU.
void renew_after_error(Process& p, Vgpu& vgpu) {
  if (vgpu.channel().sticky() == CUDA_SUCCESS || vgpu.channel().failed()) return;
  const std::lock_guard lock(vgpu.mu);
  bool last = true;
  p.contexts.each([&](const Context* c) { last &= c->vgpu != &vgpu || c->number.load() == 0; });
  if (last) vgpu.renew();
}

}  // namespace

void destroy_context(Process& p, Context& context) {
  handshake::destroy_context_storage(reinterpret_cast<CUcontext>(context.handle));
  Vgpu& vgpu = *context.vgpu;
  const uint32_t number = context.number.load();
  if (number == 0) return;
  vgpu.sync_all();  // as in unload(): the worker waits until it is idle
  p.streams.each([&](Stream* s) {
    if (s->context == &context) drop_stream(p, *s);
  });
  p.events.each([&](Event* e) {
    if (e->context == &context) drop_event(p, *e);
  });
  p.modules.each([&](Library* m) {
    if (m->context != &context) return;
    if (const auto ending = p.modules.end(m)) unload(p, *m);
  });
  forget_arrays(p, context);
  context.number.store(0);
  context.legacy.store(nullptr);
  p.host.release_context(context.handle);
  vgpu.memory->release_context(number);
  vgpu.cache.clear();
  const command::DestroyContext command{number, 0};
  vgpu.channel().send({.call = Call::tideDestroyContext, .payload_bytes = sizeof command},
                      [&](std::byte* payload) { __builtin_memcpy(payload, &command, sizeof command); });
  renew_after_error(p, vgpu);
}

CUresult legacy_stream(Process& p, Context& context, Stream** stream) {
  *stream = context.legacy.load(std::memory_order_acquire);
  if (*stream != nullptr) return CUDA_SUCCESS;
  const std::lock_guard lock(p.implicit_mu);
  if ((*stream = context.legacy.load()) != nullptr) return CUDA_SUCCESS;
  uint32_t slot = 0;
  if (CUresult r = context.vgpu->take_stream_slot(&slot); r != CUDA_SUCCESS) return r;
  Stream* made = p.streams.create();
  if (made == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  made->context = &context;
  made->vgpu = context.vgpu;
  made->slot = slot;
  made->flags = CU_STREAM_DEFAULT;
  made->priority = 0;
  made->id = p.next_id++;
  made->implicit = true;
  p.streams.publish(made);
  context.legacy.store(made, std::memory_order_release);
  *stream = made;
  return CUDA_SUCCESS;
}

CUresult make_stream(Process& p, Context& context, uint32_t flags, int priority, bool implicit, Stream** stream) {
  uint32_t slot = 0;
  if (CUresult r = context.vgpu->take_stream_slot(&slot); r != CUDA_SUCCESS) return r;
  Stream* made = p.streams.create();
  if (made == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  made->context = &context;
  made->vgpu = context.vgpu;
  made->slot = slot;
  made->flags = flags;
  made->priority = priority;
  made->id = p.next_id++;
  made->implicit = implicit;
  const command::CreateStream command{slot, flags, priority, 0};
  const CUresult r = send_command(context, Call::tideCreateStream, command);
  p.streams.publish(made);
  *stream = made;
  return r;
}

void drop_stream(Process& p, Stream& stream) {
  const auto ending = p.streams.end(&stream);
  if (!ending) return;
  graph::forget_stream(&stream);
  Vgpu& vgpu = *stream.vgpu;
  if (&stream != stream.context->legacy.load()) {
    send_command(*stream.context, Call::tideDestroyStream, command::DestroyStream{stream.slot, 0});
  }
  vgpu.streams.give(stream.slot, vgpu.channel().last_work(stream.slot));
}

void drop_event(Process& p, Event& event) {
  const auto ending = p.events.end(&event);
  if (!ending) return;
  graph::forget_event(reinterpret_cast<CUevent>(event.handle));
  if (const uint64_t name = event.name.load(); name != 0) {
    send_command(*event.context, Call::tideUnshare, command::Unshare{name});
  }
  send_command(*event.context, Call::tideDestroyEvent, command::DestroyEvent{event.slot, 0});
  event.vgpu->events.give(event.slot, event.recorded.load());
}

CUresult find_stream(const Entered& e, CUstream handle, Stream** stream) {
  const auto value = reinterpret_cast<uintptr_t>(handle);
  if (value > kPerThreadHandle) {
    *stream = e.process->streams.find(value);
    return *stream != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  }
  const bool own = value == kPerThreadHandle || (value == 0 && thread_state.per_thread_default > 0);
  if (own) return own_stream(*e.process, *e.context, stream);
  return legacy_stream(*e.process, *e.context, stream);
}

}  // namespace tide
