// Texture fetches against the formulas of the CUDA programming guide, computed here in double precision.
#include <algorithm>
#include <cmath>
#include <vector>

#include "expect.h"

struct Shape {
  int width, height, depth;
};

struct Setting {
  cudaTextureAddressMode address;
  cudaTextureFilterMode filter;
  bool normalized;
};

static float value_at(int x, int y, int z) { return float((x * 37 + y * 101 + z * 53) % 97) - 20.0f; }

// Where an index lands; -1: in the border.
static int placed(int i, int n, const Setting& s) {
  switch (s.normalized || s.address == cudaAddressModeBorder ? s.address : cudaAddressModeClamp) {
    case cudaAddressModeWrap:
      return ((i % n) + n) % n;
    case cudaAddressModeMirror: {
      const int k = ((i % (2 * n)) + 2 * n) % (2 * n);
      return k < n ? k : 2 * n - 1 - k;
    }
    case cudaAddressModeClamp:
      return std::min(std::max(i, 0), n - 1);
    default:
      return i >= 0 && i < n ? i : -1;
  }
}

static double texel(const Shape& n, const Setting& s, int x, int y, int z) {
  const int i = placed(x, n.width, s), j = placed(y, n.height, s), k = placed(z, n.depth, s);
  return i < 0 || j < 0 || k < 0 ? 3.5 : double(value_at(i, j, k));
}

struct Axis {
  int low;
  double weight;  // of the upper texel, in steps of 1/256
};

static Axis axis_of(float coordinate, int n, const Setting& s) {
  const double x = s.normalized ? double(coordinate) * n : double(coordinate);
  if (s.filter == cudaFilterModePoint) return {int(std::floor(x)), 0};
  const double fixed = std::floor((x - 0.5) * 256 + 0.5);
  const double low = std::floor(fixed / 256);
  return {int(low), fixed / 256 - low};
}

static double reference(const Shape& n, const Setting& s, int dimensions, float x, float y, float z) {
  const Axis a = axis_of(x, n.width, s);
  const Axis b = dimensions > 1 ? axis_of(y, n.height, s) : Axis{0, 0};
  const Axis c = dimensions > 2 ? axis_of(z, n.depth, s) : Axis{0, 0};
  double sum = 0;
  for (int corner = 0; corner < 8; ++corner) {
    const int u = corner & 1, v = corner >> 1 & 1, w = corner >> 2;
    const double share = (u ? a.weight : 1 - a.weight) * (v ? b.weight : 1 - b.weight) * (w ? c.weight : 1 - c.weight);
    if (share != 0) sum += share * texel(n, s, a.low + u, b.low + v, c.low + w);
  }
  return sum;
}

__global__ void fetch(cudaTextureObject_t t, int dimensions, const float* at, float* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float x = at[3 * i], y = at[3 * i + 1], z = at[3 * i + 2];
  out[i] = dimensions == 1 ? tex1D<float>(t, x) : dimensions == 2 ? tex2D<float>(t, x, y) : tex3D<float>(t, x, y, z);
}

template <typename T>
static T* on_device(const std::vector<T>& from) {
  T* to = nullptr;
  CALL(cudaMalloc(&to, from.size() * sizeof(T)));
  CALL(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  return to;
}

template <typename T>
static std::vector<T> from_device(const T* from, size_t count) {
  std::vector<T> to(count);
  CALL(cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
  return to;
}

static void fill_array(cudaArray_t array, const Shape& n, const void* data, size_t texel_bytes, cudaExtent extent) {
  cudaMemcpy3DParms copy = {};
  copy.srcPtr = make_cudaPitchedPtr(const_cast<void*>(data), n.width * texel_bytes, n.width, n.height);
  copy.dstArray = array;
  copy.extent = extent;
  copy.kind = cudaMemcpyHostToDevice;
  CALL(cudaMemcpy3D(&copy));
}

static cudaTextureObject_t texture_of(cudaArray_t array, const Setting& s, cudaTextureReadMode mode) {
  cudaResourceDesc resource = {};
  resource.resType = cudaResourceTypeArray;
  resource.res.array.array = array;
  cudaTextureDesc what = {};
  for (auto& a : what.addressMode) a = s.address;
  what.filterMode = s.filter;
  what.readMode = mode;
  what.normalizedCoords = s.normalized;
  for (float& c : what.borderColor) c = 3.5f;
  cudaTextureObject_t t = 0;
  CALL(cudaCreateTextureObject(&t, &resource, &what, nullptr));
  return t;
}

static void plain(int dimensions) {
  const Shape n{13, dimensions > 1 ? 7 : 1, dimensions > 2 ? 5 : 1};
  std::vector<float> data;
  for (int z = 0; z < n.depth; ++z)
    for (int y = 0; y < n.height; ++y)
      for (int x = 0; x < n.width; ++x) data.push_back(value_at(x, y, z));
  cudaArray_t array;
  const auto channel = cudaCreateChannelDesc<float>();
  CALL(cudaMalloc3DArray(&array, &channel,
                         make_cudaExtent(n.width, dimensions > 1 ? n.height : 0, dimensions > 2 ? n.depth : 0)));
  fill_array(array, n, data.data(), 4, make_cudaExtent(n.width, n.height, n.depth));
  std::vector<float> at;
  for (int i = 0; i < 997; ++i) {
    for (int k = 0; k < 3; ++k) at.push_back(float((i * (17 + 12 * k) + k) % 1021) / 1021.0f * 3.0f - 1.0f);
  }
  const int count = int(at.size() / 3);
  float* out = on_device(std::vector<float>(count));
  for (const auto address : {cudaAddressModeWrap, cudaAddressModeClamp, cudaAddressModeMirror, cudaAddressModeBorder})
    for (const auto filter : {cudaFilterModePoint, cudaFilterModeLinear})
      for (const bool normalized : {true, false}) {
        const Setting s{address, filter, normalized};
        auto used = at;
        for (float& v : used) v *= normalized ? 1.0f : 11.0f;
        float* coordinates = on_device(used);
        const cudaTextureObject_t t = texture_of(array, s, cudaReadModeElementType);
        fetch<<<(count + 127) / 128, 128>>>(t, dimensions, coordinates, out, count);
        const auto got = from_device(out, count);
        int wrong = 0;
        for (int i = 0; i < count; ++i) {
          const double want = reference(n, s, dimensions, used[3 * i], used[3 * i + 1], used[3 * i + 2]);
          // A coordinate next to a boundary may round to the other side of it: one 256th of the largest step a
          // dimension.
          const double slack = filter == cudaFilterModeLinear ? 97.0 / 256 * dimensions + 1e-3 : 1e-6;
          wrong += std::fabs(double(got[i]) - want) > slack;
        }
        EXPECT(wrong <= (filter == cudaFilterModePoint ? 3 : 0));
        CALL(cudaDestroyTextureObject(t));
        CALL(cudaFree(coordinates));
      }
  CALL(cudaFree(out));
  CALL(cudaFreeArray(array));
}

__global__ void exact_linear(cudaTextureObject_t t, float* out) {
  const int i = threadIdx.x;
  out[i] = tex1D<float>(t, 1.0f + i / 512.0f);  // between texels 0 and 2
}

// Weights have eight fractional bits: half a step rounds up.
static void weights_are_256ths() {
  cudaArray_t array;
  const auto channel = cudaCreateChannelDesc<float>();
  CALL(cudaMallocArray(&array, &channel, 4));
  const std::vector<float> data{0, 256, 512, 768};
  fill_array(array, {4, 1, 1}, data.data(), 4, make_cudaExtent(4, 1, 1));
  const auto t = texture_of(array, {cudaAddressModeClamp, cudaFilterModeLinear, false}, cudaReadModeElementType);
  float* out = on_device(std::vector<float>(256));
  exact_linear<<<1, 256>>>(t, out);
  const auto got = from_device(out, 256);
  for (int i = 0; i < 256; ++i) EXPECT(got[i] == float(128 + (i + 1) / 2));
  CALL(cudaDestroyTextureObject(t));
  CALL(cudaFreeArray(array));
  CALL(cudaFree(out));
}

__global__ void bytes(cudaTextureObject_t fraction, cudaTextureObject_t whole, float4* a, uchar4* b, float* gathered) {
  const int x = threadIdx.x, y = threadIdx.y, i = y * blockDim.x + x;
  a[i] = tex2D<float4>(fraction, x + 0.5f, y + 0.5f);
  b[i] = tex2D<uchar4>(whole, x + 0.5f, y + 0.5f);
  if (i == 0) {
    const float4 g = tex2Dgather<float4>(fraction, 2.0f, 3.0f, 1);
    gathered[0] = g.x, gathered[1] = g.y, gathered[2] = g.z, gathered[3] = g.w;
  }
}

static void normalized_reads() {
  const int w = 8, h = 8;
  std::vector<uchar4> data(w * h);
  for (int i = 0; i < w * h; ++i) data[i] = make_uchar4(i, 255 - i, 3 * i, 255);
  cudaArray_t array;
  const auto channel = cudaCreateChannelDesc<uchar4>();
  CALL(cudaMallocArray(&array, &channel, w, h, cudaArrayTextureGather));
  CALL(cudaMemcpy2DToArray(array, 0, 0, data.data(), w * 4, w * 4, h, cudaMemcpyHostToDevice));
  const Setting s{cudaAddressModeClamp, cudaFilterModePoint, false};
  const auto fraction = texture_of(array, s, cudaReadModeNormalizedFloat);
  const auto whole = texture_of(array, s, cudaReadModeElementType);
  float4* a = on_device(std::vector<float4>(w * h));
  uchar4* b = on_device(std::vector<uchar4>(w * h));
  float* g = on_device(std::vector<float>(4));
  bytes<<<1, dim3(w, h)>>>(fraction, whole, a, b, g);
  const auto got_a = from_device(a, w * h);
  const auto got_b = from_device(b, w * h);
  const auto got_g = from_device(g, 4);
  for (int i = 0; i < w * h; ++i) {
    EXPECT(got_a[i].x == float(data[i].x) / 255.0f && got_a[i].w == 1.0f);
    EXPECT(got_b[i].x == data[i].x && got_b[i].y == data[i].y && got_b[i].z == data[i].z && got_b[i].w == data[i].w);
  }
  const int order[4][2] = {{1, 3}, {2, 3}, {2, 2}, {1, 2}};
  for (int k = 0; k < 4; ++k) EXPECT(got_g[k] == float(data[order[k][1] * w + order[k][0]].y) / 255.0f);
  CALL(cudaDestroyTextureObject(fraction));
  CALL(cudaDestroyTextureObject(whole));
  CALL(cudaFreeArray(array));
  CALL(cudaFree(a));
  CALL(cudaFree(b));
  CALL(cudaFree(g));
}

__global__ void linear_memory(cudaTextureObject_t line, cudaTextureObject_t pitched, int* a, float* b) {
  const int i = threadIdx.x;
  a[i] = tex1Dfetch<int>(line, i - 8);
  b[i] = tex2D<float>(pitched, i % 8 + 0.5f, i / 8 + 0.5f);
}

static void linear_and_pitched() {
  std::vector<int> numbers(32);
  for (int i = 0; i < 32; ++i) numbers[i] = 1000 - 7 * i;
  int* line = on_device(numbers);
  float* pitched = nullptr;
  size_t pitch = 0;
  CALL(cudaMallocPitch(&pitched, &pitch, 8 * 4, 6));
  std::vector<float> flat(48);
  for (int i = 0; i < 48; ++i) flat[i] = 0.25f * float(i);
  CALL(cudaMemcpy2D(pitched, pitch, flat.data(), 32, 32, 6, cudaMemcpyHostToDevice));
  cudaTextureDesc what = {};
  what.addressMode[0] = what.addressMode[1] = cudaAddressModeClamp;
  cudaResourceDesc resource = {};
  resource.resType = cudaResourceTypeLinear;
  resource.res.linear.devPtr = line;
  resource.res.linear.desc = cudaCreateChannelDesc<int>();
  resource.res.linear.sizeInBytes = 32 * 4;
  cudaTextureObject_t t = 0, u = 0;
  CALL(cudaCreateTextureObject(&t, &resource, &what, nullptr));
  resource = {};
  resource.resType = cudaResourceTypePitch2D;
  resource.res.pitch2D.devPtr = pitched;
  resource.res.pitch2D.desc = cudaCreateChannelDesc<float>();
  resource.res.pitch2D.width = 8;
  resource.res.pitch2D.height = 6;
  resource.res.pitch2D.pitchInBytes = pitch;
  CALL(cudaCreateTextureObject(&u, &resource, &what, nullptr));
  int* a = on_device(std::vector<int>(48));
  float* b = on_device(std::vector<float>(48));
  linear_memory<<<1, 48>>>(t, u, a, b);
  const auto got_a = from_device(a, 48);
  const auto got_b = from_device(b, 48);
  for (int i = 0; i < 48; ++i) {
    EXPECT(got_a[i] == (i >= 8 && i < 40 ? numbers[i - 8] : 0));  // outside is zero
    EXPECT(got_b[i] == flat[i]);
  }
  cudaResourceDesc back = {};
  CALL(cudaGetTextureObjectResourceDesc(&back, u));
  EXPECT(back.res.pitch2D.pitchInBytes == pitch && back.res.pitch2D.width == 8);
  CALL(cudaDestroyTextureObject(t));
  CALL(cudaDestroyTextureObject(u));
  CALL(cudaFree(line));
  CALL(cudaFree(pitched));
  CALL(cudaFree(a));
  CALL(cudaFree(b));
}

__global__ void layers_and_faces(cudaTextureObject_t layers, cudaTextureObject_t cube, float* out) {
  const int i = threadIdx.x;
  if (i < 5) out[i] = tex2DLayered<float>(layers, 1.5f, 0.5f, i);  // the last layer is the third
  const float3 d[6] = {{1, 0, 0}, {-1, 0, 0}, {0, 1, 0}, {0, -1, 0}, {0, 0, 1}, {0, 0, -1}};
  if (i < 6) out[8 + i] = texCubemap<float>(cube, d[i].x, d[i].y, d[i].z);
  // On the +x face, s goes against z and t against y.
  if (i == 0) out[16] = texCubemap<float>(cube, 1.0f, 0.9f, 0.9f);
  if (i == 0) out[17] = texCubemap<float>(cube, 1.0f, -0.9f, 0.9f);
  if (i == 0) out[18] = texCubemap<float>(cube, 1.0f, 0.9f, -0.9f);
}

static void layered_and_cube() {
  const auto channel = cudaCreateChannelDesc<float>();
  cudaArray_t layers, cube;
  CALL(cudaMalloc3DArray(&layers, &channel, make_cudaExtent(4, 2, 3), cudaArrayLayered));
  CALL(cudaMalloc3DArray(&cube, &channel, make_cudaExtent(4, 4, 6), cudaArrayCubemap));
  std::vector<float> a(4 * 2 * 3), b(4 * 4 * 6);
  for (size_t i = 0; i < a.size(); ++i) a[i] = float(i);
  for (size_t i = 0; i < b.size(); ++i) b[i] = float(i);
  fill_array(layers, {4, 2, 3}, a.data(), 4, make_cudaExtent(4, 2, 3));
  fill_array(cube, {4, 4, 6}, b.data(), 4, make_cudaExtent(4, 4, 6));
  const auto t = texture_of(layers, {cudaAddressModeClamp, cudaFilterModePoint, false}, cudaReadModeElementType);
  const auto u = texture_of(cube, {cudaAddressModeClamp, cudaFilterModePoint, true}, cudaReadModeElementType);
  float* out = on_device(std::vector<float>(32));
  layers_and_faces<<<1, 32>>>(t, u, out);
  const auto got = from_device(out, 32);
  for (int i = 0; i < 5; ++i) EXPECT(got[i] == float(std::min(i, 2) * 8 + 1));
  for (int i = 0; i < 6; ++i) EXPECT(int(got[8 + i]) / 16 == i);
  EXPECT(got[16] == 0.0f);   // top left
  EXPECT(got[17] == 12.0f);  // bottom left
  EXPECT(got[18] == 3.0f);   // top right
  CALL(cudaDestroyTextureObject(t));
  CALL(cudaDestroyTextureObject(u));
  CALL(cudaFreeArray(layers));
  CALL(cudaFreeArray(cube));
  CALL(cudaFree(out));
}

__global__ void levels(cudaTextureObject_t t, float* out) {
  const int i = threadIdx.x;
  out[i] = tex2DLod<float>(t, 0.5f, 0.5f, i / 8.0f);
  if (i < 3) out[32 + i] = tex2DGrad<float>(t, 0.5f, 0.5f, make_float2((1 << i) / 8.0f, 0), make_float2(0, 0.01f));
}

static void mipmaps() {
  const auto channel = cudaCreateChannelDesc<float>();
  cudaMipmappedArray_t mipmap;
  CALL(cudaMallocMipmappedArray(&mipmap, &channel, make_cudaExtent(8, 8, 0), 3));
  for (int level = 0; level < 3; ++level) {
    cudaArray_t array;
    CALL(cudaGetMipmappedArrayLevel(&array, mipmap, level));
    const int n = 8 >> level;
    const std::vector<float> data(n * n, 100.0f * float(level));
    fill_array(array, {n, n, 1}, data.data(), 4, make_cudaExtent(n, n, 1));
  }
  cudaResourceDesc resource = {};
  resource.resType = cudaResourceTypeMipmappedArray;
  resource.res.mipmap.mipmap = mipmap;
  cudaTextureDesc what = {};
  what.normalizedCoords = 1;
  what.filterMode = cudaFilterModeLinear;
  what.addressMode[0] = what.addressMode[1] = cudaAddressModeClamp;
  what.maxMipmapLevelClamp = 2;
  float* out = on_device(std::vector<float>(64));
  for (const auto filter : {cudaFilterModePoint, cudaFilterModeLinear}) {
    what.mipmapFilterMode = filter;
    cudaTextureObject_t t = 0;
    CALL(cudaCreateTextureObject(&t, &resource, &what, nullptr));
    levels<<<1, 32>>>(t, out);
    const auto got = from_device(out, 64);
    for (int i = 0; i < 32; ++i) {
      const float lod = std::min(float(i) / 8.0f, 2.0f);
      EXPECT(got[i] == 100.0f * (filter == cudaFilterModePoint ? std::floor(lod + 0.5f) : lod));
    }
    for (int i = 0; i < 3; ++i) EXPECT(got[32 + i] == 100.0f * float(i));
    CALL(cudaDestroyTextureObject(t));
  }
  CALL(cudaFreeMipmappedArray(mipmap));
  CALL(cudaFree(out));
}

int main() {
  for (int dimensions = 1; dimensions <= 3; ++dimensions) plain(dimensions);
  weights_are_256ths();
  normalized_reads();
  linear_and_pitched();
  layered_and_cube();
  mipmaps();
  std::printf("ok\n");
}
