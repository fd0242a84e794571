// cuBLAS against plain loops.

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cases.h"

namespace {

cublasHandle_t handle() {
  static cublasHandle_t made = nullptr;
  if (made == nullptr && cublasCreate(&made) != CUBLAS_STATUS_SUCCESS) made = nullptr;
  return made;
}

struct Shape {
  cublasOperation_t ta, tb;
  int m, n, k;
};

// alpha * op(A) * op(B) + beta * C, all column by column and dense.
std::vector<double> multiply(const Shape& s, double alpha, const float* a, const float* b, double beta,
                             const float* c) {
  std::vector<double> out(static_cast<size_t>(s.m) * s.n);
  for (int j = 0; j < s.n; ++j) {
    for (int i = 0; i < s.m; ++i) {
      double sum = 0;
      for (int p = 0; p < s.k; ++p) {
        const double left = s.ta == CUBLAS_OP_N ? a[i + p * s.m] : a[p + i * s.k];
        const double right = s.tb == CUBLAS_OP_N ? b[p + j * s.k] : b[j + p * s.n];
        sum += left * right;
      }
      out[i + static_cast<size_t>(j) * s.m] = alpha * sum + beta * c[i + static_cast<size_t>(j) * s.m];
    }
  }
  return out;
}

struct Matrices {
  std::vector<float> a, b, c;
  Matrices(const Shape& s, int count = 1) {
    Numbers numbers(static_cast<uint32_t>(s.m * 31 + s.n * 7 + s.k));
    a = numbers.vector(static_cast<size_t>(s.m) * s.k * count);
    b = numbers.vector(static_cast<size_t>(s.k) * s.n * count);
    c = numbers.vector(static_cast<size_t>(s.m) * s.n * count);
  }
};

int lda(const Shape& s) { return s.ta == CUBLAS_OP_N ? s.m : s.k; }
int ldb(const Shape& s) { return s.tb == CUBLAS_OP_N ? s.k : s.n; }

constexpr cublasOperation_t kN = CUBLAS_OP_N;
constexpr cublasOperation_t kT = CUBLAS_OP_T;

std::string sgemm_shape(const Shape& s, float alpha, float beta) {
  const Matrices x(s);
  Buffer<float> a(x.a), b(x.b), c(x.c);
  TRY(cublasSgemm(handle(), s.ta, s.tb, s.m, s.n, s.k, &alpha, a.data(), lda(s), b.data(), ldb(s), &beta, c.data(),
                  s.m));
  return compare(c.read(), multiply(s, alpha, x.a.data(), x.b.data(), beta, x.c.data()), 2e-5);
}

std::string sgemm() {
  for (const Shape& s : {Shape{kN, kN, 64, 64, 64}, Shape{kN, kN, 1, 1, 1}, Shape{kN, kN, 130, 70, 33},
                         Shape{kN, kN, 256, 192, 128}, Shape{kN, kN, 17, 300, 64}, Shape{kN, kN, 8, 8, 2048}}) {
    const std::string problem = sgemm_shape(s, 1, 0);
    if (!problem.empty()) return problem;
  }
  return sgemm_shape({kN, kN, 96, 40, 72}, -0.5f, 2.0f);
}

std::string sgemm_transposed() {
  for (const Shape& s : {Shape{kT, kN, 96, 80, 64}, Shape{kN, kT, 33, 65, 129}, Shape{kT, kT, 128, 48, 32},
                         Shape{kT, kN, 192, 64, 768}}) {
    const std::string problem = sgemm_shape(s, 1.5f, 1.0f);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::string dgemm() {
  const Shape s{kN, kT, 50, 60, 70};
  const Matrices x(s);
  Buffer<double> a(std::vector<double>(x.a.begin(), x.a.end())), b(std::vector<double>(x.b.begin(), x.b.end())),
      c(std::vector<double>(x.c.begin(), x.c.end()));
  const double alpha = 1, beta = 1;
  TRY(cublasDgemm(handle(), s.ta, s.tb, s.m, s.n, s.k, &alpha, a.data(), lda(s), b.data(), ldb(s), &beta, c.data(),
                  s.m));
  return compare(c.read(), multiply(s, alpha, x.a.data(), x.b.data(), beta, x.c.data()), 1e-12);
}

std::string cgemm() {
  const Shape s{kN, kN, 24, 20, 36};
  const Matrices re(s);
  const auto complex = [](const std::vector<float>& x) {
    std::vector<cuComplex> out;
    for (size_t i = 0; i < x.size(); ++i) out.push_back({x[i], x[x.size() - 1 - i]});
    return out;
  };
  const auto ha = complex(re.a), hb = complex(re.b);
  Buffer<cuComplex> a(ha), b(hb), c(static_cast<size_t>(s.m) * s.n);
  const cuComplex alpha{1, 0}, beta{0, 0};
  TRY(cublasCgemm(handle(), kN, kN, s.m, s.n, s.k, &alpha, a.data(), s.m, b.data(), s.k, &beta, c.data(), s.m));
  std::vector<double> expected;
  std::vector<float> got;
  for (const cuComplex& value : c.read()) {
    got.push_back(value.x);
    got.push_back(value.y);
  }
  for (int j = 0; j < s.n; ++j) {
    for (int i = 0; i < s.m; ++i) {
      double x = 0, y = 0;
      for (int p = 0; p < s.k; ++p) {
        const cuComplex l = ha[i + p * s.m], r = hb[p + j * s.k];
        x += static_cast<double>(l.x) * r.x - static_cast<double>(l.y) * r.y;
        y += static_cast<double>(l.x) * r.y + static_cast<double>(l.y) * r.x;
      }
      expected.push_back(x);
      expected.push_back(y);
    }
  }
  return compare(got, expected, 2e-5);
}

// Inputs and outputs of one small type, computed in `compute`.
template <typename T>
std::string gemm_ex(cudaDataType type, cublasComputeType_t compute, double allowed) {
  for (const Shape& s : {Shape{kN, kN, 64, 64, 64}, Shape{kT, kN, 128, 96, 80}, Shape{kN, kT, 40, 200, 33}}) {
    const Matrices x(s);
    Buffer<T> a(convert<T>(x.a)), b(convert<T>(x.b)), c(convert<T>(x.c));
    const float one = 1, zero = 0;
    TRY(cublasGemmEx(handle(), s.ta, s.tb, s.m, s.n, s.k, &one, a.data(), type, lda(s), b.data(), type, ldb(s), &zero,
                     c.data(), type, s.m, compute, CUBLAS_GEMM_DEFAULT));
    const std::string problem =
        compare(convert<float>(c.read()), multiply(s, 1, x.a.data(), x.b.data(), 0, x.c.data()), allowed);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::string gemm_ex_f16() { return gemm_ex<__half>(CUDA_R_16F, CUBLAS_COMPUTE_32F, 1e-3); }
std::string gemm_ex_bf16() { return gemm_ex<__nv_bfloat16>(CUDA_R_16BF, CUBLAS_COMPUTE_32F, 8e-3); }

std::string gemm_ex_tf32() {
  const Shape s{kN, kN, 96, 64, 128};
  const Matrices x(s);
  Buffer<float> a(x.a), b(x.b), c(x.c);
  const float one = 1, zero = 0;
  TRY(cublasGemmEx(handle(), s.ta, s.tb, s.m, s.n, s.k, &one, a.data(), CUDA_R_32F, lda(s), b.data(), CUDA_R_32F,
                   ldb(s), &zero, c.data(), CUDA_R_32F, s.m, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_GEMM_DEFAULT));
  return compare(c.read(), multiply(s, 1, x.a.data(), x.b.data(), 0, x.c.data()), 2e-3);
}

std::string hgemm() {
  const Shape s{kN, kN, 64, 48, 32};
  const Matrices x(s);
  Buffer<__half> a(convert<__half>(x.a)), b(convert<__half>(x.b)), c(convert<__half>(x.c));
  const __half one(1.0f), zero(0.0f);
  TRY(cublasHgemm(handle(), kN, kN, s.m, s.n, s.k, &one, a.data(), s.m, b.data(), s.k, &zero, c.data(), s.m));
  return compare(convert<float>(c.read()), multiply(s, 1, x.a.data(), x.b.data(), 0, x.c.data()), 1e-2);
}

std::string gemm_ex_int8() {
  const Shape s{kT, kN, 64, 32, 128};
  Matrices x(s);
  for (auto* values : {&x.a, &x.b}) {
    for (float& value : *values) value *= 64;
  }
  std::vector<int8_t> ha(x.a.begin(), x.a.end()), hb(x.b.begin(), x.b.end());
  Buffer<int8_t> a(ha), b(hb);
  Buffer<int32_t> c(static_cast<size_t>(s.m) * s.n);
  const int32_t one = 1, zero = 0;
  TRY(cublasGemmEx(handle(), s.ta, s.tb, s.m, s.n, s.k, &one, a.data(), CUDA_R_8I, lda(s), b.data(), CUDA_R_8I, ldb(s),
                   &zero, c.data(), CUDA_R_32I, s.m, CUBLAS_COMPUTE_32I, CUBLAS_GEMM_DEFAULT));
  return compare(c.read(), multiply(s, 1, x.a.data(), x.b.data(), 0, x.c.data()), 0);
}

template <typename T>
std::string strided_batched(cudaDataType type, double allowed) {
  const Shape s{kN, kT, 48, 56, 40};
  const int count = 6;
  const Matrices x(s, count);
  Buffer<T> a(convert<T>(x.a)), b(convert<T>(x.b)), c(convert<T>(x.c));
  const float alpha = 0.125f, beta = 0;
  TRY(cublasGemmStridedBatchedEx(handle(), s.ta, s.tb, s.m, s.n, s.k, &alpha, a.data(), type, lda(s), s.m * s.k,
                                 b.data(), type, ldb(s), s.k * s.n, &beta, c.data(), type, s.m, s.m * s.n, count,
                                 CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  std::vector<double> expected;
  for (int i = 0; i < count; ++i) {
    const auto one = multiply(s, alpha, &x.a[i * s.m * s.k], &x.b[i * s.k * s.n], beta, &x.c[i * s.m * s.n]);
    expected.insert(expected.end(), one.begin(), one.end());
  }
  return compare(convert<float>(c.read()), expected, allowed);
}

std::string strided_batched_f32() { return strided_batched<float>(CUDA_R_32F, 2e-5); }
std::string strided_batched_bf16() { return strided_batched<__nv_bfloat16>(CUDA_R_16BF, 8e-3); }

std::string pointer_batched() {
  const Shape s{kN, kN, 20, 30, 25};
  const int count = 4;
  const Matrices x(s, count);
  Buffer<float> a(x.a), b(x.b), c(x.c);
  std::vector<float*> pa, pb, pc;
  for (int i = 0; i < count; ++i) {
    pa.push_back(a.data() + i * s.m * s.k);
    pb.push_back(b.data() + i * s.k * s.n);
    pc.push_back(c.data() + i * s.m * s.n);
  }
  Buffer<float*> da(pa), db(pb), dc(pc);
  const float one = 1, zero = 0;
  TRY(cublasSgemmBatched(handle(), kN, kN, s.m, s.n, s.k, &one, da.data(), s.m, db.data(), s.k, &zero, dc.data(), s.m,
                         count));
  std::vector<double> expected;
  for (int i = 0; i < count; ++i) {
    const auto part = multiply(s, 1, &x.a[i * s.m * s.k], &x.b[i * s.k * s.n], 0, x.c.data());
    expected.insert(expected.end(), part.begin(), part.end());
  }
  return compare(c.read(), expected, 2e-5);
}

std::string gemv() {
  for (const cublasOperation_t op : {kN, kT}) {
    const int m = 300, n = 130;
    Numbers numbers(5);
    const auto ha = numbers.vector(m * n), hx = numbers.vector(m + n), hy = numbers.vector(m + n);
    const int in = op == kN ? n : m, out = op == kN ? m : n;
    Buffer<float> a(ha), x(hx), y(std::vector<float>(hy.begin(), hy.begin() + out));
    const float alpha = 2, beta = -1;
    TRY(cublasSgemv(handle(), op, m, n, &alpha, a.data(), m, x.data(), 1, &beta, y.data(), 1));
    std::vector<double> expected;
    for (int i = 0; i < out; ++i) {
      double sum = 0;
      for (int p = 0; p < in; ++p) sum += static_cast<double>(op == kN ? ha[i + p * m] : ha[p + i * m]) * hx[p];
      expected.push_back(alpha * sum + beta * hy[i]);
    }
    const std::string problem = compare(y.read(), expected, 2e-5);
    if (!problem.empty()) return problem;
  }
  return "";
}

// The level 1 functions on a vector of n, with results on the host.
constexpr int kLength = 5000;

std::string dot() {
  Numbers numbers(11);
  const auto hx = numbers.vector(kLength), hy = numbers.vector(kLength);
  Buffer<float> x(hx), y(hy);
  float got = 0;
  TRY(cublasSdot(handle(), kLength, x.data(), 1, y.data(), 1, &got));
  double expected = 0;
  for (int i = 0; i < kLength; ++i) expected += static_cast<double>(hx[i]) * hy[i];
  return compare(std::vector<float>{got}, {expected}, 1e-4);
}

std::string norms() {
  Numbers numbers(12);
  auto hx = numbers.vector(kLength);
  hx[1234] = -7;
  Buffer<float> x(hx);
  float norm = 0, sum = 0;
  int largest = 0;
  TRY(cublasSnrm2(handle(), kLength, x.data(), 1, &norm));
  TRY(cublasSasum(handle(), kLength, x.data(), 1, &sum));
  TRY(cublasIsamax(handle(), kLength, x.data(), 1, &largest));
  double squares = 0, absolute = 0;
  for (const float value : hx) {
    squares += static_cast<double>(value) * value;
    absolute += std::fabs(value);
  }
  return compare(std::vector<float>{norm, sum, static_cast<float>(largest)}, {std::sqrt(squares), absolute, 1235},
                 1e-4);
}

std::string axpy_scal_copy_swap() {
  Numbers numbers(13);
  const auto hx = numbers.vector(kLength), hy = numbers.vector(kLength);
  Buffer<float> x(hx), y(hy), z(kLength);
  const float alpha = 3, half = 0.5f;
  TRY(cublasSaxpy(handle(), kLength, &alpha, x.data(), 1, y.data(), 1));
  TRY(cublasSscal(handle(), kLength, &half, y.data(), 1));
  TRY(cublasScopy(handle(), kLength, y.data(), 1, z.data(), 1));
  TRY(cublasSswap(handle(), kLength, x.data(), 1, z.data(), 1));
  std::vector<double> expected;
  for (int i = 0; i < kLength; ++i) expected.push_back(half * (alpha * hx[i] + hy[i]));
  return compare(x.read(), expected, 1e-6);
}

std::string ger_geam_dgmm() {
  const int m = 70, n = 45;
  Numbers numbers(14);
  const auto ha = numbers.vector(m * n), hx = numbers.vector(m), hy = numbers.vector(n);
  Buffer<float> a(ha), x(hx), y(hy), b(static_cast<size_t>(m) * n), c(static_cast<size_t>(m) * n);
  const float one = 1, two = 2;
  TRY(cublasSger(handle(), m, n, &two, x.data(), 1, y.data(), 1, a.data(), m));
  const float zero = 0;
  TRY(cublasSgeam(handle(), kT, kN, n, m, &one, a.data(), m, &zero, c.data(), n, c.data(), n));
  TRY(cublasSdgmm(handle(), CUBLAS_SIDE_LEFT, n, m, c.data(), n, y.data(), 1, b.data(), n));
  std::vector<double> expected(static_cast<size_t>(m) * n);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      expected[j + static_cast<size_t>(i) * n] = (ha[i + j * m] + 2.0 * hx[i] * hy[j]) * hy[j];
    }
  }
  return compare(b.read(), expected, 1e-5);
}

std::string trsm_syrk() {
  const int n = 40, m = 24;
  Numbers numbers(15);
  auto ha = numbers.vector(n * n);
  for (int i = 0; i < n; ++i) ha[i + i * n] = 8;
  const auto hb = numbers.vector(n * m);
  Buffer<float> a(ha), b(hb), c(static_cast<size_t>(n) * n);
  const float one = 1, zero = 0;
  TRY(cublasStrsm(handle(), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, kN, CUBLAS_DIAG_NON_UNIT, n, m, &one, a.data(), n,
                  b.data(), n));
  std::vector<double> solved(hb.begin(), hb.end());
  for (int j = 0; j < m; ++j) {
    for (int i = 0; i < n; ++i) {
      double sum = solved[i + j * n];
      for (int p = 0; p < i; ++p) sum -= static_cast<double>(ha[i + p * n]) * solved[p + j * n];
      solved[i + j * n] = sum / ha[i + i * n];
    }
  }
  const std::string problem = compare(b.read(), solved, 1e-4);
  if (!problem.empty()) return "trsm: " + problem;
  TRY(cudaMemset(c.data(), 0, sizeof(float) * n * n));
  TRY(cublasSsyrk(handle(), CUBLAS_FILL_MODE_LOWER, kN, n, n, &one, a.data(), n, &zero, c.data(), n));
  std::vector<double> square(static_cast<size_t>(n) * n);
  for (int j = 0; j < n; ++j) {
    for (int i = j; i < n; ++i) {
      for (int p = 0; p < n; ++p) square[i + j * n] += static_cast<double>(ha[i + p * n]) * ha[j + p * n];
    }
  }
  return compare(c.read(), square, 1e-4);
}

}  // namespace

int main(int argc, char** argv) {
  return run_cases({{"sgemm", sgemm},
                    {"sgemm_transposed", sgemm_transposed},
                    {"dgemm", dgemm},
                    {"cgemm", cgemm},
                    {"gemm_ex_f16", gemm_ex_f16},
                    {"gemm_ex_bf16", gemm_ex_bf16},
                    {"gemm_ex_tf32", gemm_ex_tf32},
                    {"hgemm", hgemm},
                    {"gemm_ex_int8", gemm_ex_int8},
                    {"strided_batched_f32", strided_batched_f32},
                    {"strided_batched_bf16", strided_batched_bf16},
                    {"pointer_batched", pointer_batched},
                    {"gemv", gemv},
                    {"dot", dot},
                    {"norms", norms},
                    {"axpy_scal_copy_swap", axpy_scal_copy_swap},
                    {"ger_geam_dgmm", ger_geam_dgmm},
                    {"trsm_syrk", trsm_syrk}},
                   argc, argv);
}
