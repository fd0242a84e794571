#include "interpose/nvml/job.h"

#include <cuda.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "base/clock.h"
#include "base/log.h"
#include "interpose/distinct.h"

namespace tide::nvml {
namespace {

constexpr uint32_t kPatienceMs = 5'000;
constexpr uint64_t kFreshNs = 100'000'000;
constexpr uint64_t kRetryNs = 2'000'000'000;  // after a failure: who polls a dead pool is not held up each time

// Everything behind `mu` but the vGPUs, which do not change while somebody has joined.
struct State {
  std::mutex mu;
  uint32_t references = 0;
  Pool* pool = nullptr;  // never freed
  JobIdentity* identity = nullptr;
  PoolUsage* usage = nullptr;
  bool usage_good = false;
  uint64_t asked_ns = 0;  // 0: never
  bool said_why = false;
};

constinit State state;
constinit bool forks_watched = false;
constinit std::atomic<uint32_t> joined_count{0};
constinit uint32_t count = 0;
constinit int version = CUDA_VERSION;
alignas(Vgpu) constinit unsigned char storage[kVgpusMax][sizeof(Vgpu)] = {};

Vgpu* vgpus() { return reinterpret_cast<Vgpu*>(&storage[0][0]); }

// Nothing that another thread of the parent may have held is used again; the descriptor alone is closed.
void after_fork_in_child() {
  new (&state.mu) std::mutex;
  if (state.pool == nullptr) return;
  state.pool->abandon();
  state.pool = nullptr;
  state.usage = nullptr;
  state.asked_ns = 0;
}

void say_why(const std::string& message) {
  if (!state.said_why) log(LogLevel::kWarning, "NVML: %s", message.c_str());
  state.said_why = true;
}

void open_line() {
  if (state.pool != nullptr) return;
  state.pool = new Pool;
  state.pool->set_patience(kPatienceMs);
  state.usage = new PoolUsage;
}

void take_places(std::vector<VgpuPlace>& places) {
  make_distinct(&places);
  count = uint32_t(std::min<size_t>(places.size(), kVgpusMax));
  version = CUDA_VERSION;
  for (uint32_t i = 0; i < count; ++i) {
    const VgpuPlace& place = places[i];
    version = std::min(version, int(place.info.driver_version));
    Vgpu vgpu;
    vgpu.info = place.info;
    vgpu.memory_bytes = place.memory_bytes != 0 ? place.memory_bytes : place.info.total_memory;
    memcpy(&vgpus()[i], &vgpu, sizeof vgpu);
  }
}

// A line that was made after a fork has not greeted yet.
Outcome measure_now() {
  if (state.pool != nullptr) return state.pool->measure(state.usage);
  open_line();
  std::vector<VgpuPlace> places;
  if (Outcome o = state.pool->say_hello(*state.identity, &places); !o.ok()) return o;
  return state.pool->measure(state.usage);
}

}  // namespace

nvmlReturn_t join() {
  if (getenv("TIDE_JOB") == nullptr) return NVML_ERROR_DRIVER_NOT_LOADED;  // as on a machine without a GPU: no word
  const std::lock_guard lock(state.mu);
  if (state.references == 0) {
    JobIdentity identity;
    std::vector<VgpuPlace> places;
    open_line();
    Outcome outcome = job_from_environment(&identity);
    if (outcome.ok()) outcome = state.pool->say_hello(identity, &places);
    if (!outcome.ok()) {
      say_why(outcome.message());
      return NVML_ERROR_DRIVER_NOT_LOADED;
    }
    if (state.identity == nullptr) state.identity = new JobIdentity;
    *state.identity = identity;
    take_places(places);
    state.asked_ns = 0;
    if (!forks_watched) pthread_atfork(nullptr, nullptr, after_fork_in_child);
    forks_watched = true;
  }
  joined_count.store(++state.references, std::memory_order_release);
  return NVML_SUCCESS;
}

nvmlReturn_t leave() {
  const std::lock_guard lock(state.mu);
  if (state.references == 0) return NVML_ERROR_UNINITIALIZED;
  joined_count.store(--state.references, std::memory_order_release);
  if (state.references == 0 && state.pool != nullptr) state.pool->abandon();
  return NVML_SUCCESS;
}

bool joined() { return joined_count.load(std::memory_order_acquire) != 0; }

uint32_t vgpu_count() { return count; }

nvmlDevice_t handle_of(uint32_t index) { return reinterpret_cast<nvmlDevice_t>(&vgpus()[index]); }

const Vgpu* find_vgpu(nvmlDevice_t device) {
  for (uint32_t i = 0; i < count; ++i) {
    if (handle_of(i) == device) return &vgpus()[i];
  }
  return nullptr;
}

uint32_t index_of(const Vgpu* vgpu) { return uint32_t(vgpu - vgpus()); }

int cuda_version() { return version; }

nvmlReturn_t measure(const Vgpu* vgpu, Usage* usage) {
  const std::lock_guard lock(state.mu);
  const uint64_t age = now_ns() - state.asked_ns;
  if (state.asked_ns == 0 || age > (state.usage_good ? kFreshNs : kRetryNs)) {
    const Outcome outcome = measure_now();
    state.usage_good = outcome.ok();
    state.asked_ns = now_ns();
    if (!outcome.ok()) say_why(outcome.message());
  }
  const uint32_t index = index_of(vgpu);
  if (!state.usage_good || index >= state.usage->vgpus.size()) return NVML_ERROR_GPU_IS_LOST;
  usage->total = state.usage->vgpus[index];
  if (usage->total.known == 0) return NVML_ERROR_GPU_IS_LOST;
  for (const DoorClientUsage& client : state.usage->clients) {
    if (client.vgpu == index) usage->clients.push_back(client);
  }
  return NVML_SUCCESS;
}

}  // namespace tide::nvml
