#include "interpose/mirrors.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "interpose/crossing.h"
#include "interpose/process.h"
#include "interpose/transfer.h"

namespace tide {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kBlock = 256;  // differences are looked for in blocks
constexpr uint64_t kWord = 4;

uint64_t whole_pages(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

std::byte* map_pages(void* at, uint64_t bytes, int protection) {
  const int fixed = at == nullptr ? 0 : MAP_FIXED;
  void* got = mmap(at, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
  return got == MAP_FAILED ? nullptr : static_cast<std::byte*>(got);
}

bool differs(const std::byte* a, const std::byte* b, uint64_t at, uint64_t bytes) {
  return memcmp(a + at, b + at, std::min(kBlock, bytes - at)) != 0;
}

}  // namespace

CUresult Mirrors::allocate(Context& context, uint64_t bytes, Mirror mirror, uint64_t* address) {
  // Never among small allocations, whose chunks others share.
  const uint64_t reserved = std::max(whole_pages(bytes), kSmallBytesMax + kPage);
  uint64_t device = 0;
  if (CUresult r = context.vgpu->memory->allocate(context, reserved, &device); r != CUDA_SUCCESS) return r;
  Copy copy;
  copy.last = map_pages(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE);
  const bool mapped = map_pages(reinterpret_cast<void*>(device), whole_pages(bytes), PROT_READ | PROT_WRITE) != nullptr;
  if (copy.last == nullptr || !mapped) {
    if (copy.last != nullptr) munmap(copy.last, whole_pages(bytes));
    context.vgpu->memory->release(device);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  mirror.host = mirror.device = device;
  mirror.bytes = bytes;
  mirror.vgpu = context.vgpu;
  mirror.context = context.handle;
  mirror.id = process_.next_id++;
  copy.mirror = mirror;
  copy.owned = true;
  const std::lock_guard lock(mu_);
  copies_[device] = copy;
  ++count_;
  *address = device;
  return CUDA_SUCCESS;
}

CUresult Mirrors::attach(Context& context, const Mirror& host, uint64_t* device) {
  {
    const std::lock_guard lock(mu_);
    if (const auto found = copies_.find(host.host); found != copies_.end()) {
      if (found->second.mirror.vgpu != context.vgpu) return CUDA_ERROR_NOT_SUPPORTED;
      *device = found->second.mirror.device;
      return CUDA_SUCCESS;
    }
  }
  Copy copy;
  copy.mirror = host;
  copy.mirror.vgpu = context.vgpu;
  if (CUresult r = context.vgpu->memory->allocate(context, host.bytes, &copy.mirror.device); r != CUDA_SUCCESS)
    return r;
  copy.last = map_pages(nullptr, whole_pages(host.bytes), PROT_READ | PROT_WRITE);
  if (copy.last == nullptr) {
    context.vgpu->memory->release(copy.mirror.device);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const std::lock_guard lock(mu_);
  copies_[host.host] = copy;
  ++count_;
  *device = copy.mirror.device;
  return CUDA_SUCCESS;
}

// Requires: mu_.
void Mirrors::drop(Copy& copy) {
  const Mirror& mirror = copy.mirror;
  munmap(copy.last, whole_pages(mirror.bytes));
  // The range stays reserved.
  if (copy.owned) map_pages(reinterpret_cast<void*>(mirror.host), whole_pages(mirror.bytes), PROT_NONE);
  mirror.vgpu->memory->release(mirror.device);
  --count_;
}

bool Mirrors::release(uint64_t address) {
  const std::lock_guard lock(mu_);
  const auto found = copies_.find(address);
  if (found == copies_.end() || !found->second.owned) return false;
  drop(found->second);
  copies_.erase(found);
  return true;
}

void Mirrors::detach(uint64_t host) {
  if (count_.load() == 0) return;
  const std::lock_guard lock(mu_);
  const auto found = copies_.find(host);
  if (found == copies_.end()) return;
  drop(found->second);
  copies_.erase(found);
}

void Mirrors::release_vgpu_context(uint64_t context) {
  if (count_.load() == 0) return;
  const std::lock_guard lock(mu_);
  for (auto item = copies_.begin(); item != copies_.end();) {
    if (item->second.mirror.context == context) {
      drop(item->second);
      item = copies_.erase(item);
    } else {
      ++item;
    }
  }
}

bool Mirrors::find(uint64_t address, Mirror* mirror) const {
  if (count_.load(std::memory_order_relaxed) == 0) return false;
  const std::lock_guard lock(mu_);
  auto after = copies_.upper_bound(address);
  if (after == copies_.begin()) return false;
  const Mirror& found = std::prev(after)->second.mirror;
  if (address - found.host >= found.bytes) return false;
  *mirror = found;
  return true;
}

uint64_t Mirrors::on_device(uint64_t address) const {
  Mirror mirror;
  return find(address, &mirror) ? mirror.device + (address - mirror.host) : address;
}

CUresult Mirrors::push(Vgpu& vgpu) {
  const std::lock_guard lock(mu_);
  for (auto& [host, copy] : copies_) {
    if (copy.mirror.vgpu != &vgpu) continue;
    if (CUresult r = push_one(copy); r != CUDA_SUCCESS) return r;
    copy.changed = true;
  }
  return CUDA_SUCCESS;
}

// The worker has the bytes before this returns, whatever stream the work is on. While kernels may be writing beside
// them, only words that the program changed are sent.
CUresult Mirrors::push_one(Copy& copy) {
  const Mirror& m = copy.mirror;
  auto* const host = reinterpret_cast<std::byte*>(m.host);
  const uint64_t step = copy.changed ? kWord : kBlock;
  const auto to_send = [&](uint64_t at) {
    return copy.fresh || memcmp(host + at, copy.last + at, std::min(step, m.bytes - at)) != 0;
  };
  Stream* hidden = nullptr;
  uint64_t sequence = 0;
  for (uint64_t at = 0; at < m.bytes;) {
    if (!copy.fresh && at % kBlock == 0 && !differs(host, copy.last, at, m.bytes)) {
      at += kBlock;
      continue;
    }
    if (!to_send(at)) {
      at += step;
      continue;
    }
    uint64_t end = at;
    while (end < m.bytes && to_send(end)) end += step;
    const uint64_t bytes = std::min(end, m.bytes) - at;
    if (hidden == nullptr) {
      if (CUresult r = copy_stream(process_, *m.vgpu, &hidden); r != CUDA_SUCCESS) return r;
    }
    memcpy(copy.last + at, host + at, bytes);
    const CUresult r =
        send_copy_in(*hidden, m.device + at, bytes, HostRect{copy.last + at, bytes}, bytes, 1, &sequence);
    if (r != CUDA_SUCCESS) return r;
    at += bytes;
  }
  copy.fresh = false;
  return hidden == nullptr ? CUDA_SUCCESS : m.vgpu->channel().wait_stream(hidden->slot, sequence);
}

CUresult Mirrors::pull(Vgpu& vgpu) {
  const std::lock_guard lock(mu_);
  // While other streams still run, they may change it again.
  bool idle = true;
  for (uint32_t slot = 0; slot < vgpu.streams.high(); ++slot) idle = idle && vgpu.channel().idle(slot);
  for (auto& [host, copy] : copies_) {
    if (copy.mirror.vgpu != &vgpu || !copy.changed) continue;
    if (CUresult r = pull_one(copy); r != CUDA_SUCCESS) return r;
    copy.changed = !idle;
  }
  return CUDA_SUCCESS;
}

// What the program changed since the last time stays as it is.
CUresult Mirrors::pull_one(Copy& copy) {
  const Mirror& m = copy.mirror;
  Stream* hidden = nullptr;
  if (CUresult r = copy_stream(process_, *m.vgpu, &hidden); r != CUDA_SUCCESS) return r;
  std::byte* const now = map_pages(nullptr, whole_pages(m.bytes), PROT_READ | PROT_WRITE);
  if (now == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  uint64_t sequence = 0;
  Channel& channel = m.vgpu->channel();
  CUresult result = send_copy_out(*hidden, m.device, m.bytes, Landing{now, m.bytes, m.bytes, 1}, &sequence);
  if (result == CUDA_SUCCESS) {
    result = channel.wait_stream(hidden->slot, sequence);
    if (result != CUDA_SUCCESS) channel.forget(sequence);
  }
  auto* const host = reinterpret_cast<std::byte*>(m.host);
  for (uint64_t at = 0; result == CUDA_SUCCESS && at < m.bytes; at += kBlock) {
    if (!differs(now, copy.last, at, m.bytes)) continue;
    const uint64_t bytes = std::min(kBlock, m.bytes - at);
    if (memcmp(host + at, copy.last + at, bytes) == 0) {
      memcpy(host + at, now + at, bytes);
    } else {
      for (uint64_t i = at; i < at + bytes; ++i) {
        if (host[i] == copy.last[i]) host[i] = now[i];
      }
    }
    memcpy(copy.last + at, now + at, bytes);
  }
  munmap(now, whole_pages(m.bytes));
  return result;
}

}  // namespace tide
