// Memory, events and pools between the processes of one job. Each case begins with a fork, before either side knows the
// driver, and there are two of each: in one the case's own process has the memory, in the other its child.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

namespace conformance {
namespace {

// Sends `bytes` bytes and a descriptor, if any.
bool tell(int line, const void* data, size_t bytes, int descriptor = -1) {
  iovec part = {const_cast<void*>(data), bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  }
  return sendmsg(line, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes);
}

bool hear(int line, void* data, size_t bytes, int* descriptor = nullptr) {
  iovec part = {data, bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(line, &message, MSG_CMSG_CLOEXEC) != static_cast<ssize_t>(bytes)) return false;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (descriptor != nullptr) *descriptor = -1;
  if (descriptor != nullptr && header != nullptr) memcpy(descriptor, CMSG_DATA(header), sizeof(int));
  return true;
}

// A case goes on only when the other side did, too.
#define HEARD(...) ASSERT_TRUE(hear(__VA_ARGS__)) << "the other process has ended"
#define TOLD(...) ASSERT_TRUE(tell(__VA_ARGS__)) << "the other process has ended"

class Sharing : public Conformance {
 protected:
  enum class Role { kOwner, kGuest };

  void SetUp() override {}  // after the fork

  // What the process does that has what is shared, and the other one. `line` is the socket between them.
  virtual void owner(int line) = 0;
  virtual void guest(int line) = 0;

  void play(Role own) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    fflush(nullptr);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    close(pair[child == 0 ? 0 : 1]);
    const int line = pair[child == 0 ? 1 : 0];
    Conformance::SetUp();
    if (!HasFailure() && (own == Role::kOwner) == (child != 0)) {
      owner(line);
    } else if (!HasFailure()) {
      guest(line);
    }
    close(line);  // whoever fails lets the other one go
    if (child == 0) {
      fflush(nullptr);
      exit(HasFailure() ? 1 : 0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the child failed";
  }

  static void go(int line) { TOLD(line, "x", 1); }
  static void stay(int line) {
    char byte = 0;
    HEARD(line, &byte, 1);
  }
};

// --- handles of allocations ---

void own_memory(int line, CUdeviceptr address, CUdeviceptr foreign) {
  CUipcMemHandle handle{};
  OK(CU(cuIpcGetMemHandle)(&handle, address));
  CUdeviceptr again = 0;
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuIpcOpenMemHandle_v2)(&again, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcGetMemHandle)(&handle, 0x1000));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcGetMemHandle)(nullptr, address));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcGetMemHandle)(&handle, foreign));  // of a pool
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcCloseMemHandle)(address));         // it was not opened
  OK(CU(cuIpcGetMemHandle)(&handle, address));
  TOLD(line, &handle, sizeof handle);
}

void open_memory(int line, CUdeviceptr* address) {
  CUipcMemHandle handle{}, none{};
  HEARD(line, &handle, sizeof handle);
  const unsigned lazy = CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS;
  CUdeviceptr again = 0;
  OK(CU(cuIpcOpenMemHandle_v2)(address, handle, lazy));
  OK(CU(cuIpcOpenMemHandle)(&again, handle, lazy));  // by its first name
  EXPECT_EQ(again, *address);
  OK(CU(cuIpcCloseMemHandle)(again));  // the second opening is one of two
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcOpenMemHandle_v2)(nullptr, handle, lazy));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcOpenMemHandle_v2)(&again, handle, 8));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcOpenMemHandle_v2)(&again, none, lazy));
}

class SharedMemory : public Sharing {
 protected:
  void owner(int line) override {
    const CUdeviceptr data = words({1, 2, 3, 4});
    CUdeviceptr pooled = 0;
    OK(CU(cuMemAllocAsync)(&pooled, 64, nullptr));
    own_memory(line, data, pooled);
    stay(line);
    EXPECT_EQ(read(data, 4), (std::vector<uint32_t>{5, 2, 3, 4}));
    OK(CU(cuMemsetD32_v2)(data, 6, 1));
    OK(CU(cuCtxSynchronize)());
    go(line);
    stay(line);
  }

  void guest(int line) override {
    CUdeviceptr data = 0;
    open_memory(line, &data);
    if (data == 0) return;
    EXPECT_EQ(read(data, 4), (std::vector<uint32_t>{1, 2, 3, 4}));
    OK(CU(cuMemsetD32_v2)(data, 5, 1));
    OK(CU(cuCtxSynchronize)());
    go(line);
    stay(line);
    EXPECT_EQ(read(data, 1)[0], 6u);
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(data));  // it is another one's
    OK(CU(cuIpcCloseMemHandle)(data));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcCloseMemHandle)(data));
    go(line);
  }
};

TEST_F(SharedMemory, is_given) { play(Role::kOwner); }
TEST_F(SharedMemory, is_taken) { play(Role::kGuest); }

// --- events ---

class SharedEvents : public Sharing {
 protected:
  void owner(int line) override {
    CUevent event = nullptr, plain = nullptr;
    OK(CU(cuEventCreate)(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
    OK(CU(cuEventCreate)(&plain, 0));
    CUipcEventHandle handle{};
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcGetEventHandle)(&handle, plain));
    GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuIpcGetEventHandle)(&handle, nullptr));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcGetEventHandle)(nullptr, event));
    OK(CU(cuIpcGetEventHandle)(&handle, event));
    CUdeviceptr flag = words({0});
    const CUstream work = stream();
    OK(launch(function("spin_until"), {&flag}, work));
    OK(CU(cuEventRecord)(event, work));
    TOLD(line, &handle, sizeof handle);
    stay(line);  // the other one has seen it pending
    OK(CU(cuMemsetD32Async)(flag, 1, 1, stream()));
    OK(CU(cuStreamSynchronize)(work));
    stay(line);
    OK(CU(cuEventDestroy_v2)(event));
  }

  void guest(int line) override {
    CUipcEventHandle handle{}, none{};
    CUevent event = nullptr;
    HEARD(line, &handle, sizeof handle);
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcOpenEventHandle)(nullptr, handle));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuIpcOpenEventHandle)(&event, none));
    OK(CU(cuIpcOpenEventHandle)(&event, handle));
    GIVES(CUDA_ERROR_NOT_READY, CU(cuEventQuery)(event));
    go(line);
    OK(CU(cuEventSynchronize)(event));
    GIVES(CUDA_SUCCESS, CU(cuEventQuery)(event));
    OK(CU(cuEventDestroy_v2)(event));
    go(line);
  }
};

TEST_F(SharedEvents, are_given) { play(Role::kOwner); }
TEST_F(SharedEvents, are_taken) { play(Role::kGuest); }

// --- memory without an address ---

CUmemAllocationProp exportable() {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  return properties;
}

constexpr auto kDescriptor = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
constexpr size_t kChunk = 2 << 20;

void* as_handle(int descriptor) { return reinterpret_cast<void*>(static_cast<intptr_t>(descriptor)); }

void map(CUmemGenericAllocationHandle handle, CUdeviceptr* address) {
  CUmemAccessDesc access{};
  access.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  OK(CU(cuMemAddressReserve)(address, kChunk, 0, 0, 0));
  OK(CU(cuMemMap)(*address, kChunk, 0, handle, 0));
  OK(CU(cuMemSetAccess)(*address, kChunk, &access, 1));
}

void wrong_exports(CUmemGenericAllocationHandle handle) {
  int descriptor = -1;
  CUmemFabricHandle fabric{};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemExportToShareableHandle)(nullptr, handle, kDescriptor, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemExportToShareableHandle)(&descriptor, 0xDEAD, kDescriptor, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemExportToShareableHandle)(&descriptor, handle, kDescriptor, 1));
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuMemExportToShareableHandle)(&fabric, handle, CU_MEM_HANDLE_TYPE_FABRIC, 0));
  CUmemAllocationProp plain = exportable();
  plain.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
  CUmemGenericAllocationHandle kept = 0;
  OK(CU(cuMemCreate)(&kept, kChunk, &plain, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemExportToShareableHandle)(&descriptor, kept, kDescriptor, 0));
  OK(CU(cuMemRelease)(kept));
}

class SharedHandles : public Sharing {
 protected:
  void owner(int line) override {
    const CUmemAllocationProp properties = exportable();
    CUmemGenericAllocationHandle handle = 0;
    CUdeviceptr data = 0;
    int descriptor = -1;
    OK(CU(cuMemCreate)(&handle, kChunk, &properties, 0));
    wrong_exports(handle);
    map(handle, &data);
    OK(CU(cuMemsetD32_v2)(data, 17, 4));
    OK(CU(cuCtxSynchronize)());
    OK(CU(cuMemExportToShareableHandle)(&descriptor, handle, kDescriptor, 0));
    TOLD(line, "x", 1, descriptor);
    close(descriptor);
    stay(line);
    EXPECT_EQ(read(data, 2), (std::vector<uint32_t>{17, 18}));
    go(line);
    stay(line);
  }

  void guest(int line) override {
    CUmemGenericAllocationHandle handle = 0;
    CUdeviceptr data = 0;
    int descriptor = -1;
    char byte = 0;
    HEARD(line, &byte, 1, &descriptor);
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemImportFromShareableHandle)(nullptr, as_handle(descriptor), kDescriptor));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemImportFromShareableHandle)(&handle, as_handle(line), kDescriptor));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemImportFromShareableHandle)(&handle, as_handle(-1), kDescriptor));
    OK(CU(cuMemImportFromShareableHandle)(&handle, as_handle(descriptor), kDescriptor));
    close(descriptor);
    CUmemAllocationProp properties{};
    OK(CU(cuMemGetAllocationPropertiesFromHandle)(&properties, handle));
    EXPECT_EQ(properties.location.id, 0);
    map(handle, &data);
    EXPECT_EQ(read(data, 2), (std::vector<uint32_t>{17, 17}));
    OK(CU(cuMemsetD32_v2)(data + 4, 18, 1));
    OK(CU(cuCtxSynchronize)());
    go(line);
    stay(line);
    OK(CU(cuMemUnmap)(data, kChunk));
    OK(CU(cuMemRelease)(handle));
    OK(CU(cuMemAddressFree)(data, kChunk));
    go(line);
  }
};

TEST_F(SharedHandles, are_given) { play(Role::kOwner); }
TEST_F(SharedHandles, are_taken) { play(Role::kGuest); }

// --- pools ---

CUmemPoolProps shared_pool() {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.handleTypes = kDescriptor;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  return properties;
}

void wrong_pools(CUmemoryPool pool, CUdeviceptr plain) {
  int descriptor = -1;
  CUmemPoolPtrExportData data{};
  CUmemoryPool ordinary = nullptr;
  CUdeviceptr address = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolExportToShareableHandle)(nullptr, pool, kDescriptor, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolExportToShareableHandle)(&descriptor, pool, kDescriptor, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolExportToShareableHandle)(&descriptor, pool, CU_MEM_HANDLE_TYPE_WIN32, 0));
  OK(CU(cuDeviceGetDefaultMemPool)(&ordinary, 0));  // which was not made to be shared
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolExportToShareableHandle)(&descriptor, ordinary, kDescriptor, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolExportPointer)(&data, plain));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolExportPointer)(nullptr, plain));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolImportPointer)(&address, pool, &data));  // its own
}

class SharedPools : public Sharing {
 protected:
  void owner(int line) override {
    const CUmemPoolProps properties = shared_pool();
    CUmemoryPool pool = nullptr;
    CUmemPoolPtrExportData data{};
    CUdeviceptr address = 0;
    int descriptor = -1;
    OK(CU(cuMemPoolCreate)(&pool, &properties));
    wrong_pools(pool, words({0}));
    OK(CU(cuMemPoolExportToShareableHandle)(&descriptor, pool, kDescriptor, 0));
    OK(CU(cuMemAllocFromPoolAsync)(&address, 1 << 20, pool, nullptr));
    OK(CU(cuMemsetD32Async)(address, 23, 4, nullptr));
    OK(CU(cuStreamSynchronize)(nullptr));
    OK(CU(cuMemPoolExportPointer)(&data, address));
    TOLD(line, &data, sizeof data, descriptor);
    close(descriptor);
    stay(line);
    EXPECT_EQ(read(address, 2), (std::vector<uint32_t>{23, 24}));
    go(line);
    stay(line);
  }

  void guest(int line) override {
    CUmemoryPool pool = nullptr;
    CUmemPoolPtrExportData data{}, none{};
    CUdeviceptr address = 0, more = 0;
    int descriptor = -1;
    HEARD(line, &data, sizeof data, &descriptor);
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolImportFromShareableHandle)(&pool, as_handle(line), kDescriptor, 0));
    GIVES(CUDA_ERROR_INVALID_VALUE,
          CU(cuMemPoolImportFromShareableHandle)(nullptr, as_handle(descriptor), kDescriptor, 0));
    OK(CU(cuMemPoolImportFromShareableHandle)(&pool, as_handle(descriptor), kDescriptor, 0));
    close(descriptor);
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolImportPointer)(nullptr, pool, &data));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolImportPointer)(&address, pool, nullptr));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemPoolImportPointer)(&address, pool, &none));
    OK(CU(cuMemPoolImportPointer)(&address, pool, &data));
    EXPECT_EQ(read(address, 2), (std::vector<uint32_t>{23, 23}));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemAllocFromPoolAsync)(&more, 64, pool, nullptr));  // the owner does that
    OK(CU(cuMemsetD32_v2)(address + 4, 24, 1));
    OK(CU(cuCtxSynchronize)());
    go(line);
    stay(line);
    OK(CU(cuMemFreeAsync)(address, nullptr));
    OK(CU(cuStreamSynchronize)(nullptr));
    go(line);
  }
};

TEST_F(SharedPools, are_given) { play(Role::kOwner); }
TEST_F(SharedPools, are_taken) { play(Role::kGuest); }

}  // namespace
}  // namespace conformance
