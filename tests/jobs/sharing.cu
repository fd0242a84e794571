// Processes of one job share memory and events of their GPUs, by every handle that CUDA has for it.
//   sharing exchange       two processes on each GPU take turns at the same memory, held together by events alone
//   sharing turns FILE     the same until the file is there; it can be moved
//   sharing heirs FILE     goes on with another process's memory until the file is there; that one may be killed
//   sharing death          an owner dies while another process uses its memory and waits for its event
//   sharing publish FILE   writes handles to a file and waits until the file is gone
//   sharing foreign FILE   the handles in the file are another job's: they must mean nothing here
// The rest of its modes are the processes that it starts.

#include <cuda.h>
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "job.h"

#define DRIVER(call)                                                               \
  do {                                                                             \
    const CUresult result_ = (call);                                               \
    if (result_ != CUDA_SUCCESS) {                                                 \
      fprintf(stderr, "%s:%d: %s: %d\n", __FILE__, __LINE__, #call, (int)result_); \
      exit(1);                                                                     \
    }                                                                              \
  } while (0)
#define EXPECT_CODE(call, code)                                            \
  do {                                                                     \
    const int got_ = (int)(call);                                          \
    EXPECT(got_ == (int)(code), "%s gave %d, not %s", #call, got_, #code); \
  } while (0)

static const int kLine = 3;  // the child's descriptor of the socket to its parent
static const size_t kSmall = 1000, kLarge = 37u << 20, kChunk = 2u << 20, kPooled = 3u << 20;
static const int kRounds = 12;

__global__ void plus(unsigned* p, size_t n, unsigned add, int delay) {
  const size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
  unsigned x = i < n ? p[i] : 0;
  for (volatile int k = 0; k < delay; k++) x += 0;  // so that who does not wait is early
  if (i < n) p[i] = x + add;
}
__global__ void times(unsigned* p, size_t n, unsigned factor, int delay) {
  const size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
  unsigned x = i < n ? p[i] : 0;
  for (volatile int k = 0; k < delay; k++) x += 0;
  if (i < n) p[i] = x * factor;
}
__global__ void spin(volatile unsigned* p) {
  while (p[0] != 0xffffffffu) {
  }
}

struct Handles {
  int device;
  CUipcMemHandle small, large;
  CUipcEventHandle parent, child;
  CUmemPoolPtrExportData pooled;
};

static void send_all(int line, const void* data, size_t bytes, int fd) {
  struct iovec part = {(void*)data, bytes};
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct msghdr message = {0};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    struct cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  if (sendmsg(line, &message, MSG_NOSIGNAL) != (ssize_t)bytes) {
    perror("sendmsg");
    exit(1);
  }
}

static void receive_all(int line, void* data, size_t bytes, int* fd) {
  struct iovec part = {data, bytes};
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct msghdr message = {0};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  if (recvmsg(line, &message, MSG_CMSG_CLOEXEC) != (ssize_t)bytes) {
    fprintf(stderr, "the other process has ended\n");
    exit(1);
  }
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (fd != NULL && header != NULL) memcpy(fd, CMSG_DATA(header), sizeof(int));
}

static void tell(int line) { send_all(line, "x", 1, -1); }
static void hear(int line) {
  char byte;
  receive_all(line, &byte, 1, NULL);
}

// Starts this program again in another mode; its descriptor 3 is the other end of *line.
static pid_t start(const char* mode, int* line) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) exit(1);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(pair[1], kLine);
    execl("/proc/self/exe", "sharing", mode, (char*)NULL);
    _exit(127);
  }
  close(pair[1]);
  *line = pair[0];
  return pid;
}

static int join(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void use(unsigned* p, size_t bytes, bool multiply, cudaStream_t stream, int round) {
  const size_t n = bytes / sizeof(unsigned);
  const int delay = round % 3 == 0 ? 40 : 0;
  const unsigned blocks = (unsigned)((n + 255) / 256);
  if (multiply) {
    times<<<blocks, 256, 0, stream>>>(p, n, 3, delay);
  } else {
    plus<<<blocks, 256, 0, stream>>>(p, n, 1, delay);
  }
  CHECK(cudaGetLastError());
}

static unsigned expected(int rounds) {
  unsigned x = 5;
  for (int i = 0; i < rounds; i++) x = (x + 1) * 3;
  return x;
}

static void expect_all(const char* name, const unsigned* device, size_t bytes, unsigned value) {
  unsigned* host = (unsigned*)malloc(bytes);
  CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
  size_t wrong = 0;
  for (size_t i = 0; i < bytes / sizeof(unsigned); i++) wrong += host[i] != value;
  EXPECT(wrong == 0, "%s: %zu words are wrong; the first is %u in place of %u", name, wrong, host[0], value);
  free(host);
}

static void set_all(unsigned* p, size_t bytes, unsigned value, cudaStream_t stream) {
  DRIVER(cuMemsetD32Async((CUdeviceptr)p, value, bytes / sizeof(unsigned), stream));
}

// One chunk or two of memory with an address, from the virtual memory functions.
static unsigned* map_handle(CUmemGenericAllocationHandle handle, size_t bytes, int device) {
  CUdeviceptr at = 0;
  CUmemAccessDesc access = {};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = device;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  DRIVER(cuMemAddressReserve(&at, bytes, 0, 0, 0));
  DRIVER(cuMemMap(at, bytes, 0, handle, 0));
  DRIVER(cuMemSetAccess(at, bytes, &access, 1));
  return (unsigned*)at;
}

static void unmap(unsigned* p, size_t bytes) {
  DRIVER(cuMemUnmap((CUdeviceptr)p, bytes));
  DRIVER(cuMemAddressFree((CUdeviceptr)p, bytes));
}

struct Shared {
  int device;
  unsigned *small, *large, *chunks, *pooled;
  cudaEvent_t parent, child;
  cudaStream_t stream;
};

static void take_turn(struct Shared* s, bool multiply, int round) {
  use(s->small, kSmall, multiply, s->stream, round);
  use(s->chunks, 2 * kChunk, multiply, s->stream, round);
  use(s->pooled, kPooled, multiply, s->stream, round);
  use(s->large, kLarge, multiply, s->stream, round);
}

// --- the process that has the memory

static CUmemGenericAllocationHandle make_chunks(int device, int* fd) {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = device;
  prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  CUmemGenericAllocationHandle handle = 0;
  DRIVER(cuMemCreate(&handle, 2 * kChunk, &prop, 0));
  DRIVER(cuMemExportToShareableHandle(fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  return handle;
}

static cudaMemPool_t make_pool(int device, int* fd) {
  cudaMemPoolProps props = {};
  props.allocType = cudaMemAllocationTypePinned;
  props.handleTypes = cudaMemHandleTypePosixFileDescriptor;
  props.location.type = cudaMemLocationTypeDevice;
  props.location.id = device;
  cudaMemPool_t pool;
  CHECK(cudaMemPoolCreate(&pool, &props));
  CHECK(cudaMemPoolExportToShareableHandle(fd, pool, cudaMemHandleTypePosixFileDescriptor, 0));
  return pool;
}

static void refuse_wrong_use(const struct Handles* handles, struct Shared* s) {
  CUdeviceptr at = 0;
  CUipcMemHandle memory = {};
  CUipcEventHandle event = {};
  cudaEvent_t plain;
  CHECK(cudaEventCreate(&plain));
  EXPECT_CODE(cuIpcOpenMemHandle(&at, handles->large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_CONTEXT);
  EXPECT_CODE(cuIpcOpenMemHandle(&at, memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CODE(cuIpcGetMemHandle(&memory, (CUdeviceptr)s->pooled), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CODE(cuIpcGetMemHandle(&memory, (CUdeviceptr)s->chunks), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CODE(cuIpcGetEventHandle(&event, plain), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CODE(cuIpcCloseMemHandle((CUdeviceptr)s->large), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CODE(cuEventCreate(&plain, CU_EVENT_INTERPROCESS), CUDA_ERROR_INVALID_VALUE);
}

static void expect_attributes(int device) {
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrIpcEventSupport, device));
  EXPECT(value == 1, "events between processes: %d", value);
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMemoryPoolSupportedHandleTypes, device));
  EXPECT(value & cudaMemHandleTypePosixFileDescriptor, "handle types of pools: %d", value);
  DRIVER(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, device));
  EXPECT(value == 1, "descriptors for memory: %d", value);
}

static void exchange(int device) {
  struct Shared s = {device};
  struct Handles handles = {device};
  unsigned* before;
  int chunks_fd = -1, pool_fd = -1, line = -1;
  CHECK(cudaSetDevice(device));
  expect_attributes(device);
  CHECK(cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking));
  CHECK(cudaMalloc(&before, 3000));  // so that the next one is not at the begin of a chunk
  CHECK(cudaMalloc(&s.small, kSmall));
  CHECK(cudaMalloc(&s.large, kLarge));
  const CUmemGenericAllocationHandle chunks = make_chunks(device, &chunks_fd);
  s.chunks = map_handle(chunks, 2 * kChunk, device);
  const cudaMemPool_t pool = make_pool(device, &pool_fd);
  CHECK(cudaMallocFromPoolAsync(&s.pooled, kPooled, pool, s.stream));
  CHECK(cudaEventCreateWithFlags(&s.parent, cudaEventDisableTiming | cudaEventInterprocess));
  CHECK(cudaEventCreateWithFlags(&s.child, cudaEventDisableTiming | cudaEventInterprocess));
  CHECK(cudaEventQuery(s.parent));  // never recorded
  set_all(s.small, kSmall, 5, s.stream);
  set_all(s.large, kLarge, 5, s.stream);
  set_all(s.chunks, 2 * kChunk, 5, s.stream);
  set_all(s.pooled, kPooled, 5, s.stream);
  DRIVER(cuIpcGetMemHandle(&handles.small, (CUdeviceptr)s.small));
  DRIVER(cuIpcGetMemHandle(&handles.large, (CUdeviceptr)s.large));
  DRIVER(cuIpcGetEventHandle(&handles.parent, s.parent));
  DRIVER(cuIpcGetEventHandle(&handles.child, s.child));
  DRIVER(cuMemPoolExportPointer(&handles.pooled, (CUdeviceptr)s.pooled));
  refuse_wrong_use(&handles, &s);

  const pid_t pid = start("partner", &line);
  send_all(line, &handles, sizeof(handles), chunks_fd);
  send_all(line, "p", 1, pool_fd);
  close(chunks_fd);
  close(pool_fd);
  hear(line);  // it has opened everything
  DRIVER(cuMemRelease(chunks));
  for (int round = 0; round < kRounds; round++) {
    if (round > 0) CHECK(cudaStreamWaitEvent(s.stream, s.child, 0));
    take_turn(&s, false, round);
    CHECK(cudaEventRecord(s.parent, s.stream));
    tell(line);
    hear(line);
  }
  CHECK(cudaEventSynchronize(s.child));
  CHECK(cudaEventQuery(s.child));
  expect_all("small", s.small, kSmall, expected(kRounds));
  expect_all("large", s.large, kLarge, expected(kRounds));
  expect_all("chunks", s.chunks, 2 * kChunk, expected(kRounds));
  expect_all("pooled", s.pooled, kPooled, expected(kRounds));
  tell(line);
  EXPECT(join(pid) == 0, "the other process failed");
  // What was freed is not to be had under its old name, and its addresses are used again.
  CHECK(cudaFree(s.small));
  CHECK(cudaFree(s.large));
  CHECK(cudaFreeAsync(s.pooled, s.stream));
  unmap(s.chunks, 2 * kChunk);
  CHECK(cudaMalloc(&s.large, kLarge));
  const pid_t late = start("late", &line);
  send_all(line, &handles, sizeof(handles), -1);
  EXPECT(join(late) == 0, "a process that came late failed");
  CHECK(cudaEventDestroy(s.parent));
  CHECK(cudaEventDestroy(s.child));
  CHECK(cudaDeviceSynchronize());
}

// --- the other one

static cudaMemPool_t import_pool(int fd) {
  cudaMemPool_t pool;
  CHECK(cudaMemPoolImportFromShareableHandle(&pool, (void*)(intptr_t)fd, cudaMemHandleTypePosixFileDescriptor, 0));
  return pool;
}

static void open_all(struct Shared* s) {
  struct Handles handles;
  int chunks_fd = -1, pool_fd = -1;
  char byte;
  receive_all(kLine, &handles, sizeof(handles), &chunks_fd);
  receive_all(kLine, &byte, 1, &pool_fd);
  s->device = handles.device;
  CHECK(cudaSetDevice(s->device));
  CHECK(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
  CUdeviceptr small = 0, large = 0, again = 0, pooled = 0;
  DRIVER(cuIpcOpenMemHandle(&small, handles.small, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  DRIVER(cuIpcOpenMemHandle(&large, handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  DRIVER(cuIpcOpenMemHandle(&again, handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  EXPECT(again == large, "the same memory at two addresses");
  DRIVER(cuIpcCloseMemHandle(again));
  DRIVER(cuIpcOpenEventHandle(&s->parent, handles.parent));
  DRIVER(cuIpcOpenEventHandle(&s->child, handles.child));
  CUmemGenericAllocationHandle chunks = 0;
  DRIVER(cuMemImportFromShareableHandle(&chunks, (void*)(intptr_t)chunks_fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  s->chunks = map_handle(chunks, 2 * kChunk, s->device);
  DRIVER(cuMemRelease(chunks));
  const cudaMemPool_t pool = import_pool(pool_fd);
  CHECK(cudaMemPoolImportPointer((void**)&pooled, pool, (cudaMemPoolPtrExportData*)&handles.pooled));
  EXPECT_CODE(cuMemPoolImportPointer(&again, pool, (CUmemPoolPtrExportData*)&handles.small), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CODE(cuMemFree(large), CUDA_ERROR_INVALID_VALUE);
  s->small = (unsigned*)small;
  s->large = (unsigned*)large;
  s->pooled = (unsigned*)pooled;
  close(chunks_fd);
  close(pool_fd);
}

static int partner() {
  struct Shared s = {0};
  open_all(&s);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  DRIVER(cuMemGetAddressRange(&base, &bytes, (CUdeviceptr)s.small));
  EXPECT(base == (CUdeviceptr)s.small && bytes == kSmall, "opened memory has %zu bytes", bytes);
  tell(kLine);
  for (int round = 0; round < kRounds; round++) {
    hear(kLine);
    CHECK(cudaStreamWaitEvent(s.stream, s.parent, 0));
    take_turn(&s, true, round);
    CHECK(cudaEventRecord(s.child, s.stream));
    tell(kLine);
  }
  hear(kLine);
  expect_all("large, as opened", s.large, kLarge, expected(kRounds));
  CHECK(cudaFreeAsync(s.pooled, s.stream));
  DRIVER(cuIpcCloseMemHandle((CUdeviceptr)s.small));
  DRIVER(cuIpcCloseMemHandle((CUdeviceptr)s.large));
  EXPECT_CODE(cuIpcCloseMemHandle((CUdeviceptr)s.large), CUDA_ERROR_INVALID_VALUE);
  unmap(s.chunks, 2 * kChunk);
  unsigned* own;  // where the closed memory was, perhaps
  CHECK(cudaMalloc(&own, kLarge));
  set_all(own, kLarge, 1, s.stream);
  CHECK(cudaStreamSynchronize(s.stream));
  CHECK(cudaEventDestroy(s.parent));
  CHECK(cudaEventDestroy(s.child));
  return verdict("partner");
}

static int late() {
  struct Handles handles;
  CUdeviceptr at = 0;
  CUevent event;
  receive_all(kLine, &handles, sizeof(handles), NULL);
  CHECK(cudaSetDevice(handles.device));
  CHECK(cudaFree(0));
  EXPECT_CODE(cuIpcOpenMemHandle(&at, handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_CODE(cuIpcOpenMemHandle(&at, handles.small, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_HANDLE);
  DRIVER(cuIpcOpenEventHandle(&event, handles.parent));  // it is still there
  CHECK(cudaEventSynchronize(event));
  return verdict("late");
}

// --- two processes that are moved meanwhile

struct Turns {
  struct Handles handles;
  int pause_ms;
};

static void turn(struct Shared* s, bool multiply, int round) {
  use(s->small, kSmall, multiply, s->stream, round);
  use(s->pooled, kPooled, multiply, s->stream, round);
  use(s->chunks, 2 * kChunk, multiply, s->stream, round);
  use(s->large, kLarge, multiply, s->stream, round);
}

static int turns(const char* end, int pause_ms) {
  struct Shared s = {0};
  struct Turns turns = {{0}, pause_ms};
  int rounds = 0;
  unsigned *before, *own;
  int pool_fd = -1, chunks_fd = -1, line = -1;
  CHECK(cudaSetDevice(0));
  CHECK(cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking));
  CHECK(cudaMalloc(&before, 3 * kChunk));  // so that what is shared does not begin a piece of memory
  CHECK(cudaMalloc(&s.small, kSmall));
  CHECK(cudaMalloc(&s.large, kLarge));
  CHECK(cudaMalloc(&own, kLarge));
  const CUmemGenericAllocationHandle chunks = make_chunks(0, &chunks_fd);
  s.chunks = map_handle(chunks, 2 * kChunk, 0);
  const cudaMemPool_t pool = make_pool(0, &pool_fd);
  CHECK(cudaMallocFromPoolAsync(&s.pooled, kPooled, pool, s.stream));
  CHECK(cudaEventCreateWithFlags(&s.parent, cudaEventDisableTiming | cudaEventInterprocess));
  CHECK(cudaEventCreateWithFlags(&s.child, cudaEventDisableTiming | cudaEventInterprocess));
  set_all(s.small, kSmall, 5, s.stream);
  set_all(s.large, kLarge, 5, s.stream);
  set_all(s.pooled, kPooled, 5, s.stream);
  set_all(s.chunks, 2 * kChunk, 5, s.stream);
  set_all(own, kLarge, 41, s.stream);
  DRIVER(cuIpcGetMemHandle(&turns.handles.small, (CUdeviceptr)s.small));
  DRIVER(cuIpcGetMemHandle(&turns.handles.large, (CUdeviceptr)s.large));
  DRIVER(cuIpcGetEventHandle(&turns.handles.parent, s.parent));
  DRIVER(cuIpcGetEventHandle(&turns.handles.child, s.child));
  DRIVER(cuMemPoolExportPointer(&turns.handles.pooled, (CUdeviceptr)s.pooled));
  const pid_t pid = start("turner", &line);
  send_all(line, &turns, sizeof(turns), pool_fd);
  send_all(line, "c", 1, chunks_fd);
  close(pool_fd);
  close(chunks_fd);
  hear(line);
  CHECK(cudaFree(before));
  for (; access(end, F_OK) != 0; rounds++) {
    if (rounds > 0) CHECK(cudaStreamWaitEvent(s.stream, s.child, 0));
    turn(&s, false, rounds);
    CHECK(cudaEventRecord(s.parent, s.stream));
    tell(line);
    hear(line);
    if (rounds % 4 == 3) CHECK(cudaEventSynchronize(s.child));  // not too far ahead
    printf("step %d\n", rounds + 1);
    fflush(stdout);
  }
  CHECK(cudaEventSynchronize(s.child));
  expect_all("small", s.small, kSmall, expected(rounds));
  expect_all("large", s.large, kLarge, expected(rounds));
  expect_all("pooled", s.pooled, kPooled, expected(rounds));
  expect_all("chunks", s.chunks, 2 * kChunk, expected(rounds));
  expect_all("what was not shared", own, kLarge, 41);
  send_all(line, "e", 1, -1);
  EXPECT(join(pid) == 0, "the other process failed");
  CHECK(cudaFree(s.small));
  CHECK(cudaFree(s.large));
  // It can still be exported, mapped elsewhere, and given back.
  DRIVER(cuMemExportToShareableHandle(&chunks_fd, chunks, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  close(chunks_fd);
  unmap(s.chunks, 2 * kChunk);
  DRIVER(cuMemRelease(chunks));
  // Names mean the same wherever the memory has been.
  const pid_t late = start("late", &line);
  send_all(line, &turns.handles, sizeof(turns.handles), -1);
  EXPECT(join(late) == 0, "a process that came late failed");
  return verdict("turns");
}

static int turner() {
  struct Shared s = {0};
  struct Turns turns;
  int pool_fd = -1, chunks_fd = -1;
  char byte;
  CUmemGenericAllocationHandle chunks = 0;
  CUdeviceptr small = 0, large = 0, pooled = 0, again = 0;
  receive_all(kLine, &turns, sizeof(turns), &pool_fd);
  receive_all(kLine, &byte, 1, &chunks_fd);
  CHECK(cudaSetDevice(0));
  CHECK(cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking));
  DRIVER(cuIpcOpenMemHandle(&small, turns.handles.small, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  DRIVER(cuIpcOpenMemHandle(&large, turns.handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  DRIVER(cuIpcOpenEventHandle(&s.parent, turns.handles.parent));
  DRIVER(cuIpcOpenEventHandle(&s.child, turns.handles.child));
  const cudaMemPool_t pool = import_pool(pool_fd);
  CHECK(cudaMemPoolImportPointer((void**)&pooled, pool, (cudaMemPoolPtrExportData*)&turns.handles.pooled));
  s.small = (unsigned*)small;
  s.large = (unsigned*)large;
  s.pooled = (unsigned*)pooled;
  DRIVER(cuMemImportFromShareableHandle(&chunks, (void*)(intptr_t)chunks_fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  s.chunks = map_handle(chunks, 2 * kChunk, 0);
  DRIVER(cuMemRelease(chunks));
  close(pool_fd);
  close(chunks_fd);
  tell(kLine);
  int rounds = 0;
  for (char more = 'x'; receive_all(kLine, &more, 1, NULL), more == 'x'; rounds++) {
    CHECK(cudaStreamWaitEvent(s.stream, s.parent, 0));
    turn(&s, true, rounds);
    CHECK(cudaEventRecord(s.child, s.stream));
    usleep((useconds_t)turns.pause_ms * 1000);
    tell(kLine);
  }
  expect_all("chunks, as imported", s.chunks, 2 * kChunk, expected(rounds));
  unmap(s.chunks, 2 * kChunk);
  expect_all("large, as opened", s.large, kLarge, expected(rounds));
  // Closed and opened once more, perhaps elsewhere than where it was opened first.
  DRIVER(cuIpcCloseMemHandle(large));
  DRIVER(cuIpcOpenMemHandle(&again, turns.handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  expect_all("large, as opened again", (unsigned*)again, kLarge, expected(rounds));
  DRIVER(cuIpcCloseMemHandle(again));
  DRIVER(cuIpcCloseMemHandle(small));
  CHECK(cudaFreeAsync(s.pooled, s.stream));
  CHECK(cudaStreamSynchronize(s.stream));
  return verdict("turner");
}

// --- an owner that is killed while nobody runs

static int testator() {
  struct Handles handles = {0};
  unsigned *before, *large;
  cudaEvent_t event;
  CHECK(cudaSetDevice(0));
  CHECK(cudaMalloc(&before, 3 * kChunk));
  CHECK(cudaMalloc(&large, kLarge));
  set_all(large, kLarge, 5, 0);
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventInterprocess));
  DRIVER(cuIpcGetMemHandle(&handles.large, (CUdeviceptr)large));
  DRIVER(cuIpcGetEventHandle(&handles.parent, event));
  CHECK(cudaEventRecord(event));
  CHECK(cudaDeviceSynchronize());
  send_all(kLine, &handles, sizeof(handles), -1);
  pause();
  return 1;
}

static int heirs(const char* end) {
  struct Handles handles;
  int line = -1, rounds = 0;
  CUdeviceptr large = 0;
  CUevent event;
  CHECK(cudaSetDevice(0));
  const pid_t pid = start("testator", &line);
  receive_all(line, &handles, sizeof(handles), NULL);
  DRIVER(cuIpcOpenMemHandle(&large, handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  DRIVER(cuIpcOpenEventHandle(&event, handles.parent));
  printf("testator %d\n", (int)pid);
  for (; access(end, F_OK) != 0; rounds++) {
    use((unsigned*)large, kLarge, false, 0, 1);
    CHECK(cudaStreamWaitEvent(0, event, 0));
    CHECK(cudaDeviceSynchronize());
    printf("step %d\n", rounds + 1);
    fflush(stdout);
  }
  EXPECT(join(pid) == 128 + SIGKILL, "the owner was not killed");
  expect_all("what was inherited", (unsigned*)large, kLarge, 5 + (unsigned)rounds);
  DRIVER(cuIpcCloseMemHandle(large));
  CHECK(cudaEventDestroy(event));
  return verdict("heirs");
}

// --- an owner that dies

static int victim() {
  struct Handles handles = {0};
  unsigned *large, *word;
  cudaEvent_t event;
  CHECK(cudaMalloc(&large, kLarge));
  CHECK(cudaMalloc(&word, sizeof(*word)));
  set_all(large, kLarge, 77, 0);
  CHECK(cudaMemset(word, 0, sizeof(*word)));
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventInterprocess));
  DRIVER(cuIpcGetMemHandle(&handles.large, (CUdeviceptr)large));
  DRIVER(cuIpcGetEventHandle(&handles.parent, event));
  spin<<<1, 1>>>(word);
  CHECK(cudaEventRecord(event));
  send_all(kLine, &handles, sizeof(handles), -1);
  pause();
  return 1;
}

static int death() {
  struct Handles handles;
  int line = -1;
  CUdeviceptr large = 0, again = 0;
  cudaEvent_t event, other;
  cudaStream_t stream;
  const pid_t pid = start("victim", &line);
  receive_all(line, &handles, sizeof(handles), NULL);
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  DRIVER(cuIpcOpenMemHandle(&large, handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  DRIVER(cuIpcOpenEventHandle(&event, handles.parent));
  EXPECT_CODE(cudaEventQuery(event), cudaErrorNotReady);
  CHECK(cudaStreamWaitEvent(stream, event, 0));
  use((unsigned*)large, kLarge, false, stream, 1);
  EXPECT_CODE(cudaStreamQuery(stream), cudaErrorNotReady);
  const pid_t killer = fork();
  if (killer == 0) {
    usleep(300000);
    kill(pid, SIGKILL);
    _exit(0);
  }
  const double begin = now_seconds();
  CHECK(cudaEventSynchronize(event));
  CHECK(cudaStreamSynchronize(stream));
  EXPECT(now_seconds() - begin > 0.2, "it did not wait");
  EXPECT(join(pid) == 128 + SIGKILL, "the owner ended in another way");
  join(killer);
  CHECK(cudaEventQuery(event));
  expect_all("a dead owner's memory", (unsigned*)large, kLarge, 78);
  CHECK(cudaEventRecord(event, stream));  // the event lives on
  CHECK(cudaEventSynchronize(event));
  DRIVER(cuIpcCloseMemHandle(large));
  EXPECT_CODE(cuIpcOpenMemHandle(&again, handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_CODE(cuIpcOpenEventHandle(&other, handles.parent), CUDA_ERROR_INVALID_HANDLE);
  CHECK(cudaDeviceSynchronize());
  return verdict("death");
}

// --- two jobs

static int publish(const char* path) {
  struct Handles handles = {0};
  unsigned* large;
  cudaEvent_t event;
  char part[4096];
  CHECK(cudaMalloc(&large, kLarge));
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventInterprocess));
  DRIVER(cuIpcGetMemHandle(&handles.large, (CUdeviceptr)large));
  DRIVER(cuIpcGetEventHandle(&handles.parent, event));
  snprintf(part, sizeof(part), "%s.part", path);
  FILE* file = fopen(part, "w");
  if (file == NULL || fwrite(&handles, sizeof(handles), 1, file) != 1 || fclose(file) != 0) return 1;
  if (rename(part, path) != 0) return 1;
  while (access(path, F_OK) == 0) usleep(20000);
  set_all(large, kLarge, 9, 0);
  expect_all("what was published", large, kLarge, 9);
  return verdict("publish");
}

static int foreign(const char* path) {
  struct Handles handles;
  CUdeviceptr at = 0;
  CUevent event;
  FILE* file = fopen(path, "r");
  if (file == NULL || fread(&handles, sizeof(handles), 1, file) != 1) return 1;
  fclose(file);
  CHECK(cudaFree(0));
  EXPECT_CODE(cuIpcOpenMemHandle(&at, handles.large, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_CODE(cuIpcOpenEventHandle(&event, handles.parent), CUDA_ERROR_INVALID_HANDLE);
  return verdict("foreign");
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "exchange";
  if (strcmp(mode, "partner") == 0) return partner();
  if (strcmp(mode, "late") == 0) return late();
  if (strcmp(mode, "turner") == 0) return turner();
  if (strcmp(mode, "turns") == 0 && argc > 2) return turns(argv[2], argc > 3 ? atoi(argv[3]) : 0);
  if (strcmp(mode, "testator") == 0) return testator();
  if (strcmp(mode, "heirs") == 0 && argc > 2) return heirs(argv[2]);
  if (strcmp(mode, "victim") == 0) return victim();
  if (strcmp(mode, "death") == 0) return death();
  if (strcmp(mode, "publish") == 0 && argc > 2) return publish(argv[2]);
  if (strcmp(mode, "foreign") == 0 && argc > 2) return foreign(argv[2]);
  int devices = 0;
  CHECK(cudaGetDeviceCount(&devices));
  for (int device = 0; device < devices; device++) exchange(device);
  return verdict("exchange");
}
