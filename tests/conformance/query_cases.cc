// What is only asked or remembered: tensor maps, clusters, the driver's log, attributes of pointers that can be set.

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "fixture.h"

namespace conformance {
namespace {

class Queries : public Conformance {};

// One thread: out[0..63] = the tile of 64 floats that begins at `first`.
const char* const kTile = R"(.version 8.0
.target sm_90
.address_size 64

.visible .entry tile(.param .align 64 .b8 map[128], .param .u64 out, .param .u32 first) {
  .reg .pred %p; .reg .b32 %s, %b, %c, %i, %v; .reg .b64 %m, %o, %t;
  .shared .align 128 .b8 buffer[256]; .shared .align 8 .b64 arrived;
  ld.param.u64 %o, [out]; ld.param.u32 %c, [first];
  mov.b64 %m, map; cvta.param.u64 %m, %m;
  mov.u32 %s, buffer; mov.u32 %b, arrived;
  mbarrier.init.shared.b64 [%b], 1;
  fence.mbarrier_init.release.cluster;
  fence.proxy.async.shared::cta;
  mbarrier.arrive.expect_tx.shared.b64 %t, [%b], 256;
  cp.async.bulk.tensor.1d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%m, {%c}], [%b];
waiting:
  mbarrier.try_wait.parity.shared.b64 %p, [%b], 0;
  @!%p bra waiting;
  mov.u32 %i, 0;
copying:
  ld.shared.b32 %v, [%s]; st.global.b32 [%o], %v;
  add.u32 %s, %s, 4; add.u64 %o, %o, 4; add.u32 %i, %i, 1;
  setp.lt.u32 %p, %i, 64;
  @%p bra copying;
  ret;
}
)";

struct Tile {
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  cuuint32_t rank = 1;
  CUdeviceptr address = 0;
  cuuint64_t length = 256;
  cuuint32_t box = 64, step = 1;
};

CUresult encode(CUtensorMap* map, const Tile& t) {
  const cuuint64_t lengths[5] = {t.length, 1, 1, 1, 1}, strides[4] = {1024, 1024, 1024, 1024};
  const cuuint32_t box[5] = {t.box, 1, 1, 1, 1}, steps[5] = {t.step, 1, 1, 1, 1};
  return CU(cuTensorMapEncodeTiled)(map, t.type, t.rank, reinterpret_cast<void*>(t.address), lengths, strides, box,
                                    steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                                    CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

TEST_F(Queries, tensor_maps_copy_tiles) {
  if (attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) < 9) GTEST_SKIP() << "tensor maps came with 9.0";
  std::vector<uint32_t> values(512);
  for (uint32_t i = 0; i < values.size(); ++i) values[i] = i;
  const CUdeviceptr data = words(values);
  CUtensorMap map;
  OK(encode(&map, {.address = data}));
  OK(CU(cuModuleLoadData)(&module, kTile));
  CUdeviceptr out = allocate(256);
  uint32_t first = 32;
  OK(launch(function("tile"), {&map, &out, &first}));
  EXPECT_EQ(read(out, 64), std::vector<uint32_t>(values.begin() + 32, values.begin() + 96));
  OK(CU(cuTensorMapReplaceAddress)(&map, reinterpret_cast<void*>(data + 1024)));
  OK(launch(function("tile"), {&map, &out, &first}));
  EXPECT_EQ(read(out, 64), std::vector<uint32_t>(values.begin() + 288, values.begin() + 352));
}

TEST_F(Queries, tensor_maps_refuse_what_cannot_be) {
  if (attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) < 9) GTEST_SKIP() << "tensor maps came with 9.0";
  const CUdeviceptr data = allocate(4096);
  CUtensorMap map;
  GIVES(CUDA_ERROR_INVALID_VALUE, encode(nullptr, {.address = data}));
  GIVES(CUDA_ERROR_INVALID_VALUE, encode(&map, {.rank = 0, .address = data}));
  GIVES(CUDA_ERROR_INVALID_VALUE, encode(&map, {.rank = 6, .address = data}));
  GIVES(CUDA_ERROR_INVALID_VALUE, encode(&map, {.address = data + 4}));
  GIVES(CUDA_ERROR_INVALID_VALUE, encode(&map, {.address = data, .length = 0}));
  GIVES(CUDA_ERROR_INVALID_VALUE, encode(&map, {.address = data, .box = 257}));
  GIVES(CUDA_ERROR_INVALID_VALUE, encode(&map, {.address = data, .step = 9}));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTensorMapReplaceAddress)(nullptr, reinterpret_cast<void*>(data)));
}

TEST_F(Queries, tensor_maps_of_images) {
  if (attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) < 9) GTEST_SKIP() << "tensor maps came with 9.0";
  void* data = reinterpret_cast<void*>(allocate(1 << 16));
  CUtensorMap map;
  const cuuint64_t lengths[3] = {16, 32, 4}, strides[2] = {64, 2048};
  const cuuint32_t steps[3] = {1, 1, 1};
  const int lower[1] = {-1}, upper[1] = {-1}, far[1] = {1 << 20};
  const auto image = [&](const int* low, cuuint32_t rank, cuuint32_t pixels) {
    return CU(cuTensorMapEncodeIm2col)(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, data, lengths, strides, low, upper,
                                       16, pixels, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                                       CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  };
  GIVES(CUDA_SUCCESS, image(lower, 3, 64));
  GIVES(CUDA_ERROR_INVALID_VALUE, image(nullptr, 3, 64));
  GIVES(CUDA_ERROR_INVALID_VALUE, image(lower, 2, 64));
  GIVES(CUDA_ERROR_INVALID_VALUE, image(far, 3, 64));
  GIVES(CUDA_ERROR_INVALID_VALUE, image(lower, 3, 1025));
  const auto wide = [&](cuuint32_t rank) {
    return CU(cuTensorMapEncodeIm2colWide)(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, data, lengths, strides, -1, -1,
                                           16, 64, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                           CU_TENSOR_MAP_IM2COL_WIDE_MODE_W, CU_TENSOR_MAP_SWIZZLE_128B,
                                           CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  };
  GIVES(CUDA_ERROR_INVALID_VALUE, wide(0));
  // Only devices from 10.0 on read these, and not the software GPU.
  if (attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) < 10) GIVES(CUDA_ERROR_NOT_SUPPORTED, wide(3));
}

CUlaunchAttribute cluster(unsigned x) {
  CUlaunchAttribute attribute = {};
  attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  attribute.value.clusterDim.x = x;
  attribute.value.clusterDim.y = attribute.value.clusterDim.z = 1;
  return attribute;
}

TEST_F(Queries, clusters_that_fit) {
  if (attribute(CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH) == 0) GTEST_SKIP() << "the device has no clusters";
  CUlaunchConfig config = {};
  config.gridDimX = 64, config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = 128, config.blockDimY = config.blockDimZ = 1;
  const CUfunction kernel = function("bump");
  int largest = 0, two = 0, eight = 0;
  OK(CU(cuOccupancyMaxPotentialClusterSize)(&largest, kernel, &config));
  EXPECT_GE(largest, 2);
  EXPECT_LE(largest, 8);  // more only where the kernel allows it
  CUlaunchAttribute of_two = cluster(2), of_eight = cluster(8);
  config.numAttrs = 1;
  config.attrs = &of_two;
  OK(CU(cuOccupancyMaxActiveClusters)(&two, kernel, &config));
  config.attrs = &of_eight;
  OK(CU(cuOccupancyMaxActiveClusters)(&eight, kernel, &config));
  EXPECT_GT(eight, 0);
  EXPECT_GT(two, eight);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuOccupancyMaxActiveClusters)(nullptr, kernel, &config));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuOccupancyMaxActiveClusters)(&two, kernel, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuOccupancyMaxPotentialClusterSize)(nullptr, kernel, &config));
  GIVES(CUDA_ERROR_INVALID_HANDLE,
        CU(cuOccupancyMaxPotentialClusterSize)(&two, reinterpret_cast<CUfunction>(0x7), &config));
}

TEST_F(Queries, memory_can_be_made_synchronous) {
  const CUdeviceptr address = allocate(4096);
  unsigned on = 1, got = 7;
  OK(CU(cuPointerGetAttribute)(&got, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, address));
  EXPECT_EQ(got, 0u);
  OK(CU(cuPointerSetAttribute)(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, address));
  OK(CU(cuPointerGetAttribute)(&got, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, address + 100));
  EXPECT_EQ(got, 1u);
  OK(CU(cuMemsetD8_v2)(address, 5, 4096));
  GIVES(CUDA_SUCCESS, CU(cuStreamQuery)(CU_STREAM_LEGACY));  // the fill was waited for
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuPointerSetAttribute)(nullptr, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, address));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuPointerSetAttribute)(&on, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuPointerSetAttribute)(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, 0x1000));
}

struct Heard {
  int count = 0;
  std::string last;
};
void hear(void* data, CUlogLevel, char* message, size_t length) {
  auto* heard = static_cast<Heard*>(data);
  ++heard->count;
  heard->last.assign(message, length);
}

// Something that the driver writes a line about.
void provoke() {
  CUmodule module = nullptr;
  GIVES(CUDA_ERROR_INVALID_PTX,
        CU(cuModuleLoadData)(&module, ".version 8.0\n.target sm_75\n.address_size 64\nnonsense;"));
}

TEST_F(Queries, logs_are_kept_and_told) {
  Heard heard;
  CUlogsCallbackHandle callback = nullptr;
  CUlogIterator before = 0, after = 0;
  OK(CU(cuLogsRegisterCallback)(hear, &heard, &callback));
  OK(CU(cuLogsCurrent)(&before, 0));
  provoke();
  EXPECT_GE(heard.count, 1);
  OK(CU(cuLogsCurrent)(&after, 0));
  EXPECT_GT(after, before);
  std::vector<char> text(25600);
  size_t bytes = text.size();
  CUlogIterator at = before;
  OK(CU(cuLogsDumpToMemory)(&at, text.data(), &bytes, 0));
  EXPECT_EQ(at, after);
  EXPECT_EQ(std::string(text.data()).size(), bytes);
  EXPECT_NE(std::string(text.data()).find(heard.last.substr(0, heard.last.size() - 1)), std::string::npos);
  bytes = text.size();  // nothing new
  OK(CU(cuLogsDumpToMemory)(&at, text.data(), &bytes, 0));
  EXPECT_EQ(bytes, 0u);
  bytes = 4;  // too little for any
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLogsDumpToMemory)(nullptr, text.data(), &bytes, 0));
  EXPECT_EQ(bytes, 0u);
  OK(CU(cuLogsUnregisterCallback)(callback));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLogsUnregisterCallback)(callback));
  const int count = heard.count;
  provoke();
  EXPECT_EQ(heard.count, count);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLogsRegisterCallback)(nullptr, nullptr, &callback));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLogsCurrent)(nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLogsCurrent)(&at, 1));
}

TEST_F(Queries, logs_go_into_files) {
  char path[] = "/tmp/tide-conformance-logs-XXXXXX";
  const int file = mkstemp(path);
  ASSERT_GE(file, 0);
  CUlogIterator at = 0;
  OK(CU(cuLogsCurrent)(&at, 0));
  provoke();
  OK(CU(cuLogsDumpToFile)(&at, path, 0));
  char text[4096] = {};
  EXPECT_GT(pread(file, text, sizeof text - 1, 0), 0);
  EXPECT_EQ(strchr(text, '\n')[0], '\n');
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLogsDumpToFile)(&at, nullptr, 0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLogsDumpToFile)(&at, "/no such folder/logs", 0));
  close(file);
  unlink(path);
}

}  // namespace
}  // namespace conformance
