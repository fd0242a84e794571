// Streams, events, host functions, values.
#include <atomic>

#include "fixture.h"

namespace conformance {
namespace {

class Streams : public Conformance {
 protected:
  // Work that lasts until release().
  void hold(CUstream on) {
    OK(CU(cuLaunchHostFunc)(
        on, [](void* p) { static_cast<Streams*>(p)->released_.wait(false); }, this));
  }
  void release() {
    released_ = true;
    released_.notify_all();
  }
  void TearDown() override { release(); }

 private:
  std::atomic<bool> released_{false};
};

TEST_F(Streams, what_they_are) {
  CUstream made = nullptr;
  OK(CU(cuStreamCreateWithPriority)(&made, CU_STREAM_NON_BLOCKING, 0));
  unsigned flags = 0;
  GIVES(CUDA_SUCCESS, CU(cuStreamGetFlags)(made, &flags));
  EXPECT_EQ(flags, static_cast<unsigned>(CU_STREAM_NON_BLOCKING));
  int priority = 9;
  GIVES(CUDA_SUCCESS, CU(cuStreamGetPriority)(made, &priority));
  EXPECT_EQ(priority, 0);
  CUcontext of = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuStreamGetCtx)(made, &of));
  EXPECT_EQ(of, context);
  CUgreenCtx green = reinterpret_cast<CUgreenCtx>(1);
  GIVES(CUDA_SUCCESS, CU(cuStreamGetCtx_v2)(made, &of, &green));
  EXPECT_EQ(of, context);
  EXPECT_EQ(green, nullptr);
  unsigned long long id = 0, other = 0;
  GIVES(CUDA_SUCCESS, CU(cuStreamGetId)(made, &id));
  GIVES(CUDA_SUCCESS, CU(cuStreamGetId)(nullptr, &other));
  EXPECT_NE(id, other);
  CUdevice on = -1;
  GIVES(CUDA_SUCCESS, CU(cuStreamGetDevice)(made, &on));
  EXPECT_EQ(on, device);
  GIVES(CUDA_SUCCESS, CU(cuStreamDestroy_v2)(made));
}

TEST_F(Streams, wrong_arguments) {
  CUstream made = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamCreate)(nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamCreate)(&made, 0x80));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuStreamDestroy_v2)(nullptr));
  unsigned flags = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamGetFlags)(nullptr, nullptr));
  GIVES(CUDA_SUCCESS, CU(cuStreamGetFlags)(nullptr, &flags));
}

TEST_F(Streams, priorities_are_clamped) {
  int least = 0, greatest = 0, priority = 0;
  OK(CU(cuCtxGetStreamPriorityRange)(&least, &greatest));
  CUstream made = nullptr;
  OK(CU(cuStreamCreateWithPriority)(&made, 0, greatest - 100));
  GIVES(CUDA_SUCCESS, CU(cuStreamGetPriority)(made, &priority));
  EXPECT_EQ(priority, greatest);
  OK(CU(cuStreamCreateWithPriority)(&made, 0, least + 100));
  GIVES(CUDA_SUCCESS, CU(cuStreamGetPriority)(made, &priority));
  EXPECT_EQ(priority, least);
}

TEST_F(Streams, go_on_beside_each_other) {
  const CUstream first = stream(), second = stream();
  hold(first);
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(first));
  const CUdeviceptr address = allocate(64);
  OK(CU(cuMemsetD32Async)(address, 3, 16, second));
  GIVES(CUDA_SUCCESS, CU(cuStreamSynchronize)(second));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(first));
  release();
  GIVES(CUDA_SUCCESS, CU(cuStreamSynchronize)(first));
  GIVES(CUDA_SUCCESS, CU(cuStreamQuery)(first));
}

TEST_F(Streams, legacy_stream_waits_for_blocking_ones) {
  if (per_thread_streams()) GTEST_SKIP() << "the default stream is another one";
  const CUstream blocking = stream(CU_STREAM_DEFAULT), beside = stream();
  hold(blocking);
  const CUdeviceptr address = allocate(64);
  OK(CU(cuMemsetD32Async)(address, 3, 16, nullptr));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(nullptr));
  GIVES(CUDA_SUCCESS, CU(cuStreamQuery)(beside));
  release();
  GIVES(CUDA_SUCCESS, CU(cuStreamSynchronize)(nullptr));
  GIVES(CUDA_SUCCESS, CU(cuStreamQuery)(blocking));
}

TEST_F(Streams, per_thread_stream_waits_for_no_blocking_one) {
  const CUstream beside = stream();
  hold(beside);
  const CUdeviceptr address = allocate(64);
  OK(CU(cuMemsetD32Async)(address, 3, 16, CU_STREAM_PER_THREAD));
  GIVES(CUDA_SUCCESS, CU(cuStreamSynchronize)(CU_STREAM_PER_THREAD));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(beside));
}

TEST_F(Streams, host_functions_come_in_order) {
  static std::vector<int> seen;
  seen.clear();
  const CUstream work = stream();
  for (int i = 0; i < 10; i++) {
    OK(CU(cuLaunchHostFunc)(
        work, [](void* p) { seen.push_back(static_cast<int>(reinterpret_cast<intptr_t>(p))); },
        reinterpret_cast<void*>(static_cast<intptr_t>(i))));
  }
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(seen, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLaunchHostFunc)(work, nullptr, nullptr));
}

TEST_F(Streams, host_functions_see_what_came_before) {
  static uint32_t value;
  static uint32_t seen;
  value = seen = 0;
  const CUdeviceptr address = words({7});
  const CUstream work = stream();
  OK(CU(cuMemcpyDtoHAsync_v2)(&value, address, 4, work));
  OK(CU(cuLaunchHostFunc)(
      work, [](void*) { seen = value; }, nullptr));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(seen, 7u);
}

TEST_F(Streams, callbacks) {
  static std::atomic<int> code;
  code = -1;
  const CUstream work = stream();
  OK(CU(cuStreamAddCallback)(
      work, [](CUstream, CUresult status, void*) { code = status; }, nullptr, 0));
  OK(CU(cuStreamSynchronize)(work));
  EXPECT_EQ(code, CUDA_SUCCESS);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamAddCallback)(work, nullptr, nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamAddCallback)(
                                      work, [](CUstream, CUresult, void*) {}, nullptr, 1));
}

TEST_F(Streams, cuda_calls_in_host_functions_are_refused) {
  static std::atomic<int> code;
  code = -1;
  OK(CU(cuLaunchHostFunc)(
      stream(),
      [](void*) {
        CUdeviceptr address = 0;
        code = CU(cuMemAlloc_v2)(&address, 16);
      },
      nullptr));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(code, CUDA_ERROR_NOT_PERMITTED);
}

TEST_F(Streams, attributes) {
  const CUstream one = stream(), other = stream();
  CUstreamAttrValue value{};
  value.syncPolicy = CU_SYNC_POLICY_YIELD;
  GIVES(CUDA_SUCCESS, CU(cuStreamSetAttribute)(one, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
  value = {};
  GIVES(CUDA_SUCCESS, CU(cuStreamGetAttribute)(one, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
  EXPECT_EQ(value.syncPolicy, CU_SYNC_POLICY_YIELD);
  GIVES(CUDA_SUCCESS, CU(cuStreamCopyAttributes)(other, one));
  value = {};
  GIVES(CUDA_SUCCESS, CU(cuStreamGetAttribute)(other, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
  EXPECT_EQ(value.syncPolicy, CU_SYNC_POLICY_YIELD);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamSetAttribute)(one, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamGetAttribute)(one, static_cast<CUstreamAttrID>(99), &value));
}

TEST_F(Streams, values) {
  const CUdeviceptr word = words({0, 0, 0, 0});
  const CUstream waits = stream(), writes = stream();
  OK(CU(cuStreamWaitValue32_v2)(waits, word, 5, CU_STREAM_WAIT_VALUE_GEQ));
  OK(CU(cuMemsetD32Async)(word + 8, 9, 1, waits));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(waits));
  OK(CU(cuStreamWriteValue32_v2)(writes, word, 5, 0));
  OK(CU(cuStreamSynchronize)(waits));
  EXPECT_EQ(read(word, 3)[2], 9u);
  OK(CU(cuStreamWriteValue64_v2)(writes, word, 0x100000002ull, 0));
  OK(CU(cuStreamWaitValue64_v2)(waits, word, 0x100000002ull, CU_STREAM_WAIT_VALUE_EQ));
  OK(CU(cuStreamSynchronize)(waits));
  EXPECT_EQ(read(word, 2)[1], 1u);
  CUstreamBatchMemOpParams both[2]{};
  both[0].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  both[0].writeValue.address = word;
  both[0].writeValue.value = 77;
  both[1].operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
  both[1].waitValue.address = word;
  both[1].waitValue.value = 77;
  both[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
  OK(CU(cuStreamBatchMemOp_v2)(writes, 2, both, 0));
  OK(CU(cuStreamSynchronize)(writes));
  EXPECT_EQ(read(word, 1)[0], 77u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuStreamBatchMemOp_v2)(writes, 257, both, 0));
}

TEST_F(Streams, old_values) {
  const CUdeviceptr word = words({0, 0});
  const CUstream work = stream();
  OK(CU(cuStreamWriteValue32)(work, word, 5, 0));
  OK(CU(cuStreamWaitValue32)(work, word, 5, CU_STREAM_WAIT_VALUE_GEQ));
  OK(CU(cuStreamWriteValue64)(work, word, 6, 0));
  OK(CU(cuStreamWaitValue64)(work, word, 6, CU_STREAM_WAIT_VALUE_GEQ));
  CUstreamBatchMemOpParams one{};
  one.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  one.writeValue.address = word;
  one.writeValue.value = 8;
  OK(CU(cuStreamBatchMemOp)(work, 1, &one, 0));
  GIVES(CUDA_SUCCESS, CU(cuStreamDestroy)(work));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(read(word, 1)[0], 8u);
}

TEST_F(Streams, destroyed_with_work) {
  const CUstream work = stream();
  const CUdeviceptr address = allocate(1 << 20);
  OK(CU(cuMemsetD8Async)(address, 4, 1 << 20, work));
  GIVES(CUDA_SUCCESS, CU(cuStreamDestroy_v2)(work));
  OK(CU(cuCtxSynchronize)());
  EXPECT_EQ(read(address, 1)[0], 0x04040404u);
}

// --- events
// -----------------------------------------------------------------------------------------------------------

class Events : public Streams {
 protected:
  CUevent event(unsigned flags = CU_EVENT_DEFAULT) {
    CUevent made = nullptr;
    EXPECT_EQ(CU(cuEventCreate)(&made, flags), CUDA_SUCCESS);
    return made;
  }
};

TEST_F(Events, never_recorded) {
  const CUevent one = event();
  GIVES(CUDA_SUCCESS, CU(cuEventQuery)(one));
  GIVES(CUDA_SUCCESS, CU(cuEventSynchronize)(one));
  GIVES(CUDA_SUCCESS, CU(cuStreamWaitEvent)(stream(), one, 0));
  GIVES(CUDA_SUCCESS, CU(cuEventDestroy_v2)(one));
}

TEST_F(Events, happen_in_stream_order) {
  const CUstream work = stream();
  const CUevent one = event();
  hold(work);
  OK(CU(cuEventRecord)(one, work));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuEventQuery)(one));
  release();
  GIVES(CUDA_SUCCESS, CU(cuEventSynchronize)(one));
  GIVES(CUDA_SUCCESS, CU(cuEventQuery)(one));
}

TEST_F(Events, order_streams) {
  const CUstream first = stream(), second = stream();
  const CUdeviceptr address = words({1});
  const CUevent one = event(CU_EVENT_DISABLE_TIMING);
  hold(first);
  OK(CU(cuMemsetD32Async)(address, 5, 1, first));
  OK(CU(cuEventRecordWithFlags)(one, first, 0));
  OK(CU(cuStreamWaitEvent)(second, one, 0));
  void* host = nullptr;  // page-locked: a copy to other memory would wait
  OK(CU(cuMemAllocHost_v2)(&host, 4));
  OK(CU(cuMemcpyDtoHAsync_v2)(host, address, 4, second));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuStreamQuery)(second));
  release();
  OK(CU(cuStreamSynchronize)(second));
  EXPECT_EQ(*static_cast<uint32_t*>(host), 5u);
}

TEST_F(Events, wait_for_the_record_at_the_time_of_the_call) {
  const CUstream first = stream(), second = stream(), third = stream();
  const CUevent one = event();
  OK(CU(cuEventRecord)(one, first));
  OK(CU(cuStreamWaitEvent)(second, one, 0));
  hold(third);
  OK(CU(cuEventRecord)(one, third));
  GIVES(CUDA_SUCCESS, CU(cuStreamSynchronize)(second));
  GIVES(CUDA_ERROR_NOT_READY, CU(cuEventQuery)(one));
}

TEST_F(Events, times) {
  const CUevent begin = event(), end = event(), untimed = event(CU_EVENT_DISABLE_TIMING);
  float ms = -1;
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuEventElapsedTime_v2)(&ms, begin, end));
  OK(CU(cuEventRecord)(begin, nullptr));
  OK(CU(cuEventRecord)(end, nullptr));
  OK(CU(cuEventRecord)(untimed, nullptr));
  OK(CU(cuEventSynchronize)(end));
  GIVES(CUDA_SUCCESS, CU(cuEventElapsedTime_v2)(&ms, begin, end));
  EXPECT_GE(ms, 0);
  EXPECT_LT(ms, 10000);
  GIVES(CUDA_SUCCESS, CU(cuEventElapsedTime)(&ms, begin, end));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuEventElapsedTime_v2)(&ms, begin, untimed));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuEventElapsedTime_v2)(nullptr, begin, end));
}

TEST_F(Events, pending_times) {
  const CUstream work = stream();
  const CUevent begin = event(), end = event();
  OK(CU(cuEventRecord)(begin, work));
  hold(work);
  OK(CU(cuEventRecord)(end, work));
  float ms = -1;
  GIVES(CUDA_ERROR_NOT_READY, CU(cuEventElapsedTime_v2)(&ms, begin, end));
}

TEST_F(Events, wrong_arguments) {
  CUevent made = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuEventCreate)(nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuEventCreate)(&made, 0x100));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuEventCreate)(&made, CU_EVENT_INTERPROCESS));  // wants DISABLE_TIMING
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuEventQuery)(nullptr));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuEventDestroy_v2)(nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuEventRecordWithFlags)(event(), nullptr, 0x40));
}

TEST_F(Events, old_destroy) { GIVES(CUDA_SUCCESS, CU(cuEventDestroy)(event())); }

}  // namespace
}  // namespace conformance
