#include "softgpu/driver/driver.h"

#include <pthread.h>

#include <cstdlib>

#include "api/composed/composed.h"
#include "api/handshake/handshake.h"
#include "base/log.h"
#include "softgpu/driver/graph_host.h"
#include "softgpu/driver/simulation.h"

namespace softgpu {
namespace {

enum class State { kNew, kReady, kFailed, kEnded };

std::atomic<State> g_state{State::kNew};
std::atomic<CUresult> g_failure{CUDA_ERROR_NO_DEVICE};
std::atomic<bool> g_forked{false};
std::mutex g_initialize_mu;

void in_forked_child() {
  tide::composed::renew_logs();
  if (g_state == State::kReady) g_forked = true;  // the threads and the memory of the GPU stayed with the parent
}

CUresult hook_primary_context(CUcontext* context, CUdevice device) {
  Device* found = find_device(device);
  if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (found == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *context = found->primary()->handle;
  return CUDA_SUCCESS;
}

CUresult hook_current_context(CUcontext* context) {
  const auto current = current_or_null();
  *context = current == nullptr ? nullptr : current->handle;
  return CUDA_SUCCESS;
}

CUresult hook_context_id(CUcontext context, unsigned long long* id) {
  const auto found = context == nullptr ? current_or_null() : driver().contexts.find(context);
  if (found == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *id = found->id;
  return CUDA_SUCCESS;
}

CUresult hook_stream_id(CUcontext context, CUstream stream, unsigned long long* id) {
  auto in = context == nullptr ? current_or_null() : driver().contexts.find(context);
  if (in == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  const auto found = find_stream(*in, stream);
  if (found == nullptr || id == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *id = found->id();
  return CUDA_SUCCESS;
}

void hook_device_identity(int device, uint8_t uuid[16], int32_t pci[3]) {
  const Device* found = find_device(device);
  if (found == nullptr) return;
  const DeviceIdentity& identity = found->identity;
  std::copy(std::begin(identity.uuid), std::end(identity.uuid), uuid);
  pci[0] = identity.pci_domain;
  pci[1] = identity.pci_bus;
  pci[2] = identity.pci_device;
}

unsigned threads_from_environment() {
  if (simulation().seed() != 0) return 1;  // one order needs one thread
  const char* text = std::getenv("SOFTGPU_THREADS");
  if (text == nullptr) return 0;
  char* end = nullptr;
  const unsigned long threads = std::strtoul(text, &end, 10);
  if (end == text || *end != 0 || threads > 1024) {
    tide::log(tide::LogLevel::kWarning, "SOFTGPU_THREADS=%s is not a number up to 1024: using one thread a core", text);
    return 0;
  }
  return static_cast<unsigned>(threads);
}

}  // namespace

Driver& driver() {
  static Driver* const the = new Driver;
  return *the;
}

BlockPool& Driver::pool() {
  std::call_once(pool_made_, [this] { pool_ = std::make_unique<BlockPool>(threads_from_environment()); });
  return *pool_;
}

void Driver::forget_modules_of(Context& context) {
  modules.remove_if([&](const Module& module) { return module.context == &context; });
  functions.remove_if([&](const Function& function) { return function.module->context == &context; });
  libraries.for_each([&](Library& library) {
    const std::lock_guard lock(library.mu);
    library.modules.erase(&context);
  });
}

CUresult note_result(const char* entry, CUresult result) noexcept {
  const char* name = tide::handshake::error_name(result);
  tide::log(tide::LogLevel::kDebug, "%s: %s", entry, name == nullptr ? "an unknown error" : name);
  return result;
}

CUresult initialize() {
  if (g_forked) return CUDA_ERROR_NOT_INITIALIZED;
  const std::lock_guard lock(g_initialize_mu);
  if (g_state == State::kReady) return CUDA_SUCCESS;
  if (g_state == State::kEnded) return CUDA_ERROR_DEINITIALIZED;
  if (g_state == State::kFailed) return g_failure;
  tide::handshake::set_hooks({hook_primary_context, hook_current_context, hook_context_id, hook_stream_id,
                              [] { return kDriverVersion; }, [] { return static_cast<int>(driver().devices.size()); },
                              cuModuleLoadFatBinary, cuModuleGetFunctionCount, cuModuleEnumerateFunctions,
                              hook_device_identity});
  if (!simulation().configure() || !devices_from_environment(&driver().devices)) g_failure = CUDA_ERROR_INVALID_VALUE;
  if (driver().devices.empty()) {
    g_state = State::kFailed;
    return g_failure;
  }
  set_graph_host();
  pthread_atfork(nullptr, nullptr, in_forked_child);
  // What was made before the first call is torn down after this, and finds that the driver has gone.
  std::atexit([] { g_state = State::kEnded; });
  g_state = State::kReady;
  simulation().start();
  return CUDA_SUCCESS;
}

CUresult ready() {
  if (g_state == State::kEnded) return CUDA_ERROR_DEINITIALIZED;
  if (g_forked || g_state != State::kReady) {
    return g_state == State::kFailed ? g_failure.load() : CUDA_ERROR_NOT_INITIALIZED;
  }
  return this_thread().in_callback ? CUDA_ERROR_NOT_PERMITTED : CUDA_SUCCESS;
}

std::shared_ptr<Context> current_or_null() {
  const auto& stack = this_thread().stack;
  return stack.empty() ? nullptr : stack.back();
}

std::shared_ptr<Context> current_context(CUresult* why) {
  auto context = current_or_null();
  *why = CUDA_ERROR_INVALID_CONTEXT;
  if (context == nullptr) return nullptr;
  *why = CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (!context->alive) return nullptr;
  *why = context->error();
  return *why == CUDA_SUCCESS ? context : nullptr;
}

Device* find_device(CUdevice device) {
  const auto& devices = driver().devices;
  if (device < 0 || static_cast<size_t>(device) >= devices.size()) return nullptr;
  return devices[static_cast<size_t>(device)].get();
}

CUresult check_capture(Stream& stream) {
  return tide::graph::capturing_anywhere() ? tide::graph::check_use(id_of(stream)) : CUDA_SUCCESS;
}

void synchronize_all() {
  std::vector<Context*> alive;  // contexts are never destroyed
  driver().contexts.for_each([&](Context& context) {
    if (context.alive) alive.push_back(&context);
  });
  for (Context* context : alive) context->synchronize();
}

std::shared_ptr<Stream> default_stream(Context& context) { return find_stream(context, nullptr); }

std::shared_ptr<Stream> find_stream(Context& context, CUstream handle) {
  ThreadState& thread = this_thread();
  if (handle == nullptr) handle = thread.per_thread_default > 0 ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
  if (handle == CU_STREAM_LEGACY) return context.legacy_stream();
  if (handle != CU_STREAM_PER_THREAD) return driver().streams.find(handle);
  auto& stream = thread.default_streams[context.id];
  // A context that was reset has let go of its streams.
  if (stream == nullptr || driver().streams.find(stream->handle()) == nullptr) {
    stream = context.create_stream(CU_STREAM_DEFAULT, 0);
  }
  return stream;
}

}  // namespace softgpu
