#include "softgpu/driver/thread.h"

#include <pthread.h>

#include "softgpu/driver/context.h"

namespace softgpu {
namespace {

thread_local ThreadState* t_state = nullptr;

void end_thread(void* pointer) {
  auto* state = static_cast<ThreadState*>(pointer);
  t_state = nullptr;
  for (auto& [id, stream] : state->default_streams) {
    if (stream->context().alive) stream->context().forget_stream(stream);
  }
  delete state;
}

pthread_key_t thread_key() {
  static const pthread_key_t key = [] {
    pthread_key_t made = 0;
    pthread_key_create(&made, end_thread);
    return made;
  }();
  return key;
}

}  // namespace

ThreadState& this_thread() {
  if (t_state == nullptr) {
    t_state = new ThreadState;
    pthread_setspecific(thread_key(), t_state);
  }
  return *t_state;
}

}  // namespace softgpu
