#include "interpose/process.h"

#include <pthread.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "api/composed/composed.h"
#include "api/composed/environment.h"
#include "api/handshake/handshake.h"
#include "base/log.h"
#include "interpose/counted_trip.h"
#include "interpose/gate.h"
#include "interpose/graphs.h"
#include "interpose/identity.h"
#include "interpose/thread.h"

namespace tide {

constinit std::atomic<Process*> live_process{nullptr};
constinit thread_local ThreadState thread_state = {};

namespace {

constinit std::mutex init_mu;
constinit std::atomic<bool> forked{false};  // a child of an initialised parent
constinit std::atomic<bool> fork_watched{false};
constinit std::atomic<bool> said_why{false};

// In a child of fork() nothing of the parent's may be used: not its sockets, not its locks. Descriptors are closed, so
// that workers learn when the parent ends; everything else is left as it lies.
void after_fork_in_child() {
  new (&init_mu) std::mutex;
  composed::renew_logs();
  Process* p = live_process.exchange(nullptr);
  if (p == nullptr) return;
  forked.store(true);
  shut_gate(false);
  p->pool.abandon();
  for (Vgpu* vgpu : p->by_number) {
    if (vgpu != nullptr && vgpu->is_open()) vgpu->channel().abandon();
  }
}

void watch_forks() {
  if (!fork_watched.exchange(true)) pthread_atfork(nullptr, nullptr, after_fork_in_child);
}

void say_why(const std::string& message) {
  if (!said_why.exchange(true)) log(LogLevel::kError, "%s", message.c_str());
}

void add_devices(Process& process, std::vector<VgpuPlace>& places) {
  make_distinct(&places);
  const std::vector<uint32_t> visible = visible_devices(getenv("CUDA_VISIBLE_DEVICES"), places);
  for (const uint32_t number : visible) {
    VgpuPlace& place = places[number];
    auto vgpu = std::make_unique<Vgpu>(number);
    vgpu->quota = place.memory_bytes != 0 ? place.memory_bytes : place.info.total_memory;
    vgpu->info = place.info;
    hide_what_is_not_served(&vgpu->info, Channel::shares_memory_with(place.endpoint));
    vgpu->origin = {&process.pool, number, place.epoch, vgpu->quota, place.endpoint};
    process.add_vgpu(std::move(vgpu));
  }
  int version = CUDA_VERSION;
  for (const VgpuPlace& place : places) version = std::min(version, int(place.info.driver_version));
  process.driver_version = version;
}

}  // namespace

CUresult initialise() {
  if (process() != nullptr) return CUDA_SUCCESS;
  if (forked.load()) return CUDA_ERROR_NOT_INITIALIZED;
  const std::lock_guard lock(init_mu);
  if (process() != nullptr) return CUDA_SUCCESS;
  JobIdentity identity;
  if (Outcome o = job_from_environment(&identity); !o.ok()) {
    say_why(o.message());
    return CUDA_ERROR_NO_DEVICE;
  }
  std::unique_ptr<Process> made(new Process);
  made->launch_blocking = composed::launch_blocking();
  std::vector<VgpuPlace> places;
  if (Outcome o = counted_trip([&] { return made->pool.say_hello(identity, &places); }); !o.ok()) {
    say_why(o.message());
    return CUDA_ERROR_SYSTEM_NOT_READY;
  }
  add_devices(*made, places);
  if (made->devices.empty()) {
    say_why("CUDA_VISIBLE_DEVICES hides all GPUs of this job");
    return CUDA_ERROR_NO_DEVICE;
  }
  install_hooks();
  install_graphs();
  watch_forks();
  live_process.store(made.release(), std::memory_order_release);
  return CUDA_SUCCESS;
}

void Process::add_vgpu(std::unique_ptr<Vgpu> made) {
  Vgpu* vgpu = made.release();
  vgpu->ordinal = int(devices.size());
  vgpu->memory = std::make_unique<Memory>(*vgpu);
  Context* primary = contexts.create();
  primary->vgpu = vgpu;
  primary->primary = true;
  primary->id = next_id++;
  contexts.publish(primary);
  vgpu->primary = primary;
  devices.push_back(vgpu);
  by_number[vgpu->number] = vgpu;
}

Process* Process::adopt() {
  auto* made = new Process;
  made->driver_version = CUDA_VERSION;
  install_hooks();
  install_graphs();
  watch_forks();
  forked.store(false);
  live_process.store(made);
  return made;
}

Vgpu* Process::adopt_vgpu(std::unique_ptr<Channel> channel, const DeviceInfo& info, uint64_t quota) {
  auto vgpu = std::make_unique<Vgpu>(uint32_t(devices.size()));
  vgpu->info = info;
  vgpu->quota = quota;
  vgpu->channel_.store(channel.release());
  add_vgpu(std::move(vgpu));
  return devices.back();
}

Vgpu* Process::vgpu_of(uint64_t address) const {
  if (address < kWindowBase) return nullptr;
  const uint64_t number = (address - kWindowBase) / kVgpuRangeBytes;
  return number < kVgpusMax ? by_number[number] : nullptr;
}

Vgpu* Process::worker_of(uint64_t address, uint64_t bytes, Vgpu* preferred, uint64_t* device) const {
  *device = address;
  if (Vgpu* owner = vgpu_of(address); owner != nullptr) return owner;
  HostBlock block;
  if (!host.find(address, &block)) return nullptr;
  for (Vgpu* vgpu : {preferred, block.home}) {
    const uint64_t found = vgpu == nullptr ? 0 : host.on_device(*vgpu, address, bytes);
    if (found == 0) continue;
    *device = found;
    return vgpu;
  }
  return nullptr;
}

CUresult enter_quietly(Entered* entered) {
  entered->process = process();
  if (entered->process == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  const uint64_t handle = current_context_handle();
  if (handle == 0) return CUDA_ERROR_INVALID_CONTEXT;
  entered->context = entered->process->contexts.find(handle);
  if (entered->context == nullptr) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  entered->vgpu = entered->context->vgpu;
  return CUDA_SUCCESS;
}

CUresult enter(Entered* entered) {
  if (thread_state.in_callback != 0) return CUDA_ERROR_NOT_PERMITTED;
  if (CUresult r = enter_quietly(entered); r != CUDA_SUCCESS) return r;
  if (entered->context->number.load(std::memory_order_acquire) == 0) {
    if (CUresult r = activate(*entered->context); r != CUDA_SUCCESS) return r;
  }
  return entered->vgpu->channel().take_error();
}

}  // namespace tide
