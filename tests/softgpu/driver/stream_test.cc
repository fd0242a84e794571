// Order between streams and events, and that calls return before the work is done.

#include "base/clock.h"
#include "tests/softgpu/driver/driver_test.h"

namespace softgpu {
namespace {

class Streams : public DriverTest {};

TEST_F(Streams, launches_return_before_they_have_run) {
  Holding holding;
  CUstream s = stream();
  OK(launch("hold", {holding.param()}, s));
  EXPECT_EQ(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
  holding.let_go();
  OK(cuStreamSynchronize(s));
  EXPECT_EQ(cuStreamQuery(s), CUDA_SUCCESS);
}

TEST_F(Streams, arguments_are_copied_at_the_launch) {
  Holding holding;
  CUdeviceptr data = allocate(4);
  OK(cuMemsetD32(data, 5, 1));
  CUstream s = stream();
  OK(launch("hold", {holding.param()}, s));
  uint32_t count = 1, factor = 3;
  OK(launch("scale", {&data, &count, &factor}, s));
  factor = 1000;
  holding.let_go();
  uint32_t result = 0;
  OK(cuStreamSynchronize(s));
  OK(cuMemcpyDtoH(&result, data, 4));
  EXPECT_EQ(result, 15u);
}

TEST_F(Streams, the_default_stream_waits_for_blocking_streams_and_they_for_it) {
  Holding holding;
  CUstream first = stream(), second = stream();
  OK(launch("hold", {holding.param()}, first));
  CUdeviceptr data = allocate(4);
  CUevent in_default = nullptr, in_second = nullptr;
  OK(cuEventCreate(&in_default, 0));
  OK(cuEventCreate(&in_second, 0));
  OK(cuMemsetD32Async(data, 1, 1, nullptr));
  OK(cuEventRecord(in_default, nullptr));
  OK(cuEventRecord(in_second, second));
  EXPECT_EQ(cuEventQuery(in_default), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cuEventQuery(in_second), CUDA_ERROR_NOT_READY);
  holding.let_go();
  OK(cuEventSynchronize(in_second));
  EXPECT_EQ(cuEventQuery(in_default), CUDA_SUCCESS);
}

TEST_F(Streams, non_blocking_streams_neither_wait_for_the_default_stream_nor_it_for_them) {
  Holding holding;
  CUstream free = stream(CU_STREAM_NON_BLOCKING);
  OK(launch("hold", {holding.param()}, free));
  CUdeviceptr data = allocate(4);
  OK(cuMemsetD32(data, 7, 1));
  uint32_t result = 0;
  OK(cuMemcpyDtoH(&result, data, 4));  // would never return otherwise
  EXPECT_EQ(result, 7u);
  holding.let_go();
  OK(cuCtxSynchronize());
}

TEST_F(Streams, per_thread_streams_do_not_wait_for_each_other) {
  Holding holding;
  OK(launch("hold", {holding.param()}, CU_STREAM_PER_THREAD));
  EXPECT_EQ(cuStreamQuery(CU_STREAM_PER_THREAD), CUDA_ERROR_NOT_READY);
  std::thread([&] {
    EXPECT_EQ(cuCtxSetCurrent(context_), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamQuery(CU_STREAM_PER_THREAD), CUDA_SUCCESS);
    CUdeviceptr data = 0;
    EXPECT_EQ(cuMemAlloc(&data, 4), CUDA_SUCCESS);
    EXPECT_EQ(cuMemsetD32Async(data, 1, 1, CU_STREAM_PER_THREAD), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamSynchronize(CU_STREAM_PER_THREAD), CUDA_SUCCESS);
  }).join();
  holding.let_go();
  OK(cuCtxSynchronize());
}

TEST_F(Streams, a_wait_binds_to_the_last_record_at_the_time_of_the_call) {
  Holding first, second;
  CUstream producer = stream(CU_STREAM_NON_BLOCKING), consumer = stream(CU_STREAM_NON_BLOCKING);
  CUevent event = nullptr;
  OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  OK(launch("hold", {first.param()}, producer));
  OK(cuEventRecord(event, producer));
  OK(cuStreamWaitEvent(consumer, event, 0));
  OK(launch("hold", {second.param()}, producer));
  OK(cuEventRecord(event, producer));
  EXPECT_EQ(cuStreamQuery(consumer), CUDA_ERROR_NOT_READY);
  first.let_go();
  OK(cuStreamSynchronize(consumer));  // although the second record is still pending
  EXPECT_EQ(cuEventQuery(event), CUDA_ERROR_NOT_READY);
  second.let_go();
  OK(cuEventSynchronize(event));
}

TEST_F(Streams, events_that_were_never_recorded_are_complete_and_nothing_waits_for_them) {
  CUevent event = nullptr;
  OK(cuEventCreate(&event, 0));
  EXPECT_EQ(cuEventQuery(event), CUDA_SUCCESS);
  OK(cuEventSynchronize(event));
  OK(cuStreamWaitEvent(nullptr, event, 0));
  OK(cuCtxSynchronize());
}

TEST_F(Streams, elapsed_time_needs_two_completed_records_with_timing) {
  CUevent start = nullptr, end = nullptr, untimed = nullptr;
  OK(cuEventCreate(&start, 0));
  OK(cuEventCreate(&end, 0));
  OK(cuEventCreate(&untimed, CU_EVENT_DISABLE_TIMING));
  float ms = -1;
  EXPECT_EQ(cuEventElapsedTime(&ms, start, end), CUDA_ERROR_INVALID_HANDLE);
  Holding holding;
  CUstream s = stream();
  OK(cuEventRecord(start, s));
  OK(cuEventSynchronize(start));  // a busy machine may take its time to get there
  OK(launch("hold", {holding.param()}, s));
  OK(cuEventRecord(end, s));
  EXPECT_EQ(cuEventElapsedTime(&ms, start, end), CUDA_ERROR_NOT_READY);
  tide::sleep_us(5000);
  holding.let_go();
  OK(cuEventSynchronize(end));
  OK(cuEventElapsedTime(&ms, start, end));
  EXPECT_GE(ms, 4.0f);
  EXPECT_LT(ms, 10000.0f);
  OK(cuEventRecord(untimed, s));
  OK(cuStreamSynchronize(s));
  EXPECT_EQ(cuEventElapsedTime(&ms, start, untimed), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(Streams, host_functions_run_in_order_and_may_not_call_the_driver) {
  struct Seen {
    std::atomic<int> order{0};
    CUresult inside = CUDA_SUCCESS;
  } seen;
  CUstream s = stream();
  const auto function = [](void* data) {
    auto& seen = *static_cast<Seen*>(data);
    ++seen.order;
    size_t free = 0, total = 0;
    seen.inside = cuMemGetInfo(&free, &total);
  };
  OK(cuLaunchHostFunc(s, function, &seen));
  OK(cuLaunchHostFunc(s, function, &seen));
  OK(cuStreamSynchronize(s));
  EXPECT_EQ(seen.order, 2);
  EXPECT_EQ(seen.inside, CUDA_ERROR_NOT_PERMITTED);
}

TEST_F(Streams, values_in_host_memory_are_waited_for_and_written) {
  void* pointer = nullptr;
  OK(cuMemHostAlloc(&pointer, 16, 0));
  auto* values = static_cast<std::atomic<uint64_t>*>(pointer);
  values[0] = values[1] = 0;
  const auto address = reinterpret_cast<CUdeviceptr>(pointer);
  CUstream s = stream();
  OK(cuStreamWaitValue64(s, address, 3, CU_STREAM_WAIT_VALUE_GEQ));
  OK(cuStreamWriteValue64(s, address + 8, 77, CU_STREAM_WRITE_VALUE_DEFAULT));
  values[0] = 2;
  EXPECT_EQ(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(values[1], 0u);
  values[0] = 3;
  OK(cuStreamSynchronize(s));
  EXPECT_EQ(values[1], 77u);
}

TEST_F(Streams, a_destroyed_stream_finishes_its_work_and_its_handle_is_refused) {
  Holding holding;
  CUdeviceptr data = allocate(4);
  OK(cuMemsetD32(data, 2, 1));
  CUstream s = stream();
  OK(launch("hold", {holding.param()}, s));
  uint32_t count = 1, factor = 4;
  OK(launch("scale", {&data, &count, &factor}, s));
  OK(cuStreamDestroy(s));
  EXPECT_EQ(cuStreamQuery(s), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuStreamDestroy(s), CUDA_ERROR_INVALID_HANDLE);
  holding.let_go();
  uint32_t result = 0;
  OK(cuMemcpyDtoH(&result, data, 4));  // the default stream waits for it still
  EXPECT_EQ(result, 8u);
}

}  // namespace
}  // namespace softgpu
