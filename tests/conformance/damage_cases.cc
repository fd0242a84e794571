// What no program should do and some do: damaged images, handles that are none, sizes that nothing has, frees of what
// is gone, calls at the end of a process. The driver says no, and goes on.

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "fixture.h"

namespace conformance {
namespace {

// The same numbers each time.
struct Numbers {
  uint64_t state;
  uint32_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 33);
  }
};

class Damage : public Conformance {
 protected:
  // The driver still works: a kernel runs.
  void expect_alive() {
    const CUdeviceptr word = words({41});
    CUdeviceptr argument = word;
    OK(launch(function("add_one"), {&argument}));
    EXPECT_EQ(read(word, 1)[0], 42u);
  }

  // Loads what may be no image, looks into it, since what is no text may be loaded only then, and unloads it again.
  CUresult load_and_unload(const void* image) {
    CUmodule made = nullptr;
    CUfunction found = nullptr;
    CUresult result = CU(cuModuleLoadData)(&made, image);
    if (result != CUDA_SUCCESS) return result;
    result = CU(cuModuleGetFunction)(&found, made, "bump");
    GIVES(CUDA_SUCCESS, CU(cuModuleUnload)(made));
    return result;
  }
};

TEST_F(Damage, text_with_changed_bytes) {
  Numbers numbers{7};
  const std::string good = kKernels;
  int refused = 0;
  for (int round = 0; round < 60; ++round) {
    std::string text = good;
    for (int changes = 0; changes < 3; ++changes)
      text[numbers.next() % text.size()] = static_cast<char>(32 + numbers.next() % 95);
    refused += load_and_unload(text.c_str()) != CUDA_SUCCESS;
  }
  EXPECT_GT(refused, 20);
  expect_alive();
}

TEST_F(Damage, text_cut_short) {
  const std::string good = kKernels;
  for (size_t length = 60; length < good.size(); length += 97) load_and_unload(good.substr(0, length).c_str());
  GIVES(CUDA_ERROR_INVALID_PTX, load_and_unload((good + "\n.visible .entry").c_str()));
  expect_alive();
}

TEST_F(Damage, images_of_random_bytes) {
  Numbers numbers{11};
  std::vector<unsigned char> bytes(1 << 16);
  const std::vector<unsigned char> elf = {0x7f, 'E', 'L', 'F', 2, 1, 1}, bundle = {0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0};
  for (int round = 0; round < 12; ++round) {
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(numbers.next());
    const std::vector<unsigned char>& head = round % 3 == 0   ? elf
                                             : round % 3 == 1 ? bundle
                                                              : std::vector<unsigned char>();
    std::copy(head.begin(), head.end(), bytes.begin());
    // The header of a bundle says how much follows; no more than there is.
    const uint64_t follows = bytes.size() - 16;
    if (round % 3 == 1) memcpy(bytes.data() + 8, &follows, sizeof follows);
    if (round % 3 == 0) memset(bytes.data() + 32, 0, 32);  // an ELF without sections
    bytes.back() = 0;
    EXPECT_NE(load_and_unload(bytes.data()), CUDA_SUCCESS) << round;
  }
  expect_alive();
}

TEST_F(Damage, long_text) {
  if (per_thread_streams()) GTEST_SKIP() << "loading has no streams";
  std::string text(64 << 20, ' ');
  const std::string good = kKernels;
  text.replace(0, good.size(), good);
  GIVES(CUDA_SUCCESS, load_and_unload(text.c_str()));
  text.replace(text.size() - 16, 15, "nonsense at last");
  GIVES(CUDA_ERROR_INVALID_PTX, load_and_unload(text.c_str()));
  expect_alive();
}

// A handle of every kind where one of another kind, or none, is wanted.
TEST_F(Damage, handles_that_are_none) {
  unsigned char garbage[256];
  memset(garbage, 0xa5, sizeof garbage);
  CUevent event = nullptr;
  CUgraph graph = nullptr;
  OK(CU(cuEventCreate)(&event, 0));
  OK(CU(cuGraphCreate)(&graph, 0));
  const CUstream made = stream();
  function("bump");
  for (void* wrong : {static_cast<void*>(garbage), reinterpret_cast<void*>(0x7), reinterpret_cast<void*>(-8)}) {
    CUdeviceptr address = 0;
    unsigned flags = 0;
    CUfunction kernel = nullptr;
    CUgraphExec exec = nullptr;
    EXPECT_NE(CU(cuStreamSynchronize)(static_cast<CUstream>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuStreamGetFlags)(static_cast<CUstream>(wrong), &flags), CUDA_SUCCESS);
    EXPECT_NE(CU(cuStreamDestroy_v2)(static_cast<CUstream>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuEventSynchronize)(static_cast<CUevent>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuEventRecord)(static_cast<CUevent>(wrong), nullptr), CUDA_SUCCESS);
    EXPECT_NE(CU(cuEventDestroy_v2)(static_cast<CUevent>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuModuleGetFunction)(&kernel, static_cast<CUmodule>(wrong), "bump"), CUDA_SUCCESS);
    EXPECT_NE(CU(cuModuleUnload)(static_cast<CUmodule>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuLibraryUnload)(static_cast<CUlibrary>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(launch(static_cast<CUfunction>(wrong), {}), CUDA_SUCCESS);
    EXPECT_NE(CU(cuArrayDestroy)(static_cast<CUarray>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuGraphDestroy)(static_cast<CUgraph>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuGraphInstantiateWithFlags)(&exec, static_cast<CUgraph>(wrong), 0), CUDA_SUCCESS);
    EXPECT_NE(CU(cuGraphLaunch)(static_cast<CUgraphExec>(wrong), nullptr), CUDA_SUCCESS);
    EXPECT_NE(CU(cuMemPoolDestroy)(static_cast<CUmemoryPool>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuMemAllocFromPoolAsync)(&address, 64, static_cast<CUmemoryPool>(wrong), made), CUDA_SUCCESS);
    EXPECT_NE(CU(cuCtxSetCurrent)(static_cast<CUcontext>(wrong)), CUDA_SUCCESS);
    EXPECT_NE(CU(cuCtxDestroy_v2)(static_cast<CUcontext>(wrong)), CUDA_SUCCESS);
  }
  EXPECT_NE(CU(cuStreamSynchronize)(reinterpret_cast<CUstream>(event)), CUDA_SUCCESS);
  EXPECT_NE(CU(cuEventRecord)(reinterpret_cast<CUevent>(made), nullptr), CUDA_SUCCESS);
  EXPECT_NE(CU(cuModuleUnload)(reinterpret_cast<CUmodule>(made)), CUDA_SUCCESS);
  EXPECT_NE(launch(reinterpret_cast<CUfunction>(module), {}), CUDA_SUCCESS);
  EXPECT_NE(CU(cuGraphLaunch)(reinterpret_cast<CUgraphExec>(graph), nullptr), CUDA_SUCCESS);
  expect_alive();
}

TEST_F(Damage, sizes_that_nothing_has) {
  const CUdeviceptr address = allocate(4096);
  CUdeviceptr made = 0;
  size_t pitch = 0;
  void* host = nullptr;
  CUarray array = nullptr;
  char byte = 0;
  const CUDA_ARRAY3D_DESCRIPTOR huge{SIZE_MAX, SIZE_MAX, SIZE_MAX, CU_AD_FORMAT_FLOAT, 4, 0};
  for (const size_t size : {SIZE_MAX, SIZE_MAX - 4095, SIZE_MAX / 2, size_t{1} << 56}) {
    GIVES(CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAlloc_v2)(&made, size));
    EXPECT_NE(CU(cuMemAllocPitch_v2)(&made, &pitch, size, size, 4), CUDA_SUCCESS);
    GIVES(CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAllocManaged)(&made, size, CU_MEM_ATTACH_GLOBAL));
    GIVES(CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemHostAlloc)(&host, size, 0));
    EXPECT_NE(CU(cuMemAllocAsync)(&made, size, nullptr), CUDA_SUCCESS);
    EXPECT_NE(CU(cuMemAddressReserve)(&made, size, 0, 0, 0), CUDA_SUCCESS);
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD8_v2)(address, 0, size));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD32_v2)(address, 0, size));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD2D8_v2)(address, size, 0, 16, 16));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoD_v2)(address, address, size));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH_v2)(&byte, address, size));
    GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoD_v2)(address, &byte, size));
  }
  EXPECT_NE(CU(cuArray3DCreate_v2)(&array, &huge), CUDA_SUCCESS);
  expect_alive();
}

TEST_F(Damage, addresses_of_nothing) {
  char byte = 0;
  for (const CUdeviceptr wild : {CUdeviceptr{0}, CUdeviceptr{8}, CUdeviceptr{0x123456789000}, ~CUdeviceptr{0}}) {
    EXPECT_NE(CU(cuMemcpyDtoH_v2)(&byte, wild, 1), CUDA_SUCCESS) << wild;
    EXPECT_NE(CU(cuMemcpyHtoD_v2)(wild, &byte, 1), CUDA_SUCCESS) << wild;
    EXPECT_NE(CU(cuMemsetD8_v2)(wild, 0, 1), CUDA_SUCCESS) << wild;
    EXPECT_EQ(CU(cuMemFree_v2)(wild) == CUDA_SUCCESS, wild == 0) << wild;
    EXPECT_NE(CU(cuMemFreeHost)(reinterpret_cast<void*>(wild | 1)), CUDA_SUCCESS) << wild;
  }
  expect_alive();
}

TEST_F(Damage, frees_of_what_is_gone) {
  const CUdeviceptr address = allocate(4096);
  const CUstream made = stream();
  CUevent event = nullptr;
  CUgraph graph = nullptr;
  void* host = nullptr;
  OK(CU(cuEventCreate)(&event, 0));
  OK(CU(cuGraphCreate)(&graph, 0));
  OK(CU(cuMemHostAlloc)(&host, 4096, 0));
  load();
  const CUmodule loaded = module;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(address + 512));  // not where it begins
  OK(CU(cuMemFree_v2)(address));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(address));
  OK(CU(cuMemFreeHost)(host));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemFreeHost)(host));
  OK(CU(cuStreamDestroy_v2)(made));
  EXPECT_NE(CU(cuStreamDestroy_v2)(made), CUDA_SUCCESS);
  OK(CU(cuEventDestroy_v2)(event));
  EXPECT_NE(CU(cuEventDestroy_v2)(event), CUDA_SUCCESS);
  OK(CU(cuGraphDestroy)(graph));
  EXPECT_NE(CU(cuGraphDestroy)(graph), CUDA_SUCCESS);
  OK(CU(cuModuleUnload)(loaded));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuModuleUnload)(loaded));
  module = nullptr;
  expect_alive();
}

TEST_F(Damage, calls_after_the_context_is_gone) {
  const CUdeviceptr address = allocate(4096);
  const CUstream made = stream();
  const CUfunction bump = function("bump");
  const CUmodule loaded = module;
  OK(CU(cuCtxDestroy_v2)(context));
  CUdeviceptr other = 0;
  uint32_t value = 0;
  EXPECT_NE(CU(cuMemAlloc_v2)(&other, 4), CUDA_SUCCESS);
  EXPECT_NE(CU(cuMemcpyDtoH_v2)(&value, address, 4), CUDA_SUCCESS);
  EXPECT_NE(CU(cuStreamSynchronize)(made), CUDA_SUCCESS);
  EXPECT_NE(launch(bump, {}, made), CUDA_SUCCESS);
  EXPECT_NE(CU(cuModuleUnload)(loaded), CUDA_SUCCESS);
  // With a new one everything works, but for what went with the old.
  OK(CU(cuCtxCreate_v4)(&context, nullptr, 0, device));
  EXPECT_NE(CU(cuMemcpyDtoH_v2)(&value, address, 4), CUDA_SUCCESS);
  EXPECT_NE(launch(bump, {}), CUDA_SUCCESS);
  module = nullptr;
  expect_alive();
}

// Handlers of atexit call the driver when everything of the program has ended; the process of a case ends by exit().
TEST_F(Damage, calls_at_the_end_of_the_process) {
  static CUresult (*free_memory)(CUdeviceptr) = nullptr;
  static CUresult (*unload)(CUmodule) = nullptr;
  static CUresult (*wait)() = nullptr;
  static CUdeviceptr address = 0;
  static CUmodule loaded = nullptr;
  free_memory = &CU(cuMemFree_v2);
  unload = &CU(cuModuleUnload);
  wait = &CU(cuCtxSynchronize);
  address = allocate(4096);
  load();
  loaded = module;
  ASSERT_EQ(atexit([] {
              const bool good = wait() == CUDA_SUCCESS && free_memory(address) == CUDA_SUCCESS &&
                                unload(loaded) == CUDA_SUCCESS && unload(loaded) == CUDA_ERROR_INVALID_HANDLE;
              if (!good) _exit(9);
            }),
            0);
}

}  // namespace
}  // namespace conformance
