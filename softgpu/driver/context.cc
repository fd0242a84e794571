#include "softgpu/driver/context.h"

#include <algorithm>

#include "api/graph/capture.h"
#include "api/handshake/handshake.h"
#include "base/log.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/simulation.h"
#include "softgpu/driver/stream_order.h"

namespace softgpu {
namespace {

uint64_t next_context_id() {
  static std::atomic<uint64_t> next{1};
  return next++;
}

}  // namespace

Context::Context(Device& on, CUcontext its_handle, bool is_primary)
    : device(on), handle(its_handle), id(next_context_id()), primary(is_primary) {}

void Context::fail(CUresult error) {
  int none = CUDA_SUCCESS;
  if (error_.compare_exchange_strong(none, error)) {
    const char* name = tide::handshake::error_name(error);
    tide::log(tide::LogLevel::kDebug, "context %llu is unusable from now on: %s", static_cast<unsigned long long>(id),
              name == nullptr ? "?" : name);
  }
}

// Whether what is put on the stream now would wait for nothing.
bool Context::idle_for(const std::shared_ptr<Stream>& stream) {
  if (!stream->idle()) return false;
  if (stream != legacy_) return legacy_ == nullptr || !stream->blocking() || legacy_->idle();
  return std::all_of(streams_.begin(), streams_.end(), [](auto& s) { return !s->blocking() || s->idle(); });
}

// Work that is late, drawn, timed or made to fail takes the usual way.
bool Context::run_at_once(const std::shared_ptr<Stream>& stream, const Task& task) {
  if (!task.brief || stream_order() != StreamOrder::kEager || !simulation().is_plain() || !idle_for(stream))
    return false;
  const StreamScope scope(*stream);
  const CUresult result = error() != CUDA_SUCCESS && !task.always ? CUDA_SUCCESS : task.run();
  if (result != CUDA_SUCCESS) fail(result);
  return true;
}

bool Context::submit_if_idle(const std::shared_ptr<Stream>& stream, const Task& task) {
  const std::lock_guard lock(order_mu_);
  return run_at_once(stream, task);
}

Ticket Context::submit(const std::shared_ptr<Stream>& stream, Task task) {
  const std::lock_guard lock(order_mu_);
  if (run_at_once(stream, task)) return {};
  if (stream == legacy_) {
    for (const auto& other : streams_) {
      if (other->blocking() && !other->idle()) task.after.push_back(other->last());
    }
  } else if (stream->blocking() && legacy_ != nullptr && !legacy_->idle()) {
    task.after.push_back(legacy_->last());
  }
  return stream->submit(std::move(task));
}

void Context::submit_and_wait(const std::shared_ptr<Stream>& stream, std::function<CUresult()> run) {
  {
    const std::lock_guard lock(order_mu_);
    if (idle_for(stream)) {
      const StreamScope scope(*stream);
      const CUresult result = run();
      if (result != CUDA_SUCCESS) fail(result);
      return;
    }
  }
  submit(stream, {std::move(run), {}, false}).wait();
}

std::shared_ptr<Stream> Context::legacy_stream() {
  const std::lock_guard lock(order_mu_);
  if (legacy_ == nullptr) legacy_ = std::make_shared<Stream>(*this, CU_STREAM_LEGACY, CU_STREAM_DEFAULT, 0);
  return legacy_;
}

std::shared_ptr<Stream> Context::create_stream(unsigned stream_flags, int priority) {
  auto& table = driver().streams;
  const CUstream stream_handle = table.next();
  auto stream = std::make_shared<Stream>(*this, stream_handle, stream_flags, priority);
  {
    const std::lock_guard lock(order_mu_);
    streams_.push_back(stream);
  }
  table.add(stream_handle, stream);
  return stream;
}

void Context::forget_stream(const std::shared_ptr<Stream>& stream) {
  tide::graph::forget_stream(stream.get());
  driver().streams.remove(stream->handle());
  // The legacy stream still has to wait for what is pending on it.
  submit(stream, {[this, weak = std::weak_ptr<Stream>(stream)] {
                    const std::lock_guard lock(order_mu_);
                    std::erase(streams_, weak.lock());
                    return CUDA_SUCCESS;
                  },
                  {},
                  true});
  stream->close();
}

std::vector<std::shared_ptr<Stream>> Context::all_streams() {
  const std::lock_guard lock(order_mu_);
  auto all = streams_;
  if (legacy_ != nullptr) all.push_back(legacy_);
  return all;
}

std::vector<Ticket> Context::all_pending() {
  std::vector<Ticket> tickets;
  for (const auto& stream : all_streams()) {
    Ticket ticket = stream->last();
    if (ticket.stream != nullptr) tickets.push_back(std::move(ticket));
  }
  return tickets;
}

void Context::synchronize() {
  for (const Ticket& ticket : all_pending()) ticket.wait();
}

void Context::start() {
  error_ = CUDA_SUCCESS;
  {
    const std::lock_guard lock(settings_mu_);
    limits_.clear();
  }
  cancel = false;
  alive = true;
  if (simulation().lost(device.index)) fail(CUDA_ERROR_DEVICE_UNAVAILABLE);
}

void Context::stop() {
  alive = false;
  fail(CUDA_ERROR_CONTEXT_IS_DESTROYED);  // what waits in queues is skipped
  cancel = true;
  synchronize();
  tide::handshake::destroy_context_storage(handle);
  for (const auto& stream : all_streams()) {
    tide::graph::forget_stream(stream.get());
    driver().streams.remove(stream->handle());
    stream->close();
  }
  {
    const std::lock_guard lock(order_mu_);
    streams_.clear();
    legacy_ = nullptr;
  }
  driver().events.remove_if([this](const Event& event) { return &event.context == this; });
  driver().forget_modules_of(*this);
  driver().textures.forget(*this);
  driver().surfaces.forget(*this);
  driver().mipmaps.remove_if([this](const MipmappedArray& mipmap) { return mipmap.context == this; });
  driver().arrays.remove_if([this](const Array& array) { return array.context == this; });
  driver().memory.free_all_of(*this);
  heap.forget();
  parameters.forget();
  std::unordered_map<uint64_t, int> peers;
  {
    const std::lock_guard lock(settings_mu_);
    peers.swap(peers_);
  }
  for (const auto& [id, owner] : peers) driver().memory.views().set_peer(device.index, owner, false);
}

size_t Context::limit(CUlimit which) {
  const std::lock_guard lock(settings_mu_);
  const auto found = limits_.find(which);
  if (found != limits_.end()) return found->second;
  switch (which) {
    case CU_LIMIT_STACK_SIZE:
      return 1024;
    case CU_LIMIT_PRINTF_FIFO_SIZE:
      return 1 << 20;
    case CU_LIMIT_MALLOC_HEAP_SIZE:
      return 8 << 20;
    case CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH:
      return 2;
    case CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT:
      return 2048;
    case CU_LIMIT_MAX_L2_FETCH_GRANULARITY:
      return 64;
    default:
      return 0;  // among them the three of graphics contexts, which cuBLAS asks for before each call: this is none
  }
}

CUresult Context::set_limit(CUlimit which, size_t value) {
  constexpr size_t kStackMax = 512 << 10;  // of local memory, a thread
  if (which == CU_LIMIT_STACK_SIZE && value > kStackMax) return CUDA_ERROR_INVALID_VALUE;
  if (which == CU_LIMIT_MALLOC_HEAP_SIZE && heap.in_use()) return CUDA_ERROR_INVALID_VALUE;
  if (which > CU_LIMIT_PERSISTING_L2_CACHE_SIZE) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  const std::lock_guard lock(settings_mu_);
  limits_[which] = value;
  return CUDA_SUCCESS;
}

CUresult Context::set_peer(const Context& other, bool enabled) {
  {
    const std::lock_guard lock(settings_mu_);
    if (enabled) {
      if (!peers_.emplace(other.id, other.device.index).second) return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    } else if (peers_.erase(other.id) == 0) {
      return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    }
  }
  driver().memory.views().set_peer(device.index, other.device.index, enabled);
  return CUDA_SUCCESS;
}

}  // namespace softgpu
