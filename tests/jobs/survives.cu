// One case for each kind of state that a move of the GPU could lose: it is made, and looked at again and again after
// lines of input, between which somebody moves the vGPU.
//   ./survives [--looks N] CASE...     "all" but those that end the context; a case that is lost says so
//   ./survives --list

#include <cuda.h>
#include <math.h>
#include <stdint.h>

#include <string>
#include <vector>

#include "job.h"

#define DRIVER(call)                                                                     \
  do {                                                                                   \
    const CUresult result_ = (call);                                                     \
    if (result_ != CUDA_SUCCESS) {                                                       \
      fprintf(stderr, "%s:%d: %s: error %d\n", __FILE__, __LINE__, #call, (int)result_); \
      exit(1);                                                                           \
    }                                                                                    \
  } while (0)

namespace {

constexpr int kSlowTurns = 200'000;

// Long enough that a move begins while it runs.
__host__ __device__ uint32_t slow(uint32_t x) {
  for (int i = 0; i < kSlowTurns; i++) x ^= x << 13, x ^= x >> 17, x ^= x << 5;
  return x;
}

struct Case {
  virtual ~Case() = default;
  virtual void make() = 0;
  virtual void look(int time) = 0;  // time: 0, 1, ...
};

template <class T>
T value_at(const T* device) {
  T value;
  CHECK(cudaMemcpy(&value, device, sizeof value, cudaMemcpyDeviceToHost));
  return value;
}

// ---- Addresses that lie in device memory.
struct Node {
  Node* next;
  uint32_t value;
};

__global__ void walk(const Node* node, uint32_t* sum) {
  uint32_t all = 0;
  for (; node != nullptr; node = node->next) all = all * 31 + node->value;
  *sum = all;
}

struct Memory : Case {
  static constexpr int kNodes = 100, kBytes = 9 << 20;
  std::vector<Node*> nodes;
  uint32_t* sum = nullptr;
  unsigned char* bulk = nullptr;
  uint32_t expected = 0;
  void make() override {
    nodes.resize(kNodes);
    for (auto& node : nodes) CHECK(cudaMalloc(&node, sizeof(Node)));
    for (int i = 0; i < kNodes; i++) {
      const Node node = {i + 1 < kNodes ? nodes[i + 1] : nullptr, (uint32_t)i * 7 + 1};
      CHECK(cudaMemcpy(nodes[i], &node, sizeof node, cudaMemcpyHostToDevice));
      expected = expected * 31 + node.value;
    }
    CHECK(cudaMalloc(&sum, 4));
    CHECK(cudaMalloc(&bulk, kBytes));
    CHECK(cudaMemset(bulk, 0x5a, kBytes - 1));
    CHECK(cudaMemset(bulk + kBytes - 1, 0x77, 1));
  }
  void look(int) override {
    walk<<<1, 1>>>(nodes[0], sum);
    EXPECT(value_at(sum) == expected, "the list in device memory leads elsewhere");
    std::vector<unsigned char> back(kBytes);
    CHECK(cudaMemcpy(back.data(), bulk, kBytes, cudaMemcpyDeviceToHost));
    size_t wrong = back[kBytes - 1] != 0x77;
    for (int i = 0; i + 1 < kBytes; i++) wrong += back[i] != 0x5a;
    EXPECT(wrong == 0, "%zu bytes of memory", wrong);
  }
};

// ---- Variables of modules.
__device__ uint32_t global_values[1000];
__device__ uint32_t* global_pointer;
__constant__ uint32_t constant_values[16];

__global__ void use_globals(uint32_t* out) { *out = global_pointer[3] + constant_values[5]; }

struct Globals : Case {
  void *values = nullptr, *pointer = nullptr, *constants = nullptr;
  uint32_t* out = nullptr;
  void make() override {
    CHECK(cudaGetSymbolAddress(&values, global_values));
    CHECK(cudaGetSymbolAddress(&pointer, global_pointer));
    CHECK(cudaGetSymbolAddress(&constants, constant_values));
    uint32_t numbers[1000], few[16];
    for (int i = 0; i < 1000; i++) numbers[i] = i * i;
    for (int i = 0; i < 16; i++) few[i] = 100 * i;
    CHECK(cudaMemcpyToSymbol(global_values, numbers, sizeof numbers));
    CHECK(cudaMemcpyToSymbol(global_pointer, &values, sizeof values));
    CHECK(cudaMemcpyToSymbol(constant_values, few, sizeof few));
    CHECK(cudaMalloc(&out, 4));
  }
  void look(int time) override {
    void* now = nullptr;
    CHECK(cudaGetSymbolAddress(&now, global_values));
    EXPECT(now == values, "a variable's address");
    CHECK(cudaGetSymbolAddress(&now, constant_values));
    EXPECT(now == constants, "a constant's address");
    use_globals<<<1, 1>>>(out);
    EXPECT(value_at(out) == 9 + 500 + (uint32_t)time, "what variables hold");
    const uint32_t next = 9 + time + 1;
    CHECK(cudaMemcpyToSymbol(global_values, &next, 4, 3 * 4));
  }
};

// ---- Attributes of functions.
__global__ void much_shared(uint32_t* out) {
  extern __shared__ uint32_t shared[];
  shared[(80 << 10) / 4 - 1] = 42;
  __syncthreads();
  *out = shared[(80 << 10) / 4 - 1];
}

struct Attributes : Case {
  uint32_t* out = nullptr;
  void make() override {
    CHECK(cudaMalloc(&out, 4));
    CHECK(cudaFuncSetAttribute(much_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 80 << 10));
    CHECK(cudaFuncSetAttribute(much_shared, cudaFuncAttributePreferredSharedMemoryCarveout, 60));
  }
  void look(int) override {
    CHECK(cudaMemset(out, 0, 4));
    much_shared<<<1, 1, 80 << 10>>>(out);
    const cudaError_t launched = cudaGetLastError();
    EXPECT(launched == cudaSuccess, "a launch with much shared memory: %s", cudaGetErrorString(launched));
    EXPECT(value_at(out) == 42, "shared memory");
    cudaFuncAttributes what;
    CHECK(cudaFuncGetAttributes(&what, much_shared));
    EXPECT(what.maxDynamicSharedSizeBytes == 80 << 10, "the limit is %d", what.maxDynamicSharedSizeBytes);
    EXPECT(what.preferredShmemCarveout == 60, "the carveout is %d", what.preferredShmemCarveout);
  }
};

// ---- Streams, and what is on them.
__global__ void turn(uint32_t* x, uint32_t factor, uint32_t add) { *x = *x * factor + add; }
__global__ void slow_turn(uint32_t* x) { *x = slow(*x); }

struct Streams : Case {
  cudaStream_t high = nullptr, apart = nullptr;
  int least = 0, greatest = 0;
  uint32_t *x = nullptr, expected = 5;
  void make() override {
    CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CHECK(cudaStreamCreateWithPriority(&high, cudaStreamDefault, greatest));
    CHECK(cudaStreamCreateWithFlags(&apart, cudaStreamNonBlocking));
    CHECK(cudaMalloc(&x, 4));
    CHECK(cudaMemcpy(x, &expected, 4, cudaMemcpyHostToDevice));
  }
  void look(int) override {
    int priority = 99;
    unsigned flags = 99;
    CHECK(cudaStreamGetPriority(high, &priority));
    EXPECT(priority == greatest, "a priority is %d", priority);
    CHECK(cudaStreamGetFlags(apart, &flags));
    EXPECT(flags == cudaStreamNonBlocking, "flags are %u", flags);
    // A stream that blocks takes turns with the default stream; one that does not is made to wait.
    cudaEvent_t event;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    for (uint32_t i = 0; i < 5; i++) {
      turn<<<1, 1, 0, high>>>(x, 3, i);
      turn<<<1, 1>>>(x, 5, i);
      CHECK(cudaEventRecord(event, nullptr));
      CHECK(cudaStreamWaitEvent(apart, event, 0));
      turn<<<1, 1, 0, apart>>>(x, 7, i);
      CHECK(cudaEventRecord(event, apart));
      CHECK(cudaStreamWaitEvent(high, event, 0));
      expected = ((expected * 3 + i) * 5 + i) * 7 + i;
    }
    CHECK(cudaDeviceSynchronize());
    EXPECT(value_at(x) == expected, "the order of streams");
    CHECK(cudaEventDestroy(event));
  }
};

// ---- Work that is under way, on streams that wait for one another, and host functions behind it.
struct Pending : Case {
  static constexpr int kStreams = 3, kTurns = 30;
  cudaStream_t streams[kStreams];
  uint32_t *x = nullptr, expected = 1;
  std::vector<int> called;
  struct Call {
    std::vector<int>* called;
    int number;
  } calls[kTurns];
  void make() override {
    for (auto& stream : streams) CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaMalloc(&x, 4));
    CHECK(cudaMemcpy(x, &expected, 4, cudaMemcpyHostToDevice));
    CHECK(cudaDeviceSynchronize());  // the copy may still be under way, on a stream that these do not wait for
    begin();
  }
  void begin() {
    cudaEvent_t event;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    called.clear();
    for (int i = 0; i < kTurns; i++) {
      const cudaStream_t stream = streams[i % kStreams];
      if (i % 5 == 0) {
        slow_turn<<<1, 1, 0, stream>>>(x);
        expected = slow(expected);
      }
      turn<<<1, 1, 0, stream>>>(x, 3, i);
      expected = expected * 3 + i;
      calls[i] = {&called, i};
      CHECK(cudaLaunchHostFunc(
          stream,
          [](void* data) {
            const Call* call = (const Call*)data;
            call->called->push_back(call->number);
          },
          &calls[i]));
      CHECK(cudaEventRecord(event, stream));
      CHECK(cudaStreamWaitEvent(streams[(i + 1) % kStreams], event, 0));
    }
    CHECK(cudaEventDestroy(event));
  }
  void look(int) override {
    CHECK(cudaDeviceSynchronize());
    EXPECT(value_at(x) == expected, "work that was under way");
    EXPECT(called.size() == kTurns, "%zu host functions of %d", called.size(), kTurns);
    for (size_t i = 0; i < called.size(); i++) EXPECT(called[i] == (int)i, "a host function's turn");
    begin();
  }
};

// ---- Events and their times.
struct Events : Case {
  cudaEvent_t first = nullptr, second = nullptr, third = nullptr;
  uint32_t* x = nullptr;
  float apart_ms = 0;
  double second_at = 0;
  void make() override {
    CHECK(cudaMalloc(&x, 4));
    for (auto event : {&first, &second, &third}) CHECK(cudaEventCreate(event));
    CHECK(cudaEventRecord(first));
    slow_turn<<<1, 1>>>(x);
    CHECK(cudaEventRecord(second));
    CHECK(cudaEventSynchronize(second));
    second_at = now_seconds();
    CHECK(cudaEventElapsedTime(&apart_ms, first, second));
  }
  void look(int) override {
    float ms = -1;
    EXPECT(cudaEventQuery(first) == cudaSuccess, "an event that had been reached");
    CHECK(cudaEventElapsedTime(&ms, first, second));
    EXPECT(fabsf(ms - apart_ms) < 0.01f, "%f ms between two events became %f", apart_ms, ms);
    CHECK(cudaEventRecord(third));
    CHECK(cudaEventSynchronize(third));
    const double here_ms = 1e3 * (now_seconds() - second_at);
    CHECK(cudaEventElapsedTime(&ms, second, third));
    EXPECT(ms > 0 && ms < here_ms + 50 && ms > here_ms / 2 - 50, "%f ms since an event, here %f", ms, here_ms);
  }
};

// ---- Graphs: one that is ready to run and was changed since.
struct Graphs : Case {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  cudaGraphNode_t nodes[3];
  uint32_t *x = nullptr, factor = 2, add = 1;
  cudaKernelNodeParams params(uint32_t* f, uint32_t* a) {
    static void* arguments[3];
    arguments[0] = &x, arguments[1] = f, arguments[2] = a;
    cudaKernelNodeParams made = {};
    made.func = (void*)turn;
    made.gridDim = made.blockDim = dim3(1);
    made.kernelParams = arguments;
    return made;
  }
  void make() override {
    CHECK(cudaMalloc(&x, 4));
    CHECK(cudaGraphCreate(&graph, 0));
    for (int i = 0; i < 3; i++) {
      const cudaKernelNodeParams made = params(&factor, &add);
      CHECK(cudaGraphAddKernelNode(&nodes[i], graph, i == 0 ? nullptr : &nodes[i - 1], i == 0 ? 0 : 1, &made));
    }
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    CHECK(cudaGraphNodeSetEnabled(ready, nodes[1], 0));
    edit(10);
  }
  void edit(uint32_t to) {
    uint32_t f = to, a = to + 1;
    const cudaKernelNodeParams made = params(&f, &a);
    CHECK(cudaGraphExecKernelNodeSetParams(ready, nodes[2], &made));
  }
  void look(int time) override {
    CHECK(cudaMemset(x, 0, 4));
    CHECK(cudaGraphLaunch(ready, nullptr));
    const uint32_t f = 10 + time;  // 0 * 2 + 1, the second node is off, and the third one was edited
    EXPECT(value_at(x) == f + f + 1, "an edited graph gives %u", value_at(x));
    edit(f + 1);
    unsigned on = 9;
    CHECK(cudaGraphNodeGetEnabled(ready, nodes[1], &on));
    EXPECT(on == 0, "a node that was off");
  }
};

// ---- Pools of memory.
struct Pools : Case {
  cudaMemPool_t pool = nullptr;
  uint32_t *kept = nullptr, *freed = nullptr;
  static constexpr uint64_t kThreshold = 5 << 20;
  void make() override {
    cudaMemPoolProps what = {};
    what.allocType = cudaMemAllocationTypePinned;
    what.location.type = cudaMemLocationTypeDevice;
    CHECK(cudaMemPoolCreate(&pool, &what));
    uint64_t threshold = kThreshold;
    CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
    CHECK(cudaMallocFromPoolAsync(&kept, 3 << 20, pool, nullptr));
    CHECK(cudaMallocFromPoolAsync(&freed, 1 << 20, pool, nullptr));
    CHECK(cudaMemsetAsync(kept, 0x21, 3 << 20, nullptr));
    CHECK(cudaFreeAsync(freed, nullptr));
  }
  void look(int) override {
    uint64_t value = 0;
    CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &value));
    EXPECT(value == kThreshold, "a pool's threshold");
    CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &value));
    EXPECT(value == 3 << 20, "%llu bytes of the pool are in use", (unsigned long long)value);
    EXPECT(value_at(kept + (3 << 18) - 1) == 0x21212121, "memory of a pool");
    uint32_t* more = nullptr;
    CHECK(cudaMallocFromPoolAsync(&more, 1 << 20, pool, nullptr));
    CHECK(cudaMemsetAsync(more, 0x31, 1 << 20, nullptr));
    EXPECT(value_at(more + 7) == 0x31313131 && value_at(kept + 7) == 0x21212121, "new memory of a pool");
    CHECK(cudaFreeAsync(more, nullptr));
  }
};

// ---- The functions of virtual memory.
struct Mappings : Case {
  static constexpr size_t kBytes = 4 << 20;
  CUdeviceptr place = 0;
  CUmemGenericAllocationHandle first = 0, waiting = 0;
  void map(CUdeviceptr at, CUmemGenericAllocationHandle handle) {
    DRIVER(cuMemMap(at, kBytes, 0, handle, 0));
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    DRIVER(cuMemSetAccess(at, kBytes, &access, 1));
  }
  void make() override {
    CUmemAllocationProp what = {};
    what.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    what.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    DRIVER(cuMemAddressReserve(&place, 3 * kBytes, 0, 0, 0));
    DRIVER(cuMemCreate(&first, kBytes, &what, 0));
    DRIVER(cuMemCreate(&waiting, kBytes, &what, 0));
    map(place, first);
    DRIVER(cuMemsetD8(place, 0x44, kBytes));
  }
  void look(int time) override {
    EXPECT(value_at((const uint32_t*)(place + kBytes - 4)) == 0x44444444, "mapped memory");
    CUmemGenericAllocationHandle handle = 0;
    DRIVER(cuMemRetainAllocationHandle(&handle, (void*)place));
    DRIVER(cuMemRelease(handle));
    if (time == 0) {  // what had no address when it was moved gets one
      map(place + 2 * kBytes, waiting);
      DRIVER(cuMemsetD8(place + 2 * kBytes, 0x55, kBytes));
    }
    EXPECT(value_at((const uint32_t*)(place + 3 * kBytes - 4)) == 0x55555555, "memory that was mapped later");
  }
};

// ---- Arrays, what kernels read them by, and what they write them by.
__global__ void sample(cudaTextureObject_t texture, cudaSurfaceObject_t surface, float* out) {
  float was = 0;
  surf2Dread(&was, surface, 4 * sizeof(float), 3);
  *out = tex2D<float>(texture, 0.5f, 0.5f) + was;
  surf2Dwrite(was + 1.0f, surface, 4 * sizeof(float), 3);
}

struct Arrays : Case {
  static constexpr int kSide = 16;
  cudaArray_t flat = nullptr, deep = nullptr, canvas = nullptr;
  cudaTextureObject_t texture = 0;
  cudaSurfaceObject_t surface = 0;
  std::vector<float> values;
  float* out = nullptr;
  void make() override {
    values.resize(kSide * kSide);
    for (int i = 0; i < kSide * kSide; i++) values[i] = (float)i;
    const cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    CHECK(cudaMallocArray(&flat, &format, kSide, kSide));
    CHECK(cudaMallocArray(&canvas, &format, kSide, kSide, cudaArraySurfaceLoadStore));
    CHECK(cudaMalloc3DArray(&deep, &format, make_cudaExtent(kSide, 4, kSide / 4)));
    const size_t row = kSide * sizeof(float);
    CHECK(cudaMemcpy2DToArray(flat, 0, 0, values.data(), row, row, kSide, cudaMemcpyHostToDevice));
    std::vector<float> zeros(kSide * kSide);
    CHECK(cudaMemcpy2DToArray(canvas, 0, 0, zeros.data(), row, row, kSide, cudaMemcpyHostToDevice));
    CHECK(cudaMalloc(&out, 4));
    copy_deep(make_cudaPitchedPtr(values.data(), row, kSide, 4), true);
    cudaResourceDesc what = {};
    what.resType = cudaResourceTypeArray;
    what.res.array.array = flat;
    cudaTextureDesc how = {};
    how.addressMode[0] = how.addressMode[1] = cudaAddressModeClamp;
    how.filterMode = cudaFilterModeLinear;
    how.normalizedCoords = 1;
    CHECK(cudaCreateTextureObject(&texture, &what, &how, nullptr));
    what.res.array.array = canvas;
    CHECK(cudaCreateSurfaceObject(&surface, &what));
  }
  void copy_deep(cudaPitchedPtr host, bool in) {
    cudaMemcpy3DParms copy = {};
    (in ? copy.srcPtr : copy.dstPtr) = host;
    (in ? copy.dstArray : copy.srcArray) = deep;
    copy.extent = make_cudaExtent(kSide, 4, kSide / 4);
    copy.kind = in ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
    CHECK(cudaMemcpy3D(&copy));
  }
  void look(int time) override {
    sample<<<1, 1>>>(texture, surface, out);
    // In the middle of four texels: their mean.
    const float mean = (values[7 * 16 + 7] + values[7 * 16 + 8] + values[8 * 16 + 7] + values[8 * 16 + 8]) / 4;
    EXPECT(value_at(out) == mean + (float)time, "texture and surface give %f", value_at(out));
    std::vector<float> back(kSide * kSide);
    const size_t row = kSide * sizeof(float);
    CHECK(cudaMemcpy2DFromArray(back.data(), row, flat, 0, 0, row, kSide, cudaMemcpyDeviceToHost));
    EXPECT(back == values, "an array");
    back.assign(back.size(), 0);
    copy_deep(make_cudaPitchedPtr(back.data(), row, kSide, 4), false);
    EXPECT(back == values, "an array of three dimensions");
  }
};

// ---- Host memory that kernels reach.
__managed__ uint32_t managed_variable = 3;
__global__ void add_to(uint32_t* a, uint32_t* b) {
  *a += 1;
  *b += 10;
  managed_variable += 100;
}

struct HostMemory : Case {
  uint32_t *mapped = nullptr, *on_device = nullptr, *managed = nullptr;
  void make() override {
    CHECK(cudaHostAlloc(&mapped, 1 << 20, cudaHostAllocMapped));
    CHECK(cudaHostGetDevicePointer(&on_device, mapped, 0));
    CHECK(cudaMallocManaged(&managed, 1 << 20));
    memset(mapped, 0, 1 << 20);
    memset(managed, 0, 1 << 20);
    managed_variable = 3;
  }
  void look(int time) override {
    void* now = nullptr;
    CHECK(cudaHostGetDevicePointer(&now, mapped, 0));
    EXPECT(now == on_device, "mapped memory's address");
    add_to<<<1, 1>>>(on_device, managed);
    CHECK(cudaDeviceSynchronize());
    const uint32_t times = time + 1;
    EXPECT(*mapped == times, "mapped memory holds %u", *mapped);
    EXPECT(*managed == 10 * times, "managed memory holds %u", *managed);
    EXPECT(managed_variable == 3 + 100 * times, "a managed variable holds %u", managed_variable);
  }
};

// ---- Modules that the program loads itself.
const char kModule[] = R"(
.version 8.0
.target sm_75
.address_size 64
.visible .global .u32 count = 5;
.visible .entry bump() {
  .reg .u32 %x;
  ld.global.u32 %x, [count];
  add.u32 %x, %x, 1;
  st.global.u32 [count], %x;
  ret;
}
)";

struct Modules : Case {
  CUmodule module = nullptr, short_lived = nullptr;
  CUlibrary library = nullptr;
  CUfunction bump = nullptr;
  CUkernel library_bump = nullptr;
  CUdeviceptr count = 0, library_count = 0;
  void make() override {
    DRIVER(cuModuleLoadData(&short_lived, kModule));
    DRIVER(cuModuleLoadData(&module, kModule));
    DRIVER(cuModuleGetFunction(&bump, module, "bump"));
    DRIVER(cuModuleGetGlobal(&count, nullptr, module, "count"));
    DRIVER(cuLibraryLoadData(&library, kModule, nullptr, nullptr, 0, nullptr, nullptr, 0));
    DRIVER(cuLibraryGetKernel(&library_bump, library, "bump"));
    DRIVER(cuLibraryGetGlobal(&library_count, nullptr, library, "count"));
  }
  void look(int time) override {
    DRIVER(cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    DRIVER(cuLaunchKernel((CUfunction)library_bump, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    CUdeviceptr now = 0;
    DRIVER(cuModuleGetGlobal(&now, nullptr, module, "count"));
    EXPECT(now == count, "a module's variable is elsewhere");
    EXPECT(value_at((const uint32_t*)count) == 6 + (uint32_t)time, "a module's variable");
    EXPECT(value_at((const uint32_t*)library_count) == 6 + (uint32_t)time, "a library's variable");
    if (time == 0) DRIVER(cuModuleUnload(short_lived));
  }
};

// ---- Limits of the device.
__device__ __noinline__ uint32_t deep(uint32_t n) {
  volatile uint32_t here[64];
  here[n % 64] = n;
  return n == 0 ? 0 : deep(n - 1) + here[n % 64];
}
__global__ void recurse(uint32_t n, uint32_t* out) { *out = deep(n); }

struct Limits : Case {
  uint32_t* out = nullptr;
  void make() override {
    CHECK(cudaMalloc(&out, 4));
    CHECK(cudaDeviceSetLimit(cudaLimitStackSize, 64 << 10));
    CHECK(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 24 << 20));
  }
  void look(int) override {
    size_t bytes = 0;
    CHECK(cudaDeviceGetLimit(&bytes, cudaLimitStackSize));
    EXPECT(bytes == 64 << 10, "the stack's limit is %zu", bytes);
    CHECK(cudaDeviceGetLimit(&bytes, cudaLimitMallocHeapSize));
    EXPECT(bytes == 24 << 20, "the heap's limit is %zu", bytes);
    recurse<<<1, 1>>>(100, out);
    EXPECT(value_at(out) == 5050, "a deep call");
  }
};

// ---- What kernels print comes out once, and in order.
__global__ void say(int number) { printf("said %d\n", number); }

struct Text : Case {
  void make() override {
    for (int i = 0; i < 5; i++) say<<<1, 1>>>(i);
  }
  void look(int time) override {
    for (int i = 0; i < 5; i++) say<<<1, 1>>>(5 * (time + 1) + i);
    CHECK(cudaDeviceSynchronize());
  }
};

// ---- Copies between two devices, wherever they are.
struct Peers : Case {
  uint32_t* values[2] = {};
  void make() override {
    int devices = 0;
    CHECK(cudaGetDeviceCount(&devices));
    EXPECT(devices >= 2, "it needs two devices");
    for (int i = 0; i < 2; i++) {
      CHECK(cudaSetDevice(i));
      CHECK(cudaMalloc(&values[i], 4 << 20));
    }
    CHECK(cudaSetDevice(0));
  }
  void look(int time) override {
    CHECK(cudaMemset(values[0], 0x10 + time, 4 << 20));
    CHECK(cudaMemcpyPeer(values[1], 1, values[0], 0, 4 << 20));
    CHECK(cudaSetDevice(1));
    EXPECT(value_at(values[1] + (1 << 20) - 1) == 0x01010101u * (0x10 + time), "a copy between devices");
    CHECK(cudaSetDevice(0));
  }
};

// ---- An error that stays.
__global__ void trap() { asm("trap;"); }

struct Sticky : Case {
  cudaError_t error = cudaSuccess;
  void make() override {
    trap<<<1, 1>>>();
    error = cudaDeviceSynchronize();
    EXPECT(error != cudaSuccess, "a trap gives no error");
  }
  void look(int) override {
    void* memory = nullptr;
    EXPECT(cudaDeviceSynchronize() == error, "the error changed");
    EXPECT(cudaMalloc(&memory, 4) == error, "the error went away");
  }
};

template <class T>
Case* make_case() {
  return new T;
}

const struct {
  const char* name;
  Case* (*make)();
  bool alone;
} kCases[] = {
    {"memory", make_case<Memory>, false},
    {"globals", make_case<Globals>, false},
    {"attributes", make_case<Attributes>, false},
    {"streams", make_case<Streams>, false},
    {"events", make_case<Events>, false},
    {"graphs", make_case<Graphs>, false},
    {"pools", make_case<Pools>, false},
    {"mappings", make_case<Mappings>, false},
    {"arrays", make_case<Arrays>, false},
    {"host_memory", make_case<HostMemory>, false},
    {"modules", make_case<Modules>, false},
    {"limits", make_case<Limits>, false},
    {"text", make_case<Text>, false},
    {"pending", make_case<Pending>, false},
    {"peers", make_case<Peers>, true},
    {"sticky", make_case<Sticky>, true},
};

}  // namespace

int main(int argc, char** argv) {
  struct Chosen {
    const char* name;
    Case* what;
  };
  std::vector<Chosen> chosen;
  const int looks = (int)option(argc, argv, "--looks", 3);
  for (const auto& entry : kCases) {
    bool wanted = false;
    for (int i = 1; i < argc; i++) {
      if (strcmp(argv[i], "--list") == 0) printf("%s\n", entry.name);
      wanted |= strcmp(argv[i], entry.name) == 0 || (strcmp(argv[i], "all") == 0 && !entry.alone);
    }
    if (wanted) chosen.push_back({entry.name, entry.make()});
  }
  for (const Chosen& each : chosen) each.what->make();
  for (int time = 0; time < looks; time++) {
    gate("ready");
    for (const Chosen& each : chosen) {
      const int before = failures_;
      each.what->look(time);
      printf("%s: %s\n", each.name, failures_ == before ? "there" : "LOST");
      fflush(stdout);
    }
  }
  return verdict("survives");
}
