// The entry points against workers in threads: what goes out, what waits, what comes back.

#include "loopback.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <numeric>
#include <thread>

#include "base/clock.h"
#include "interpose/entry/entry.h"
#include "interpose/thread.h"
#include "tests/no_threads.h"

namespace tide {
namespace {

TEST_F(Loopback, creating_and_allocating_need_no_answer) {
  const uint64_t before = round_trips();
  CUstream stream;
  CUevent event;
  CUmodule module;
  CUdeviceptr address, managed;
  void* pinned;
  EXPECT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuEventCreate(&event, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAlloc_v2(&address, 100), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAllocHost_v2(&pinned, 65536), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAllocManaged(&managed, 4096, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFreeHost(pinned), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD32Async(address, 7, 25, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuEventRecord(event, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamWaitEvent(stream, event, 0), CUDA_SUCCESS);
  EXPECT_EQ(round_trips(), before);
  EXPECT_EQ(cuModuleLoadData(&module, kPtx), CUDA_SUCCESS);
  EXPECT_EQ(round_trips(), before + 1) << "text may be wrong, and the program wants to know";
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(worker().count(Call::tideMapMemory), 1u);
  EXPECT_EQ(worker().staged(1).size(), sizeof kPtx);
}

TEST_F(Loopback, bytes_come_back_as_they_went) {
  std::vector<unsigned char> out(3'000'001), in(out.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<unsigned char>(i * 31 + i / 1000);
  const CUdeviceptr a = allocate(out.size()), b = allocate(out.size());
  EXPECT_EQ(cuMemcpyHtoD_v2(a, out.data(), out.size()), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyDtoD_v2(b, a, out.size()), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyDtoH_v2(in.data(), b, in.size()), CUDA_SUCCESS);
  EXPECT_EQ(in, out);
  EXPECT_GT(worker().count(Call::tideCopyIn), 5u);
}

TEST_F(Loopback, rectangles_keep_their_rows) {
  size_t pitch = 0;
  CUdeviceptr a = 0;
  ASSERT_EQ(cuMemAllocPitch_v2(&a, &pitch, 300, 50, 4), CUDA_SUCCESS);
  std::vector<int> out(100 * 50), in(100 * 50);
  std::iota(out.begin(), out.end(), 1);
  CUDA_MEMCPY2D c{};
  c.srcMemoryType = CU_MEMORYTYPE_HOST;
  c.srcHost = out.data();
  c.srcPitch = 400;
  c.srcXInBytes = 40;
  c.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  c.dstDevice = a;
  c.dstPitch = pitch;
  c.WidthInBytes = 300;
  c.Height = 50;
  EXPECT_EQ(cuMemcpy2D_v2(&c), CUDA_SUCCESS);
  CUDA_MEMCPY2D back{};
  back.srcMemoryType = CU_MEMORYTYPE_UNIFIED;
  back.srcDevice = a;
  back.srcPitch = pitch;
  back.dstMemoryType = CU_MEMORYTYPE_HOST;
  back.dstHost = in.data();
  back.dstPitch = 400;
  back.dstXInBytes = 40;
  back.WidthInBytes = 300;
  back.Height = 50;
  EXPECT_EQ(cuMemcpy2D_v2(&back), CUDA_SUCCESS);
  for (int row = 0; row < 50; ++row) {
    for (int i = 0; i < 100; ++i) EXPECT_EQ(in[row * 100 + i], i >= 10 && i < 85 ? out[row * 100 + i] : 0);
  }
}

TEST_F(Loopback, pinned_copies_do_not_wait_and_land_before_the_stream_is_idle) {
  CUstream stream;
  void* pinned = nullptr;
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(cuMemAllocHost_v2(&pinned, 1 << 20), CUDA_SUCCESS);
  const CUdeviceptr a = allocate(1 << 20);
  std::vector<char> out(1 << 20, 'x');
  worker().hold(true);
  EXPECT_EQ(cuMemcpyHtoDAsync_v2(a, out.data(), out.size(), stream), CUDA_SUCCESS);
  std::fill(out.begin(), out.end(), 'y');  // ours again at once
  EXPECT_EQ(cuMemcpyDtoHAsync_v2(pinned, a, out.size(), stream), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  worker().hold(false);
  while (cuStreamQuery(stream) == CUDA_ERROR_NOT_READY) sleep_us(50);
  EXPECT_EQ(static_cast<char*>(pinned)[0], 'x');
  EXPECT_EQ(static_cast<char*>(pinned)[(1 << 20) - 1], 'x');
  EXPECT_EQ(cuMemFreeHost(pinned), CUDA_SUCCESS);
}

TEST_F(Loopback, addresses_outside_of_live_memory_are_refused) {
  const CUdeviceptr a = allocate(1000);
  char host[2000];
  EXPECT_EQ(cuMemcpyHtoD_v2(a, host, 1001), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyDtoH_v2(host, a + 999, 2), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemsetD8_v2(a + 1, 0, 1000), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemsetD8_v2(a, 0, 1000), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree_v2(a + 8), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemFree_v2(a), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree_v2(a), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyHtoD_v2(a, host, 1), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Loopback, out_of_memory_comes_from_the_quota) {
  size_t free = 0, total = 0;
  CUdeviceptr a = 0, b = 0;
  EXPECT_EQ(cuMemGetInfo_v2(&free, &total), CUDA_SUCCESS);
  EXPECT_EQ(total, kQuota);
  EXPECT_EQ(free, kQuota);
  EXPECT_EQ(cuMemAlloc_v2(&a, kQuota), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAlloc_v2(&b, 1), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cuMemFree_v2(a), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAlloc_v2(&b, kQuota), CUDA_SUCCESS);
}

TEST_F(Loopback, freeing_waits_for_work_in_flight_only) {
  const CUdeviceptr a = allocate(1000), b = allocate(1000);
  const uint64_t before = round_trips();
  EXPECT_EQ(cuMemFree_v2(a), CUDA_SUCCESS);
  EXPECT_EQ(round_trips(), before);
  worker().hold(true);
  EXPECT_EQ(cuMemsetD8_v2(b, 0, 1000), CUDA_SUCCESS);
  std::thread later([&] {
    sleep_us(20'000);
    worker().hold(false);
  });
  EXPECT_EQ(cuMemFree_v2(b), CUDA_SUCCESS);
  EXPECT_EQ(round_trips(), before + 1);
  later.join();
}

TEST_F(Loopback, stream_ordered_memory_comes_back_when_the_stream_got_there) {
  CUstream stream;
  CUdeviceptr a = 0, b = 0;
  ASSERT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuMemAllocAsync(&a, kQuota, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8Async(a, 1, 100, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFreeAsync(a, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFreeAsync(a, stream), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemAllocAsync(&b, kQuota, stream), CUDA_SUCCESS);
}

TEST_F(Loopback, a_launch_carries_grid_stream_and_packed_arguments) {
  CUfunction add = function("add");
  CUstream stream;
  ASSERT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  uint64_t x = 0x1122334455667788, y = 42;
  int n = 99;
  void* params[] = {&x, &y, &n};
  const uint64_t before = round_trips();
  EXPECT_EQ(cuLaunchKernel(add, 3, 2, 1, 64, 2, 1, 128, stream, params, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(round_trips(), before);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  const auto launches = worker().seen(Call::tideLaunch);
  ASSERT_EQ(launches.size(), 1u);
  const auto l = launches[0].as<command::Launch>();
  EXPECT_EQ(l.kernel & 0xffffffff, 0u);
  EXPECT_EQ(l.grid_x, 3u);
  EXPECT_EQ(l.block_x, 64u);
  EXPECT_EQ(l.shared_bytes, 128u);
  ASSERT_EQ(l.param_bytes, 20u);
  const std::byte* data = launches[0].payload.data() + command::kLaunchDataOffset;
  EXPECT_EQ(memcmp(data, &x, 8), 0);
  EXPECT_EQ(memcmp(data + 8, &y, 8), 0);
  EXPECT_EQ(memcmp(data + 16, &n, 4), 0);
  size_t bytes = 20;
  char buffer[20] = "packed by the user";
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, buffer, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  CUlaunchConfig config{1, 1, 1, 32, 1, 1, 0, stream, &attribute, 1};
  EXPECT_EQ(cuLaunchKernelEx(&config, add, nullptr, extra), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  const auto second = worker().seen(Call::tideLaunch).back();
  EXPECT_EQ(second.as<command::Launch>().attribute_count, 1u);
  EXPECT_EQ(memcmp(second.payload.data() + command::kLaunchDataOffset + 72, buffer, 20), 0);
}

TEST_F(Loopback, launches_that_the_driver_refuses_at_once) {
  CUfunction add = function("add"), none = function("none");
  void* params[] = {nullptr, nullptr, nullptr};
  const auto go = [&](CUfunction f, unsigned grid, unsigned block, unsigned shared) {
    return cuLaunchKernel(f, grid, 1, 1, block, 1, 1, shared, nullptr, f == none ? nullptr : params, nullptr);
  };
  EXPECT_EQ(go(none, 0, 1, 0), CUresult(9)) << "invalid configuration";
  EXPECT_EQ(go(none, 1, 1025, 0), CUresult(9));
  EXPECT_EQ(go(add, 1, 257, 0), CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  EXPECT_EQ(go(none, 1, 32, 50'000), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuFuncSetAttribute(none, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 60'000), CUDA_SUCCESS);
  EXPECT_EQ(go(none, 1, 32, 50'000), CUDA_SUCCESS);
  EXPECT_EQ(go(reinterpret_cast<CUfunction>(0x1234), 1, 1, 0), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuLaunchKernel(none, 1, 1, 1, 1, 1, 1, 0, reinterpret_cast<CUstream>(0x99), nullptr, nullptr),
            CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuLaunchKernel(add, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Loopback, kernels_and_globals_of_a_library_that_is_used_on_two_vgpus) {
  // The other GPU lists another image of the same fat binary, in another order.
  std::swap(workers[1]->kernels[0], workers[1]->kernels[1]);
  workers[0]->globals["table"] = {vgpu_range_base(0) + (900u << 20), 64};
  CUlibrary library;
  CUkernel kernel;
  CUdeviceptr address;
  size_t bytes;
  ASSERT_EQ(cuLibraryLoadData(&library, kPtx, nullptr, nullptr, 0, nullptr, nullptr, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuLibraryGetKernel(&kernel, library, "none"), CUDA_SUCCESS);
  EXPECT_EQ(cuLibraryGetKernel(&kernel, library, "absent"), CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(cuLibraryGetGlobal(&address, &bytes, library, "absent"), CUDA_ERROR_NOT_FOUND);
  ASSERT_EQ(cuLibraryGetGlobal(&address, &bytes, library, "table"), CUDA_SUCCESS);
  EXPECT_EQ(bytes, 64u);
  EXPECT_EQ(cuMemsetD8_v2(address, 1, 64), CUDA_SUCCESS) << "a global is memory like any other";
  const auto go = [&] {
    return cuLaunchKernel(reinterpret_cast<CUfunction>(kernel), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
  };
  EXPECT_EQ(go(), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSetCurrent(contexts[1]), CUDA_SUCCESS);
  EXPECT_EQ(go(), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(workers[0]->seen(Call::tideLaunch)[0].as<command::Launch>().kernel & 0xffffffff, 1u);
  EXPECT_EQ(workers[1]->seen(Call::tideLaunch)[0].as<command::Launch>().kernel & 0xffffffff, 0u);
  EXPECT_EQ(cuLibraryUnload(library), CUDA_SUCCESS);
  EXPECT_EQ(go(), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(Loopback, refused_text_says_so_at_once) {
  worker().load_result = CUDA_ERROR_INVALID_PTX;
  worker().load_message = "kernel add: instruction foo is not known";
  CUmodule module;
  EXPECT_EQ(cuModuleLoadData(&module, kPtx), CUDA_ERROR_INVALID_PTX);
  char text[100] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {text, reinterpret_cast<void*>(sizeof text)};
  EXPECT_EQ(cuModuleLoadDataEx(&module, kPtx, 2, options, values), CUDA_ERROR_INVALID_PTX);
  EXPECT_EQ(worker().load_message, text);
  EXPECT_EQ(worker().count(Call::tideUnloadLibrary), 0u) << "the worker knows nothing of it";
}

TEST_F(Loopback, round_trips_are_counted_by_the_function_that_the_program_called) {
  worker().answer_call = [](const SeenCommand&, std::vector<std::byte>* out) {
    out->resize(8);
    return CUDA_SUCCESS;
  };
  CUfunction add = function("add");
  EXPECT_EQ(trips_by_function(), (std::map<std::string, uint64_t>{{"cuModuleLoadData", 1}}));
  const CUdeviceptr memory = allocate(1000);
  CUstream stream = nullptr;
  CUevent event = nullptr;
  EXPECT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuEventCreate(&event, 0), CUDA_SUCCESS);
  const auto wait_in = [&](auto call) {
    worker().hold(true);
    EXPECT_EQ(cuMemsetD8Async(memory, 1, 1000, stream), CUDA_SUCCESS);
    EXPECT_EQ(cuEventRecord(event, stream), CUDA_SUCCESS);
    std::thread later([&] {
      sleep_us(20'000);
      worker().hold(false);
    });
    EXPECT_EQ(call(), CUDA_SUCCESS);
    later.join();
  };
  char host[1000];
  int value = 0;
  for (int i = 0; i < 3; ++i) wait_in([&] { return cuStreamSynchronize(stream); });
  wait_in([&] { return cuStreamSynchronize_ptsz(stream); });
  for (int i = 0; i < 2; ++i) wait_in([&] { return cuEventSynchronize(event); });
  wait_in([&] { return cuMemcpyDtoH_v2(host, memory, sizeof host); });
  wait_in([&] { return cuMemFree_v2(memory); });
  EXPECT_EQ(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, add), CUDA_SUCCESS);
  const std::map<std::string, uint64_t> expected{{"cuModuleLoadData", 1},   {"cuStreamSynchronize", 4},
                                                 {"cuEventSynchronize", 2}, {"cuMemcpyDtoH_v2", 1},
                                                 {"cuMemFree_v2", 1},       {"cuFuncGetAttribute", 1}};
  EXPECT_EQ(trips_by_function(), expected);
  EXPECT_EQ(round_trips(), 10u) << "none is lost";
}

TEST_F(Loopback, cached_questions_are_asked_once) {
  CUfunction add = function("add");
  worker().answer_call = [](const SeenCommand&, std::vector<std::byte>* out) {
    out->resize(8);
    (*out)[0] = std::byte{33};
    return CUDA_SUCCESS;
  };
  const uint64_t before = round_trips();
  for (int i = 0; i < 5; ++i) {
    int value = 0;
    EXPECT_EQ(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, add), CUDA_SUCCESS);
    EXPECT_EQ(value, 33);
  }
  EXPECT_EQ(round_trips(), before + 1);
  for (int i = 0; i < 5; ++i) cuFuncSetAttribute(add, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 50);
  char host[10];
  EXPECT_EQ(cuMemcpyDtoH_v2(host, allocate(10), 10), CUDA_SUCCESS) << "the worker has seen all before it";
  EXPECT_EQ(worker().count(Call::cuFuncSetAttribute), 1u) << "unchanged settings are not sent again";
}

TEST_F(Loopback, events_order_streams_and_measure_time) {
  CUstream a, b;
  CUevent start, end, untimed;
  ASSERT_EQ(cuStreamCreate(&a, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamCreate(&b, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuEventCreate(&start, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuEventCreate(&end, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuEventCreate(&untimed, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
  float ms = 0;
  EXPECT_EQ(cuEventQuery(start), CUDA_SUCCESS) << "never recorded";
  EXPECT_EQ(cuEventElapsedTime_v2(&ms, start, end), CUDA_ERROR_INVALID_HANDLE);
  worker().hold(true);
  EXPECT_EQ(cuEventRecord(start, a), CUDA_SUCCESS);
  EXPECT_EQ(cuEventRecord(end, a), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(end), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cuEventElapsedTime_v2(&ms, start, end), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cuStreamWaitEvent(b, end, 0), CUDA_SUCCESS);
  worker().hold(false);
  EXPECT_EQ(cuEventSynchronize(end), CUDA_SUCCESS);
  EXPECT_EQ(cuEventElapsedTime_v2(&ms, start, end), CUDA_SUCCESS);
  EXPECT_EQ(ms, 1.5f);
  EXPECT_EQ(cuEventElapsedTime_v2(&ms, untimed, end), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(worker().count(Call::tideWaitEvent), 1u);
  EXPECT_EQ(cuEventDestroy_v2(start), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(start), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(Loopback, copies_between_vgpus_are_asynchronous_and_in_stream_order) {
  std::vector<unsigned char> out(6'000'000), in(out.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<unsigned char>(i * 7 + i / 4096);
  const CUdeviceptr a = allocate(out.size());
  CUstream stream;
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSetCurrent(contexts[1]), CUDA_SUCCESS);
  const CUdeviceptr b = allocate(out.size());
  ASSERT_EQ(cuCtxSetCurrent(contexts[0]), CUDA_SUCCESS);
  workers[1]->hold(true);
  EXPECT_EQ(cuMemcpyHtoDAsync_v2(a, out.data(), out.size(), stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyPeerAsync(b, contexts[1], a, contexts[0], out.size(), stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8Async(a, 0, 1, stream), CUDA_SUCCESS) << "behind the copy";
  sleep_us(20'000);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  workers[1]->hold(false);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyDtoH_v2(in.data(), b, in.size()), CUDA_SUCCESS);
  EXPECT_EQ(in, out);
}

TEST_F(Loopback, the_synchronous_peer_copy_orders_both_default_streams) {
  std::vector<int> out(50'000), in(out.size());
  std::iota(out.begin(), out.end(), 5);
  const CUdeviceptr a = allocate(out.size() * 4);
  cuCtxSetCurrent(contexts[1]);
  const CUdeviceptr b = allocate(out.size() * 4);
  cuCtxSetCurrent(contexts[0]);
  EXPECT_EQ(cuMemcpyHtoD_v2(a, out.data(), out.size() * 4), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyPeer(b, contexts[1], a, contexts[0], out.size() * 4), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyDtoH_v2(in.data(), b, in.size() * 4), CUDA_SUCCESS) << "from the other vGPU, by unified addressing";
  EXPECT_EQ(in, out);
  EXPECT_EQ(cuMemcpyPeer(b, contexts[0], a, contexts[0], 4), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Loopback, a_stream_waits_for_an_event_of_another_vgpu) {
  CUevent event;
  CUstream other;
  ASSERT_EQ(cuEventCreate(&event, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSetCurrent(contexts[1]), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamCreate(&other, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSetCurrent(contexts[0]), CUDA_SUCCESS);
  workers[0]->hold(true);
  ASSERT_EQ(cuEventRecord(event, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(cuEventRecord(event, other), CUDA_ERROR_INVALID_HANDLE);
  ASSERT_EQ(cuStreamWaitEvent(other, event, 0), CUDA_SUCCESS);
  sleep_us(10'000);
  EXPECT_EQ(cuStreamQuery(other), CUDA_ERROR_NOT_READY);
  workers[0]->hold(false);
  EXPECT_EQ(cuStreamSynchronize(other), CUDA_SUCCESS);
}

struct HostCall {
  std::atomic<int> runs{0};
  CUresult inside = CUDA_SUCCESS;
};

TEST_F(Loopback, where_the_system_has_no_thread_left_host_functions_are_refused) {
  const CUhostFn count = [](void* calls) { ++*static_cast<int*>(calls); };
  int calls = 0;
  {
    const NoThreads none;
    EXPECT_EQ(cuLaunchHostFunc(nullptr, count, &calls), CUDA_ERROR_OPERATING_SYSTEM);
  }
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS) << "nothing waits for it";
  EXPECT_EQ(cuLaunchHostFunc(nullptr, count, &calls), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(calls, 1);
}

TEST_F(Loopback, host_functions_run_in_stream_order_and_may_not_call_cuda) {
  CUstream stream;
  HostCall call;
  ASSERT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  const auto function = [](void* data) {
    auto* c = static_cast<HostCall*>(data);
    sleep_us(5'000);
    c->inside = cuMemGetInfo_v2(nullptr, nullptr);
    ++c->runs;
  };
  EXPECT_EQ(cuLaunchHostFunc(stream, function, &call), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(call.runs, 1);
  EXPECT_NE(call.inside, CUDA_SUCCESS);
  const auto callback = [](CUstream, CUresult status, void* data) {
    static_cast<HostCall*>(data)->inside = status;
    ++static_cast<HostCall*>(data)->runs;
  };
  EXPECT_EQ(cuStreamAddCallback(stream, callback, &call, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(call.runs, 2);
  EXPECT_EQ(call.inside, CUDA_SUCCESS);
}

TEST_F(Loopback, pinned_memory_is_read_when_the_stream_gets_there) {
  constexpr size_t kBytes = 1 << 20;
  const CUdeviceptr a = allocate(kBytes), b = allocate(kBytes);
  CUstream stream;
  void* pinned = nullptr;
  std::vector<unsigned char> got(kBytes), sevens(kBytes, 7);
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(cuMemAllocHost_v2(&pinned, kBytes), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyHtoD_v2(a, sevens.data(), kBytes), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  worker().hold(true);
  ASSERT_EQ(cuMemcpyDtoHAsync_v2(pinned, a, kBytes, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyHtoDAsync_v2(b, pinned, kBytes, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY) << "neither call may wait";
  worker().hold(false);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyDtoH_v2(got.data(), b, kBytes), CUDA_SUCCESS);
  EXPECT_EQ(std::count(got.begin(), got.end(), 7), long(kBytes));

  worker().hold(true);
  const auto fill = [](void* p) { memset(p, 9, kBytes); };
  ASSERT_EQ(cuLaunchHostFunc(stream, fill, pinned), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyHtoDAsync_v2(b, pinned, kBytes, stream), CUDA_SUCCESS);
  worker().hold(false);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyDtoH_v2(got.data(), b, kBytes), CUDA_SUCCESS);
  EXPECT_EQ(std::count(got.begin(), got.end(), 9), long(kBytes));
  EXPECT_EQ(cuMemFreeHost(pinned), CUDA_SUCCESS);
}

TEST_F(Loopback, an_asynchronous_error_comes_out_once_and_a_sticky_one_for_ever) {
  worker().set_error(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, false);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  worker().set_error(CUDA_ERROR_ILLEGAL_ADDRESS, true);
  CUdeviceptr a;
  EXPECT_EQ(cuMemAlloc_v2(&a, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cuStreamQuery(nullptr), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_F(Loopback, a_dead_worker_ends_every_wait) {
  const CUdeviceptr a = allocate(100);
  worker().hold(true);
  EXPECT_EQ(cuMemsetD8_v2(a, 0, 100), CUDA_SUCCESS);
  std::thread killer([&] {
    sleep_us(20'000);
    worker().die();
  });
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_DEVICE_UNAVAILABLE);
  killer.join();
  char host[100];
  EXPECT_EQ(cuMemcpyDtoH_v2(host, a, 100), CUDA_ERROR_DEVICE_UNAVAILABLE);
  EXPECT_EQ(cuStreamSynchronize(nullptr), CUDA_ERROR_DEVICE_UNAVAILABLE);
  ASSERT_EQ(cuCtxSetCurrent(contexts[1]), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS) << "the other vGPU lives on";
}

TEST_F(Loopback, per_thread_default_streams_are_streams_of_their_own) {
  const CUdeviceptr a = allocate(100);
  EXPECT_EQ(cuMemsetD8Async(a, 0, 1, CU_STREAM_LEGACY), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8Async(a, 0, 1, CU_STREAM_PER_THREAD), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8Async_ptsz(a, 0, 1, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8Async(a, 0, 1, nullptr), CUDA_SUCCESS);
  std::thread([&] {
    EXPECT_EQ(cuCtxSetCurrent(contexts[0]), CUDA_SUCCESS);
    EXPECT_EQ(cuMemsetD8Async(a, 0, 1, CU_STREAM_PER_THREAD), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamSynchronize(CU_STREAM_PER_THREAD), CUDA_SUCCESS);
  }).join();
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  const auto sets = worker().seen(Call::cuMemsetD8Async);
  ASSERT_EQ(sets.size(), 5u);
  EXPECT_EQ(sets[0].stream, sets[3].stream);
  EXPECT_EQ(sets[1].stream, sets[2].stream);
  EXPECT_NE(sets[0].stream, sets[1].stream);
  EXPECT_NE(sets[4].stream, sets[1].stream);
}

TEST_F(Loopback, pointers_are_known) {
  const CUdeviceptr a = allocate(1000);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  EXPECT_EQ(cuMemGetAddressRange_v2(&base, &bytes, a + 500), CUDA_SUCCESS);
  EXPECT_EQ(base, a);
  EXPECT_EQ(bytes, 1000u);
  unsigned type = 0;
  EXPECT_EQ(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, a), CUDA_SUCCESS);
  EXPECT_EQ(type, unsigned(CU_MEMORYTYPE_DEVICE));
  int local = 0, ordinal = 0;
  EXPECT_EQ(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CUdeviceptr(&local)),
            CUDA_ERROR_INVALID_VALUE);
  CUpointer_attribute wanted[] = {CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_MEMORY_TYPE};
  void* data[] = {&ordinal, &type};
  EXPECT_EQ(cuPointerGetAttributes(2, wanted, data, CUdeviceptr(&local)), CUDA_SUCCESS);
  EXPECT_EQ(ordinal, -2);
  EXPECT_EQ(type, 0u);
}

TEST_F(Loopback, a_reset_ends_what_the_context_had_and_the_handle_stays) {
  CUstream stream;
  ASSERT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  const CUdeviceptr a = allocate(1000);
  EXPECT_EQ(cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
  int active = 1;
  unsigned flags = 0;
  EXPECT_EQ(cuDevicePrimaryCtxGetState(0, &flags, &active), CUDA_SUCCESS);
  EXPECT_EQ(active, 0);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuMemFree_v2(a), CUDA_ERROR_INVALID_VALUE);
  EXPECT_NE(allocate(10), 0u) << "active again";
  char host[10];
  EXPECT_EQ(cuMemcpyDtoH_v2(host, allocate(10), 10), CUDA_SUCCESS);
  EXPECT_EQ(worker().count(Call::tideCreateContext), 2u);
}

TEST_F(Loopback, many_threads_share_one_sequence) {
  const CUdeviceptr a = allocate(1 << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      cuCtxSetCurrent(contexts[0]);
      CUstream stream;
      EXPECT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
      std::vector<char> out(20'000), in(out.size());
      for (int i = 0; i < 100; ++i) {
        std::fill(out.begin(), out.end(), char(t * 50 + i));
        const CUdeviceptr place = a + size_t(t) * 100'000;
        EXPECT_EQ(cuMemcpyHtoDAsync_v2(place, out.data(), out.size(), stream), CUDA_SUCCESS);
        EXPECT_EQ(cuMemcpyDtoHAsync_v2(in.data(), place, in.size(), stream), CUDA_SUCCESS);
        EXPECT_EQ(in, out);
      }
      EXPECT_EQ(cuStreamDestroy_v2(stream), CUDA_SUCCESS);
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
}

TEST_F(Loopback, a_forked_child_is_told_to_start_fresh) {
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  const pid_t child = fork();
  if (child == 0) {
    int count = 0;
    const bool refused = cuDeviceGetCount(&count) == CUDA_ERROR_NOT_INITIALIZED &&
                         cuInit(0) == CUDA_ERROR_NOT_INITIALIZED && cuCtxSynchronize() == CUDA_ERROR_NOT_INITIALIZED;
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS) << "the parent goes on";
}

TEST_F(Loopback, what_a_kernel_prints_comes_out_before_the_wait_returns) {
  testing::internal::CaptureStdout();
  worker().print("hello from the device\n");
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  fflush(stdout);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "hello from the device\n");
}

TEST_F(Loopback, a_full_ring_is_waited_for_and_nothing_is_lost) {
  const CUdeviceptr a = allocate(32u << 20);
  std::vector<unsigned> out(8u << 20), in(out.size());  // twice the ring
  std::iota(out.begin(), out.end(), 3u);
  EXPECT_EQ(cuMemcpyHtoD_v2(a, out.data(), out.size() * 4), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyDtoH_v2(in.data(), a, in.size() * 4), CUDA_SUCCESS);
  EXPECT_EQ(in, out);
}

// The budget is 150 ns on a quiet machine; this only catches a system call or a wait on the way.
TEST_F(Loopback, launches_are_cheap) {
  CUfunction add = function("add");
  uint64_t x = 1, y = 2;
  int n = 3;
  void* params[] = {&x, &y, &n};
  uint64_t best = ~uint64_t(0);
  for (int round = 0; round < 20; ++round) {
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    const uint64_t begin = now_ns();
    for (int i = 0; i < 1000; ++i) cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, nullptr, params, nullptr);
    best = std::min(best, (now_ns() - begin) / 1000);
  }
  RecordProperty("ns_per_launch", int(best));
  printf("%d ns per launch\n", int(best));
  EXPECT_LT(best, 3'000u);
}

// Graphs are the client's own: what reaches the worker is the plain commands of their nodes.

TEST_F(Loopback, a_captured_graph_goes_out_when_it_is_launched_and_needs_no_answer) {
  CUstream stream;
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  CUfunction add = function("add");
  CUdeviceptr data = allocate(4096), other = allocate(4096);
  uint32_t count = 10;
  void* params[] = {&data, &other, &count};
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  const uint64_t before = round_trips();
  ASSERT_EQ(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD32Async(data, 7, 1024, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuLaunchKernel(add, 3, 1, 1, 64, 1, 1, 0, stream, params, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyDtoDAsync_v2(other, data, 4096, stream), CUDA_SUCCESS);
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  count = 99;  // the arguments were copied
  EXPECT_EQ(round_trips(), before);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(worker().count(Call::tideLaunch), 0u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(cuGraphLaunch(exec, stream), CUDA_SUCCESS);
  EXPECT_EQ(round_trips(), before);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(worker().count(Call::cuMemsetD32Async), 3u);
  EXPECT_EQ(worker().count(Call::tideCopyWithin), 3u);
  const auto launches = worker().seen(Call::tideLaunch);
  ASSERT_EQ(launches.size(), 3u);
  EXPECT_EQ(launches[0].as<command::Launch>().grid_x, 3u);
  uint32_t sent = 0;
  memcpy(&sent, launches[2].payload.data() + command::kLaunchDataOffset + 16, sizeof sent);
  EXPECT_EQ(sent, 10u);
  EXPECT_EQ(cuGraphExecDestroy(exec), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
}

TEST_F(Loopback, graphs_copy_from_and_to_plain_memory_around_host_functions_without_waiting) {
  CUstream stream;
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  const CUdeviceptr data = allocate(64);
  static uint32_t in[16], out[16];
  std::fill_n(in, 16, 1u);
  std::fill_n(out, 16, 0u);
  ASSERT_EQ(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cuLaunchHostFunc(
                stream, [](void*) { std::fill_n(in, 16, 42u); }, nullptr),
            CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyHtoDAsync_v2(data, in, 64, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemcpyDtoHAsync_v2(out, data, 64, stream), CUDA_SUCCESS);
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  worker().hold(true);
  EXPECT_EQ(cuGraphLaunch(exec, stream), CUDA_SUCCESS);  // returns although nothing runs
  EXPECT_EQ(out[3], 0u);
  worker().hold(false);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(out[3], 42u);
}

TEST_F(Loopback, what_a_capture_forbids_is_refused_here_and_nothing_is_sent) {
  CUstream stream, blocking;
  ASSERT_EQ(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamCreate(&blocking, CU_STREAM_DEFAULT), CUDA_SUCCESS);
  const CUdeviceptr data = allocate(64);
  CUdeviceptr more = 0;
  CUgraph graph = nullptr;
  ASSERT_EQ(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAlloc_v2(&more, 64), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(cuMemsetD8Async(data, 1, 64, stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_EQ(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  ASSERT_EQ(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  ASSERT_EQ(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8_v2(data, 1, 64), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  EXPECT_EQ(cuStreamEndCapture(blocking, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_EQ(worker().count(Call::cuMemsetD8Async), 0u);
  EXPECT_EQ(worker().count(Call::cuMemsetD8_v2), 0u);
}

TEST_F(Loopback, what_the_gpu_decides_is_sent_as_a_graph_and_host_functions_stay_outside) {
  const CUdeviceptr data = allocate(64);
  CUgraph graph = nullptr;
  CUgraphNode node = nullptr;
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  CUgraphNodeParams params = {};
  params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  params.conditional.type = CU_GRAPH_COND_TYPE_IF;
  params.conditional.size = 1;
  params.conditional.ctx = contexts[0];
  ASSERT_EQ(cuGraphConditionalHandleCreate(&params.conditional.handle, graph, contexts[0], 1, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphAddNode(&node, graph, nullptr, 0, &params), CUDA_SUCCESS);
  const CUgraph body = params.conditional.phGraph_out[0];
  const CUDA_MEMSET_NODE_PARAMS fill = {data, 0, 1, 4, 1, 1};
  ASSERT_EQ(cuGraphAddMemsetNode(&node, body, nullptr, 0, &fill, contexts[0]), CUDA_SUCCESS);
  EXPECT_EQ(worker().count(Call::tideBeginGraph), 0u);  // building asks nobody
  ASSERT_EQ(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  for (const Call call :
       {Call::tideBeginGraph, Call::tideConditionalHandle, Call::tideBeginConditional, Call::tideBeginBody,
        Call::cuMemsetD32Async, Call::tideEndConditional, Call::tideLaunchGraph}) {
    EXPECT_EQ(worker().count(call), 1u) << call_name(uint16_t(call));
  }
  const CUDA_HOST_NODE_PARAMS host = {[](void*) {}, nullptr};
  ASSERT_EQ(cuGraphAddHostNode(&node, body, nullptr, 0, &host), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphLaunch(exec, nullptr), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(worker().count(Call::tideBeginGraph), 1u);
}

TEST_F(Loopback, launches_of_one_graph_on_two_streams_follow_each_other) {
  CUstream first, second;
  ASSERT_EQ(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  const CUdeviceptr data = allocate(64);
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  CUgraphNode node = nullptr;
  const CUDA_MEMSET_NODE_PARAMS fill{data, 0, 1, 4, 16, 1};
  ASSERT_EQ(cuGraphAddMemsetNode(&node, graph, nullptr, 0, &fill, contexts[0]), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  worker().hold(true);
  EXPECT_EQ(cuGraphLaunch(exec, first), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphLaunch(exec, second), CUDA_SUCCESS);
  worker().hold(false);
  EXPECT_EQ(cuStreamSynchronize(second), CUDA_SUCCESS);
  EXPECT_EQ(worker().count(Call::tideWaitEvent), 1u);
  EXPECT_EQ(cuStreamQuery(first), CUDA_SUCCESS);
}

}  // namespace
}  // namespace tide
