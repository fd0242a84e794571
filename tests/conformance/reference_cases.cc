// Texture and surface references: variables of a module that are bound to arrays and memory.

#include "fixture.h"

namespace conformance {
namespace {

//   look(u64 out, f32 shift, f32 scale): out[i] = image[(i + shift) * scale]     paint(): canvas[i, 0] = i
//   look_linear(u64 out): out[i] = image[i], by number      look_flat(u64 out): of four rows of four
const char* const kReferences = R"(.version 8.0
.target sm_75
.address_size 64

.visible .global .texref image;
.visible .global .surfref canvas;

.visible .entry look(.param .u64 out, .param .f32 shift, .param .f32 scale) {
  .reg .b32 %r<2>; .reg .f32 %x, %s, %m, %f<4>; .reg .b64 %rd<2>;
  ld.param.u64 %rd0, [out]; ld.param.f32 %s, [shift]; ld.param.f32 %m, [scale];
  mov.u32 %r0, %tid.x;
  cvt.rn.f32.u32 %x, %r0;
  add.f32 %x, %x, %s;
  mul.f32 %x, %x, %m;
  tex.1d.v4.f32.f32 {%f0, %f1, %f2, %f3}, [image, {%x}];
  mad.wide.u32 %rd1, %r0, 4, %rd0;
  st.global.f32 [%rd1], %f0;
  ret;
}

.visible .entry look_linear(.param .u64 out) {
  .reg .b32 %r<2>; .reg .f32 %f<4>; .reg .b64 %rd<2>;
  ld.param.u64 %rd0, [out];
  mov.u32 %r0, %tid.x;
  tex.1d.v4.f32.s32 {%f0, %f1, %f2, %f3}, [image, {%r0}];
  mad.wide.u32 %rd1, %r0, 4, %rd0;
  st.global.f32 [%rd1], %f0;
  ret;
}

.visible .entry look_flat(.param .u64 out) {
  .reg .b32 %r<4>; .reg .f32 %x, %y, %f<4>; .reg .b64 %rd<2>;
  ld.param.u64 %rd0, [out];
  mov.u32 %r0, %tid.x;
  and.b32 %r1, %r0, 3; shr.u32 %r2, %r0, 2;
  cvt.rn.f32.u32 %x, %r1; cvt.rn.f32.u32 %y, %r2;
  add.f32 %x, %x, 0f3f000000; add.f32 %y, %y, 0f3f000000;
  tex.2d.v4.f32.f32 {%f0, %f1, %f2, %f3}, [image, {%x, %y}];
  mad.wide.u32 %rd1, %r0, 4, %rd0;
  st.global.f32 [%rd1], %f0;
  ret;
}

.visible .entry paint() {
  .reg .b32 %r<3>;
  mov.u32 %r0, %tid.x; mul.lo.u32 %r1, %r0, 4; mov.u32 %r2, 0;
  sust.b.2d.b32.trap [canvas, {%r1, %r2}], {%r0};
  ret;
}
)";

constexpr unsigned kCount = 16;

class References : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    OK(CU(cuModuleLoadData)(&module, kReferences));
    OK(CU(cuModuleGetTexRef)(&image, module, "image"));
  }

  std::vector<float> row(float first) {
    std::vector<float> values(kCount);
    for (unsigned i = 0; i < kCount; ++i) values[i] = first + static_cast<float>(i);
    return values;
  }

  CUdeviceptr memory(const std::vector<float>& values) {
    const CUdeviceptr address = allocate(values.size() * 4);
    EXPECT_EQ(CU(cuMemcpyHtoD_v2)(address, values.data(), values.size() * 4), CUDA_SUCCESS);
    return address;
  }

  CUarray array(const std::vector<float>& values, unsigned height = 0, unsigned flags = 0) {
    const CUDA_ARRAY3D_DESCRIPTOR what{
        values.size() / (height == 0 ? 1 : height), height, 0, CU_AD_FORMAT_FLOAT, 1, flags};
    CUarray made = nullptr;
    EXPECT_EQ(CU(cuArray3DCreate_v2)(&made, &what), CUDA_SUCCESS);
    CUDA_MEMCPY2D copy = {};
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = values.data();
    copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.dstArray = made;
    copy.WidthInBytes = copy.srcPitch = what.Width * 4;
    copy.Height = height == 0 ? 1 : height;
    EXPECT_EQ(CU(cuMemcpy2D_v2)(&copy), CUDA_SUCCESS);
    return made;
  }

  // What a kernel of kCount threads writes.
  std::vector<float> seen(const char* kernel, float shift = 0.5f, float scale = 1) {
    CUdeviceptr out = allocate(kCount * 4);
    EXPECT_EQ(launch(function(kernel), {&out, &shift, &scale}, nullptr, 1, kCount), CUDA_SUCCESS);
    std::vector<float> values(kCount);
    EXPECT_EQ(CU(cuMemcpyDtoH_v2)(values.data(), out, kCount * 4), CUDA_SUCCESS);
    return values;
  }

  CUtexref image = nullptr;
};

TEST_F(References, are_found_by_name) {
  CUtexref again = nullptr;
  OK(CU(cuModuleGetTexRef)(&again, module, "image"));
  EXPECT_EQ(again, image);
  CUsurfref canvas = nullptr;
  OK(CU(cuModuleGetSurfRef)(&canvas, module, "canvas"));
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuModuleGetTexRef)(&again, module, "canvas"));
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuModuleGetTexRef)(&again, module, "no such"));
  GIVES(CUDA_ERROR_NOT_FOUND, CU(cuModuleGetSurfRef)(&canvas, module, "image"));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuModuleGetTexRef)(nullptr, module, "image"));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuModuleGetTexRef)(&again, module, nullptr));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuModuleGetTexRef)(&again, reinterpret_cast<CUmodule>(0x7), "image"));
}

TEST_F(References, show_an_array) {
  const CUarray first = array(row(100)), second = array(row(200));
  OK(CU(cuTexRefSetArray)(image, first, CU_TRSA_OVERRIDE_FORMAT));
  EXPECT_EQ(seen("look"), row(100));
  CUarray bound = nullptr;
  OK(CU(cuTexRefGetArray)(&bound, image));
  EXPECT_EQ(bound, first);
  OK(CU(cuTexRefSetArray)(image, second, CU_TRSA_OVERRIDE_FORMAT));
  EXPECT_EQ(seen("look"), row(200));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetArray)(image, first, 0));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuTexRefSetArray)(image, reinterpret_cast<CUarray>(0x7), 1));
  EXPECT_EQ(seen("look"), row(200));
}

// What was launched before a new binding sees the old one.
TEST_F(References, bind_for_later_launches) {
  const CUarray first = array(row(100)), second = array(row(200));
  const CUstream one = stream(), other = stream();
  CUdeviceptr out = allocate(2 * kCount * 4), second_out = out + kCount * 4;
  float shift = 0.5f, scale = 1;
  const CUfunction look = function("look");
  OK(CU(cuTexRefSetArray)(image, first, CU_TRSA_OVERRIDE_FORMAT));
  OK(launch(look, {&out, &shift, &scale}, one, 1, kCount));
  OK(CU(cuTexRefSetArray)(image, second, CU_TRSA_OVERRIDE_FORMAT));
  OK(launch(look, {&second_out, &shift, &scale}, other, 1, kCount));
  OK(CU(cuCtxSynchronize)());
  std::vector<float> both = row(100), values(2 * kCount);
  for (const float value : row(200)) both.push_back(value);
  OK(CU(cuMemcpyDtoH_v2)(values.data(), out, 2 * kCount * 4));
  EXPECT_EQ(values, both);
}

TEST_F(References, show_memory) {
  const CUdeviceptr data = memory(row(7));
  size_t offset = 1;
  OK(CU(cuTexRefSetFormat)(image, CU_AD_FORMAT_FLOAT, 1));
  OK(CU(cuTexRefSetAddress_v2)(&offset, image, data, kCount * 4));
  EXPECT_EQ(offset, 0u);
  EXPECT_EQ(seen("look_linear"), row(7));
  CUdeviceptr bound = 0;
  OK(CU(cuTexRefGetAddress_v2)(&bound, image));
  EXPECT_EQ(bound, data);
  CUarray none = nullptr;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefGetArray)(&none, image));
  // Not aligned: the reference begins before it, which the program is told.
  OK(CU(cuTexRefSetAddress_v2)(&offset, image, data + 4, kCount * 4 - 4));
  EXPECT_EQ(offset, 4u);
  EXPECT_EQ(seen("look_linear"), row(7));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetAddress_v2)(nullptr, image, data + 4, kCount * 4 - 4));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetAddress_v2)(&offset, image, data, 0));
}

TEST_F(References, show_pitched_memory) {
  const auto pitch = static_cast<size_t>(attribute(CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT));
  const CUdeviceptr data = allocate(4 * pitch);
  for (unsigned y = 0; y < 4; ++y) {
    const std::vector<float> values = row(static_cast<float>(4 * y));
    OK(CU(cuMemcpyHtoD_v2)(data + y * pitch, values.data(), 16));
  }
  const CUDA_ARRAY_DESCRIPTOR what{4, 4, CU_AD_FORMAT_FLOAT, 1};
  OK(CU(cuTexRefSetAddress2D_v3)(image, &what, data, pitch));
  EXPECT_EQ(seen("look_flat"), row(0));
  OK(CU(cuTexRefSetAddress2D_v2)(image, &what, data, pitch));
  EXPECT_EQ(seen("look_flat"), row(0));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetAddress2D_v3)(image, nullptr, data, pitch));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetAddress2D_v3)(image, &what, data + 4, pitch));
}

TEST_F(References, have_a_filter_and_address_modes) {
  OK(CU(cuTexRefSetArray)(image, array(row(0)), CU_TRSA_OVERRIDE_FORMAT));
  OK(CU(cuTexRefSetFilterMode)(image, CU_TR_FILTER_MODE_LINEAR));
  // Half-way between two texels; the last is clamped.
  std::vector<float> between = row(0.5f);
  between.back() = 15;
  EXPECT_EQ(seen("look", 1.0f), between);
  float color[4] = {-1, -2, -3, -4}, got[4] = {};
  OK(CU(cuTexRefSetBorderColor)(image, color));
  OK(CU(cuTexRefSetFilterMode)(image, CU_TR_FILTER_MODE_POINT));
  OK(CU(cuTexRefSetAddressMode)(image, 0, CU_TR_ADDRESS_MODE_BORDER));
  std::vector<float> shifted = row(1);
  shifted.back() = -1;
  EXPECT_EQ(seen("look", 1.5f), shifted);
  OK(CU(cuTexRefGetBorderColor)(got, image));
  EXPECT_EQ(got[3], -4);
}

TEST_F(References, remember_their_properties) {
  CUtexref made = nullptr;
  OK(CU(cuTexRefCreate)(&made));
  OK(CU(cuTexRefSetFormat)(made, CU_AD_FORMAT_UNSIGNED_INT16, 2));
  OK(CU(cuTexRefSetAddressMode)(made, 1, CU_TR_ADDRESS_MODE_MIRROR));
  OK(CU(cuTexRefSetFilterMode)(made, CU_TR_FILTER_MODE_LINEAR));
  OK(CU(cuTexRefSetMipmapFilterMode)(made, CU_TR_FILTER_MODE_LINEAR));
  OK(CU(cuTexRefSetMipmapLevelBias)(made, 0.25f));
  OK(CU(cuTexRefSetMipmapLevelClamp)(made, 1, 3));
  OK(CU(cuTexRefSetMaxAnisotropy)(made, 8));
  OK(CU(cuTexRefSetFlags)(made, CU_TRSF_NORMALIZED_COORDINATES));
  CUarray_format format{};
  int channels = 0, anisotropy = 0;
  CUaddress_mode mode{};
  CUfilter_mode filter{}, between{};
  float bias = 0, least = 0, most = 0;
  unsigned flags = 0;
  OK(CU(cuTexRefGetFormat)(&format, &channels, made));
  OK(CU(cuTexRefGetAddressMode)(&mode, made, 1));
  OK(CU(cuTexRefGetFilterMode)(&filter, made));
  OK(CU(cuTexRefGetMipmapFilterMode)(&between, made));
  OK(CU(cuTexRefGetMipmapLevelBias)(&bias, made));
  OK(CU(cuTexRefGetMipmapLevelClamp)(&least, &most, made));
  OK(CU(cuTexRefGetMaxAnisotropy)(&anisotropy, made));
  OK(CU(cuTexRefGetFlags)(&flags, made));
  EXPECT_EQ(format, CU_AD_FORMAT_UNSIGNED_INT16);
  EXPECT_EQ(channels, 2);
  EXPECT_EQ(mode, CU_TR_ADDRESS_MODE_MIRROR);
  EXPECT_EQ(filter, CU_TR_FILTER_MODE_LINEAR);
  EXPECT_EQ(between, CU_TR_FILTER_MODE_LINEAR);
  EXPECT_EQ(bias, 0.25f);
  EXPECT_EQ(least, 1);
  EXPECT_EQ(most, 3);
  EXPECT_EQ(anisotropy, 8);
  EXPECT_EQ(flags, unsigned{CU_TRSF_NORMALIZED_COORDINATES});
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetFormat)(made, CU_AD_FORMAT_FLOAT, 3));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetAddressMode)(made, 3, CU_TR_ADDRESS_MODE_WRAP));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetFlags)(made, 0x1000));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetBorderColor)(made, nullptr));
  OK(CU(cuTexRefDestroy)(made));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefGetFlags)(&flags, made));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefDestroy)(image));  // the module's
}

TEST_F(References, show_mipmaps) {
  const CUDA_ARRAY3D_DESCRIPTOR what{kCount, 0, 0, CU_AD_FORMAT_FLOAT, 1, 0};
  CUmipmappedArray levels = nullptr, bound = nullptr;
  CUarray first = nullptr;
  OK(CU(cuMipmappedArrayCreate)(&levels, &what, 3));
  OK(CU(cuMipmappedArrayGetLevel)(&first, levels, 0));
  const std::vector<float> values = row(30);
  OK(CU(cuMemcpyHtoA_v2)(first, 0, values.data(), kCount * 4));
  OK(CU(cuTexRefSetMipmappedArray)(image, levels, CU_TRSA_OVERRIDE_FORMAT));
  OK(CU(cuTexRefGetMipmappedArray)(&bound, image));
  EXPECT_EQ(bound, levels);
  OK(CU(cuTexRefSetFlags)(image, CU_TRSF_NORMALIZED_COORDINATES));
  EXPECT_EQ(seen("look", 0.5f, 1.0f / kCount), values);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetMipmappedArray)(image, levels, 0));
}

TEST_F(References, surfaces_are_written) {
  CUsurfref canvas = nullptr;
  CUarray bound = nullptr;
  OK(CU(cuModuleGetSurfRef)(&canvas, module, "canvas"));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfRefGetArray)(&bound, canvas));
  const CUarray target = array(row(0), 1, CUDA_ARRAY3D_SURFACE_LDST);
  OK(CU(cuSurfRefSetArray)(canvas, target, 0));
  OK(CU(cuSurfRefGetArray)(&bound, canvas));
  EXPECT_EQ(bound, target);
  OK(launch(function("paint"), {}, nullptr, 1, kCount));
  std::vector<uint32_t> values(kCount);
  OK(CU(cuMemcpyAtoH_v2)(values.data(), target, 0, kCount * 4));
  for (unsigned i = 0; i < kCount; ++i) EXPECT_EQ(values[i], i);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfRefSetArray)(canvas, target, 1));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfRefSetArray)(canvas, array(row(0), 1), 0));  // not for surfaces
}

TEST_F(References, of_the_first_versions) {
  GIVES(CUDA_SUCCESS, CU(cuParamSetTexRef)(function("look"), CU_PARAM_TR_DEFAULT, image));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuParamSetTexRef)(function("look"), 0, image));
  // Their addresses have 32 bits: memory that lies higher cannot be named.
  unsigned offset = 0;
  CUdeviceptr_v1 address = 0;
  const CUDA_ARRAY_DESCRIPTOR_v1 what{4, 4, CU_AD_FORMAT_FLOAT, 1};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetAddress)(&offset, image, 0x1000, 64));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetAddress2D)(image, &what, 0x1000, 512));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefGetAddress)(&address, image));
}

TEST_F(References, end_with_their_module) {
  OK(CU(cuTexRefSetArray)(image, array(row(1)), CU_TRSA_OVERRIDE_FORMAT));
  OK(CU(cuModuleUnload)(module));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexRefSetFilterMode)(image, CU_TR_FILTER_MODE_LINEAR));
  module = nullptr;
}

}  // namespace
}  // namespace conformance
