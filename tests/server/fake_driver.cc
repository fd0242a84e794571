// A driver for the tests of the server: device memory is host memory at the same addresses, a stream is a thread, and a
// kernel is one of a few C++ functions that an image of text names. Only what the worker needs.
//
// Image: lines "kernel NAME PARAM_BYTES" and "global NAME BYTES". Kernels: add (u64 address, u64 count, u64 value),
// slow (u64 milliseconds), tick (u64 address, u64 times, u64 value: adds to one word, once a millisecond), fault (no
// parameters).
//
// For the fuzz targets, which live for millions of short sessions in one process, it can be told to do everything at
// once (no threads, kernels do nothing), and to forget all that it has made.

#include <cuda.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/chunk_hash.h"
#include "base/clock.h"

namespace {

constexpr uint64_t kImageAlign = 2u << 20;
std::atomic<int> lost{0};  // the sticky error

bool at_once = false;
std::vector<std::function<void()>> made;  // how to end what was made since the last forgetting, if at_once

template <class T>
T* keep(T* object) {
  if (at_once) made.push_back([object] { delete object; });
  return object;
}

class Queue {
 public:
  void push(std::function<void()> work) {
    if (at_once) return work();
    std::unique_lock lock(mu_);
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
    work_.push_back(std::move(work));
    wake_.notify_all();
  }
  void drain() {
    std::unique_lock lock(mu_);
    wake_.wait(lock, [this] { return work_.empty() && !running_; });
  }
  ~Queue() {
    {
      const std::unique_lock lock(mu_);
      stop_ = true;
      wake_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run() {
    std::unique_lock lock(mu_);
    while (true) {
      wake_.wait(lock, [this] { return stop_ || !work_.empty(); });
      if (work_.empty()) return;
      const auto work = std::move(work_.front());
      work_.pop_front();
      running_ = true;
      lock.unlock();
      work();
      lock.lock();
      running_ = false;
      wake_.notify_all();
    }
  }
  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> work_;
  bool running_ = false, stop_ = false;
  std::thread thread_;
};

struct Event {
  std::atomic<uint64_t> recorded{0}, done{0};
  std::atomic<uint64_t> at_ns{0};
};

struct Kernel {
  std::string name;
  size_t param_bytes = 0;
};

struct Image {
  std::vector<std::unique_ptr<Kernel>> kernels;
  std::map<std::string, std::pair<uint64_t, uint64_t>> globals;
  uint64_t base = 0, bytes = 0;
};

struct Context {
  Queue legacy;
};

Context* primary() {
  static auto* context = new Context;
  return context;
}
thread_local Context* current = nullptr;
uint64_t next_image = 0;
std::set<CUlibrary> loaded;

Queue* queue_of(CUstream stream) {
  if (stream == nullptr || stream == CU_STREAM_LEGACY) return &current->legacy;
  return reinterpret_cast<Queue*>(stream);
}

CUresult later(CUstream stream, std::function<void()> work) {
  if (lost != 0) return CUresult(lost.load());
  queue_of(stream)->push([work = std::move(work)] {
    if (lost == 0) work();
  });
  return CUDA_SUCCESS;
}

void* host(CUdeviceptr p) { return reinterpret_cast<void*>(p); }

// What is mapped, by address.
std::mutex maps_mu;
std::map<uint64_t, uint64_t> maps;

bool mapped(CUdeviceptr p, size_t bytes) {
  const std::lock_guard lock(maps_mu);
  for (uint64_t at = p; at < p + bytes;) {
    auto next = maps.upper_bound(at);
    if (next == maps.begin() || (--next)->first + next->second <= at) return false;
    at = next->first + next->second;
  }
  return p + bytes >= p;
}

void note_map(CUdeviceptr p, size_t bytes) {
  const std::lock_guard lock(maps_mu);
  maps[p] = bytes;
}

void note_unmap(CUdeviceptr p) {
  const std::lock_guard lock(maps_mu);
  maps.erase(p);
}

void run_kernel(const Kernel& kernel, const std::vector<uint64_t>& params) {
  if (at_once) return;
  if (kernel.name == "add") {
    auto* words = static_cast<uint32_t*>(host(params[0]));
    for (uint64_t i = 0; i < params[1]; ++i) words[i] += uint32_t(params[2]);
  } else if (kernel.name == "slow") {
    tide::sleep_us(uint32_t(params[0] * 1000));
  } else if (kernel.name == "tick") {
    auto* const word = reinterpret_cast<std::atomic<uint32_t>*>(host(params[0]));
    for (uint64_t i = 0; i < params[1]; ++i) {
      *word += uint32_t(params[2]);
      tide::sleep_us(1000);
    }
  } else if (kernel.name == "fault") {
    lost = CUDA_ERROR_ILLEGAL_ADDRESS;
  }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void fakeDriverActsAtOnce() { at_once = true; }
void fakeDriverForgets() {
  for (; !made.empty(); made.pop_back()) made.back()();
  maps.clear();
}

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* version) { return *version = 13000, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* count) { return *count = 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int) { return *device = 0, CUDA_SUCCESS; }
CUresult cuDeviceGetName(char* name, int bytes, CUdevice) { return strncpy(name, "Fake", size_t(bytes)), CUDA_SUCCESS; }
CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice) { return *bytes = 1u << 30, CUDA_SUCCESS; }
CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice) {
  const char* byte = getenv("FAKE_DRIVER_UUID");
  return memset(uuid, byte != nullptr ? atoi(byte) : 7, sizeof(*uuid)), CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute, CUdevice) { return *value = 0, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  return *context = reinterpret_cast<CUcontext>(primary()), CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { return current = reinterpret_cast<Context*>(context), CUDA_SUCCESS; }
CUresult cuCtxCreate_v2(CUcontext* context, unsigned, CUdevice) {
  return *context = reinterpret_cast<CUcontext>(current = keep(new Context)), CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent_v2(CUcontext*) { return CUDA_SUCCESS; }
CUresult cuCtxDestroy_v2(CUcontext context) {
  if (!at_once) delete reinterpret_cast<Context*>(context);
  return CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() { return CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit, size_t) { return CUDA_SUCCESS; }
CUresult cuCtxGetLimit(size_t* value, CUlimit) { return *value = 4096, CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult, const char** name) { return *name = "CUDA_ERROR", CUDA_SUCCESS; }

CUresult cuMemGetAllocationGranularity(size_t* n, const CUmemAllocationProp*, CUmemAllocationGranularity_flags) {
  return *n = kImageAlign, CUDA_SUCCESS;
}
CUresult cuMemAddressReserve(CUdeviceptr* p, size_t bytes, size_t, CUdeviceptr want, unsigned long long) {
  void* got =
      mmap(host(want), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  if (at_once) made.push_back([got, bytes] { munmap(got, bytes); });
  return *p = CUdeviceptr(got), CUDA_SUCCESS;
}
CUresult cuMemAddressFree(CUdeviceptr p, size_t bytes) { return munmap(host(p), bytes), CUDA_SUCCESS; }
CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp*,
                     unsigned long long) {
  return *handle = bytes, CUDA_SUCCESS;
}
CUresult cuMemRelease(CUmemGenericAllocationHandle) { return CUDA_SUCCESS; }
CUresult cuMemMap(CUdeviceptr p, size_t bytes, size_t, CUmemGenericAllocationHandle, unsigned long long) {
  // What another left there: the worker must zero it.
  if (mmap(host(p), bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (!at_once) memset(host(p), 0xee, bytes);
  note_map(p, bytes);
  return CUDA_SUCCESS;
}
CUresult cuMemUnmap(CUdeviceptr p, size_t bytes) {
  note_unmap(p);
  mmap(host(p), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return CUDA_SUCCESS;
}
CUresult cuMemSetAccess(CUdeviceptr, size_t, const CUmemAccessDesc*, size_t) { return CUDA_SUCCESS; }
CUresult cuMemHostAlloc(void** p, size_t bytes, unsigned) {
  void* const got = *p = aligned_alloc(4096, bytes);
  if (at_once) made.push_back([got] { free(got); });
  return CUDA_SUCCESS;
}
CUresult cuMemHostRegister_v2(void*, size_t, unsigned) { return CUDA_SUCCESS; }
CUresult cuMemHostUnregister(void*) { return CUDA_SUCCESS; }
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device, void* p, unsigned) {
  return *device = reinterpret_cast<CUdeviceptr>(p), CUDA_SUCCESS;
}

CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned, int) {
  return *stream = reinterpret_cast<CUstream>(keep(new Queue)), CUDA_SUCCESS;
}
// The worker's own queues stay: a destroyed stream still finishes its work.
CUresult cuStreamDestroy_v2(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream stream) { return queue_of(stream)->drain(), CUresult(lost.load()); }
CUresult cuEventCreate(CUevent* event, unsigned) {
  return *event = reinterpret_cast<CUevent>(keep(new Event)), CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent event, CUstream stream) {
  auto* e = reinterpret_cast<Event*>(event);
  const uint64_t number = ++e->recorded;
  return later(stream, [e, number] {
    e->at_ns = tide::now_ns();
    e->done = number;
  });
}
CUresult cuEventQuery(CUevent event) {
  if (lost != 0) return CUresult(lost.load());
  const auto* e = reinterpret_cast<const Event*>(event);
  return e->done == e->recorded ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult cuEventSynchronize(CUevent event) {
  while (cuEventQuery(event) == CUDA_ERROR_NOT_READY) tide::sleep_us(10);
  return CUresult(lost.load());
}
CUresult cuEventElapsedTime(float* ms, CUevent start, CUevent end) {
  const auto a = reinterpret_cast<const Event*>(start)->at_ns.load(),
             b = reinterpret_cast<const Event*>(end)->at_ns.load();
  return *ms = float(double(int64_t(b - a)) / 1e6), CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  const auto* e = reinterpret_cast<const Event*>(event);
  const uint64_t number = e->recorded;
  return later(stream, [e, number] {
    while (e->done < number && lost == 0) tide::sleep_us(10);
  });
}
CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* argument) {
  return later(stream, [=] { function(argument); });
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  if (!mapped(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return later(stream, [=] { memcpy(host(to), from, bytes); });
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  if (!mapped(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return later(stream, [=] { memcpy(to, host(from), bytes); });
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  if (!mapped(from, bytes) || !mapped(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return later(stream, [=] { memmove(host(to), host(from), bytes); });
}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* c, CUstream stream) {
  const auto* from =
      static_cast<const char*>(c->srcMemoryType == CU_MEMORYTYPE_DEVICE ? host(c->srcDevice) : c->srcHost);
  auto* to = static_cast<char*>(c->dstMemoryType == CU_MEMORYTYPE_DEVICE ? host(c->dstDevice) : c->dstHost);
  for (size_t row = 0; row < c->Height; ++row) {
    if (c->srcMemoryType == CU_MEMORYTYPE_DEVICE && !mapped(c->srcDevice + row * c->srcPitch, c->WidthInBytes)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (c->dstMemoryType == CU_MEMORYTYPE_DEVICE && !mapped(c->dstDevice + row * c->dstPitch, c->WidthInBytes)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return later(stream, [from, to, c = *c] {
    for (size_t row = 0; row < c.Height; ++row) memcpy(to + row * c.dstPitch, from + row * c.srcPitch, c.WidthInBytes);
  });
}
CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char value, size_t n, CUstream stream) {
  if (!mapped(p, n)) return CUDA_ERROR_INVALID_VALUE;
  if (at_once) return CUDA_SUCCESS;  // new pages are zero, and nobody looks
  return later(stream, [=] { memset(host(p), value, n); });
}
CUresult cuMemsetD32Async(CUdeviceptr p, unsigned value, size_t n, CUstream stream) {
  if (!mapped(p, n * 4)) return CUDA_ERROR_INVALID_VALUE;
  if (at_once) return CUDA_SUCCESS;
  return later(stream, [=] { std::fill_n(static_cast<unsigned*>(host(p)), n, value); });
}

CUresult softgpuSetImageBase(CUdeviceptr base) { return next_image = base, CUDA_SUCCESS; }
CUresult softgpuGetImageRange(CUlibrary library, CUdeviceptr* base, size_t* bytes) {
  const auto* image = reinterpret_cast<const Image*>(library);
  *base = image->base;
  *bytes = image->bytes;
  return CUDA_SUCCESS;
}
CUresult softgpuHashChunks(const tide::ChunkSecret* secret, const CUdeviceptr* addresses, size_t count,
                           tide::ChunkHash* hashes) {
  for (size_t i = 0; i < count; ++i) {
    if (!mapped(addresses[i], tide::kChunkBytes)) return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; ++i) hashes[i] = hash_chunk(*secret, host(addresses[i]));
  return CUDA_SUCCESS;
}
CUresult cuLibraryUnload(CUlibrary library);
CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option*, void**, unsigned, CUlibraryOption*,
                           void**, unsigned) {
  auto image = std::make_unique<Image>();
  std::istringstream text(static_cast<const char*>(code));
  std::string kind, name;
  uint64_t bytes = 0, at = 0;
  while (text >> kind >> name >> bytes) {
    if (kind == "kernel") image->kernels.push_back(std::make_unique<Kernel>(Kernel{name, bytes}));
    if (kind == "global") image->globals[name] = {at, bytes}, at += (bytes + 255) / 256 * 256;
  }
  if (image->kernels.empty()) return CUDA_ERROR_INVALID_IMAGE;
  image->base = next_image;
  image->bytes = at;
  if (at != 0) {
    void* got =
        mmap(host(image->base), at, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(got, 0x11, at);
    note_map(image->base, at);
  }
  if (at_once) {
    made.push_back([library = reinterpret_cast<CUlibrary>(image.get())] {
      if (loaded.count(library) != 0) cuLibraryUnload(library);
    });
  }
  *library = reinterpret_cast<CUlibrary>(image.release());
  loaded.insert(*library);
  return CUDA_SUCCESS;
}
CUresult cuLibraryUnload(CUlibrary library) {
  auto* image = reinterpret_cast<Image*>(library);
  loaded.erase(library);
  note_unmap(image->base);
  if (image->bytes != 0) munmap(host(image->base), image->bytes);
  return delete image, CUDA_SUCCESS;
}
CUresult cuLibraryGetKernelCount(unsigned* count, CUlibrary library) {
  return *count = unsigned(reinterpret_cast<Image*>(library)->kernels.size()), CUDA_SUCCESS;
}
CUresult cuLibraryEnumerateKernels(CUkernel* kernels, unsigned count, CUlibrary library) {
  for (unsigned i = 0; i < count; ++i) {
    kernels[i] = reinterpret_cast<CUkernel>(reinterpret_cast<Image*>(library)->kernels[i].get());
  }
  return CUDA_SUCCESS;
}
CUresult cuLibraryGetGlobal(CUdeviceptr* p, size_t* bytes, CUlibrary library, const char* name) {
  const auto* image = reinterpret_cast<const Image*>(library);
  const auto found = image->globals.find(name);
  if (found == image->globals.end()) return CUDA_ERROR_NOT_FOUND;
  *p = image->base + found->second.first;
  *bytes = found->second.second;
  return CUDA_SUCCESS;
}
CUresult cuKernelGetName(const char** name, CUkernel kernel) {
  return *name = reinterpret_cast<Kernel*>(kernel)->name.c_str(), CUDA_SUCCESS;
}
CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t* offset, size_t* bytes) {
  if (index >= reinterpret_cast<Kernel*>(kernel)->param_bytes / 8) return CUDA_ERROR_INVALID_VALUE;
  *offset = index * 8;
  *bytes = 8;
  return CUDA_SUCCESS;
}
CUresult cuKernelGetAttribute(int* value, CUfunction_attribute, CUkernel, CUdevice) {
  return *value = 1024, CUDA_SUCCESS;
}
CUresult cuKernelSetAttribute(CUfunction_attribute, int, CUkernel, CUdevice) { return CUDA_SUCCESS; }
CUresult cuKernelGetFunction(CUfunction* function, CUkernel kernel) {
  return *function = reinterpret_cast<CUfunction>(kernel), CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                        CUstream stream, void**, void** extra) {
  if (x == 0) return CUDA_ERROR_INVALID_VALUE;
  const auto* kernel = reinterpret_cast<const Kernel*>(function);
  std::vector<uint64_t> params(kernel->param_bytes / 8);
  if (!params.empty()) memcpy(params.data(), extra[1], params.size() * 8);
  return later(stream, [kernel, params] { run_kernel(*kernel, params); });
}

}  // extern "C"
#pragma GCC visibility pop
