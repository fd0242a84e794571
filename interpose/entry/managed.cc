// Managed memory: host memory that kernels reach (host_memory.h). Nothing migrates, so advice and prefetching are
// checked, remembered and answered.

#include "interpose/entry/managed.h"

#include <map>
#include <memory>
#include <mutex>

#include "api/composed/advice.h"
#include "interpose/entry/entry.h"

using namespace tide;

namespace {

// All of it must lie in one managed allocation.
CUresult find_block(CUdeviceptr address, size_t bytes, HostBlock* block) {
  Process* p = process();
  if (p == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  if (bytes == 0 || !p->host.find(address, block) || !block->managed()) return CUDA_ERROR_INVALID_VALUE;
  return bytes <= block->bytes - block->offset_of(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult check_range(CUdeviceptr address, size_t bytes) {
  HostBlock block;
  return find_block(address, bytes, &block);
}

// What was said of blocks, by their ids. Outlives calls from atexit.
struct Advised {
  std::mutex mu;
  std::map<uint64_t, std::shared_ptr<composed::Advice>> blocks;  // guarded by mu
};
Advised& advised() {
  static auto* all = new Advised;
  return *all;
}

std::shared_ptr<composed::Advice> advice_of(const HostBlock& block) {
  const std::lock_guard lock(advised().mu);
  auto& advice = advised().blocks[block.id];
  if (advice == nullptr) advice = std::make_shared<composed::Advice>(block.bytes);
  return advice;
}

CUresult check_location(const CUmemLocation& location) {
  Vgpu* vgpu = nullptr;
  switch (location.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
      return find_device(location.id, &vgpu);
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult advise(CUdeviceptr address, size_t bytes, CUmem_advise advice, const CUmemLocation& location) {
  HostBlock block;
  TIDE_TRY(find_block(address, bytes, &block));
  const bool placed = advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION || advice == CU_MEM_ADVISE_SET_ACCESSED_BY ||
                      advice == CU_MEM_ADVISE_UNSET_ACCESSED_BY;
  if (placed) TIDE_TRY(check_location(location));
  return composed::advise(advice_of(block).get(), block.offset_of(address), bytes, advice, location);
}

CUresult prefetch(CUdeviceptr address, size_t bytes, const CUmemLocation& location, unsigned flags, CUstream handle) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter(&e));
  TIDE_TRY(find_stream(e, handle, &stream));
  HostBlock block;
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  TIDE_TRY(find_block(address, bytes, &block));
  TIDE_TRY(check_location(location));
  advice_of(block)->change(block.offset_of(address), bytes,
                           [&](composed::PageAdvice& page) { page.prefetched = location; });
  return CUDA_SUCCESS;
}

CUresult pages_of(CUdeviceptr address, size_t bytes, std::vector<composed::PageAdvice>* pages) {
  HostBlock block;
  TIDE_TRY(find_block(address, bytes, &block));
  *pages = advice_of(block)->within(block.offset_of(address), bytes);
  return CUDA_SUCCESS;
}

}  // namespace

void tide::forget_advice(uint64_t id) {
  const std::lock_guard lock(advised().mu);
  advised().blocks.erase(id);
}

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemAllocManaged(CUdeviceptr* address, size_t bytes, unsigned int flags) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (address == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST) return CUDA_ERROR_INVALID_VALUE;
  uint64_t got = 0;
  TIDE_TRY(e.process->host.allocate(*e.context, bytes, flags, HostKind::kManaged, &got));
  *address = got;
  return CUDA_SUCCESS;
}

// Streams see what is pushed before their work and the host what is fetched after it, attached or not.
CUresult cuStreamAttachMemAsync(CUstream handle, CUdeviceptr address, size_t length, unsigned int flags) {
  Entered e;
  Stream* stream = nullptr;
  TIDE_TRY(enter(&e));
  TIDE_TRY(find_stream(e, handle, &stream));
  if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST && flags != CU_MEM_ATTACH_SINGLE)
    return CUDA_ERROR_INVALID_VALUE;
  return check_range(address, length == 0 ? 1 : length);
}

CUresult cuMemAdvise_v2(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUmemLocation location) {
  return advise(address, bytes, advice, location);
}

CUresult cuMemRangeGetAttribute(void* data, size_t data_bytes, CUmem_range_attribute attribute, CUdeviceptr address,
                                size_t bytes) {
  std::vector<composed::PageAdvice> pages;
  TIDE_TRY(pages_of(address, bytes, &pages));
  return composed::read_attribute(pages, attribute, data, data_bytes);
}

CUresult cuMemRangeGetAttributes(void** data, size_t* data_bytes, CUmem_range_attribute* attributes, size_t count,
                                 CUdeviceptr address, size_t bytes) {
  std::vector<composed::PageAdvice> pages;
  TIDE_TRY(pages_of(address, bytes, &pages));
  return composed::read_attributes(pages, attributes, count, data, data_bytes);
}

CUresult cuMemPrefetchAsync_v2(CUdeviceptr address, size_t bytes, CUmemLocation location, unsigned int flags,
                               CUstream stream) {
  return prefetch(address, bytes, location, flags, stream);
}

}  // extern "C"
#pragma GCC visibility pop
