// The part of cuBLAS that llm.c's single-precision trainer calls, as plain kernels: the software GPU's usual profile is
// a card for which NVIDIA's library picks machine code only. Column-major, like the original.

#include <cublas_v2.h>

namespace {

constexpr int kTile = 16;

struct Matrix {
  const float* at;
  int leading;
  long long stride;
  bool transposed;
};

__device__ float element(const Matrix& m, int batch, int row, int column) {
  const float* base = m.at + batch * m.stride;
  return m.transposed ? base[column + static_cast<long long>(row) * m.leading]
                      : base[row + static_cast<long long>(column) * m.leading];
}

__global__ void multiply(int m, int n, int k, float alpha, Matrix a, Matrix b, float beta, float* c, int leading,
                         long long stride) {
  __shared__ float left[kTile][kTile + 1], right[kTile][kTile + 1];
  const int row = blockIdx.x * kTile + threadIdx.x, column = blockIdx.y * kTile + threadIdx.y, batch = blockIdx.z;
  float sum = 0;
  for (int from = 0; from < k; from += kTile) {
    const int inner_a = from + threadIdx.y, inner_b = from + threadIdx.x;
    left[threadIdx.y][threadIdx.x] = row < m && inner_a < k ? element(a, batch, row, inner_a) : 0;
    right[threadIdx.y][threadIdx.x] = column < n && inner_b < k ? element(b, batch, inner_b, column) : 0;
    __syncthreads();
    for (int i = 0; i < kTile; ++i) sum += left[i][threadIdx.x] * right[threadIdx.y][i];
    __syncthreads();
  }
  if (row >= m || column >= n) return;
  float* to = c + batch * stride + row + static_cast<long long>(column) * leading;
  *to = alpha * sum + (beta == 0 ? 0 : beta * *to);
}

}  // namespace

extern "C" cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  static int one;
  *handle = reinterpret_cast<cublasHandle_t>(&one);
  return CUBLAS_STATUS_SUCCESS;
}

extern "C" cublasStatus_t cublasDestroy_v2(cublasHandle_t) { return CUBLAS_STATUS_SUCCESS; }

extern "C" cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }

extern "C" cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb, int m,
                                                    int n, int k, const float* alpha, const float* a, int lda,
                                                    long long stride_a, const float* b, int ldb, long long stride_b,
                                                    const float* beta, float* c, int ldc, long long stride_c,
                                                    int batches) {
  const dim3 grid((m + kTile - 1) / kTile, (n + kTile - 1) / kTile, batches);
  multiply<<<grid, dim3(kTile, kTile)>>>(m, n, k, *alpha, {a, lda, stride_a, ta != CUBLAS_OP_N},
                                         {b, ldb, stride_b, tb != CUBLAS_OP_N}, *beta, c, ldc, stride_c);
  return cudaGetLastError() == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

extern "C" cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                                         int n, int k, const float* alpha, const float* a, int lda, const float* b,
                                         int ldb, const float* beta, float* c, int ldc) {
  return cublasSgemmStridedBatched(handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}
