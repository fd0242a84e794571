// Surfaces: what kernels write is what copies and textures read; out of range as each mode says.
#include <vector>

#include "expect.h"

__global__ void write_all(cudaSurfaceObject_t flat, cudaSurfaceObject_t layered, cudaSurfaceObject_t solid) {
  const int x = threadIdx.x, y = threadIdx.y;
  surf2Dwrite(make_uchar4(x, y, x + y, 7), flat, x * 4, y);
  surf2DLayeredwrite(float(100 * x + y), layered, x * 4, y, 1);
  surf3Dwrite(make_short2(x, -y), solid, x * 4, y, 2);
}

__global__ void read_outside(cudaSurfaceObject_t flat, uchar4* out) {
  out[0] = surf2Dread<uchar4>(flat, -4, 3, cudaBoundaryModeZero);
  out[1] = surf2Dread<uchar4>(flat, -4, 3, cudaBoundaryModeClamp);
  out[2] = surf2Dread<uchar4>(flat, 4 * 8, 100, cudaBoundaryModeClamp);
  surf2Dwrite(make_uchar4(1, 1, 1, 1), flat, 4 * 8, 0, cudaBoundaryModeZero);  // nowhere
}

__global__ void trap_outside(cudaSurfaceObject_t flat) { surf2Dwrite(make_uchar4(1, 1, 1, 1), flat, 4 * 8, 0); }

template <typename T>
static cudaArray_t make_array(int w, int h, int d, unsigned flags) {
  cudaArray_t array;
  const auto channel = cudaCreateChannelDesc<T>();
  CALL(cudaMalloc3DArray(&array, &channel, make_cudaExtent(w, h, d), flags | cudaArraySurfaceLoadStore));
  return array;
}

static cudaSurfaceObject_t surface_of(cudaArray_t array) {
  cudaResourceDesc resource = {};
  resource.resType = cudaResourceTypeArray;
  resource.res.array.array = array;
  cudaSurfaceObject_t s = 0;
  CALL(cudaCreateSurfaceObject(&s, &resource));
  return s;
}

template <typename T>
static std::vector<T> contents(cudaArray_t array, int w, int h, int d) {
  std::vector<T> out(size_t(w) * h * d);
  cudaMemcpy3DParms copy = {};
  copy.srcArray = array;
  copy.dstPtr = make_cudaPitchedPtr(out.data(), w * sizeof(T), w, h);
  copy.extent = make_cudaExtent(w, h, d);
  copy.kind = cudaMemcpyDeviceToHost;
  CALL(cudaMemcpy3D(&copy));
  return out;
}

int main() {
  const cudaArray_t flat = make_array<uchar4>(8, 4, 0, 0), layered = make_array<float>(8, 4, 2, cudaArrayLayered),
                    solid = make_array<short2>(8, 4, 3, 0);
  const cudaSurfaceObject_t a = surface_of(flat), b = surface_of(layered), c = surface_of(solid);
  write_all<<<1, dim3(8, 4)>>>(a, b, c);
  const auto got_a = contents<uchar4>(flat, 8, 4, 1);
  const auto got_b = contents<float>(layered, 8, 4, 2);
  const auto got_c = contents<short2>(solid, 8, 4, 3);
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 8; ++x) {
      const uchar4 v = got_a[y * 8 + x];
      EXPECT(v.x == x && v.y == y && v.z == x + y && v.w == 7);
      EXPECT(got_b[32 + y * 8 + x] == float(100 * x + y));
      EXPECT(got_c[64 + y * 8 + x].x == x && got_c[64 + y * 8 + x].y == -y);
    }
  }
  uchar4* out = nullptr;
  CALL(cudaMalloc(&out, 3 * sizeof(uchar4)));
  read_outside<<<1, 1>>>(a, out);
  uchar4 got[3];
  CALL(cudaMemcpy(got, out, sizeof(got), cudaMemcpyDeviceToHost));
  EXPECT(got[0].x == 0 && got[0].w == 0);
  EXPECT(got[1].x == 0 && got[1].y == 3 && got[1].w == 7);
  EXPECT(got[2].x == 7 && got[2].y == 3);
  EXPECT(contents<uchar4>(flat, 8, 4, 1)[7].x == 7);
  const cudaArray_t plain = [] {
    cudaArray_t array;
    const auto channel = cudaCreateChannelDesc<float>();
    CALL(cudaMallocArray(&array, &channel, 8));
    return array;
  }();
  cudaResourceDesc resource = {};
  resource.resType = cudaResourceTypeArray;
  resource.res.array.array = plain;
  cudaSurfaceObject_t refused = 0;
  EXPECT(cudaCreateSurfaceObject(&refused, &resource) == cudaErrorInvalidValue);  // without surface load and store
  CALL(cudaFreeArray(plain));
  trap_outside<<<1, 1>>>(a);
  EXPECT(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  std::printf("ok\n");
}
