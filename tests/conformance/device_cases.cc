// Devices and their attributes.
#include <set>

#include "fixture.h"

namespace conformance {
namespace {

class Devices : public Conformance {};

TEST_F(Devices, by_ordinal) {
  CUdevice found = -1;
  GIVES(CUDA_SUCCESS, CU(cuDeviceGet)(&found, device_count() - 1));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGet)(&found, device_count()));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGet)(&found, -1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGet)(nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetCount)(nullptr));
}

TEST_F(Devices, names) {
  char name[256];
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetName)(name, sizeof name, device));
  EXPECT_GT(strlen(name), 3u);
  char first[4];
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetName)(first, sizeof first, device));
  EXPECT_EQ(strlen(first), 3u);
  EXPECT_EQ(strncmp(first, name, 3), 0);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetName)(nullptr, 10, device));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGetName)(name, sizeof name, 1000));
}

TEST_F(Devices, identities_differ) {
  std::set<std::string> seen;
  for (int i = 0; i < device_count(); i++) {
    CUuuid uuid{}, old{};
    GIVES(CUDA_SUCCESS, CU(cuDeviceGetUuid_v2)(&uuid, i));
    GIVES(CUDA_SUCCESS, CU(cuDeviceGetUuid)(&old, i));
    EXPECT_EQ(memcmp(&uuid, &old, sizeof uuid), 0);
    EXPECT_TRUE(seen.insert(std::string(uuid.bytes, sizeof uuid.bytes)).second);
  }
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetUuid_v2)(nullptr, 0));
  CUuuid uuid;
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGetUuid_v2)(&uuid, -3));
}

TEST_F(Devices, bus_addresses_lead_back) {
  for (int i = 0; i < device_count(); i++) {
    char bus[32];
    GIVES(CUDA_SUCCESS, CU(cuDeviceGetPCIBusId)(bus, sizeof bus, i));
    CUdevice found = -1;
    GIVES(CUDA_SUCCESS, CU(cuDeviceGetByPCIBusId)(&found, bus));
    EXPECT_EQ(found, i);
  }
  CUdevice found = -1;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetByPCIBusId)(&found, nullptr));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGetByPCIBusId)(&found, "00ff:ff:1f.0"));
}

TEST_F(Devices, memory) {
  size_t total = 0, total_of_context = 0, free_bytes = 0;
  GIVES(CUDA_SUCCESS, CU(cuDeviceTotalMem_v2)(&total, device));
  GIVES(CUDA_SUCCESS, CU(cuMemGetInfo_v2)(&free_bytes, &total_of_context));
  EXPECT_EQ(total, total_of_context);
  EXPECT_LE(free_bytes, total);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceTotalMem_v2)(nullptr, device));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceTotalMem_v2)(&total, 99));
  unsigned old = 0;
  GIVES(CUDA_SUCCESS, CU(cuDeviceTotalMem)(&old, device));
  EXPECT_EQ(old, total > UINT32_MAX ? UINT32_MAX : total);
}

TEST_F(Devices, attributes) {
  EXPECT_EQ(attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE), 32);
  EXPECT_GE(attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 1024);
  EXPECT_EQ(attribute(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING), 1);
  EXPECT_GE(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 1);
  int value = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetAttribute)(&value, static_cast<CUdevice_attribute>(9999), device));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetAttribute)(nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, device));
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGetAttribute)(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 77));
}

TEST_F(Devices, every_attribute_has_an_answer) {
  for (int which = 1; which < CU_DEVICE_ATTRIBUTE_MAX; which++) {
    int value = 0;
    const CUresult code = CU(cuDeviceGetAttribute)(&value, static_cast<CUdevice_attribute>(which), device);
    // A few numbers were never given out.
    EXPECT_TRUE(code == CUDA_SUCCESS || code == CUDA_ERROR_INVALID_VALUE) << which << ": " << code_name(code);
  }
}

TEST_F(Devices, old_properties) {
  CUdevprop properties{};
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetProperties)(&properties, device));
  EXPECT_EQ(properties.SIMDWidth, 32);
  EXPECT_EQ(properties.maxThreadsPerBlock, attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK));
  int major = 0, minor = -1;
  GIVES(CUDA_SUCCESS, CU(cuDeviceComputeCapability)(&major, &minor, device));
  EXPECT_EQ(major, attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR));
  EXPECT_EQ(minor, attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
}

TEST_F(Devices, pools) {
  CUmemoryPool usual = nullptr, current = nullptr;
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetDefaultMemPool)(&usual, device));
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetMemPool)(&current, device));
  EXPECT_EQ(usual, current);
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemoryPool own = nullptr;
  OK(CU(cuMemPoolCreate)(&own, &properties));
  GIVES(CUDA_SUCCESS, CU(cuDeviceSetMemPool)(device, own));
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetMemPool)(&current, device));
  EXPECT_EQ(current, own);
  // The default comes back when the current pool goes.
  GIVES(CUDA_SUCCESS, CU(cuMemPoolDestroy)(own));
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetMemPool)(&current, device));
  EXPECT_EQ(current, usual);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceSetMemPool)(device, nullptr));
}

TEST_F(Devices, affinity_is_not_there_without_mps) {
  int supported = -1;
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetExecAffinitySupport)(&supported, CU_EXEC_AFFINITY_TYPE_SM_COUNT, device));
  EXPECT_EQ(supported, 0);
}

TEST_F(Devices, texture_width) {
  size_t width = 0;
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetTexture1DLinearMaxWidth)(&width, CU_AD_FORMAT_FLOAT, 1, device));
  EXPECT_GE(width, 1u << 27);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetTexture1DLinearMaxWidth)(nullptr, CU_AD_FORMAT_FLOAT, 1, device));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetTexture1DLinearMaxWidth)(&width, CU_AD_FORMAT_FLOAT, 3, device));
}

TEST_F(Devices, peers) {
  int can = -1;
  GIVES(CUDA_SUCCESS, CU(cuDeviceCanAccessPeer)(&can, 0, 0));
  EXPECT_EQ(can, 0);  // of itself a device is no peer
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceCanAccessPeer)(&can, 0, 99));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceCanAccessPeer)(nullptr, 0, 0));
  if (device_count() < 2) GTEST_SKIP() << "one device only";
  int value = -1;
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetP2PAttribute)(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 1));
  GIVES(CUDA_SUCCESS, CU(cuDeviceCanAccessPeer)(&can, 0, 1));
  EXPECT_EQ(value, can);
  GIVES(CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGetP2PAttribute)(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 0));
}

TEST_F(Devices, peer_access) {
  if (device_count() < 2) GTEST_SKIP() << "one device only";
  CUcontext other = nullptr;
  OK(CU(cuCtxCreate_v4)(&other, nullptr, 0, 1));
  OK(CU(cuCtxSetCurrent)(context));
  int can = 0;
  OK(CU(cuDeviceCanAccessPeer)(&can, 0, 1));
  GIVES(CUDA_ERROR_INVALID_CONTEXT, CU(cuCtxEnablePeerAccess)(nullptr, 0));
  GIVES(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, CU(cuCtxDisablePeerAccess)(other));
  if (can == 0) {
    GIVES(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, CU(cuCtxEnablePeerAccess)(other, 0));
    return;
  }
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuCtxEnablePeerAccess)(other, 1));
  GIVES(CUDA_SUCCESS, CU(cuCtxEnablePeerAccess)(other, 0));
  GIVES(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, CU(cuCtxEnablePeerAccess)(other, 0));
  GIVES(CUDA_SUCCESS, CU(cuCtxDisablePeerAccess)(other));
}

TEST_F(Devices, atomic_capabilities) {
  const CUatomicOperation operations[] = {CU_ATOMIC_OPERATION_INTEGER_ADD, CU_ATOMIC_OPERATION_CAS};
  unsigned host[2] = {99, 99};
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetHostAtomicCapabilities)(host, operations, 2, device));
  EXPECT_NE(host[0], 99u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuDeviceGetHostAtomicCapabilities)(nullptr, operations, 2, device));
  if (device_count() < 2) return;
  unsigned peer[2] = {99, 99};
  GIVES(CUDA_SUCCESS, CU(cuDeviceGetP2PAtomicCapabilities)(peer, operations, 2, 0, 1));
  EXPECT_NE(peer[1], 99u);
}

TEST_F(Devices, no_luid_on_linux) {
  char luid[8];
  unsigned mask = 0;
  GIVES(CUDA_ERROR_NOT_SUPPORTED, CU(cuDeviceGetLuid)(luid, &mask, device));
}

}  // namespace
}  // namespace conformance
