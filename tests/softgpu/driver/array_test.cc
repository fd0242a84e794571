// Arrays: what may be made, what copies may touch, and that they cost memory.

#include <future>
#include <numeric>

#include "driver_test.h"

extern "C" CUresult softgpuSetObjectHandle(unsigned long long handle);

namespace softgpu {
namespace {

CUDA_ARRAY3D_DESCRIPTOR shape(size_t width, size_t height, size_t depth, unsigned flags = 0,
                              CUarray_format format = CU_AD_FORMAT_FLOAT, unsigned channels = 1) {
  return {width, height, depth, format, channels, flags};
}

class ArrayTest : public DriverTest {
 protected:
  CUresult create(const CUDA_ARRAY3D_DESCRIPTOR& what) {
    const CUresult result = cuArray3DCreate(&array_, &what);
    if (result == CUDA_SUCCESS) {
      EXPECT_EQ(cuArrayDestroy(array_), CUDA_SUCCESS);
    }
    return result;
  }

  CUarray make(const CUDA_ARRAY3D_DESCRIPTOR& what) {
    CUarray made = nullptr;
    EXPECT_EQ(cuArray3DCreate(&made, &what), CUDA_SUCCESS);
    return made;
  }

  size_t free_bytes() {
    size_t free = 0, total = 0;
    EXPECT_EQ(cuMemGetInfo(&free, &total), CUDA_SUCCESS);
    return free;
  }

  CUarray array_ = nullptr;
};

TEST_F(ArrayTest, extents_and_flags_must_fit_together) {
  constexpr unsigned kLayered = CUDA_ARRAY3D_LAYERED, kCube = CUDA_ARRAY3D_CUBEMAP;
  for (const auto& good :
       {shape(8, 0, 0), shape(8, 4, 0), shape(8, 4, 2), shape(8, 0, 3, kLayered), shape(8, 4, 3, kLayered),
        shape(8, 8, 6, kCube), shape(8, 8, 12, kCube | kLayered), shape(8, 4, 0, CUDA_ARRAY3D_TEXTURE_GATHER)}) {
    EXPECT_EQ(create(good), CUDA_SUCCESS) << good.Width << " " << good.Height << " " << good.Depth;
  }
  for (const auto& bad : {shape(0, 4, 0), shape(8, 0, 2), shape(8, 4, 0, kLayered), shape(8, 4, 6, kCube),
                          shape(8, 8, 5, kCube), shape(8, 8, 7, kCube | kLayered), shape(131073, 0, 0),
                          shape(8, 4, 2, CUDA_ARRAY3D_TEXTURE_GATHER), shape(8, 4, 0, 0x8000)}) {
    EXPECT_EQ(create(bad), CUDA_ERROR_INVALID_VALUE) << bad.Width << " " << bad.Height << " " << bad.Depth;
  }
  EXPECT_EQ(create(shape(8, 4, 0, 0, CU_AD_FORMAT_FLOAT, 3)), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(create(shape(8, 4, 0, CUDA_ARRAY3D_SPARSE)), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(create(shape(8, 4, 0, 0, CU_AD_FORMAT_BC1_UNORM)), CUDA_ERROR_NOT_SUPPORTED);
}

TEST_F(ArrayTest, every_plain_format_says_what_it_is) {
  for (const CUarray_format format :
       {CU_AD_FORMAT_UNSIGNED_INT8, CU_AD_FORMAT_UNSIGNED_INT16, CU_AD_FORMAT_UNSIGNED_INT32, CU_AD_FORMAT_SIGNED_INT8,
        CU_AD_FORMAT_SIGNED_INT16, CU_AD_FORMAT_SIGNED_INT32, CU_AD_FORMAT_HALF, CU_AD_FORMAT_FLOAT}) {
    for (const unsigned channels : {1u, 2u, 4u}) {
      const CUarray made = make(shape(5, 3, 0, CUDA_ARRAY3D_SURFACE_LDST, format, channels));
      CUDA_ARRAY3D_DESCRIPTOR got{};
      OK(cuArray3DGetDescriptor(&got, made));
      EXPECT_EQ(got.Format, format);
      EXPECT_EQ(got.NumChannels, channels);
      EXPECT_EQ(got.Width, 5u);
      EXPECT_EQ(got.Flags, static_cast<unsigned>(CUDA_ARRAY3D_SURFACE_LDST));
      OK(cuArrayDestroy(made));
    }
  }
}

TEST_F(ArrayTest, memory_is_taken_and_given_back) {
  const size_t before = free_bytes();
  const CUarray made = make(shape(1024, 1024, 4));
  EXPECT_LE(free_bytes(), before - (16u << 20));
  OK(cuArrayDestroy(made));
  EXPECT_EQ(free_bytes(), before);
  EXPECT_EQ(cuArrayDestroy(made), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(create(shape(8192, 8192, 0)), CUDA_ERROR_OUT_OF_MEMORY);  // 256 MiB of 64
}

TEST_F(ArrayTest, boxes_go_in_and_come_out_where_they_should) {
  const CUarray solid = make(shape(6, 5, 4, 0, CU_AD_FORMAT_UNSIGNED_INT16));
  std::vector<uint16_t> all(6 * 5 * 4);
  std::iota(all.begin(), all.end(), uint16_t{1});
  CUDA_MEMCPY3D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = all.data();
  copy.srcPitch = 12;
  copy.srcHeight = 5;
  copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.dstArray = solid;
  copy.WidthInBytes = 12;
  copy.Height = 5;
  copy.Depth = 4;
  OK(cuMemcpy3D(&copy));
  // A box from the middle, through pitched device memory with gaps.
  const CUdeviceptr device = allocate(4096);
  OK(cuMemsetD8(device, 0xee, 4096));
  CUDA_MEMCPY3D out{};
  out.srcMemoryType = CU_MEMORYTYPE_ARRAY;
  out.srcArray = solid;
  out.srcXInBytes = 4;
  out.srcY = 1;
  out.srcZ = 2;
  out.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  out.dstDevice = device;
  out.dstPitch = 32;
  out.dstHeight = 10;
  out.WidthInBytes = 6;
  out.Height = 3;
  out.Depth = 2;
  OK(cuMemcpy3D(&out));
  std::vector<uint16_t> got(2048);
  OK(cuMemcpyDtoH(got.data(), device, 4096));
  for (size_t z = 0; z < 2; ++z) {
    for (size_t y = 0; y < 3; ++y) {
      for (size_t x = 0; x < 3; ++x) {
        EXPECT_EQ(got[z * 160 + y * 16 + x], all[(z + 2) * 30 + (y + 1) * 6 + x + 2]);
      }
      EXPECT_EQ(got[z * 160 + y * 16 + 3], 0xeeee);  // the gap is left alone
    }
  }
}

TEST_F(ArrayTest, copies_outside_of_an_array_are_refused) {
  const CUarray flat = make(shape(8, 4, 0));
  std::vector<float> host(64);
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = host.data();
  copy.srcPitch = 32;
  copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.dstArray = flat;
  copy.WidthInBytes = 32;
  copy.Height = 4;
  OK(cuMemcpy2D(&copy));
  const auto refused = [&](auto change) {
    CUDA_MEMCPY2D bad = copy;
    change(&bad);
    return cuMemcpy2D(&bad);
  };
  EXPECT_EQ(refused([](auto* c) { c->Height = 5; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(refused([](auto* c) { c->dstY = 1; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(refused([](auto* c) { c->dstXInBytes = 4; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(refused([](auto* c) { c->WidthInBytes = 30; }), CUDA_ERROR_INVALID_VALUE);  // part of an element
  EXPECT_EQ(refused([](auto* c) { c->srcPitch = 16; }), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(refused([](auto* c) { c->dstArray = nullptr; }), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(refused([](auto* c) { c->srcHost = nullptr; }), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(ArrayTest, offsets_count_bytes_through_the_rows) {
  const CUarray line = make(shape(16, 0, 0)), other = make(shape(16, 0, 0));
  std::vector<float> in(16), out(16);
  std::iota(in.begin(), in.end(), 1.0f);
  OK(cuMemcpyHtoA(line, 0, in.data(), 64));
  OK(cuMemcpyAtoA(other, 8, line, 16, 32));
  OK(cuMemcpyAtoH(out.data(), other, 8, 32));
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(out[i], in[i + 4]);
  const CUdeviceptr device = allocate(64);
  OK(cuMemcpyAtoD(device, line, 4, 40));
  OK(cuMemcpyDtoA(other, 0, device, 40));
  const CUstream on = stream();
  OK(cuMemcpyAtoHAsync(out.data(), other, 0, 40, on));
  OK(cuStreamSynchronize(on));
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(out[i], in[i + 1]);
  EXPECT_EQ(cuMemcpyHtoA(line, 4, in.data(), 64), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyAtoH(out.data(), line, 2, 4), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(ArrayTest, levels_of_a_mipmap_halve) {
  const CUDA_ARRAY3D_DESCRIPTOR what = shape(20, 6, 0);
  CUmipmappedArray mipmap = nullptr;
  OK(cuMipmappedArrayCreate(&mipmap, &what, 100));  // as many as there can be
  const size_t widths[] = {20, 10, 5, 2, 1}, heights[] = {6, 3, 1, 1, 1};
  CUarray level = nullptr;
  for (unsigned i = 0; i < 5; ++i) {
    CUDA_ARRAY_DESCRIPTOR got{};
    OK(cuMipmappedArrayGetLevel(&level, mipmap, i));
    OK(cuArrayGetDescriptor(&got, level));
    EXPECT_EQ(got.Width, widths[i]);
    EXPECT_EQ(got.Height, heights[i]);
  }
  EXPECT_EQ(cuMipmappedArrayGetLevel(&level, mipmap, 5), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuArrayDestroy(level), CUDA_ERROR_INVALID_HANDLE);
  OK(cuMipmappedArrayDestroy(mipmap));
  CUDA_ARRAY_DESCRIPTOR gone{};
  EXPECT_EQ(cuArrayGetDescriptor(&gone, level), CUDA_ERROR_INVALID_HANDLE);
}

CUDA_RESOURCE_DESC resource_of(CUarray array) {
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_ARRAY;
  resource.res.array.hArray = array;
  return resource;
}

constexpr char kPick[] = R"(.version 8.0
.target sm_80
.address_size 64
.visible .entry pick(.param .u64 texture, .param .u64 out) {
  .reg .f32 %f<4>;
  .reg .b32 %r<1>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd0, [texture];
  ld.param.u64 %rd1, [out];
  mov.u32 %r0, 5;
  tex.1d.v4.f32.s32 {%f0, %f1, %f2, %f3}, [%rd0, {%r0}];
  st.global.f32 [%rd1], %f0;
  ret;
})";

TEST_F(ArrayTest, a_texture_object_may_be_destroyed_while_kernels_wait_that_use_it) {
  const CUarray line = make(shape(16, 0, 0));
  std::vector<float> in(16);
  std::iota(in.begin(), in.end(), 1.0f);
  OK(cuMemcpyHtoA(line, 0, in.data(), 64));
  const CUDA_RESOURCE_DESC resource = resource_of(line);
  const CUDA_TEXTURE_DESC what{};
  CUtexObject texture = 0;
  OK(cuTexObjectCreate(&texture, &resource, &what, nullptr));
  CUmodule module = nullptr;
  CUfunction pick = nullptr;
  OK(cuModuleLoadData(&module, kPick));
  OK(cuModuleGetFunction(&pick, module, "pick"));
  CUdeviceptr out = allocate(4);
  const CUstream on = stream(CU_STREAM_NON_BLOCKING);
  std::promise<void> go;
  OK(cuLaunchHostFunc(
      on, [](void* gate) { static_cast<std::promise<void>*>(gate)->get_future().wait(); }, &go));
  void* arguments[] = {&texture, &out};
  OK(cuLaunchKernel(pick, 1, 1, 1, 1, 1, 1, 0, on, arguments, nullptr));
  OK(cuTexObjectDestroy(texture));
  EXPECT_NE(cuTexObjectDestroy(texture), CUDA_SUCCESS);
  go.set_value();
  OK(cuStreamSynchronize(on));
  float got = 0;
  OK(cuMemcpyDtoH(&got, out, 4));
  EXPECT_EQ(got, 6.0f);
}

TEST_F(ArrayTest, texture_objects_give_back_what_they_were_made_of) {
  const CUarray array = make(shape(8, 8, 0, 0, CU_AD_FORMAT_UNSIGNED_INT8, 4));
  const CUDA_RESOURCE_DESC resource = resource_of(array);
  CUDA_TEXTURE_DESC what{};
  what.filterMode = CU_TR_FILTER_MODE_LINEAR;
  what.maxAnisotropy = 7;
  CUtexObject texture = 0;
  OK(cuTexObjectCreate(&texture, &resource, &what, nullptr));
  EXPECT_NE(texture, 0u);
  CUDA_RESOURCE_DESC same{};
  CUDA_TEXTURE_DESC same_what{};
  CUDA_RESOURCE_VIEW_DESC view{};
  OK(cuTexObjectGetResourceDesc(&same, texture));
  OK(cuTexObjectGetTextureDesc(&same_what, texture));
  EXPECT_EQ(same.res.array.hArray, array);
  EXPECT_EQ(same_what.maxAnisotropy, 7u);
  EXPECT_EQ(cuTexObjectGetResourceViewDesc(&view, texture), CUDA_ERROR_INVALID_VALUE);  // it has none
  OK(cuTexObjectDestroy(texture));
  EXPECT_NE(cuTexObjectDestroy(texture), CUDA_SUCCESS);
  view = {CU_RES_VIEW_FORMAT_UINT_1X32, 8, 8, 0, 0, 0, 0, 0, {}};
  OK(cuTexObjectCreate(&texture, &resource, &what, &view));  // four bytes as one number
  view.format = CU_RES_VIEW_FORMAT_FLOAT_2X32;
  CUtexObject none = 0;
  EXPECT_EQ(cuTexObjectCreate(&none, &resource, &what, &view), CUDA_ERROR_INVALID_VALUE);
  what.addressMode[0] = static_cast<CUaddress_mode>(9);
  EXPECT_EQ(cuTexObjectCreate(&none, &resource, &what, nullptr), CUDA_ERROR_INVALID_VALUE);
  CUsurfObject surface = 0;
  EXPECT_EQ(cuSurfObjectCreate(&surface, &resource), CUDA_ERROR_INVALID_VALUE);  // no load and store
}

TEST_F(ArrayTest, an_object_gets_the_handle_that_was_asked_for) {
  const CUDA_RESOURCE_DESC resource = resource_of(make(shape(8, 8, 0)));
  const CUDA_TEXTURE_DESC what{};
  CUtexObject wanted = 0, other = 0;
  OK(softgpuSetObjectHandle(0x123));
  OK(cuTexObjectCreate(&wanted, &resource, &what, nullptr));
  EXPECT_EQ(wanted, 0x123u);
  OK(softgpuSetObjectHandle(0x123));
  EXPECT_EQ(cuTexObjectCreate(&other, &resource, &what, nullptr), CUDA_ERROR_INVALID_VALUE);
  OK(cuTexObjectCreate(&other, &resource, &what, nullptr));  // the wish held for one call
  EXPECT_NE(other, wanted);
}

}  // namespace
}  // namespace softgpu
