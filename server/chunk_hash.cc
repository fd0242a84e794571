#include "server/chunk_hash.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace tide {
namespace {

constexpr unsigned kThreads = 256;  // as in hash_chunks.cu
constexpr size_t kBatch = 512;      // chunks for one launch; a GiB hides what a launch costs

constexpr char kKernelText[] =
#include "hash_chunks_ptx.inc"
    ;

Outcome failure(const Driver& driver, CUresult result) {
  return Outcome::fail("the GPU cannot hash chunks: " + error_text(driver, result));
}

}  // namespace

struct ChunkHasher::Page {
  ChunkHash hashes[kBatch];
  uint64_t addresses[kBatch];
};

ChunkHasher::ChunkHasher(const DriverLibrary& library, Contexts& contexts) : library_(library), contexts_(contexts) {}

ChunkHasher::~ChunkHasher() {
  const Driver& driver = library_.calls;
  if (library_.forget_hashes != nullptr) library_.forget_hashes();
  if (stream_ != nullptr) driver.cuStreamDestroy_v2(stream_);
  if (module_ != nullptr) driver.cuModuleUnload(module_);
  if (page_ != nullptr) driver.cuMemFreeHost(page_);
}

Outcome ChunkHasher::start() {
  ChunkSecret secret;
  if (!make_secret(&secret)) return Outcome::fail("the system has no random numbers for hashing chunks");
  use(secret);
  return library_.hash_chunks != nullptr ? Outcome() : start_kernel();
}

void ChunkHasher::use(const ChunkSecret& secret) {
  const std::vector<std::byte> zeros(kChunkBytes);
  secret_ = secret;
  zeros_ = hash_chunk(secret_, zeros.data());
  keys_ = keys_of(secret_);
}

Outcome ChunkHasher::start_kernel() {
  const Driver& driver = library_.calls;
  if (driver.cuModuleLoadData == nullptr || driver.cuMemHostAlloc == nullptr || driver.cuCtxGetCurrent == nullptr) {
    return failure(driver, CUDA_ERROR_NOT_SUPPORTED);
  }
  CUcontext current = nullptr;
  driver.cuCtxGetCurrent(&current);
  if (current == nullptr || current != contexts_.primary()) return failure(driver, CUDA_ERROR_INVALID_CONTEXT);
  int least = 0, greatest = 0;
  driver.cuCtxGetStreamPriorityRange(&least, &greatest);
  void* page = nullptr;
  CUresult result = driver.cuStreamCreateWithPriority(&stream_, CU_STREAM_NON_BLOCKING, least);
  if (result == CUDA_SUCCESS) result = driver.cuModuleLoadData(&module_, kKernelText);
  if (result == CUDA_SUCCESS) result = driver.cuModuleGetFunction(&kernel_, module_, "hash_chunks");
  if (result == CUDA_SUCCESS) result = driver.cuMemHostAlloc(&page, sizeof(Page), CU_MEMHOSTALLOC_DEVICEMAP);
  if (result != CUDA_SUCCESS) return failure(driver, result);
  page_ = static_cast<Page*>(page);
  result = driver.cuMemHostGetDevicePointer_v2(&page_there_, page, 0);
  return result == CUDA_SUCCESS ? Outcome() : failure(driver, result);
}

CUresult ChunkHasher::hash_batch(std::span<const uint64_t> addresses) {
  const Driver& driver = library_.calls;
  std::copy(addresses.begin(), addresses.end(), page_->addresses);
  CUdeviceptr from = page_there_ + offsetof(Page, addresses), to = page_there_ + offsetof(Page, hashes);
  void* arguments[] = {&from, &to, &keys_};
  const CUresult result =
      driver.cuLaunchKernel(kernel_, unsigned(addresses.size()), 1, 1, kThreads, 1, 1, 0, stream_, arguments, nullptr);
  return result == CUDA_SUCCESS ? driver.cuStreamSynchronize(stream_) : result;
}

Outcome ChunkHasher::hash(std::span<const uint64_t> addresses, ChunkHash* hashes) {
  const Driver& driver = library_.calls;
  if (library_.hash_chunks != nullptr) {
    static_assert(sizeof(CUdeviceptr) == sizeof(uint64_t));
    const auto* at = reinterpret_cast<const CUdeviceptr*>(addresses.data());
    const CUresult result = library_.hash_chunks(&secret_, at, addresses.size(), hashes);
    return result == CUDA_SUCCESS ? Outcome() : failure(driver, result);
  }
  if (page_ == nullptr) return failure(driver, CUDA_ERROR_NOT_INITIALIZED);
  std::vector<ChunkHash> found(addresses.size());
  for (size_t done = 0; done < addresses.size();) {
    const std::span<const uint64_t> batch = addresses.subspan(done, std::min(kBatch, addresses.size() - done));
    if (const CUresult result = hash_batch(batch); result != CUDA_SUCCESS) return failure(driver, result);
    std::copy_n(page_->hashes, batch.size(), &found[done]);
    done += batch.size();
  }
  std::copy(found.begin(), found.end(), hashes);
  return {};
}

}  // namespace tide
