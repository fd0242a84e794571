// Texture and surface objects: what kernels read and write through them, and what may be asked of them.
#include "fixture.h"

namespace conformance {
namespace {

// line(u64 texture, u32 i, u64 out): four words at a whole place of one dimension
// at(u64 texture, f32 x, f32 y, f32 level, u64 out): the first channel there, as a number with a point
// raise(u64 surface, u32 x, u32 y, u32 by): a word grows
const char* const kSampling = R"(.version 8.0
.target sm_75
.address_size 64

.visible .entry line(.param .u64 texture, .param .u32 i, .param .u64 out) {
  .reg .b32 %r<6>; .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [texture]; ld.param.u32 %r1, [i]; ld.param.u64 %rd2, [out];
  tex.1d.v4.u32.s32 {%r2, %r3, %r4, %r5}, [%rd1, {%r1}];
  st.global.u32 [%rd2], %r2; st.global.u32 [%rd2+4], %r3;
  st.global.u32 [%rd2+8], %r4; st.global.u32 [%rd2+12], %r5;
  ret;
}

.visible .entry at(.param .u64 texture, .param .f32 x, .param .f32 y, .param .f32 level, .param .u64 out) {
  .reg .f32 %f<8>; .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [texture]; ld.param.f32 %f1, [x]; ld.param.f32 %f2, [y]; ld.param.f32 %f3, [level];
  ld.param.u64 %rd2, [out];
  tex.level.2d.v4.f32.f32 {%f4, %f5, %f6, %f7}, [%rd1, {%f1, %f2}], %f3;
  st.global.f32 [%rd2], %f4;
  ret;
}

.visible .entry raise(.param .u64 surface, .param .u32 x, .param .u32 y, .param .u32 by) {
  .reg .b32 %r<6>; .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [surface]; ld.param.u32 %r1, [x]; ld.param.u32 %r2, [y]; ld.param.u32 %r3, [by];
  shl.b32 %r1, %r1, 2;
  suld.b.2d.b32.trap %r4, [%rd1, {%r1, %r2}];
  add.u32 %r4, %r4, %r3;
  sust.b.2d.b32.trap [%rd1, {%r1, %r2}], %r4;
  ret;
}
)";

CUDA_RESOURCE_DESC of(CUarray array) {
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_ARRAY;
  resource.res.array.hArray = array;
  return resource;
}

CUDA_TEXTURE_DESC sampler(CUfilter_mode filter = CU_TR_FILTER_MODE_POINT, unsigned flags = 0) {
  CUDA_TEXTURE_DESC what{};
  for (CUaddress_mode& mode : what.addressMode) mode = CU_TR_ADDRESS_MODE_CLAMP;
  what.filterMode = filter;
  what.flags = flags;
  return what;
}

class Textures : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    OK(CU(cuModuleLoadData)(&module, kSampling));
    out_ = words({0, 0, 0, 0});
  }

  // Its element (x, y) is 10 y + x.
  CUarray plane(size_t width, size_t height, unsigned flags = 0) {
    const CUDA_ARRAY3D_DESCRIPTOR shape{width, height, 0, CU_AD_FORMAT_FLOAT, 1, flags};
    CUarray made = nullptr;
    EXPECT_EQ(CU(cuArray3DCreate_v2)(&made, &shape), CUDA_SUCCESS);
    std::vector<float> values;
    for (size_t y = 0; y < height; y++) {
      for (size_t x = 0; x < width; x++) values.push_back(static_cast<float>(10 * y + x));
    }
    EXPECT_EQ(CU(cuMemcpyHtoA_v2)(made, 0, values.data(), values.size() * 4), CUDA_SUCCESS);
    return made;
  }

  CUtexObject texture(const CUDA_RESOURCE_DESC& resource, const CUDA_TEXTURE_DESC& what,
                      const CUDA_RESOURCE_VIEW_DESC* view = nullptr) {
    CUtexObject made = 0;
    EXPECT_EQ(CU(cuTexObjectCreate)(&made, &resource, &what, view), CUDA_SUCCESS);
    return made;
  }

  float at(CUtexObject object, float x, float y, float level = 0) {
    EXPECT_EQ(launch(function("at"), {&object, &x, &y, &level, &out_}), CUDA_SUCCESS);
    const uint32_t bits = read(out_, 1)[0];
    float value = 0;
    memcpy(&value, &bits, 4);
    return value;
  }

  std::vector<uint32_t> line(CUtexObject object, unsigned i) {
    EXPECT_EQ(launch(function("line"), {&object, &i, &out_}), CUDA_SUCCESS);
    return read(out_, 4);
  }

  CUdeviceptr out_ = 0;
};

TEST_F(Textures, of_arrays) {
  const CUDA_RESOURCE_DESC resource = of(plane(8, 4));
  const CUtexObject nearest = texture(resource, sampler());
  EXPECT_EQ(at(nearest, 3.5f, 2.5f), 23.0f);
  EXPECT_EQ(at(nearest, 99.0f, -5.0f), 7.0f);  // clamped
  const CUtexObject mixed = texture(resource, sampler(CU_TR_FILTER_MODE_LINEAR));
  EXPECT_EQ(at(mixed, 4.0f, 2.5f), 23.5f);
  EXPECT_EQ(at(mixed, 3.5f, 2.0f), 18.0f);
  const CUtexObject relative = texture(resource, sampler(CU_TR_FILTER_MODE_POINT, CU_TRSF_NORMALIZED_COORDINATES));
  EXPECT_EQ(at(relative, 0.5f, 0.5f), 24.0f);
  CUDA_TEXTURE_DESC what = sampler();
  what.addressMode[0] = what.addressMode[1] = CU_TR_ADDRESS_MODE_BORDER;
  what.borderColor[0] = 77.0f;
  EXPECT_EQ(at(texture(resource, what), 9.5f, 0.5f), 77.0f);
  GIVES(CUDA_SUCCESS, CU(cuTexObjectDestroy)(nearest));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuTexObjectDestroy)(nearest));
}

TEST_F(Textures, see_what_is_copied_later) {
  const CUarray array = plane(8, 4);
  const CUtexObject object = texture(of(array), sampler());
  const float value = 55.0f;
  OK(CU(cuMemcpyHtoA_v2)(array, 32, &value, 4));
  EXPECT_EQ(at(object, 0.5f, 1.5f), 55.0f);
}

TEST_F(Textures, of_linear_memory) {
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_LINEAR;
  resource.res.linear.devPtr = words({1, 2, 3, 4, 5, 6, 7, 8});
  resource.res.linear.format = CU_AD_FORMAT_UNSIGNED_INT32;
  resource.res.linear.numChannels = 4;
  resource.res.linear.sizeInBytes = 32;
  const CUtexObject object = texture(resource, sampler(CU_TR_FILTER_MODE_POINT, CU_TRSF_READ_AS_INTEGER));
  EXPECT_EQ(line(object, 1), (std::vector<uint32_t>{5, 6, 7, 8}));
  EXPECT_EQ(line(object, 2), (std::vector<uint32_t>{0, 0, 0, 0}));  // behind the end
  const CUDA_TEXTURE_DESC what = sampler();
  CUtexObject none = 0;
  resource.res.linear.devPtr += 4;  // textures begin at multiples of 512
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, &resource, &what, nullptr));
  resource.res.linear.devPtr = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, &resource, &what, nullptr));
}

TEST_F(Textures, of_pitched_memory) {
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_PITCH2D;
  auto& flat = resource.res.pitch2D;
  size_t pitch = 0;
  OK(CU(cuMemAllocPitch_v2)(&flat.devPtr, &pitch, 12, 4, 4));
  OK(CU(cuMemsetD2D32_v2)(flat.devPtr, pitch, 0x40000000, 3, 4));  // 2.0f
  OK(CU(cuMemsetD32_v2)(flat.devPtr + 2 * pitch + 4, 0x40800000, 1));
  flat.format = CU_AD_FORMAT_FLOAT;
  flat.numChannels = 1;
  flat.width = 3;
  flat.height = 4;
  flat.pitchInBytes = pitch;
  const CUtexObject object = texture(resource, sampler());
  EXPECT_EQ(at(object, 1.5f, 2.5f), 4.0f);
  EXPECT_EQ(at(object, 2.5f, 2.5f), 2.0f);
  const CUDA_TEXTURE_DESC what = sampler();
  CUtexObject none = 0;
  flat.pitchInBytes = 8;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, &resource, &what, nullptr));
}

TEST_F(Textures, of_mipmaps) {
  const CUDA_ARRAY3D_DESCRIPTOR shape{4, 4, 0, CU_AD_FORMAT_FLOAT, 1, 0};
  CUmipmappedArray mipmap = nullptr;
  OK(CU(cuMipmappedArrayCreate)(&mipmap, &shape, 3));
  for (unsigned i = 0; i < 3; i++) {
    CUarray level = nullptr;
    OK(CU(cuMipmappedArrayGetLevel)(&level, mipmap, i));
    const std::vector<float> values(16 >> (2 * i), static_cast<float>(i + 1));
    OK(CU(cuMemcpyHtoA_v2)(level, 0, values.data(), values.size() * 4));
  }
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
  resource.res.mipmap.hMipmappedArray = mipmap;
  CUDA_TEXTURE_DESC what = sampler(CU_TR_FILTER_MODE_POINT, CU_TRSF_NORMALIZED_COORDINATES);
  what.maxMipmapLevelClamp = 2;
  const CUtexObject object = texture(resource, what);
  EXPECT_EQ(at(object, 0.5f, 0.5f, 0), 1.0f);
  EXPECT_EQ(at(object, 0.5f, 0.5f, 2), 3.0f);
  what.mipmapFilterMode = CU_TR_FILTER_MODE_LINEAR;
  EXPECT_EQ(at(texture(resource, what), 0.5f, 0.5f, 0.5f), 1.5f);
  CUDA_RESOURCE_VIEW_DESC view{};
  view.format = CU_RES_VIEW_FORMAT_NONE;
  view.width = view.height = 4;
  view.firstMipmapLevel = 1;
  view.lastMipmapLevel = 2;
  EXPECT_EQ(at(texture(resource, what, &view), 0.5f, 0.5f, 0), 2.0f);
  view.lastMipmapLevel = 3;  // there is no such level
  CUtexObject none = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, &resource, &what, &view));
}

TEST_F(Textures, say_what_they_were_made_of) {
  const CUDA_RESOURCE_DESC resource = of(plane(8, 4));
  CUDA_TEXTURE_DESC what = sampler(CU_TR_FILTER_MODE_LINEAR);
  what.maxAnisotropy = 5;
  CUDA_RESOURCE_VIEW_DESC view{};
  view.format = CU_RES_VIEW_FORMAT_FLOAT_1X32;
  view.width = 8;
  view.height = 4;
  const CUtexObject viewed = texture(resource, what, &view), plain = texture(resource, what);
  CUDA_RESOURCE_DESC resource_back{};
  CUDA_TEXTURE_DESC what_back{};
  CUDA_RESOURCE_VIEW_DESC view_back{};
  GIVES(CUDA_SUCCESS, CU(cuTexObjectGetResourceDesc)(&resource_back, viewed));
  EXPECT_EQ(resource_back.res.array.hArray, resource.res.array.hArray);
  GIVES(CUDA_SUCCESS, CU(cuTexObjectGetTextureDesc)(&what_back, viewed));
  EXPECT_EQ(what_back.maxAnisotropy, 5u);
  EXPECT_EQ(what_back.filterMode, CU_TR_FILTER_MODE_LINEAR);
  GIVES(CUDA_SUCCESS, CU(cuTexObjectGetResourceViewDesc)(&view_back, viewed));
  EXPECT_EQ(view_back.format, CU_RES_VIEW_FORMAT_FLOAT_1X32);
  EXPECT_EQ(view_back.width, 8u);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectGetResourceViewDesc)(&view_back, plain));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectGetResourceDesc)(nullptr, viewed));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectGetTextureDesc)(nullptr, viewed));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectGetTextureDesc)(&what_back, 0xDEAD));
}

TEST_F(Textures, wrong_descriptions) {
  const CUDA_RESOURCE_DESC resource = of(plane(8, 4));
  CUDA_TEXTURE_DESC what = sampler();
  CUtexObject none = 0;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(nullptr, &resource, &what, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, nullptr, &what, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, &resource, nullptr, nullptr));
  const CUDA_RESOURCE_DESC nothing = of(nullptr);
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuTexObjectCreate)(&none, &nothing, &what, nullptr));
  CUDA_RESOURCE_DESC unknown = resource;
  unknown.resType = static_cast<CUresourcetype>(9);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, &unknown, &what, nullptr));
  CUDA_RESOURCE_VIEW_DESC view{};
  view.format = CU_RES_VIEW_FORMAT_FLOAT_2X32;  // elements of another size
  view.width = 8;
  view.height = 4;
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, &resource, &what, &view));
  what.addressMode[0] = static_cast<CUaddress_mode>(9);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuTexObjectCreate)(&none, &resource, &what, nullptr));
  EXPECT_EQ(none, 0u);
}

TEST_F(Textures, surfaces_are_written) {
  const CUDA_ARRAY3D_DESCRIPTOR shape{8, 4, 0, CU_AD_FORMAT_UNSIGNED_INT32, 1, CUDA_ARRAY3D_SURFACE_LDST};
  CUarray array = nullptr;
  OK(CU(cuArray3DCreate_v2)(&array, &shape));
  std::vector<uint32_t> values(32, 40);
  OK(CU(cuMemcpyHtoA_v2)(array, 0, values.data(), 128));
  const CUDA_RESOURCE_DESC resource = of(array);
  CUsurfObject surface = 0;
  OK(CU(cuSurfObjectCreate)(&surface, &resource));
  unsigned x = 3, y = 2, by = 2;
  OK(launch(function("raise"), {&surface, &x, &y, &by}));
  OK(CU(cuMemcpyAtoH_v2)(values.data(), array, 0, 128));
  EXPECT_EQ(values[19], 42u);
  EXPECT_EQ(values[18], 40u);
  CUDA_RESOURCE_DESC back{};
  GIVES(CUDA_SUCCESS, CU(cuSurfObjectGetResourceDesc)(&back, surface));
  EXPECT_EQ(back.res.array.hArray, array);
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfObjectGetResourceDesc)(nullptr, surface));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfObjectGetResourceDesc)(&back, 0xDEAD));
  GIVES(CUDA_SUCCESS, CU(cuSurfObjectDestroy)(surface));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuSurfObjectDestroy)(surface));
}

TEST_F(Textures, surfaces_of_what_has_none) {
  CUsurfObject none = 0;
  const CUDA_RESOURCE_DESC plain = of(plane(8, 4)), nothing = of(nullptr);  // not made for loads and stores
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfObjectCreate)(&none, &plain));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuSurfObjectCreate)(&none, &nothing));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfObjectCreate)(nullptr, &plain));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfObjectCreate)(&none, nullptr));
  CUDA_RESOURCE_DESC memory{};
  memory.resType = CU_RESOURCE_TYPE_LINEAR;
  memory.res.linear = {words(std::vector<uint32_t>(128)), CU_AD_FORMAT_UNSIGNED_INT32, 1, 512};
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuSurfObjectCreate)(&none, &memory));
}

TEST_F(Textures, surfaces_trap_outside) {
  const CUDA_RESOURCE_DESC resource = of(plane(8, 4, CUDA_ARRAY3D_SURFACE_LDST));
  CUsurfObject surface = 0;
  OK(CU(cuSurfObjectCreate)(&surface, &resource));
  unsigned x = 8, y = 0, by = 1;
  OK(launch(function("raise"), {&surface, &x, &y, &by}));
  EXPECT_NE(CU(cuCtxSynchronize)(), CUDA_SUCCESS);  // which code: docs/limits.md
}

}  // namespace
}  // namespace conformance
