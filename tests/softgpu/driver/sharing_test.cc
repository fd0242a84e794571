// Memory and events of one process in another. Each test starts this program again as the other process; they talk
// over a socket, which also carries descriptors.

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

constexpr size_t kMiB = 1 << 20;

class Line {
 public:
  explicit Line(int fd) : fd_(fd) {}
  template <typename T>
  void send(const T& value) {
    ASSERT_EQ(write(fd_, &value, sizeof(value)), static_cast<ssize_t>(sizeof(value)));
  }
  template <typename T>
  T receive() {
    T value{};
    EXPECT_EQ(recv(fd_, &value, sizeof(value), MSG_WAITALL), static_cast<ssize_t>(sizeof(value)));
    return value;
  }
  void send_fd(int descriptor) {
    msghdr message = prepare();
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(part), &descriptor, sizeof(int));
    ASSERT_EQ(sendmsg(fd_, &message, 0), 1);
    close(descriptor);
  }
  int receive_fd() {
    msghdr message = prepare();
    EXPECT_EQ(recvmsg(fd_, &message, 0), 1);
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    return descriptor;
  }

 private:
  msghdr prepare() {
    data_ = {&byte_, 1};
    msghdr message{};
    message.msg_iov = &data_;
    message.msg_iovlen = 1;
    message.msg_control = control_;
    message.msg_controllen = sizeof(control_);
    return message;
  }
  const int fd_;
  char byte_ = 0;
  iovec data_{};
  alignas(cmsghdr) char control_[CMSG_SPACE(sizeof(int))] = {};
};

class Sharing : public DriverTest {
 protected:
  // Starts the other process in a role; its exit status is checked at the end.
  Line start(const char* role) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    child_ = fork();
    if (child_ == 0) {
      const std::string number = std::to_string(ends[1]);
      execl("/proc/self/exe", "sharing_test", "--role", role, number.c_str(), nullptr);
      _exit(127);
    }
    close(ends[1]);
    return Line(ends[0]);
  }
  void TearDown() override {
    int status = -1;
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    EXPECT_EQ(status, 0);
    DriverTest::TearDown();
  }
  pid_t child_ = -1;
};

// The other processes. They return 0 when all was well.
class Other : public DriverTest {
 public:
  void TestBody() override {}
  int run(const std::string& role, int fd) {
    SetUp();
    Line line(fd);
    if (role == "memory") memory(line);
    if (role == "event") event(line);
    if (role == "mapping") mapping(line);
    if (role == "pool") pool(line);
    TearDown();
    return testing::UnitTest::GetInstance()->Failed() || HasFailure() ? 1 : 0;
  }

 private:
  void scale(CUdeviceptr data, uint32_t factor) {
    uint32_t count = 256;
    OK(launch("scale", {&data, &count, &factor}, nullptr, 8, 32));
    OK(cuCtxSynchronize());
  }
  void memory(Line& line) {
    const auto handle = line.receive<CUipcMemHandle>();
    CUdeviceptr address = 0, again = 0;
    OK(cuIpcOpenMemHandle(&address, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    OK(cuIpcOpenMemHandle(&again, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    EXPECT_EQ(address, again);
    EXPECT_EQ(cuMemFree(address), CUDA_ERROR_INVALID_VALUE);
    scale(address, 3);
    line.send(1);
    OK(cuIpcCloseMemHandle(address));
    OK(cuIpcCloseMemHandle(address));
    EXPECT_EQ(cuIpcCloseMemHandle(address), CUDA_ERROR_INVALID_VALUE);
  }
  void event(Line& line) {
    CUevent made = nullptr;
    OK(cuIpcOpenEventHandle(&made, line.receive<CUipcEventHandle>()));
    EXPECT_EQ(cuEventQuery(made), CUDA_ERROR_NOT_READY);
    CUstream s = stream(CU_STREAM_NON_BLOCKING);
    OK(cuStreamWaitEvent(s, made, 0));
    EXPECT_EQ(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
    line.send(1);  // now the other one lets its kernel end
    OK(cuStreamSynchronize(s));
    OK(cuEventQuery(made));
    OK(cuEventDestroy(made));
  }
  void mapping(Line& line) {
    const int fd = line.receive_fd();
    CUmemGenericAllocationHandle handle = 0;
    OK(cuMemImportFromShareableHandle(&handle, reinterpret_cast<void*>(static_cast<intptr_t>(fd)),
                                      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(fd);
    CUdeviceptr place = 0;
    OK(cuMemAddressReserve(&place, 2 * kMiB, 0, 0, 0));
    OK(cuMemMap(place, 2 * kMiB, 0, handle, 0));
    CUmemAccessDesc access{};
    access.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device_}};
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    OK(cuMemSetAccess(place, 2 * kMiB, &access, 1));
    scale(place, 5);
    line.send(1);
    OK(cuMemUnmap(place, 2 * kMiB));
    OK(cuMemRelease(handle));
  }
  void pool(Line& line) {
    const int fd = line.receive_fd();
    CUmemoryPool imported = nullptr;
    OK(cuMemPoolImportFromShareableHandle(&imported, reinterpret_cast<void*>(static_cast<intptr_t>(fd)),
                                          CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    close(fd);
    auto data = line.receive<CUmemPoolPtrExportData>();
    auto others = line.receive<CUmemPoolPtrExportData>();
    CUdeviceptr address = 0, none = 0;
    OK(cuMemPoolImportPointer(&address, imported, &data));
    EXPECT_EQ(cuMemAllocFromPoolAsync(&none, 16, imported, nullptr), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(cuMemPoolImportPointer(&none, imported, &others), CUDA_ERROR_INVALID_VALUE);
    scale(address, 7);
    line.send(1);
    OK(cuMemFreeAsync(address, nullptr));
    OK(cuCtxSynchronize());
  }
};

uint32_t number_at(CUdeviceptr address) {
  uint32_t value = 0;
  EXPECT_EQ(cuMemcpyDtoH(&value, address, 4), CUDA_SUCCESS);
  return value;
}

TEST_F(Sharing, memory_is_opened_written_and_closed_by_another_process) {
  Line line = start("memory");
  const CUdeviceptr before = allocate(4096), address = allocate(1024);
  OK(cuMemsetD32(address, 2, 256));
  OK(cuMemsetD32(before, 9, 1024));
  CUipcMemHandle handle{};
  OK(cuIpcGetMemHandle(&handle, address));
  CUdeviceptr own = 0;
  EXPECT_EQ(cuIpcOpenMemHandle(&own, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), CUDA_ERROR_INVALID_CONTEXT);
  line.send(handle);
  EXPECT_EQ(line.receive<int>(), 1);
  EXPECT_EQ(number_at(address + 4 * 255), 6u);
  EXPECT_EQ(number_at(before + 4092), 9u);
}

TEST_F(Sharing, an_event_is_waited_for_in_another_process) {
  Line line = start("event");
  CUevent event = nullptr;
  EXPECT_EQ(cuEventCreate(&event, CU_EVENT_INTERPROCESS), CUDA_ERROR_INVALID_VALUE);
  OK(cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
  Holding holding;
  CUstream s = stream(CU_STREAM_NON_BLOCKING);
  OK(launch("hold", {holding.param()}, s));
  OK(cuEventRecord(event, s));
  CUipcEventHandle handle{};
  OK(cuIpcGetEventHandle(&handle, event));
  line.send(handle);
  EXPECT_EQ(line.receive<int>(), 1);
  holding.let_go();
  OK(cuEventSynchronize(event));
}

TEST_F(Sharing, physical_memory_travels_as_a_descriptor) {
  Line line = start("mapping");
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device_}};
  CUmemGenericAllocationHandle handle = 0;
  CUdeviceptr place = 0;
  OK(cuMemCreate(&handle, 2 * kMiB, &properties, 0));
  OK(cuMemAddressReserve(&place, 2 * kMiB, 0, 0, 0));
  OK(cuMemMap(place, 2 * kMiB, 0, handle, 0));
  CUmemAccessDesc access{};
  access.location = properties.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  OK(cuMemSetAccess(place, 2 * kMiB, &access, 1));
  OK(cuMemsetD32(place, 4, 256));
  OK(cuCtxSynchronize());
  int fd = -1;
  OK(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  line.send_fd(fd);
  EXPECT_EQ(line.receive<int>(), 1);
  EXPECT_EQ(number_at(place + 4 * 255), 20u);
  OK(cuMemUnmap(place, 2 * kMiB));
  OK(cuMemRelease(handle));
  OK(cuMemAddressFree(place, 2 * kMiB));
}

TEST_F(Sharing, pointers_of_a_pool_are_imported_one_by_one) {
  Line line = start("pool");
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {device_}};
  CUmemoryPool pool = nullptr;
  OK(cuMemPoolCreate(&pool, &properties));
  CUdeviceptr unused = 0, address = 0;
  OK(cuMemAllocFromPoolAsync(&unused, 4096, pool, nullptr));
  OK(cuMemAllocFromPoolAsync(&address, 1024, pool, nullptr));
  OK(cuMemsetD32(address, 6, 256));
  OK(cuCtxSynchronize());
  int fd = -1;
  OK(cuMemPoolExportToShareableHandle(&fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  line.send_fd(fd);
  CUmemPoolPtrExportData data{};
  OK(cuMemPoolExportPointer(&data, address));
  line.send(data);
  CUmemoryPool second = nullptr;
  CUdeviceptr theirs = 0;
  OK(cuMemPoolCreate(&second, &properties));
  OK(cuMemAllocFromPoolAsync(&theirs, 64, second, nullptr));
  OK(cuMemPoolExportPointer(&data, theirs));
  line.send(data);
  EXPECT_EQ(line.receive<int>(), 1);
  EXPECT_EQ(number_at(address + 4 * 255), 42u);
  OK(cuMemFree(theirs));
  OK(cuMemPoolDestroy(second));
  OK(cuMemFree(address));
  OK(cuMemFree(unused));
  OK(cuMemPoolDestroy(pool));
}

}  // namespace
}  // namespace softgpu

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc == 4 && std::strcmp(argv[1], "--role") == 0) return softgpu::Other().run(argv[2], std::atoi(argv[3]));
  return RUN_ALL_TESTS();
}
