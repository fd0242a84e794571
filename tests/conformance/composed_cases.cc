// Green contexts, and what a device without a capability answers.
#include "fixture.h"

namespace conformance {
namespace {

class Green : public Conformance {
 protected:
  CUgreenCtx half() {
    CUdevResource all{};
    EXPECT_EQ(CU(cuDeviceGetDevResource)(device, &all, CU_DEV_RESOURCE_TYPE_SM), CUDA_SUCCESS);
    CUdevResource part{}, rest{};
    unsigned groups = 1;
    EXPECT_EQ(CU(cuDevSmResourceSplitByCount)(&part, &groups, &all, &rest, 0, all.sm.smCount / 2), CUDA_SUCCESS);
    EXPECT_EQ(part.sm.smCount + rest.sm.smCount, all.sm.smCount);
    CUdevResourceDesc description = nullptr;
    EXPECT_EQ(CU(cuDevResourceGenerateDesc)(&description, &part, 1), CUDA_SUCCESS);
    CUgreenCtx made = nullptr;
    EXPECT_EQ(CU(cuGreenCtxCreate)(&made, description, device, CU_GREEN_CTX_DEFAULT_STREAM), CUDA_SUCCESS);
    expected_ = part.sm.smCount;
    return made;
  }
  unsigned expected_ = 0;
};

TEST_F(Green, have_a_share) {
  const CUgreenCtx green = half();
  ASSERT_NE(green, nullptr);
  CUdevResource share{};
  GIVES(CUDA_SUCCESS, CU(cuGreenCtxGetDevResource)(green, &share, CU_DEV_RESOURCE_TYPE_SM));
  EXPECT_EQ(share.sm.smCount, expected_);
  CUcontext as_context = nullptr;
  OK(CU(cuCtxFromGreenCtx)(&as_context, green));
  share = {};
  GIVES(CUDA_SUCCESS, CU(cuCtxGetDevResource)(as_context, &share, CU_DEV_RESOURCE_TYPE_SM));
  EXPECT_EQ(share.sm.smCount, expected_);
  unsigned long long id = 0, context_id = 0;
  GIVES(CUDA_SUCCESS, CU(cuGreenCtxGetId)(green, &id));
  GIVES(CUDA_SUCCESS, CU(cuCtxGetId)(context, &context_id));
  EXPECT_NE(id, context_id);
  GIVES(CUDA_ERROR_INVALID_RESOURCE_TYPE,
        CU(cuDeviceGetDevResource)(device, &share, static_cast<CUdevResourceType>(7)));
  GIVES(CUDA_SUCCESS, CU(cuGreenCtxDestroy)(green));
}

TEST_F(Green, have_streams) {
  const CUgreenCtx green = half();
  ASSERT_NE(green, nullptr);
  CUstream work = nullptr;
  OK(CU(cuGreenCtxStreamCreate)(&work, green, CU_STREAM_NON_BLOCKING, 0));
  CUgreenCtx of = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuStreamGetGreenCtx)(work, &of));
  EXPECT_EQ(of, green);
  CUcontext none = context;
  of = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuStreamGetCtx_v2)(work, &none, &of));
  EXPECT_EQ(none, nullptr);
  EXPECT_EQ(of, green);
  CUcontext as_context = nullptr;
  OK(CU(cuCtxFromGreenCtx)(&as_context, green));
  OK(CU(cuCtxPushCurrent_v2)(as_context));
  const CUdeviceptr address = allocate(64);
  OK(CU(cuMemsetD32Async)(address, 5, 16, work));
  CUevent event = nullptr;
  OK(CU(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING));
  GIVES(CUDA_SUCCESS, CU(cuGreenCtxRecordEvent)(green, event));
  GIVES(CUDA_SUCCESS, CU(cuGreenCtxWaitEvent)(green, event));
  OK(CU(cuEventSynchronize)(event));
  EXPECT_EQ(read(address, 16)[15], 5u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuGreenCtxStreamCreate)(&work, green, CU_STREAM_DEFAULT, 0));
}

TEST_F(Green, splits) {
  CUdevResource all{};
  OK(CU(cuDeviceGetDevResource)(device, &all, CU_DEV_RESOURCE_TYPE_SM));
  unsigned groups = 0;
  GIVES(CUDA_SUCCESS, CU(cuDevSmResourceSplitByCount)(nullptr, &groups, &all, nullptr, 0, all.sm.minSmPartitionSize));
  EXPECT_EQ(groups, all.sm.smCount / all.sm.minSmPartitionSize);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDevSmResourceSplitByCount)(nullptr, nullptr, &all, nullptr, 0, 8));
  CUdevResource forged{};
  forged.type = CU_DEV_RESOURCE_TYPE_SM;
  CUdevResourceDesc description = nullptr;
  GIVES(CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION, CU(cuDevResourceGenerateDesc)(&description, &forged, 1));
}

class Absent : public Conformance {};

TEST_F(Absent, multicast) {
  ASSERT_EQ(attribute(CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED), 0);
  CUmulticastObjectProp properties{};
  properties.numDevices = 1;
  properties.size = 2 << 20;
  CUmemGenericAllocationHandle handle = 0;
  size_t bytes = 0;
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuMulticastCreate)(&handle, &properties));
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuMulticastGetGranularity)(&bytes, &properties, CU_MULTICAST_GRANULARITY_MINIMUM));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMulticastCreate)(nullptr, &properties));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMulticastAddDevice)(0, device));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMulticastBindMem)(0, 0, 0, 0, 0, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMulticastBindAddr)(0, 0, 0, 0, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMulticastUnbind)(0, device, 0, 0));
}

TEST_F(Absent, sparse_arrays_and_decompression) {
  ASSERT_EQ(attribute(CU_DEVICE_ATTRIBUTE_SPARSE_CUDA_ARRAY_SUPPORTED), 0);
  CUarrayMapInfo map{};
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuMemMapArrayAsync)(&map, 1, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuMemMapArrayAsync)(nullptr, 1, nullptr));
  CUmemDecompressParams operation{};
  size_t error = 9;
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuMemBatchDecompressAsync)(&operation, 1, 0, &error, nullptr));
}

TEST_F(Absent, notifications_can_be_asked_for) {
  CUasyncCallbackHandle handle = nullptr;
  const CUasyncCallback callback = [](CUasyncNotificationInfo*, void*, CUasyncCallbackHandle) {};
  GIVES(CUDA_SUCCESS, CU(cuDeviceRegisterAsyncNotification)(device, callback, nullptr, &handle));
  GIVES(CUDA_SUCCESS, CU(cuDeviceUnregisterAsyncNotification)(device, handle));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceUnregisterAsyncNotification)(device, handle));
}

}  // namespace
}  // namespace conformance
