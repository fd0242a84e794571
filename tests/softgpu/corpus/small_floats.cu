// Arithmetic and conversions of floats below 32 bits: cuda_fp16.h, cuda_bf16.h, cuda_fp8.h, cuda_fp6.h, cuda_fp4.h.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp4.h>
#include <cuda_fp6.h>
#include <cuda_fp8.h>

__global__ void half_arithmetic(__half* out, const __half* in) {
  const __half a = in[0], b = in[1], c = in[2];
  int n = 0;
  out[n++] = __hadd(a, b), out[n++] = __hsub(a, b), out[n++] = __hmul(a, b), out[n++] = __hdiv(a, b);
  out[n++] = __hadd_sat(a, b), out[n++] = __hsub_sat(a, b), out[n++] = __hmul_sat(a, b);
  out[n++] = __hadd_rn(a, b), out[n++] = __hsub_rn(a, b), out[n++] = __hmul_rn(a, b);
  out[n++] = __hfma(a, b, c), out[n++] = __hfma_sat(a, b, c), out[n++] = __hfma_relu(a, b, c);
  out[n++] = __hneg(a), out[n++] = __habs(a), out[n++] = __hmax(a, b), out[n++] = __hmin(a, b);
  out[n++] = __hmax_nan(a, b), out[n++] = __hmin_nan(a, b);
  out[n++] = hsqrt(a), out[n++] = hrsqrt(a), out[n++] = hrcp(a), out[n++] = hlog(a), out[n++] = hlog2(a);
  out[n++] = hlog10(a), out[n++] = hexp(a), out[n++] = hexp2(a), out[n++] = hexp10(a), out[n++] = hcos(a);
  out[n++] = hsin(a), out[n++] = htanh(a), out[n++] = htanh_approx(a);
  out[n++] = hfloor(a), out[n++] = hceil(a), out[n++] = htrunc(a), out[n++] = hrint(a);
  out[n++] = __hisnan(a) ? a : b, out[n++] = __hisinf(a) ? a : b;
  out[n++] = __hlt(a, b) ? a : b, out[n++] = __hgeu(a, b) ? a : b, out[n++] = __hequ(a, b) ? a : b;
}

__global__ void half2_arithmetic(__half2* out, const __half2* in) {
  const __half2 a = in[0], b = in[1], c = in[2];
  int n = 0;
  out[n++] = __hadd2(a, b), out[n++] = __hsub2(a, b), out[n++] = __hmul2(a, b), out[n++] = __h2div(a, b);
  out[n++] = __hadd2_sat(a, b), out[n++] = __hfma2(a, b, c), out[n++] = __hfma2_sat(a, b, c);
  out[n++] = __hfma2_relu(a, b, c), out[n++] = __hcmadd(a, b, c), out[n++] = __hneg2(a), out[n++] = __habs2(a);
  out[n++] = __hmax2(a, b), out[n++] = __hmin2(a, b), out[n++] = __hmax2_nan(a, b), out[n++] = __hmin2_nan(a, b);
  out[n++] = __heq2(a, b), out[n++] = __hne2(a, b), out[n++] = __hle2(a, b), out[n++] = __hgtu2(a, b);
  out[n++] = h2sqrt(a), out[n++] = h2rsqrt(a), out[n++] = h2rcp(a), out[n++] = h2log(a), out[n++] = h2exp(a);
  out[n++] = h2sin(a), out[n++] = h2tanh(a), out[n++] = h2floor(a), out[n++] = h2rint(a), out[n++] = h2trunc(a);
  out[n++] = __lowhigh2highlow(a), out[n++] = __highs2half2(a, b), out[n++] = __hisnan2(a);
  const unsigned masks = __heq2_mask(a, b) ^ __hgt2_mask(a, b) ^ __hltu2_mask(a, b);
  out[n++] = reinterpret_cast<const __half2&>(masks);
  out[n++] = __hbeq2(a, b) || __hbgtu2(a, b) ? a : b;
}

__global__ void bfloat_arithmetic(__nv_bfloat16* out, const __nv_bfloat16* in) {
  const __nv_bfloat16 a = in[0], b = in[1], c = in[2];
  int n = 0;
  out[n++] = __hadd(a, b), out[n++] = __hsub(a, b), out[n++] = __hmul(a, b), out[n++] = __hdiv(a, b);
  out[n++] = __hadd_sat(a, b);
#if __CUDA_ARCH__ >= 800
  out[n++] = __hfma(a, b, c), out[n++] = __hfma_sat(a, b, c), out[n++] = __hfma_relu(a, b, c);
#endif
  out[n++] = __hneg(a), out[n++] = __habs(a), out[n++] = __hmax(a, b), out[n++] = __hmin_nan(a, b);
  out[n++] = hsqrt(a), out[n++] = hrsqrt(a), out[n++] = hrcp(a), out[n++] = hlog(a), out[n++] = hexp(a),
  out[n++] = hexp2(a);
  out[n++] = hsin(a), out[n++] = hcos(a), out[n++] = htanh(a), out[n++] = htanh_approx(a), out[n++] = hfloor(a);
  out[n++] = hrint(a), out[n++] = __hlt(a, b) ? a : b, out[n++] = __hneu(a, b) ? a : b, out[n++] = __hisnan(a) ? a : b;
}

__global__ void bfloat2_arithmetic(__nv_bfloat162* out, const __nv_bfloat162* in) {
  const __nv_bfloat162 a = in[0], b = in[1], c = in[2];
  int n = 0;
  out[n++] = __hadd2(a, b), out[n++] = __hsub2(a, b), out[n++] = __hmul2(a, b), out[n++] = __h2div(a, b);
#if __CUDA_ARCH__ >= 800
  out[n++] = __hfma2(a, b, c), out[n++] = __hfma2_sat(a, b, c), out[n++] = __hcmadd(a, b, c);
  out[n++] = __hfma2_relu(a, b, c);
#endif
  out[n++] = __hneg2(a), out[n++] = __habs2(a), out[n++] = __hmax2(a, b), out[n++] = __hmin2_nan(a, b);
  out[n++] = __heq2(a, b), out[n++] = __hltu2(a, b), out[n++] = h2sqrt(a), out[n++] = h2exp2(a), out[n++] = h2tanh(a);
  out[n++] = h2ceil(a), out[n++] = h2log10(a), out[n++] = h2cos(a);
  const unsigned masks = __hne2_mask(a, b) ^ __hge2_mask(a, b);
  out[n++] = reinterpret_cast<const __nv_bfloat162&>(masks);
}

template <class H>
__device__ void from_numbers(H* out, float f, double d, int i, unsigned u, long long l, unsigned long long ul, short s,
                             unsigned short us);
template <>
__device__ void from_numbers(__half* out, float f, double d, int i, unsigned u, long long l, unsigned long long ul,
                             short s, unsigned short us) {
  int n = 0;
  out[n++] = __float2half_rn(f), out[n++] = __float2half_rz(f), out[n++] = __float2half_ru(f),
  out[n++] = __float2half_rd(f);
  out[n++] = __double2half(d), out[n++] = __int2half_rn(i), out[n++] = __int2half_rz(i), out[n++] = __int2half_ru(i);
  out[n++] = __int2half_rd(i), out[n++] = __uint2half_rn(u), out[n++] = __uint2half_rd(u), out[n++] = __ll2half_rn(l);
  out[n++] = __ll2half_rz(l), out[n++] = __ull2half_rn(ul), out[n++] = __ull2half_ru(ul), out[n++] = __short2half_rn(s);
  out[n++] = __short2half_rd(s), out[n++] = __ushort2half_rn(us), out[n++] = __ushort2half_rz(us);
}
template <>
__device__ void from_numbers(__nv_bfloat16* out, float f, double d, int i, unsigned u, long long l,
                             unsigned long long ul, short s, unsigned short us) {
  int n = 0;
  out[n++] = __float2bfloat16_rn(f), out[n++] = __float2bfloat16_rz(f), out[n++] = __float2bfloat16_ru(f);
  out[n++] = __float2bfloat16_rd(f), out[n++] = __double2bfloat16(d), out[n++] = __int2bfloat16_rn(i);
  out[n++] = __int2bfloat16_rz(i), out[n++] = __int2bfloat16_ru(i), out[n++] = __uint2bfloat16_rd(u);
  out[n++] = __ll2bfloat16_rn(l), out[n++] = __ull2bfloat16_ru(ul), out[n++] = __short2bfloat16_rn(s);
  out[n++] = __ushort2bfloat16_rz(us);
}
__global__ void to_halves(__half* out, __nv_bfloat16* out2, float f, double d, int i, unsigned u, long long l,
                          unsigned long long ul, short s, unsigned short us) {
  from_numbers(out, f, d, i, u, l, ul, s, us);
  from_numbers(out2, f, d, i, u, l, ul, s, us);
}

__global__ void from_halves(long long* out, const __half* h, const __nv_bfloat16* b) {
  int n = 0;
  out[n++] = __half2int_rn(*h), out[n++] = __half2int_rz(*h), out[n++] = __half2int_rd(*h),
  out[n++] = __half2int_ru(*h);
  out[n++] = __half2uint_rn(*h), out[n++] = __half2short_rn(*h), out[n++] = __half2short_rz(*h);
  out[n++] = __half2ushort_rd(*h), out[n++] = __half2ll_rn(*h), out[n++] = __half2ull_rz(*h),
  out[n++] = __half2char_rz(*h);
  out[n++] = __half2uchar_rz(*h), out[n++] = __half_as_short(*h);
  out[n++] = __bfloat162int_rn(*b), out[n++] = __bfloat162uint_rd(*b), out[n++] = __bfloat162short_ru(*b);
  out[n++] = __bfloat162ll_rz(*b), out[n++] = __bfloat162ull_rn(*b), out[n++] = __bfloat162char_rz(*b);
  out[n++] = __bfloat162ushort_rn(*b), out[n++] = __bfloat16_as_ushort(*b);
  reinterpret_cast<float*>(out)[2 * n] = __half2float(*h) + __bfloat162float(*b);
}

__global__ void half_shuffles(__half* h, __half2* h2, __nv_bfloat16* b, __nv_bfloat162* b2) {
  const unsigned all = 0xffffffff;
  h[threadIdx.x] = __shfl_sync(all, h[threadIdx.x], 3) + __shfl_xor_sync(all, h[threadIdx.x], 1);
  h2[threadIdx.x] = __shfl_up_sync(all, h2[threadIdx.x], 3);
  b[threadIdx.x] = __shfl_down_sync(all, b[threadIdx.x], 3);
  b2[threadIdx.x] = __shfl_sync(all, b2[threadIdx.x], 3);
  h[threadIdx.x] += __ldg(h) + __ldcg(h) + __ldcs(h) + __ldlu(h) + __ldcv(h);
  __stcg(h2, h2[1]), __stwt(b2, b2[1]);
}

__global__ void half_atomics(__half* h, __half2* h2, __nv_bfloat16* b, __nv_bfloat162* b2) {
  h[1] = atomicAdd(h, h[2]);
  h2[1] = atomicAdd(h2, h2[2]);
  b[1] = atomicAdd(b, b[2]);
  b2[1] = atomicAdd(b2, b2[2]);
}

template <class T>
__device__ void narrow(unsigned long long* out, int* n, float f, double d, __half h, __nv_bfloat16 b, float2 f2,
                       float4 f4) {
  out[(*n)++] = T(f).__x, out[(*n)++] = T(d).__x, out[(*n)++] = T(h).__x, out[(*n)++] = T(b).__x;
  out[(*n)++] = T(3).__x;
  out[(*n)++] =
      static_cast<unsigned long long>(static_cast<float>(T(f)) + static_cast<float>(static_cast<__half>(T(d))));
  out[(*n)++] = static_cast<unsigned long long>(static_cast<float>(static_cast<__nv_bfloat16>(T(f))));
}

__global__ void narrow_floats(unsigned long long* out, float f, double d, const __half* h, const __nv_bfloat16* b,
                              float2 f2, float4 f4, const __half2* h2, const __nv_bfloat162* b2) {
  int n = 0;
  narrow<__nv_fp8_e4m3>(out, &n, f, d, *h, *b, f2, f4);
  narrow<__nv_fp8_e5m2>(out, &n, f, d, *h, *b, f2, f4);
  narrow<__nv_fp8_e8m0>(out, &n, f, d, *h, *b, f2, f4);
  narrow<__nv_fp6_e2m3>(out, &n, f, d, *h, *b, f2, f4);
  narrow<__nv_fp6_e3m2>(out, &n, f, d, *h, *b, f2, f4);
  narrow<__nv_fp4_e2m1>(out, &n, f, d, *h, *b, f2, f4);
  out[n++] = __nv_fp8x2_e4m3(f2).__x ^ __nv_fp8x2_e5m2(*h2).__x ^ __nv_fp8x2_e4m3(*b2).__x;
  out[n++] = __nv_fp8x4_e4m3(f4).__x ^ __nv_fp8x4_e5m2(*h2, *h2).__x ^ __nv_fp8x2_e8m0(f2).__x;
  out[n++] = __nv_fp6x2_e2m3(f2).__x ^ __nv_fp6x2_e3m2(*h2).__x ^ __nv_fp6x4_e3m2(f4).__x ^ __nv_fp6x2_e2m3(*b2).__x;
  out[n++] = __nv_fp4x2_e2m1(f2).__x ^ __nv_fp4x2_e2m1(*h2).__x ^ __nv_fp4x4_e2m1(f4).__x ^ __nv_fp4x2_e2m1(*b2).__x;
  __half2 back = static_cast<__half2>(__nv_fp8x2_e4m3(f2));
  back = __hadd2(back, static_cast<__half2>(__nv_fp6x2_e2m3(f2)));
  back = __hadd2(back, static_cast<__half2>(__nv_fp4x2_e2m1(f2)));
  const float2 wide = static_cast<float2>(__nv_fp8x2_e5m2(f2)), wider = static_cast<float2>(__nv_fp8x2_e8m0(f2));
  out[n++] = static_cast<unsigned long long>(__low2float(back) + wide.x + wider.y);
  out[n++] = __nv_cvt_float2_to_fp8x2(f2, __NV_NOSAT, __NV_E4M3) ^
             __nv_cvt_double2_to_fp8x2({d, d}, __NV_SATFINITE, __NV_E5M2);
  out[n++] = __nv_cvt_float2_to_e8m0x2(f2, __NV_SATFINITE, cudaRoundPosInf);
}
