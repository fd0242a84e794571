// Arrays, a mipmap, texture and surface objects live for as long as the program runs: what a move must carry beside
// memory. Each round a kernel reads through the textures, writes through the surface, and copies go in and out.
//   ./images [--seconds N]

#include <vector>

#include "job.h"

namespace {

constexpr int kWidth = 40, kHeight = 24, kLevels = 3;

// The surface counts the rounds; the textures must show what was put into them once.
__global__ void look(cudaTextureObject_t flat, cudaTextureObject_t levels, cudaTextureObject_t line,
                     cudaSurfaceObject_t counts, int round, unsigned* wrong) {
  const int x = threadIdx.x, y = blockIdx.x;
  if (tex2D<float>(flat, x + 0.5f, y + 0.5f) != float(100 * y + x)) atomicAdd(wrong, 1u);
  for (int level = 0; level < kLevels; level++) {
    if (tex2DLod<float>(levels, 0.5f, 0.5f, level) != float(10 + level)) atomicAdd(wrong, 1u);
  }
  if (tex1Dfetch<int>(line, x) != 7 * x) atomicAdd(wrong, 1u);
  const int seen = surf2Dread<int>(counts, x * 4, y);
  if (seen != round + x) atomicAdd(wrong, 1u);
  surf2Dwrite(seen + 1, counts, x * 4, y);
}

cudaTextureObject_t texture_of(cudaResourceDesc resource, bool normalized) {
  cudaTextureDesc what = {};
  what.addressMode[0] = what.addressMode[1] = cudaAddressModeClamp;
  what.normalizedCoords = normalized;
  what.maxMipmapLevelClamp = kLevels;
  cudaTextureObject_t texture = 0;
  CHECK(cudaCreateTextureObject(&texture, &resource, &what, nullptr));
  return texture;
}

cudaResourceDesc of_array(cudaArray_t array) {
  cudaResourceDesc resource = {};
  resource.resType = cudaResourceTypeArray;
  resource.res.array.array = array;
  return resource;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc == 3 ? atof(argv[2]) : 1;
  const auto floats = cudaCreateChannelDesc<float>();
  const auto ints = cudaCreateChannelDesc<int>();
  cudaArray_t flat, counts;
  cudaMipmappedArray_t mipmap;
  CHECK(cudaMallocArray(&flat, &floats, kWidth, kHeight));
  CHECK(cudaMallocArray(&counts, &ints, kWidth, kHeight, cudaArraySurfaceLoadStore));
  CHECK(cudaMallocMipmappedArray(&mipmap, &floats, make_cudaExtent(16, 8, 0), kLevels));
  std::vector<float> values(kWidth * kHeight);
  std::vector<int> zeros(kWidth * kHeight), numbers(kWidth);
  for (int i = 0; i < kWidth * kHeight; i++) {
    values[i] = float(100 * (i / kWidth) + i % kWidth);
    zeros[i] = i % kWidth;
  }
  for (int i = 0; i < kWidth; i++) numbers[i] = 7 * i;
  CHECK(cudaMemcpy2DToArray(flat, 0, 0, values.data(), kWidth * 4, kWidth * 4, kHeight, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy2DToArray(counts, 0, 0, zeros.data(), kWidth * 4, kWidth * 4, kHeight, cudaMemcpyHostToDevice));
  for (int level = 0; level < kLevels; level++) {
    cudaArray_t array;
    CHECK(cudaGetMipmappedArrayLevel(&array, mipmap, level));
    const int w = 16 >> level, h = 8 >> level;
    const std::vector<float> same(w * h, float(10 + level));
    CHECK(cudaMemcpy2DToArray(array, 0, 0, same.data(), w * 4, w * 4, h, cudaMemcpyHostToDevice));
  }
  int* memory;
  unsigned* wrong;
  CHECK(cudaMalloc(&memory, kWidth * 4));
  CHECK(cudaMalloc(&wrong, 4));
  CHECK(cudaMemset(wrong, 0, 4));
  CHECK(cudaMemcpy(memory, numbers.data(), kWidth * 4, cudaMemcpyHostToDevice));
  cudaResourceDesc line = {}, levels = {};
  line.resType = cudaResourceTypeLinear;
  line.res.linear.devPtr = memory;
  line.res.linear.desc = ints;
  line.res.linear.sizeInBytes = kWidth * 4;
  levels.resType = cudaResourceTypeMipmappedArray;
  levels.res.mipmap.mipmap = mipmap;
  // One that ends, so that the handles of the others are not the first ones.
  CHECK(cudaDestroyTextureObject(texture_of(line, false)));
  const cudaTextureObject_t a = texture_of(of_array(flat), false), b = texture_of(levels, true),
                            c = texture_of(line, false);
  cudaSurfaceObject_t s = 0;
  const cudaResourceDesc resource = of_array(counts);
  CHECK(cudaCreateSurfaceObject(&s, &resource));
  const double end = now_seconds() + seconds;
  int round = 0;
  do {
    look<<<kHeight, kWidth>>>(a, b, c, s, round++, wrong);
    CHECK(cudaMemcpy2DFromArray(zeros.data(), kWidth * 4, counts, 0, 0, kWidth * 4, kHeight, cudaMemcpyDeviceToHost));
    for (int i = 0; i < kWidth * kHeight; i++) {
      if (zeros[i] != round + i % kWidth) return fprintf(stderr, "round %d: %d at %d\n", round, zeros[i], i), 1;
    }
  } while (now_seconds() < end);
  unsigned failures = 0;
  CHECK(cudaMemcpy(&failures, wrong, 4, cudaMemcpyDeviceToHost));
  EXPECT(failures == 0, "%u reads were wrong in %d rounds", failures, round);
  CHECK(cudaDestroyTextureObject(a));
  CHECK(cudaDestroySurfaceObject(s));
  CHECK(cudaFreeArray(flat));
  CHECK(cudaFreeMipmappedArray(mipmap));
  return verdict("images");
}
