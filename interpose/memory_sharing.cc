// Memory's part in what processes of a job share.

#include "api/payload.h"
#include "base/limits.h"
#include "commands.h"
#include "interpose/memory.h"
#include "interpose/process.h"

namespace tide {
namespace {

// What a handle says of itself; it came from another process.
bool plausible(const SharedHandle& h) {
  return h.span != 0 && h.span % kChunkBytes == 0 && h.span <= kVgpuRangeBytes && h.offset < h.span && h.bytes != 0 &&
         h.bytes <= h.span - h.offset;
}

// In the worker: fetched, mapped, and kept by the mapping alone.
CUresult fetch(Vgpu& vgpu, const SharedHandle& h, uint64_t address) {
  const uint64_t name = process()->next_id++;
  Reply opened, mapped;
  const command::OpenPhysical open{name, h.owner_low, h.owner_high, h.name, h.span};
  CUresult r = ask_command(*vgpu.primary, Call::tideOpenPhysical, open, &opened);
  if (r != CUDA_SUCCESS) return r;
  r = ask_command(*vgpu.primary, Call::tideMapPhysical, command::MapPhysical{name, address}, &mapped);
  const CUresult sent = send_command(*vgpu.primary, Call::tideReleasePhysical, command::ReleasePhysical{name});
  return r != CUDA_SUCCESS ? r : sent;
}

}  // namespace

CUresult Memory::share(uint64_t address, SharedKind kind, SharedHandle* handle) {
  const std::lock_guard sharing(sharing_mu_);
  Allocation allocation;
  {
    const std::lock_guard lock(mu_);
    const Allocation* found = allocator_.find(address);
    if (found == nullptr || found->mapped) return CUDA_ERROR_INVALID_VALUE;
    allocation = *found;
    if (const auto known = shared_.find(found->base); known != shared_.end()) {
      *handle = known->second;
      return CUDA_SUCCESS;
    }
  }
  Reply reply;
  ShareAnswer span;
  const command::ShareMemory command{allocation.id, allocation.base, allocation.bytes};
  if (CUresult r = ask_command(*vgpu_.primary, Call::tideShareMemory, command, &reply); r != CUDA_SUCCESS) return r;
  if (reply.payload.size() < sizeof span) return CUDA_ERROR_UNKNOWN;
  __builtin_memcpy(&span, reply.payload.data(), sizeof span);
  *handle = own_handle(vgpu_, kind, allocation.id);
  handle->span = span.bytes;
  handle->offset = uint32_t(allocation.base - span.address);  // less than a piece
  handle->bytes = allocation.bytes;
  const std::lock_guard lock(mu_);
  shared_[allocation.base] = *handle;
  return CUDA_SUCCESS;
}

// Requires: mu_.
void Memory::unshare(uint64_t address) {
  const auto found = shared_.find(address);
  if (found == shared_.end()) return;
  send_command(*vgpu_.primary, Call::tideUnshare, command::Unshare{found->second.name});
  shared_.erase(found);
}

CUresult Memory::open(const SharedHandle& handle, uint32_t context, uint64_t* address) {
  if (!plausible(handle)) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard sharing(sharing_mu_);
  uint64_t place = 0;
  {
    const std::lock_guard lock(mu_);
    for (auto& [at, opened] : opened_) {
      const SharedHandle& known = opened.handle;
      if (opened.count == 0 || !known.same_owner(handle) || known.name != handle.name || known.kind != handle.kind)
        continue;
      ++opened.count;
      *address = at;
      return CUDA_SUCCESS;
    }
    if (!allocator_.reserve(handle.span, kChunkBytes, &place)) return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const CUresult r = fetch(vgpu_, handle, place);
  const std::lock_guard lock(mu_);
  if (r != CUDA_SUCCESS) {
    allocator_.unreserve(place, handle.span);
    return r;
  }
  *address = place + handle.offset;
  opened_[*address] = {handle, 1};
  allocator_.note_mapped({*address, handle.bytes, context, process()->next_id++, true});
  return CUDA_SUCCESS;
}

bool Memory::is_open(uint64_t address, SharedKind kind) const {
  const std::lock_guard lock(mu_);
  const auto found = opened_.find(address);
  return found != opened_.end() && found->second.handle.kind == kind && found->second.count != 0;
}

// Requires: mu_; it is open no longer.
void Memory::end_opened(uint64_t address, std::vector<Mapping>* todo) {
  const auto found = opened_.find(address);
  if (found == opened_.end()) return;
  const SharedHandle& h = found->second.handle;
  todo->push_back({address - h.offset, h.span, false});
  allocator_.forget_mapped(address);
  allocator_.unreserve(address - h.offset, h.span);
  opened_.erase(found);
}

CUresult Memory::close(uint64_t address, SharedKind kind) {
  {
    const std::lock_guard lock(mu_);
    const auto found = opened_.find(address);
    if (found == opened_.end() || found->second.handle.kind != kind || found->second.count == 0)
      return CUDA_ERROR_INVALID_VALUE;
    if (--found->second.count > 0) return CUDA_SUCCESS;
  }
  const CUresult result = vgpu_.sync_all();
  const std::lock_guard lock(mu_);
  std::vector<Mapping> todo;
  end_opened(address, &todo);
  const CUresult sent = carry_out(todo, 0);
  return result != CUDA_SUCCESS ? result : sent;
}

CUresult Memory::close_after(uint64_t address, SharedKind kind, uint32_t slot, uint64_t sequence) {
  const std::lock_guard lock(mu_);
  const auto found = opened_.find(address);
  if (found == opened_.end() || found->second.handle.kind != kind || found->second.count == 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (--found->second.count == 0) later_.push_back({address, slot, sequence, true});
  return CUDA_SUCCESS;
}

}  // namespace tide
