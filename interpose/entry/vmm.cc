// Virtual memory management within one vGPU. A handle may be mapped once: its memory comes into being at the address
// where it is mapped, and ends when it is unmapped. Memory that was made for other processes is there from the
// beginning, and may be mapped again after it was unmapped. Reservations belong to the current context's vGPU.

#include <unistd.h>

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "commands.h"
#include "interpose/entry/entry.h"
#include "interpose/identity.h"
#include "interpose/sharing.h"

using namespace tide;

namespace {

bool whole_chunks(uint64_t value) { return value % kChunkBytes == 0; }

Physical* find_physical(CUmemGenericAllocationHandle handle) {
  Process* p = process();
  return p == nullptr ? nullptr : p->physicals.find(uint64_t(handle));
}

// The live handle that is mapped at an address.
Physical* mapped_at(Process& p, uint64_t address) {
  Physical* found = nullptr;
  p.physicals.each([&](Physical* physical) {
    const uint64_t at = physical->address.load();
    if (at != 0 && address - at < physical->bytes) found = physical;
  });
  return found;
}

CUresult check_properties(const CUmemAllocationProp* properties, Vgpu** vgpu) {
  if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_INVALID_VALUE;
  if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
  return find_device(properties->location.id, vgpu);
}

// Handle and mapping are both gone.
void end(Process& p, Physical& physical) {
  const auto ending = p.physicals.end(&physical);
  if (!ending) return;
  const Context& primary = *physical.vgpu->primary;
  if (physical.shared) send_command(primary, Call::tideUnshare, command::Unshare{physical.name});
  if (physical.name != 0) send_command(primary, Call::tideReleasePhysical, command::ReleasePhysical{physical.name});
  if (!physical.imported) physical.vgpu->memory->destroy(physical.bytes);
}

// Requires: Process::sharing_mu.
bool wanted_elsewhere(Physical& physical) {
  std::erase_if(physical.kept, [](int kept) {
    const bool over = !shared_descriptor_open(kept);
    if (over) close(kept);
    return over;
  });
  return !physical.kept.empty();
}

// Neither handle nor mapping: only a descriptor that was exported may still keep it.
void let_go(Process& p, Physical& physical) {
  const std::lock_guard lock(p.sharing_mu);
  if (wanted_elsewhere(physical)) {
    p.lingering.fetch_add(1);
  } else {
    end(p, physical);
  }
}

// Nobody tells when the last copy of a descriptor is closed.
void reap_lingering(Process& p) {
  if (p.lingering.load() == 0) return;
  const std::lock_guard lock(p.sharing_mu);
  p.physicals.each([&p](Physical* physical) {
    if (!physical->released || physical->address != 0 || wanted_elsewhere(*physical)) return;
    end(p, *physical);
    p.lingering.fetch_sub(1);
  });
}

bool shareable(const CUmemAllocationProp& properties) {
  return properties.requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE;
}

CUresult publish(const CUmemAllocationProp& properties, Vgpu& vgpu, uint64_t bytes, Physical** physical) {
  Physical* made = process()->physicals.create();
  if (made == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  made->vgpu = &vgpu;
  made->bytes = bytes;
  made->properties = properties;
  made->address = 0;
  made->was_mapped = made->released = made->shared = false;
  made->retained = 0;
  made->name = shareable(properties) ? process()->next_id++ : 0;
  made->imported = false;
  made->kept.clear();
  *physical = made;
  return CUDA_SUCCESS;
}

// Only all of a handle, at addresses that its own vGPU reserved; without a name only once.
bool can_map(Physical& physical, const Vgpu* vgpu, size_t bytes, size_t offset) {
  if (vgpu != physical.vgpu || offset != 0 || bytes != physical.bytes) return false;
  return !physical.was_mapped.exchange(true) || (physical.name != 0 && physical.address == 0);
}

CUresult import(Process& p, const SharedHandle& handle, CUmemAllocationHandleType type, Physical** physical) {
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_owner(p, handle, SharedKind::kPhysical, &vgpu));
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.requestedHandleTypes = type;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {vgpu->ordinal}};
  TIDE_TRY(publish(properties, *vgpu, handle.bytes, physical));
  (*physical)->imported = true;
  Reply reply;
  const command::OpenPhysical command{(*physical)->name, handle.owner_low, handle.owner_high, handle.name,
                                      handle.bytes};
  const CUresult result = ask_command(*vgpu->primary, Call::tideOpenPhysical, command, &reply);
  p.physicals.publish(*physical);
  if (result != CUDA_SUCCESS) p.physicals.destroy(*physical);
  return result;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemGetAllocationGranularity(size_t* bytes, const CUmemAllocationProp* properties,
                                       CUmemAllocationGranularity_flags option) {
  Vgpu* vgpu = nullptr;
  if (bytes == nullptr || option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(check_properties(properties, &vgpu));
  *bytes = kChunkBytes;
  return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr* address, size_t bytes, size_t alignment, CUdeviceptr,
                             unsigned long long flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (address == nullptr || bytes == 0 || !whole_chunks(bytes) || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if ((alignment & (alignment - 1)) != 0) return CUDA_ERROR_INVALID_VALUE;
  uint64_t got = 0;  // a wish for an address need not be granted
  TIDE_TRY(e.vgpu->memory->reserve(bytes, alignment, &got));
  *address = got;
  return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  Vgpu* vgpu = p->vgpu_of(address);
  return vgpu == nullptr ? CUDA_ERROR_INVALID_VALUE : vgpu->memory->unreserve(address, bytes);
}

CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp* properties,
                     unsigned long long flags) {
  Vgpu* vgpu = nullptr;
  if (handle == nullptr || bytes == 0 || !whole_chunks(bytes) || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(check_properties(properties, &vgpu));
  if (shareable(*properties) &&
      (properties->requestedHandleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || !shares_memory(vgpu->info))) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  TIDE_TRY(activate(*vgpu->primary));
  reap_lingering(*process());
  TIDE_TRY(vgpu->memory->create(bytes));
  Physical* made = nullptr;
  if (const CUresult result = publish(*properties, *vgpu, bytes, &made); result != CUDA_SUCCESS) {
    vgpu->memory->destroy(bytes);
    return result;
  }
  process()->physicals.publish(made);
  *handle = made->handle;
  if (made->name == 0) return CUDA_SUCCESS;
  return send_command(*vgpu->primary, Call::tideCreatePhysical, command::CreatePhysical{made->name, bytes});
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* address) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  Physical* physical = mapped_at(*p, reinterpret_cast<uint64_t>(address));
  if (handle == nullptr || physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!physical->released.exchange(false)) physical->retained.fetch_add(1);
  *handle = physical->handle;
  return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  Physical* physical = find_physical(handle);
  if (physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (uint32_t more = physical->retained.load(); more != 0;) {
    if (physical->retained.compare_exchange_weak(more, more - 1)) return CUDA_SUCCESS;
  }
  if (physical->released.exchange(true)) return CUDA_ERROR_INVALID_VALUE;
  if (physical->address == 0) let_go(*process(), *physical);
  reap_lingering(*process());
  return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags) {
  Physical* physical = find_physical(handle);
  if (physical == nullptr || physical->released || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!whole_chunks(address) || offset > physical->bytes || bytes > physical->bytes - offset || bytes == 0)
    return CUDA_ERROR_INVALID_VALUE;
  Vgpu* vgpu = process()->vgpu_of(address);
  if (vgpu == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!can_map(*physical, vgpu, bytes, offset)) {
    static constinit std::atomic<bool> logged{false};
    if (!logged.exchange(true))
      log(LogLevel::kWarning, "cuMemMap: only all of a handle, once, at addresses that its own vGPU reserved");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  const CUresult result =
      physical->name != 0 ? vgpu->memory->map_named(address, bytes, physical->name) : vgpu->memory->map(address, bytes);
  if (result == CUDA_SUCCESS) physical->address = address;
  if (result == CUDA_ERROR_INVALID_VALUE) physical->was_mapped = false;
  return result;
}

CUresult cuMemUnmap(CUdeviceptr address, size_t bytes) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  const uint64_t last = address + bytes;
  if (bytes == 0 || last < address) return CUDA_ERROR_INVALID_VALUE;
  for (uint64_t at = address; at < last;) {  // all of it must be whole mappings
    const Physical* physical = mapped_at(*p, at);
    if (physical == nullptr || physical->address != at || physical->bytes > last - at) return CUDA_ERROR_INVALID_VALUE;
    at += physical->bytes;
  }
  while (address < last) {
    Physical* physical = mapped_at(*p, address);
    if (physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const uint64_t mapped_bytes = physical->bytes;
    TIDE_TRY(physical->vgpu->memory->unmap(address, mapped_bytes));
    physical->address = 0;
    if (physical->released) let_go(*p, *physical);
    address += mapped_bytes;
  }
  return CUDA_SUCCESS;
}

// The own device reaches what is mapped from the start; others never do.
CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc* descriptions, size_t count) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (descriptions == nullptr || count == 0 || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const Physical* physical = mapped_at(*p, address);
  if (physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    Vgpu* vgpu = nullptr;
    if (descriptions[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
    TIDE_TRY(find_device(descriptions[i].location.id, &vgpu));
    const bool wants = descriptions[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    if (wants != (vgpu == physical->vgpu)) return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}

CUresult cuMemGetAccess(unsigned long long* flags, const CUmemLocation* location, CUdeviceptr address) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (flags == nullptr || location == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Vgpu* vgpu = nullptr;
  TIDE_TRY(find_device(location->id, &vgpu));
  const Physical* physical = mapped_at(*p, address);
  if (physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = vgpu == physical->vgpu ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties, CUmemGenericAllocationHandle handle) {
  const Physical* physical = find_physical(handle);
  if (properties == nullptr || physical == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *properties = physical->properties;
  return CUDA_SUCCESS;
}

CUresult cuMemExportToShareableHandle(void* shared, CUmemGenericAllocationHandle handle, CUmemAllocationHandleType type,
                                      unsigned long long flags) {
  Physical* physical = find_physical(handle);
  if (shared == nullptr || physical == nullptr || physical->released || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  if (physical->properties.requestedHandleTypes != type) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(process()->sharing_mu);
  if (!physical->shared) {
    Reply reply;
    const command::ShareMemory command{physical->name, 0, 0};
    TIDE_TRY(ask_command(*physical->vgpu->primary, Call::tideShareMemory, command, &reply));
    physical->shared = true;
  }
  SharedHandle text = own_handle(*physical->vgpu, SharedKind::kPhysical, physical->name);
  text.span = text.bytes = physical->bytes;
  int given = -1, kept = -1;
  wanted_elsewhere(*physical);  // lets go of what was closed
  TIDE_TRY(make_shared_descriptor(text, &given, &kept));
  physical->kept.push_back(kept);
  *static_cast<int*>(shared) = given;
  return CUDA_SUCCESS;
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* handle, void* shared,
                                        CUmemAllocationHandleType type) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  SharedHandle text;
  if (!read_shared_descriptor(int(reinterpret_cast<intptr_t>(shared)), &text)) return CUDA_ERROR_INVALID_VALUE;
  if (text.bytes == 0 || !whole_chunks(text.bytes)) return CUDA_ERROR_INVALID_VALUE;
  Physical* made = nullptr;
  TIDE_TRY(import(*p, text, type, &made));
  *handle = made->handle;
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
