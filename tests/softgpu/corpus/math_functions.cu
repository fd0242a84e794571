// Every function of the CUDA math library, and the intrinsics beside it, in float and double.
// clang-format off
#define UNARY(F) \
  F(acos) F(acosh) F(asin) F(asinh) F(atan) F(atanh) F(cbrt) F(ceil) F(cos) F(cosh) F(cospi) F(cyl_bessel_i0) \
  F(cyl_bessel_i1) F(erf) F(erfc) F(erfcinv) F(erfcx) F(erfinv) F(exp) F(exp10) F(exp2) F(expm1) F(fabs) \
  F(floor) F(j0) F(j1) F(lgamma) F(log) F(log10) F(log1p) F(log2) F(logb) F(nearbyint) F(normcdf) F(normcdfinv) \
  F(rcbrt) F(rint) F(round) F(rsqrt) F(sin) F(sinh) F(sinpi) F(sqrt) F(tan) F(tanh) F(tgamma) F(trunc) F(y0) \
  F(y1)
#define BINARY(F) \
  F(atan2) F(copysign) F(fdim) F(fmax) F(fmin) F(fmod) F(hypot) F(nextafter) F(pow) F(remainder) F(rhypot)
// clang-format on

#define DOUBLE1(name) \
  __global__ void name##_double(double* x) { x[threadIdx.x] = name(x[threadIdx.x]); }
#define FLOAT1(name) \
  __global__ void name##_float(float* x) { x[threadIdx.x] = name##f(x[threadIdx.x]); }
#define DOUBLE2(name) \
  __global__ void name##_double(double* x) { x[threadIdx.x] = name(x[threadIdx.x], x[threadIdx.x + 1]); }
#define FLOAT2(name) \
  __global__ void name##_float(float* x) { x[threadIdx.x] = name##f(x[threadIdx.x], x[threadIdx.x + 1]); }
UNARY(DOUBLE1)
UNARY(FLOAT1)
BINARY(DOUBLE2)
BINARY(FLOAT2)

__global__ void with_integers(double* d, float* f, int* i, long long* l) {
  int e = 0, q = 0;
  d[0] = frexp(d[1], &e) + ldexp(d[2], 3) + scalbn(d[3], 2) + scalbln(d[4], 5L) + jn(2, d[5]) + yn(3, d[6]);
  f[0] = frexpf(f[1], &q) + ldexpf(f[2], 3) + scalbnf(f[3], 2) + scalblnf(f[4], 5L) + jnf(2, f[5]) + ynf(3, f[6]);
  i[0] = e + q + ilogb(d[7]) + ilogbf(f[7]) + isnan(d[8]) + isinf(f[8]) + isfinite(d[9]) + signbit(f[9]);
  l[0] = llrint(d[1]) + llround(d[2]) + lrint(d[3]) + lround(d[4]) + llrintf(f[1]) + llroundf(f[2]);
  d[1] = remquo(d[2], d[3], &i[1]), f[1] = remquof(f[2], f[3], &i[2]);
  sincos(d[4], &d[5], &d[6]), sincosf(f[4], &f[5], &f[6]), sincospi(d[7], &d[8], &d[9]), sincospif(f[7], &f[8], &f[9]);
  d[10] = modf(d[11], &d[12]), f[10] = modff(f[11], &f[12]);
  d[13] = norm3d(d[1], d[2], d[3]) + rnorm3d(d[1], d[2], d[3]) + norm4d(d[1], d[2], d[3], d[4]) + norm(8, d) +
          rnorm(8, d) + rnorm4d(d[1], d[2], d[3], d[4]) + fma(d[1], d[2], d[3]) + nan("7");
  f[13] = norm3df(f[1], f[2], f[3]) + rnorm3df(f[1], f[2], f[3]) + norm4df(f[1], f[2], f[3], f[4]) + normf(8, f) +
          rnormf(8, f) + rnorm4df(f[1], f[2], f[3], f[4]) + fmaf(f[1], f[2], f[3]) + fdividef(f[1], f[2]);
}

__global__ void rounded(double* d, float* f) {
  const double a = d[0], b = d[1], c = d[2];
  const float x = f[0], y = f[1], z = f[2];
  d[3] = __dadd_rn(a, b) + __dadd_rz(a, b) + __dadd_ru(a, b) + __dadd_rd(a, b) + __dsub_rn(a, b) + __dsub_rd(a, b);
  d[4] = __dmul_rn(a, b) + __dmul_rz(a, b) + __dmul_ru(a, b) + __dmul_rd(a, b) + __ddiv_rn(a, b) + __ddiv_rz(a, b);
  d[5] =
      __ddiv_ru(a, b) + __ddiv_rd(a, b) + __fma_rn(a, b, c) + __fma_rz(a, b, c) + __fma_ru(a, b, c) + __fma_rd(a, b, c);
  d[6] = __drcp_rn(a) + __drcp_rz(a) + __drcp_ru(a) + __drcp_rd(a) + __dsqrt_rn(a) + __dsqrt_rz(a) + __dsqrt_ru(a) +
         __dsqrt_rd(a);
  f[3] = __fadd_rn(x, y) + __fadd_rz(x, y) + __fadd_ru(x, y) + __fadd_rd(x, y) + __fsub_rn(x, y) + __fsub_ru(x, y);
  f[4] = __fmul_rn(x, y) + __fmul_rz(x, y) + __fmul_ru(x, y) + __fmul_rd(x, y) + __fdiv_rn(x, y) + __fdiv_rz(x, y);
  f[5] = __fdiv_ru(x, y) + __fdiv_rd(x, y) + __fmaf_rn(x, y, z) + __fmaf_rz(x, y, z) + __fmaf_ru(x, y, z) +
         __fmaf_rd(x, y, z);
  f[6] = __frcp_rn(x) + __frcp_rz(x) + __frcp_ru(x) + __frcp_rd(x) + __fsqrt_rn(x) + __fsqrt_rz(x) + __fsqrt_ru(x) +
         __fsqrt_rd(x);
  f[7] = __frsqrt_rn(x) + __fmaf_ieee_rn(x, y, z) + __fmaf_ieee_rz(x, y, z) + __saturatef(x);
  f[8] =
      __sinf(x) + __cosf(x) + __tanf(x) + __expf(x) + __exp10f(x) + __logf(x) + __log2f(x) + __log10f(x) + __powf(x, y);
  f[9] = __fdividef(x, y) + __tanhf(x);
  __sincosf(x, &f[10], &f[11]);
}

__global__ void two_floats(float2* f) {
  const float2 a = f[0], b = f[1], c = f[2];
#if __CUDA_ARCH__ >= 1000
  f[3] = __ffma2_rn(a, b, c), f[4] = __ffma2_rz(a, b, c), f[5] = __fadd2_rn(a, b), f[6] = __fmul2_ru(a, b);
#else
  f[3] = {a.x + b.x, c.y};
#endif
}

__global__ void casts(double* d, float* f, long long* l, unsigned long long* u, int* i) {
  l[0] = __double2ll_rn(d[0]) + __double2ll_rz(d[0]) + __double2ll_ru(d[0]) + __double2ll_rd(d[0]);
  u[0] = __double2ull_rn(d[0]) + __double2ull_rz(d[0]) + __double2ull_ru(d[0]) + __double2ull_rd(d[0]);
  i[0] = __double2int_rn(d[0]) + __double2int_rd(d[0]) + __double2uint_ru(d[0]) + __double2uint_rz(d[0]);
  l[1] = __float2ll_rn(f[0]) + __float2ll_ru(f[0]), u[1] = __float2ull_rd(f[0]) + __float2ull_rz(f[0]);
  i[1] = __float2int_rn(f[0]) + __float2int_ru(f[0]) + __float2uint_rd(f[0]) + __float2uint_rn(f[0]);
  f[1] = __double2float_rn(d[1]) + __double2float_rz(d[1]) + __double2float_ru(d[1]) + __double2float_rd(d[1]);
  f[2] = __int2float_rn(i[2]) + __int2float_rz(i[2]) + __uint2float_ru(i[2]) + __uint2float_rd(i[2]);
  f[3] = __ll2float_rn(l[2]) + __ll2float_rd(l[2]) + __ull2float_rn(u[2]) + __ull2float_ru(u[2]);
  d[2] = __int2double_rn(i[3]) + __uint2double_rn(i[3]) + __ll2double_rn(l[3]) + __ll2double_rz(l[3]) +
         __ull2double_ru(u[3]);
  i[4] = __double2hiint(d[3]) ^ __double2loint(d[3]) ^ __float_as_int(f[4]) ^ __float_as_uint(f[5]);
  d[4] = __hiloint2double(i[5], i[6]) + __longlong_as_double(l[4]), l[5] = __double_as_longlong(d[5]);
}
