#include "interpose/vgpu.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/limits.h"
#include "base/log.h"
#include "interpose/process.h"

namespace tide {
namespace {

// Nothing else of the process may get an address that means device memory.
Outcome reserve_range(uint64_t base) {
  void* wanted = reinterpret_cast<void*>(base);
  void* got = mmap(wanted, kVgpuRangeBytes, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == wanted) return {};
  const int error = errno;
  if (got != MAP_FAILED) munmap(got, kVgpuRangeBytes);
  return Outcome::fail(
      format("cannot reserve 512 GiB of addresses at 0x%llx (%s); is there a limit on virtual memory (ulimit -v)?",
             static_cast<unsigned long long>(base), strerror(error)));
}

}  // namespace

Vgpu::Vgpu(uint32_t number_) : number(number_) {}

uint64_t Vgpu::last_work() const {
  uint64_t last = 0;
  for (uint32_t slot = 0; slot < streams.high(); ++slot) last = std::max(last, channel().last_work(slot));
  return last;
}

bool Vgpu::idle() {
  for (uint32_t slot = 0; slot < streams.high(); ++slot) {
    if (!channel().idle(slot)) return false;
  }
  return true;
}

uint64_t Vgpu::range() const { return vgpu_range_base(number); }

// Requires: mu.
CUresult Vgpu::open() {
  if (is_open()) return CUDA_SUCCESS;
  if (Outcome o = process()->service.start(); !o.ok()) {
    log(LogLevel::kError, "vGPU %u: %s", number, o.message().c_str());
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  if (Outcome o = reserve_range(range()); !o.ok()) {
    log(LogLevel::kError, "vGPU %u: %s", number, o.message().c_str());
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  std::unique_ptr<Channel> made;
  origin.host_memory_fd = process()->host.descriptor();
  origin.stirred = [] { process()->service.stir(); };
  if (Outcome o = Channel::open(origin, &made); !o.ok()) {
    munmap(reinterpret_cast<void*>(range()), kVgpuRangeBytes);
    log(LogLevel::kError, "%s", o.message().c_str());
    return CUDA_ERROR_DEVICE_UNAVAILABLE;
  }
  channel_.store(made.release(), std::memory_order_release);
  process()->host.opened(*this);
  return CUDA_SUCCESS;
}

void Vgpu::renew() {
  Process& p = *process();
  if (!memory->begin_again()) {
    log(LogLevel::kInfo, "vGPU %u: memory is left, so it cannot begin again after its error", number);
    return;
  }
  if (Outcome o = channel().renew(); !o.ok()) {
    log(LogLevel::kError, "vGPU %u cannot begin again: %s", number, o.message().c_str());
    return;
  }
  const auto forget = [this](Library* library) { library->instances[number].store(nullptr); };  // others may look at it
  p.libraries.each(forget);
  cache.clear();
  cache.forget_settings();
  p.host.begin_again(*this);
  staging.forget();
  packing.forget();
}

CUresult Vgpu::take_stream_slot(uint32_t* slot) {
  const auto over = [this](uint32_t s, uint64_t mark) { return channel().done(s, mark); };
  if (streams.take(slot, over)) return CUDA_SUCCESS;
  log(LogLevel::kWarning, "vGPU %u: %u streams exist already", number, kStreamSlots);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult Vgpu::take_event_slot(uint32_t* slot) {
  const auto over = [this](uint32_t s, uint64_t mark) { return channel().event_done(s, mark); };
  if (events.take(slot, over)) return CUDA_SUCCESS;
  log(LogLevel::kWarning, "vGPU %u: %u events exist already", number, kEventSlots);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult Vgpu::take_signal(uint32_t* slot, uint64_t* value) {
  // A slot that has been signalled may be used again at once: its values only grow.
  while (!signals.take(slot, [](uint32_t, uint64_t) { return true; })) {
    if (channel().failed()) return channel().take_error();
    channel().drain();
    channel().sleep(200);
  }
  *value = ++signal_values[*slot];
  return CUDA_SUCCESS;
}

bool AnswerCache::find(const std::string& key, CUresult* result, std::vector<std::byte>* payload) {
  const std::lock_guard lock(mu_);
  const auto it = answers_.find(key);
  if (it == answers_.end()) return false;
  *result = it->second.result;
  *payload = it->second.payload;
  return true;
}

void AnswerCache::remember(const std::string& key, CUresult result, const std::vector<std::byte>& payload) {
  const std::lock_guard lock(mu_);
  answers_[key] = {result, payload};
}

void AnswerCache::clear() {
  const std::lock_guard lock(mu_);
  answers_.clear();
}

void AnswerCache::forget_settings() {
  const std::lock_guard lock(mu_);
  settings_.clear();
}

bool AnswerCache::same_setting(const std::string& key, uint64_t value) {
  const std::lock_guard lock(mu_);
  const auto [it, is_new] = settings_.try_emplace(key, value);
  if (is_new || it->second != value) {
    it->second = value;
    return false;
  }
  return true;
}

}  // namespace tide
