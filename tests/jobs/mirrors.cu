// Memory that host and kernels share, and pools: managed, page-locked and registered host memory. Both sides change
// different parts between synchronisations, and each must find the other's; both talk to each other while a kernel
// runs. --live adds
// what needs the same memory on both sides: one word that both change at once. --small: only small blocks.
//   ./mirrors [--live] [--seconds N] [--small]

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "job.h"

namespace {

constexpr int kCount = 10000;       // compared
constexpr int kLargeCount = 50000;  // watched

__global__ void add(int* values, int first, int count, int amount) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[first + i] += amount;
}

void add_some(int* values, int first, int count, int amount, cudaStream_t stream = 0) {
  add<<<(count + 127) / 128, 128, 0, stream>>>(values, first, count, amount);
  CHECK(cudaGetLastError());
}

// `host` and `device` name the same memory.
void check_sharing(const char* what, int* host, int* device, int count) {
  for (int i = 0; i < count; i++) host[i] = i;
  add_some(device, 0, count, 1);
  CHECK(cudaDeviceSynchronize());
  for (int i = 0; i < count; i += 7) EXPECT(host[i] == i + 1, "%s: %d at %d", what, host[i], i);
  // The device takes even halves, the host writes beside it while nothing was waited for.
  add_some(device, 0, count / 2, 10);
  for (int i = count / 2; i < count; i++) host[i] = -i;
  add_some(device, count / 2, count / 2, 100);
  CHECK(cudaDeviceSynchronize());
  for (int i = 0; i < count; i += 3) {
    const int expected = i < count / 2 ? i + 11 : 100 - i;
    EXPECT(host[i] == expected, "%s: %d at %d, not %d", what, host[i], i, expected);
  }
  // Copies and fills see it, too.
  std::vector<int> copied(count);
  host[5] = 55;
  CHECK(cudaMemcpy(copied.data(), host, count * sizeof(int), cudaMemcpyDefault));
  EXPECT(copied[5] == 55 && copied[6] == 17, "%s: copied %d %d", what, copied[5], copied[6]);
  copied[9] = 99;
  CHECK(cudaMemcpy(host, copied.data(), count * sizeof(int), cudaMemcpyDefault));
  EXPECT(host[9] == 99, "%s: %d", what, host[9]);
  CHECK(cudaMemset(device, 0, 64));
  CHECK(cudaDeviceSynchronize());
  EXPECT(host[0] == 0 && host[16] == 27, "%s: %d %d", what, host[0], host[16]);
}

void check_managed(int count) {
  int* values = nullptr;
  CHECK(cudaMallocManaged(&values, count * sizeof(int)));
  cudaPointerAttributes about{};
  CHECK(cudaPointerGetAttributes(&about, values + 3));
  EXPECT(about.type == cudaMemoryTypeManaged && about.hostPointer == about.devicePointer, "type %d", (int)about.type);
  check_sharing("managed", values, values, count);
  // Events and streams order as well as the device does.
  cudaStream_t stream;
  cudaEvent_t event;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaEventCreate(&event));
  values[1] = 1;
  add_some(values, 0, 8, 5, stream);
  CHECK(cudaEventRecord(event, stream));
  CHECK(cudaEventSynchronize(event));
  EXPECT(values[1] == 6, "%d", values[1]);
  values[1] = 2;
  add_some(values, 0, 8, 5, stream);
  CHECK(cudaStreamSynchronize(stream));
  EXPECT(values[1] == 7, "%d", values[1]);
  CHECK(cudaFree(values));
  CHECK(cudaEventDestroy(event));
  CHECK(cudaStreamDestroy(stream));
}

void check_mapped(int count) {
  int *host = nullptr, *device = nullptr;
  CHECK(cudaHostAlloc(&host, count * sizeof(int), cudaHostAllocMapped));
  CHECK(cudaHostGetDevicePointer(&device, host, 0));
  check_sharing("mapped", host, device, count);
  CHECK(cudaFreeHost(host));
  std::vector<int> mine(count + 1000);
  CHECK(cudaHostRegister(mine.data(), mine.size() * sizeof(int), cudaHostRegisterMapped));
  CHECK(cudaHostGetDevicePointer(&device, mine.data(), 0));
  check_sharing("registered", mine.data(), device, count);
  CHECK(cudaHostUnregister(mine.data()));
}

// A few words of much memory, written by the program here and there, by kernels, and again after them.
void check_sparse() {
  constexpr size_t kInts = size_t(64) << 20, kStep = size_t(5) << 20;
  int* values = nullptr;
  CHECK(cudaMallocManaged(&values, kInts * sizeof(int)));
  for (int round = 0; round < 3; round++) {
    for (size_t i = round; i < kInts; i += kStep) {
      values[i] = int(i);
      add_some(values, int(i), 1, 1);
      values[i + 5] = round;  // on the same page, while the kernel runs
    }
    CHECK(cudaDeviceSynchronize());
    for (size_t i = round; i < kInts; i += kStep) {
      EXPECT(values[i] == int(i) + 1 && values[i + 5] == round, "sparse: %d %d at %zu", values[i], values[i + 5], i);
    }
    add_some(values, int(kInts) - 9, 9, 1);
  }
  CHECK(cudaDeviceSynchronize());
  EXPECT(values[kInts - 1] == 3, "sparse: %d", values[kInts - 1]);
  CHECK(cudaFree(values));
}

__managed__ int managed_values[kCount];
__managed__ int many_managed_values[kLargeCount];
__managed__ char odd_bytes[3 * 4096 + 777], more_odd_bytes[100001];

// A variable of the module that the program reads and writes by its name.
template <int Count>
void check_variable(int (&managed_values)[Count]) {
  managed_values[3] = 30;
  add_some(managed_values, 0, Count / 2, 1);
  CHECK(cudaDeviceSynchronize());
  EXPECT(managed_values[3] == 31 && managed_values[Count - 1] == 0, "variable: %d %d", managed_values[3],
         managed_values[Count - 1]);
  int copied = 0;
  CHECK(cudaMemcpyFromSymbol(&copied, managed_values, sizeof copied, 3 * sizeof(int)));
  EXPECT(copied == 31, "variable: copied %d", copied);
  CHECK(cudaMemset(managed_values, 0, Count * sizeof(int)));
  CHECK(cudaDeviceSynchronize());
  EXPECT(managed_values[3] == 0, "variable: %d", managed_values[3]);
}

// Page-locked memory needs no flag: its own address is good for kernels, however large it is.
void check_plain() {
  for (const size_t count : {size_t(100), size_t(kCount), size_t(3) << 20}) {
    int* host = nullptr;
    CHECK(cudaMallocHost(&host, count * sizeof(int)));
    host[0] = 5, host[count - 1] = 6;
    add_some(host, 0, 1, 1);
    add_some(host, int(count) - 1, 1, 1);
    CHECK(cudaDeviceSynchronize());
    EXPECT(host[0] == 6 && host[count - 1] == 7, "page-locked %zu: %d %d", count, host[0], host[count - 1]);
    CHECK(cudaFreeHost(host));
  }
}

// The system reads and writes such memory for the program.
void check_system_calls(int pages) {
  int *values = nullptr, pipes[2];
  EXPECT(pipe(pipes) == 0, "no pipe");
  CHECK(cudaMallocManaged(&values, pages * 4096));
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 4096; i++) values[i] = i;
    add_some(values, 0, 4096, round);
    CHECK(cudaDeviceSynchronize());
    EXPECT(write(pipes[1], values, 8192) == 8192, "write(2) round %d", round);
    add_some(values, 0, 4096, 1000);
    CHECK(cudaDeviceSynchronize());
    EXPECT(read(pipes[0], values + 2048, 8192) == 8192, "read(2) round %d", round);
    add_some(values, 0, 4096, 1);
    CHECK(cudaDeviceSynchronize());
    EXPECT(values[7] == 1008 + round && values[2048 + 7] == 8 + round, "%d %d", values[7], values[2048 + 7]);
  }
  CHECK(cudaFree(values));
  close(pipes[0]);
  close(pipes[1]);
}

// What kernels make of memory is there whoever asks for it first: a copy, or the program after unregistering it.
void check_first_looks() {
  constexpr size_t kInts = size_t(1) << 20;
  int *managed = nullptr, *copy = nullptr, *device = nullptr;
  CHECK(cudaMallocManaged(&managed, kInts * sizeof(int)));
  CHECK(cudaMalloc(&copy, kInts * sizeof(int)));
  for (int round = 1; round <= 5; round++) {
    add_some(managed, int(kInts) - 5, 5, 1);
    usleep(2000);  // so that nothing is under way
    CHECK(cudaMemcpy(copy, managed, kInts * sizeof(int), cudaMemcpyDefault));
    int last = 0;
    CHECK(cudaMemcpy(&last, copy + kInts - 1, sizeof last, cudaMemcpyDefault));
    EXPECT(last == round, "first look of a copy: %d, not %d", last, round);
  }
  CHECK(cudaFree(copy));
  CHECK(cudaFree(managed));
  std::vector<int> mine(kInts);
  CHECK(cudaHostRegister(mine.data(), kInts * sizeof(int), cudaHostRegisterMapped));
  CHECK(cudaHostGetDevicePointer(&device, mine.data(), 0));
  add_some(device, 7, 1, 7);
  CHECK(cudaHostUnregister(mine.data()));
  EXPECT(mine[7] == 7, "unregistered: %d", mine[7]);
  for (int round = 0; round < 10; round++) {
    std::vector<int> few(1000);
    CHECK(cudaHostRegister(few.data(), few.size() * sizeof(int), cudaHostRegisterMapped));
    CHECK(cudaHostGetDevicePointer(&device, few.data(), 0));
    add_some(device, 7, 1, 7);
    CHECK(cudaHostUnregister(few.data()));
    EXPECT(few[7] == 7, "unregistered, few: %d", few[7]);
  }
}

__global__ void add_bytes(char* bytes, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) bytes[i] = (char)(bytes[i] + 1);
}

// Variables that begin and end anywhere on a page, changed here and there.
template <int Count>
void check_odd_variable(char (&bytes)[Count]) {
  memset(bytes, 0, Count);
  for (int step : {1, 500, 3000, 4097}) {
    for (int i = 0; i < Count; i++) bytes[i] = 0;
    add_bytes<<<(Count + 127) / 128, 128>>>(bytes, Count);
    CHECK(cudaDeviceSynchronize());
    for (int i = 0; i < Count; i += step) bytes[i] = 5;
    add_bytes<<<(Count + 127) / 128, 128>>>(bytes, Count);
    CHECK(cudaDeviceSynchronize());
    int wrong = 0;
    for (int i = 0; i < Count; i++) wrong += bytes[i] != (i % step == 0 ? 6 : 2);
    EXPECT(wrong == 0, "%d of %d bytes of a variable, step %d", wrong, Count, step);
  }
}

__global__ void set_all(unsigned char* bytes, int first, int step, int count, unsigned char value) {
  const int i = first + (blockIdx.x * blockDim.x + threadIdx.x) * step;
  if (i < count) bytes[i] = value;
}

// Host and kernel take turns at single bytes, and a kernel brings back what was there before.
void check_turns(int count) {
  unsigned char* bytes = nullptr;
  CHECK(cudaMallocManaged(&bytes, count));
  for (int round = 1; round <= 3; round++) {
    for (int i = 0; i < count; i += 2) bytes[i] = (unsigned char)round;
    set_all<<<(count / 2 + 127) / 128, 128>>>(bytes, 1, 2, count, (unsigned char)(100 + round));
    for (int i = 0; i < count; i += 2) bytes[i] = (unsigned char)(50 + round);
    CHECK(cudaDeviceSynchronize());
    for (int i = 0; i < count; i++) {
      const int expected = i % 2 == 0 ? 50 + round : 100 + round;
      EXPECT(bytes[i] == expected, "turns: %d at %d, not %d", bytes[i], i, expected);
    }
  }
  memset(bytes, 0, count);
  for (int round = 0; round < 3; round++) {
    memset(bytes + 4000, 9, count - 4000);
    set_all<<<(count + 127) / 128, 128>>>(bytes, 0, 1, count, 0);
    CHECK(cudaDeviceSynchronize());
    int others = 0;
    for (int i = 0; i < count; i++) others += bytes[i] != 0;
    EXPECT(others == 0, "%d of %d bytes are not as they were", others, count);
  }
  CHECK(cudaFree(bytes));
}

// Registered memory that another process writes.
void check_other_process() {
  constexpr size_t kBytes = 1 << 20;
  int *shared = static_cast<int*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)),
      *device = nullptr;
  CHECK(cudaHostRegister(shared, kBytes, cudaHostRegisterMapped));
  CHECK(cudaHostGetDevicePointer(&device, shared, 0));
  for (int round = 0; round < 2; round++) {
    shared[5] = 1;
    add_some(device, 5, 1, 1);
    CHECK(cudaDeviceSynchronize());
    const pid_t child = fork();
    if (child == 0) {
      shared[5] = 40;
      _exit(0);
    }
    waitpid(child, nullptr, 0);
    add_some(device, 5, 1, 2);
    CHECK(cudaDeviceSynchronize());
    EXPECT(shared[5] == 42, "written by another process: %d", shared[5]);
  }
  CHECK(cudaHostUnregister(shared));
  munmap(shared, kBytes);
}

// Waits for the host, says how far it is, and waits again.
__global__ void converse(volatile int* words, int rounds) {
  for (int i = 1; i <= rounds; i++) {
    while (words[0] < i) {
    }
    __threadfence_system();
    words[1] = i;
  }
}

void check_conversation(const char* what, int* host, int* device) {
  volatile int* words = host;
  words[0] = words[1] = 0;
  converse<<<1, 1>>>(device, 5);
  CHECK(cudaGetLastError());
  for (int i = 1; i <= 5; i++) {
    words[0] = i;
    while (words[1] < i) usleep(100);
    EXPECT(words[1] == i, "%s: %d, not %d", what, words[1], i);
  }
  CHECK(cudaDeviceSynchronize());
}

// The host rings and the kernel takes the bell back, so the word is again and again what it was.
__global__ void answer_bell(volatile int* words, int rings) {
  for (int i = 0; i < rings; i++) {
    while (words[0] == 0) {
      if (words[1] != 0) return;
    }
    words[0] = 0;
    __threadfence_system();
  }
}

void check_bell() {
  constexpr int kRings = 30;
  int* host = nullptr;
  CHECK(cudaHostAlloc(&host, 4096, cudaHostAllocMapped));
  volatile int* words = host;
  answer_bell<<<1, 1>>>(host, kRings);
  CHECK(cudaGetLastError());
  for (int i = 0; i < kRings && words[1] == 0; i++) {
    usleep(i % 5 * 700);
    words[0] = 1;
    const double end = now_seconds() + 20;
    while (words[0] != 0 && now_seconds() < end) usleep(100);
    EXPECT(words[0] == 0, "ring %d is not answered", i);
    if (words[0] != 0) words[1] = 1;
  }
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaFreeHost(host));
}

__device__ unsigned long long nanoseconds() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

__device__ void pause(unsigned us) {
  for (const unsigned long long end = nanoseconds() + us * 1000ull; nanoseconds() < end;) {
  }
}

__global__ void toggle(volatile int* word, unsigned before_us, unsigned on_us, unsigned after_us) {
  pause(before_us);
  *word = 1;
  __threadfence_system();
  pause(on_us);
  *word = 0;
  __threadfence_system();
  pause(after_us);
}

// A kernel changes a word and changes it back, while the host writes beside it: what both send crosses on the way.
void check_crossing() {
  int* host = nullptr;
  CHECK(cudaHostAlloc(&host, 4096, cudaHostAllocMapped));
  volatile int* words = host;
  for (int round = 0; round < 30; round++) {
    toggle<<<1, 1>>>(host, 700 + 110 * (round % 10), 1200, 300);
    int written = 0;
    for (; cudaStreamQuery(0) == cudaErrorNotReady; written++) {
      for (int i = 64; i < 1024; i++) words[i] = round * 1000 + written;
      usleep(100);
    }
    CHECK(cudaDeviceSynchronize());
    EXPECT(words[0] == 0, "round %d: the kernel's word is %d", round, words[0]);
    EXPECT(written == 0 || words[1000] == round * 1000 + written - 1, "round %d: the host's word is %d", round,
           words[1000]);
  }
  CHECK(cudaFreeHost(host));
}

void check_conversations(size_t bytes) {
  int *pinned = nullptr, *managed = nullptr, *device = nullptr;
  CHECK(cudaMallocHost(&pinned, bytes));
  check_conversation("page-locked", pinned, pinned);
  CHECK(cudaFreeHost(pinned));
  CHECK(cudaMallocManaged(&managed, bytes));
  check_conversation("managed", managed, managed);
  CHECK(cudaFree(managed));
  std::vector<int> mine(bytes / sizeof(int));
  CHECK(cudaHostRegister(mine.data(), bytes, cudaHostRegisterMapped));
  CHECK(cudaHostGetDevicePointer(&device, mine.data(), 0));
  check_conversation("registered", mine.data(), device);
  CHECK(cudaHostUnregister(mine.data()));
}

__global__ void count_up(int* word, int times, volatile int* started) {
  started[0] = 1;
  for (int i = 0; i < times; i++) atomicAdd_system(word, 1);
}

void check_atomics() {
  int* words = nullptr;
  CHECK(cudaMallocManaged(&words, 4096));
  words[0] = words[64] = 0;
  count_up<<<4, 32>>>(words, 500, words + 64);
  CHECK(cudaGetLastError());
  while (*static_cast<volatile int*>(words + 64) == 0) usleep(10);
  for (int i = 0; i < 100000; i++) __sync_fetch_and_add(words, 1);
  CHECK(cudaDeviceSynchronize());
  EXPECT(words[0] == 4 * 32 * 500 + 100000, "%d", words[0]);
  CHECK(cudaFree(words));
}

void check_pools() {
  cudaMemPool_t pool = nullptr;
  CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
  unsigned long long threshold = ~0ull, used = 0, high = 0;
  CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  int* values = nullptr;
  CHECK(cudaMallocAsync(&values, kCount * sizeof(int), 0));
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  EXPECT(used >= kCount * sizeof(int), "%llu", used);
  CHECK(cudaMemsetAsync(values, 0, kCount * sizeof(int), 0));
  add_some(values, 0, kCount, 3);
  std::vector<int> copied(kCount);
  CHECK(cudaMemcpyAsync(copied.data(), values, kCount * sizeof(int), cudaMemcpyDeviceToHost, 0));
  CHECK(cudaFreeAsync(values, 0));
  CHECK(cudaStreamSynchronize(0));
  EXPECT(copied[kCount - 1] == 3, "%d", copied[kCount - 1]);
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &high));
  EXPECT(used == 0 && high >= kCount * sizeof(int), "%llu %llu", used, high);
  CHECK(cudaMemPoolTrimTo(pool, 0));
}

__global__ void put(int* block, int last, int* other, int value) { block[1] = block[last] = *other = value; }

// A copy to the host that waits is a synchronisation like others.
void check_waiting_copies(size_t bytes) {
  int *block = nullptr, *other = nullptr, came = 0;
  const int last = (int)(bytes / sizeof(int)) - 1;
  CHECK(cudaMallocHost(&block, bytes));
  CHECK(cudaMalloc(&other, sizeof *other));
  for (int round = 1; round <= 10; round++) {
    put<<<1, 1>>>(block, last, other, round);
    CHECK(cudaMemcpy(&came, other, sizeof came, cudaMemcpyDeviceToHost));
    EXPECT(came == round && block[1] == round && block[last] == round, "%zu bytes, round %d: %d, %d and %d", bytes,
           round, came, block[1], block[last]);
  }
  CHECK(cudaFree(other));
  CHECK(cudaFreeHost(block));
}

void check_small() {
  check_waiting_copies(8192);
  check_waiting_copies(1 << 20);

  check_managed(kCount);
  check_mapped(kCount);
  check_turns(30000);
  check_conversations(4096);
  check_bell();
  check_crossing();
}

void check_large() {
  check_managed(kLargeCount);
  check_mapped(kLargeCount);
  check_plain();
  check_sparse();
  check_variable(managed_values);
  check_variable(many_managed_values);
  check_odd_variable(odd_bytes);
  check_odd_variable(more_odd_bytes);
  for (const int pages : {4, 1000}) check_system_calls(pages);
  check_turns(1 << 20);
  check_first_looks();
  check_other_process();
  check_conversations(size_t(1) << 20);
}

bool has(int argc, char** argv, const char* option) {
  return std::any_of(argv, argv + argc, [&](const char* word) { return strcmp(word, option) == 0; });
}

}  // namespace

int main(int argc, char** argv) {
  const double end = now_seconds() + option(argc, argv, "--seconds", 0);
  do {
    check_small();
    if (has(argc, argv, "--small")) continue;
    check_large();
    if (has(argc, argv, "--live")) check_atomics();
    check_pools();
  } while (failures_ == 0 && now_seconds() < end);
  return verdict("mirrors");
}
