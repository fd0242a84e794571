// nvcuda::wmma, all shapes and types.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

using namespace nvcuda;

template <int M, int N, int K, class A, class C, class D = C, class LA = wmma::row_major, class LB = wmma::col_major,
          class E = A>
__device__ void multiply(const E* a, const E* b, C* c) {
  wmma::fragment<wmma::matrix_a, M, N, K, A, LA> fa;
  wmma::fragment<wmma::matrix_b, M, N, K, A, LB> fb;
  wmma::fragment<wmma::accumulator, M, N, K, C> fc;
  wmma::load_matrix_sync(fa, a, 64);
  wmma::load_matrix_sync(fb, b, 64);
  wmma::load_matrix_sync(fc, c, 64, wmma::mem_row_major);
  for (int i = 0; i < fc.num_elements; ++i) fc.x[i] = fc.x[i] + fc.x[0];
  wmma::mma_sync(fc, fa, fb, fc);
  wmma::store_matrix_sync(c, fc, 64, wmma::mem_col_major);
}
template <class A, class C>
__device__ void three_shapes(const A* a, const A* b, C* c) {
  multiply<16, 16, 16, A, C>(a, b, c);
  multiply<32, 8, 16, A, C, C, wmma::col_major, wmma::row_major>(a, b, c);
  multiply<8, 32, 16, A, C, C, wmma::col_major>(a, b, c);
}
__global__ void halves(const __half* a, const __half* b, float* c, __half* d) {
  three_shapes(a, b, c);
  three_shapes(a, b, d);
  wmma::fragment<wmma::accumulator, 16, 16, 16, __half> f;
  wmma::fill_fragment(f, __half(2));
  wmma::store_matrix_sync(d, f, 32, wmma::mem_row_major);
}
__global__ void bytes(const signed char* a, const unsigned char* u, int* c) {
  three_shapes(a, a, c);
  three_shapes(u, u, c);
}
__global__ void sub_bytes(const int* a, const unsigned* u, int* c) {
  using namespace wmma::experimental;
  multiply<8, 8, 32, precision::s4, int, int, wmma::row_major, wmma::col_major>(a, a, c);
  multiply<8, 8, 32, precision::u4, int, int, wmma::row_major, wmma::col_major>(u, u, c);
  wmma::fragment<wmma::matrix_a, 8, 8, 128, precision::b1, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 8, 8, 128, precision::b1, wmma::col_major> fb;
  wmma::fragment<wmma::accumulator, 8, 8, 128, int> fc;
  wmma::load_matrix_sync(fa, u, 128);
  wmma::load_matrix_sync(fb, u, 128);
  wmma::fill_fragment(fc, 0);
  wmma::bmma_sync(fc, fa, fb, fc);
#if __CUDA_ARCH__ >= 800
  wmma::bmma_sync(fc, fa, fb, fc, wmma::experimental::bmmaBitOpAND, wmma::experimental::bmmaAccumulateOpPOPC);
#endif
  wmma::store_matrix_sync(c, fc, 8, wmma::mem_row_major);
}
#if __CUDA_ARCH__ >= 800
__global__ void newer(const __nv_bfloat16* a, const float* t, const double* d, float* c, double* e) {
  three_shapes(a, a, c);
  multiply<16, 16, 8, wmma::precision::tf32, float, float, wmma::row_major, wmma::col_major, float>(t, t, c);
  multiply<8, 8, 4, double, double>(d, d, e);
  c[0] = wmma::__float_to_tf32(c[1]);
}
#endif
