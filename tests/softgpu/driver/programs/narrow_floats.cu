// nvcc: -arch=compute_120a -Wno-deprecated-declarations
// Floats of eight bits and less: what kernels convert, by the instructions, equals what the toolkit's headers compute
// on the host. All inputs of 16 bits; of 32 bits those around every rounding border.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp4.h>
#include <cuda_fp6.h>
#include <cuda_fp8.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "expect.h"

constexpr int kKinds = 16;

__host__ __device__ inline float float_of(unsigned bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

// What conversion `kind` makes of these bits.
__host__ __device__ unsigned convert(int kind, unsigned bits) {
  const float f = float_of(bits);
  __half_raw h;
  h.x = static_cast<unsigned short>(bits);
  __nv_bfloat16_raw b;
  b.x = static_cast<unsigned short>(bits);
  switch (kind) {
    case 0:
      return __nv_cvt_float_to_fp8(f, __NV_SATFINITE, __NV_E4M3);
    case 1:
      return __nv_cvt_float_to_fp8(f, __NV_SATFINITE, __NV_E5M2);
    case 2:
      return __nv_cvt_float_to_fp6(f, __NV_E2M3, cudaRoundNearest);
    case 3:
      return __nv_cvt_float_to_fp6(f, __NV_E3M2, cudaRoundNearest);
    case 4:
      return __nv_cvt_float_to_fp4(f, __NV_E2M1, cudaRoundNearest);
    case 5:
      return __nv_cvt_float_to_e8m0(f, __NV_SATFINITE, cudaRoundZero);
    case 6:
      return __nv_cvt_float_to_e8m0(f, __NV_NOSAT, cudaRoundPosInf);
    case 7:
      return __nv_cvt_float_to_e8m0(f, __NV_SATFINITE, cudaRoundPosInf);
    case 8:
      return __nv_cvt_halfraw_to_fp8(h, __NV_SATFINITE, __NV_E4M3);
    case 9:
      return __nv_cvt_halfraw_to_fp8(h, __NV_SATFINITE, __NV_E5M2);
    case 10:
      return __nv_cvt_bfloat16raw_to_e8m0(b, __NV_SATFINITE, cudaRoundPosInf);
    case 11:
      return __nv_cvt_fp8_to_halfraw(static_cast<unsigned char>(bits), __NV_E4M3).x;
    case 12:
      return __nv_cvt_fp8_to_halfraw(static_cast<unsigned char>(bits), __NV_E5M2).x;
    case 13:
      return __nv_cvt_fp6_to_halfraw(static_cast<unsigned char>(bits & 63), __NV_E2M3).x;
    case 14:
      return __nv_cvt_fp6_to_halfraw(static_cast<unsigned char>(bits & 63), __NV_E3M2).x;
    default:
      return __nv_cvt_fp4_to_halfraw(static_cast<unsigned char>(bits & 15), __NV_E2M1).x;
  }
}

__global__ void convert_all(const unsigned* in, unsigned* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  for (int kind = 0; kind < kKinds; ++kind) out[kind * count + i] = convert(kind, in[i]);
}

int main() {
  setenv("SOFTGPU_PROFILE", "13.0", 1);  // a device that has these instructions
  std::vector<unsigned> in;
  for (unsigned i = 0; i < 65536; ++i) in.push_back(i);
  // Every exponent, with fractions on, before and behind each border of up to four bits.
  for (unsigned exponent = 0; exponent < 512; ++exponent) {
    for (unsigned high = 0; high < 32; ++high) {
      for (const int away : {-1, 0, 1}) in.push_back((exponent << 23) + (high << 18) + static_cast<unsigned>(away));
    }
  }
  const int count = static_cast<int>(in.size());
  unsigned *from, *to;
  CALL(cudaMalloc(&from, in.size() * 4));
  CALL(cudaMalloc(&to, in.size() * 4 * kKinds));
  CALL(cudaMemcpy(from, in.data(), in.size() * 4, cudaMemcpyHostToDevice));
  convert_all<<<(count + 127) / 128, 128>>>(from, to, count);
  std::vector<unsigned> out(in.size() * kKinds);
  CALL(cudaMemcpy(out.data(), to, out.size() * 4, cudaMemcpyDeviceToHost));
  for (int kind = 0; kind < kKinds; ++kind) {
    for (int i = 0; i < count; ++i) {
      const unsigned expected = convert(kind, in[i]), got = out[kind * in.size() + i];
      if (expected != got) std::printf("kind %d of %#x: %#x, not %#x\n", kind, in[i], got, expected);
      EXPECT(expected == got);
    }
  }
  std::printf("ok\n");
}
