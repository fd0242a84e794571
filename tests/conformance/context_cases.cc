// Contexts: the stack of each thread, the primary context, limits, what is gone with a context.
#include <thread>

#include "fixture.h"

namespace conformance {
namespace {

class Contexts : public Conformance {};

CUcontext current() {
  CUcontext now = nullptr;
  EXPECT_EQ(CU(cuCtxGetCurrent)(&now), CUDA_SUCCESS);
  return now;
}

TEST_F(Contexts, stack) {
  EXPECT_EQ(current(), context);
  CUcontext second = nullptr, popped = nullptr;
  OK(CU(cuCtxCreate_v4)(&second, nullptr, 0, device));
  EXPECT_EQ(current(), second);
  GIVES(CUDA_SUCCESS, CU(cuCtxPopCurrent_v2)(&popped));
  EXPECT_EQ(popped, second);
  EXPECT_EQ(current(), context);
  GIVES(CUDA_SUCCESS, CU(cuCtxPushCurrent_v2)(second));
  EXPECT_EQ(current(), second);
  GIVES(CUDA_SUCCESS, CU(cuCtxSetCurrent)(context));
  EXPECT_EQ(current(), context);
  GIVES(CUDA_SUCCESS, CU(cuCtxSetCurrent)(nullptr));  // pops
  EXPECT_EQ(current(), context);
  GIVES(CUDA_SUCCESS, CU(cuCtxPopCurrent_v2)(nullptr));
  EXPECT_EQ(current(), nullptr);
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuCtxPopCurrent_v2)(&popped));
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuCtxPushCurrent_v2)(nullptr));
  GIVES(CUDA_SUCCESS, CU(cuCtxDestroy_v2)(second));
}

TEST_F(Contexts, old_stack_functions) {
  CUcontext popped = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuCtxPopCurrent)(&popped));
  EXPECT_EQ(popped, context);
  GIVES(CUDA_SUCCESS, CU(cuCtxPushCurrent)(context));
  EXPECT_EQ(current(), context);
  CUcontext made = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuCtxCreate)(&made, 0, device));
  EXPECT_EQ(current(), made);
  GIVES(CUDA_SUCCESS, CU(cuCtxDestroy)(made));
  GIVES(CUDA_SUCCESS, CU(cuCtxCreate_v2)(&made, 0, device));
  GIVES(CUDA_SUCCESS, CU(cuCtxDestroy_v2)(made));
  GIVES(CUDA_SUCCESS, CU(cuCtxCreate_v3)(&made, nullptr, 0, 0, device));
  GIVES(CUDA_SUCCESS, CU(cuCtxDestroy_v2)(made));
}

TEST_F(Contexts, without_one) {
  OK(CU(cuCtxSetCurrent)(nullptr));
  CUdeviceptr address = 0;
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuMemAlloc_v2)(&address, 16));
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuCtxSynchronize)());
  CUdevice of = 0;
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuCtxGetDevice)(&of));
  CUstream stream = nullptr;
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuStreamCreate)(&stream, 0));
  CUmodule module = nullptr;
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuModuleLoadData)(&module, kKernels));
}

TEST_F(Contexts, threads_begin_without_one) {
  std::thread([] { EXPECT_EQ(current(), nullptr); }).join();
}

TEST_F(Contexts, destroyed) {
  GIVES(CUDA_SUCCESS, CU(cuCtxDestroy_v2)(context));
  EXPECT_EQ(current(), nullptr);
  // Which of two codes is to be compared on a card.
  const CUresult code = CU(cuCtxPushCurrent_v2)(context);
  EXPECT_TRUE(code == CUDA_ERROR_CONTEXT_IS_DESTROYED || code == CUDA_ERROR_INVALID_CONTEXT) << code_name(code);
}

TEST_F(Contexts, destroyed_by_another_thread) {
  std::thread([this] { GIVES(CUDA_SUCCESS, CU(cuCtxDestroy_v2)(context)); }).join();
  CUdeviceptr address = 0;
  GIVES(CUDA_ERROR_CONTEXT_IS_DESTROYED, CU(cuMemAlloc_v2)(&address, 16));
}

TEST_F(Contexts, no_such_context) {
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuCtxDestroy_v2)(nullptr));
  CUcontext made = nullptr;
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuCtxCreate_v4)(&made, nullptr, 0, 99));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuCtxCreate_v4)(nullptr, nullptr, 0, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuCtxCreate_v4)(&made, nullptr, 0xFFFF, 0));
}

TEST_F(Contexts, what_it_is) {
  CUdevice of = -1;
  GIVES(CUDA_SUCCESS, CU(cuCtxGetDevice)(&of));
  EXPECT_EQ(of, device);
  GIVES(CUDA_SUCCESS, CU(cuCtxGetDevice_v2)(&of, context));
  EXPECT_EQ(of, device);
  unsigned version = 0;
  GIVES(CUDA_SUCCESS, CU(cuCtxGetApiVersion)(context, &version));
  EXPECT_GE(version, 3010u);
  unsigned long long id = 0, second_id = 0;
  GIVES(CUDA_SUCCESS, CU(cuCtxGetId)(context, &id));
  CUcontext second = nullptr;
  OK(CU(cuCtxCreate_v4)(&second, nullptr, 0, device));
  GIVES(CUDA_SUCCESS, CU(cuCtxGetId)(nullptr, &second_id));
  EXPECT_NE(id, second_id);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuCtxGetId)(context, nullptr));
}

TEST_F(Contexts, flags) {
  CUcontext made = nullptr;
  OK(CU(cuCtxCreate_v4)(&made, nullptr, CU_CTX_SCHED_BLOCKING_SYNC, device));
  unsigned flags = 0;
  GIVES(CUDA_SUCCESS, CU(cuCtxGetFlags)(&flags));
  EXPECT_EQ(flags & CU_CTX_SCHED_MASK, static_cast<unsigned>(CU_CTX_SCHED_BLOCKING_SYNC));
  GIVES(CUDA_SUCCESS, CU(cuCtxSetFlags)(CU_CTX_SCHED_YIELD));
  GIVES(CUDA_SUCCESS, CU(cuCtxGetFlags)(&flags));
  EXPECT_EQ(flags & CU_CTX_SCHED_MASK, static_cast<unsigned>(CU_CTX_SCHED_YIELD));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuCtxGetFlags)(nullptr));
}

TEST_F(Contexts, limits) {
  size_t stack = 0;
  GIVES(CUDA_SUCCESS, CU(cuCtxGetLimit)(&stack, CU_LIMIT_STACK_SIZE));
  EXPECT_GE(stack, 512u);
  GIVES(CUDA_SUCCESS, CU(cuCtxSetLimit)(CU_LIMIT_STACK_SIZE, 4096));
  GIVES(CUDA_SUCCESS, CU(cuCtxGetLimit)(&stack, CU_LIMIT_STACK_SIZE));
  EXPECT_EQ(stack, 4096u);
  size_t heap = 0;
  GIVES(CUDA_SUCCESS, CU(cuCtxGetLimit)(&heap, CU_LIMIT_MALLOC_HEAP_SIZE));
  EXPECT_GE(heap, 1u << 20);
  GIVES(CUDA_ERROR_UNSUPPORTED_LIMIT, CU(cuCtxGetLimit)(&heap, static_cast<CUlimit>(1000)));
  GIVES(CUDA_ERROR_UNSUPPORTED_LIMIT, CU(cuCtxSetLimit)(static_cast<CUlimit>(1000), 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuCtxGetLimit)(nullptr, CU_LIMIT_STACK_SIZE));
}

TEST_F(Contexts, cache_preferences) {
  CUfunc_cache cache = CU_FUNC_CACHE_PREFER_EQUAL;
  GIVES(CUDA_SUCCESS, CU(cuCtxGetCacheConfig)(&cache));
  EXPECT_EQ(cache, CU_FUNC_CACHE_PREFER_NONE);
  GIVES(CUDA_SUCCESS, CU(cuCtxSetCacheConfig)(CU_FUNC_CACHE_PREFER_SHARED));
  CUsharedconfig banks{};
  GIVES(CUDA_SUCCESS, CU(cuCtxSetSharedMemConfig)(CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE));
  GIVES(CUDA_SUCCESS, CU(cuCtxGetSharedMemConfig)(&banks));
  GIVES(CUDA_SUCCESS, CU(cuCtxResetPersistingL2Cache)());
}

TEST_F(Contexts, priorities) {
  int least = 9, greatest = 9;
  GIVES(CUDA_SUCCESS, CU(cuCtxGetStreamPriorityRange)(&least, &greatest));
  EXPECT_EQ(least, 0);
  EXPECT_LE(greatest, 0);
  GIVES(CUDA_SUCCESS, CU(cuCtxGetStreamPriorityRange)(nullptr, nullptr));
}

TEST_F(Contexts, waits_for_all_streams) {
  const CUdeviceptr data = allocate(4096);
  CUstream first = stream(), second = stream();
  OK(CU(cuMemsetD32Async)(data, 5, 512, first));
  OK(CU(cuMemsetD32Async)(data + 2048, 6, 512, second));
  GIVES(CUDA_SUCCESS, CU(cuCtxSynchronize)());
  GIVES(CUDA_SUCCESS, CU(cuStreamQuery)(first));
  GIVES(CUDA_SUCCESS, CU(cuStreamQuery)(second));
  GIVES(CUDA_SUCCESS, CU(cuCtxSynchronize_v2)(context));
  EXPECT_EQ(read(data, 1)[0], 5u);
}

TEST_F(Contexts, old_references) {
  CUcontext same = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuCtxAttach)(&same, 0));
  EXPECT_EQ(same, context);
  GIVES(CUDA_SUCCESS, CU(cuCtxDetach)(context));
  EXPECT_EQ(current(), context);
}

TEST_F(Contexts, affinity) {
  CUexecAffinityParam parameter{};
  GIVES(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY, CU(cuCtxGetExecAffinity)(&parameter, CU_EXEC_AFFINITY_TYPE_SM_COUNT));
}

TEST_F(Contexts, events_over_a_whole_context) {
  CUevent event = nullptr;
  OK(CU(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING));
  const CUdeviceptr data = allocate(4096);
  CUstream other = stream();
  OK(CU(cuMemsetD32Async)(data, 5, 1024, other));
  GIVES(CUDA_SUCCESS, CU(cuCtxRecordEvent)(context, event));
  GIVES(CUDA_SUCCESS, CU(cuCtxWaitEvent)(context, event));
  GIVES(CUDA_SUCCESS, CU(cuEventSynchronize)(event));
  GIVES(CUDA_SUCCESS, CU(cuStreamSynchronize)(other));
}

// --- the primary context ---------------------------------------------------------------------------------------------

class Primary : public testing::Test {
 protected:
  void SetUp() override { OK(CU(cuInit)(0)); }
  void expect(unsigned flags, int active) {
    unsigned now_flags = 99;
    int now_active = 99;
    OK(CU(cuDevicePrimaryCtxGetState)(0, &now_flags, &now_active));
    EXPECT_EQ(now_flags, flags);
    EXPECT_EQ(now_active, active);
  }
};

TEST_F(Primary, counts_its_users) {
  expect(0, 0);
  CUcontext first = nullptr, second = nullptr;
  OK(CU(cuDevicePrimaryCtxRetain)(&first, 0));
  OK(CU(cuDevicePrimaryCtxRetain)(&second, 0));
  EXPECT_EQ(first, second);
  EXPECT_EQ(current(), nullptr);
  expect(0, 1);
  GIVES(CUDA_SUCCESS, CU(cuDevicePrimaryCtxRelease_v2)(0));
  expect(0, 1);
  GIVES(CUDA_SUCCESS, CU(cuDevicePrimaryCtxRelease_v2)(0));
  expect(0, 0);
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuDevicePrimaryCtxRelease_v2)(0));
}

TEST_F(Primary, reset_frees_everything) {
  CUcontext context = nullptr;
  OK(CU(cuDevicePrimaryCtxRetain)(&context, 0));
  OK(CU(cuCtxSetCurrent)(context));
  size_t before = 0, after = 0, total = 0;
  OK(CU(cuMemGetInfo_v2)(&before, &total));
  CUdeviceptr address = 0;
  OK(CU(cuMemAlloc_v2)(&address, 32 << 20));
  GIVES(CUDA_SUCCESS, CU(cuDevicePrimaryCtxReset_v2)(0));
  expect(0, 0);
  OK(CU(cuDevicePrimaryCtxRetain)(&context, 0));
  OK(CU(cuCtxSetCurrent)(context));
  OK(CU(cuMemGetInfo_v2)(&after, &total));
  EXPECT_GE(after + (4 << 20), before);
}

TEST_F(Primary, flags) {
  GIVES(CUDA_SUCCESS, CU(cuDevicePrimaryCtxSetFlags_v2)(0, CU_CTX_SCHED_SPIN));
  expect(CU_CTX_SCHED_SPIN, 0);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDevicePrimaryCtxSetFlags_v2)(0, 0x8000));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDevicePrimaryCtxSetFlags_v2)(99, 0));
  CUcontext context = nullptr;
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDevicePrimaryCtxRetain)(&context, 99));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDevicePrimaryCtxRetain)(nullptr, 0));
}

TEST_F(Primary, old_functions) {
  CUcontext context = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuDevicePrimaryCtxSetFlags)(0, 0));
  OK(CU(cuDevicePrimaryCtxRetain)(&context, 0));
  GIVES(CUDA_SUCCESS, CU(cuDevicePrimaryCtxRelease)(0));
  OK(CU(cuDevicePrimaryCtxRetain)(&context, 0));
  GIVES(CUDA_SUCCESS, CU(cuDevicePrimaryCtxReset)(0));
  expect(0, 0);
}

TEST_F(Primary, is_not_destroyed) {
  CUcontext context = nullptr;
  OK(CU(cuDevicePrimaryCtxRetain)(&context, 0));
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuCtxDestroy_v2)(context));
}

}  // namespace
}  // namespace conformance
