// cuSOLVER's dense factorisations: the solutions must solve.

#include <cusolverDn.h>

#include "cases.h"

namespace {

constexpr int kSize = 48;
constexpr int kRight = 3;

cusolverDnHandle_t handle() {
  static cusolverDnHandle_t made = nullptr;
  if (made == nullptr && cusolverDnCreate(&made) != CUSOLVER_STATUS_SUCCESS) made = nullptr;
  return made;
}

// A matrix far from singular; symmetric and positive definite when asked for.
std::vector<double> matrix(bool symmetric) {
  Numbers numbers(21);
  std::vector<double> a(kSize * kSize);
  for (int j = 0; j < kSize; ++j) {
    for (int i = 0; i < kSize; ++i) a[i + j * kSize] = symmetric && i < j ? a[j + i * kSize] : numbers.next();
  }
  // In the lower triangle's order, so that both halves agree.
  for (int j = 0; symmetric && j < kSize; ++j) {
    for (int i = 0; i < j; ++i) a[i + j * kSize] = a[j + i * kSize];
  }
  for (int i = 0; i < kSize; ++i) a[i + i * kSize] += symmetric ? kSize : 4;
  return a;
}

std::vector<double> right_sides() {
  Numbers numbers(22);
  std::vector<double> b(kSize * kRight);
  for (double& value : b) value = numbers.next();
  return b;
}

// A * x, to be compared with b.
std::vector<double> times(const std::vector<double>& a, const std::vector<double>& x) {
  std::vector<double> out(kSize * kRight);
  for (int j = 0; j < kRight; ++j) {
    for (int i = 0; i < kSize; ++i) {
      for (int p = 0; p < kSize; ++p) out[i + j * kSize] += a[i + p * kSize] * x[p + j * kSize];
    }
  }
  return out;
}

std::string check_info(Buffer<int>* info) {
  const std::vector<int> value = info->read();
  if (value.size() != 1 || value[0] != 0) return "info is " + (value.empty() ? "lost" : std::to_string(value[0]));
  return "";
}

std::string lu_double() {
  const auto ha = matrix(false), hb = right_sides();
  Buffer<double> a(ha), b(hb);
  Buffer<int> pivots(kSize), info(1);
  int work_size = 0;
  TRY(cusolverDnDgetrf_bufferSize(handle(), kSize, kSize, a.data(), kSize, &work_size));
  Buffer<double> work(work_size);
  TRY(cusolverDnDgetrf(handle(), kSize, kSize, a.data(), kSize, work.data(), pivots.data(), info.data()));
  std::string problem = check_info(&info);
  if (!problem.empty()) return "getrf: " + problem;
  TRY(cusolverDnDgetrs(handle(), CUBLAS_OP_N, kSize, kRight, a.data(), kSize, pivots.data(), b.data(), kSize,
                       info.data()));
  return compare(times(ha, b.read()), hb, 1e-10);
}

std::string lu_float() {
  const auto wide = matrix(false), right = right_sides();
  Buffer<float> a(std::vector<float>(wide.begin(), wide.end())), b(std::vector<float>(right.begin(), right.end()));
  Buffer<int> pivots(kSize), info(1);
  int work_size = 0;
  TRY(cusolverDnSgetrf_bufferSize(handle(), kSize, kSize, a.data(), kSize, &work_size));
  Buffer<float> work(work_size);
  TRY(cusolverDnSgetrf(handle(), kSize, kSize, a.data(), kSize, work.data(), pivots.data(), info.data()));
  std::string problem = check_info(&info);
  if (!problem.empty()) return "getrf: " + problem;
  TRY(cusolverDnSgetrs(handle(), CUBLAS_OP_N, kSize, kRight, a.data(), kSize, pivots.data(), b.data(), kSize,
                       info.data()));
  const auto solved = b.read();
  return compare(times(wide, std::vector<double>(solved.begin(), solved.end())), right, 1e-3);
}

std::string cholesky() {
  const auto ha = matrix(true), hb = right_sides();
  Buffer<double> a(ha), b(hb);
  Buffer<int> info(1);
  int work_size = 0;
  TRY(cusolverDnDpotrf_bufferSize(handle(), CUBLAS_FILL_MODE_LOWER, kSize, a.data(), kSize, &work_size));
  Buffer<double> work(work_size);
  TRY(cusolverDnDpotrf(handle(), CUBLAS_FILL_MODE_LOWER, kSize, a.data(), kSize, work.data(), work_size, info.data()));
  std::string problem = check_info(&info);
  if (!problem.empty()) return "potrf: " + problem;
  TRY(cusolverDnDpotrs(handle(), CUBLAS_FILL_MODE_LOWER, kSize, kRight, a.data(), kSize, b.data(), kSize, info.data()));
  return compare(times(ha, b.read()), hb, 1e-10);
}

std::string qr() {
  const auto ha = matrix(false);
  Buffer<double> a(ha), tau(kSize);
  Buffer<int> info(1);
  int work_size = 0;
  TRY(cusolverDnDgeqrf_bufferSize(handle(), kSize, kSize, a.data(), kSize, &work_size));
  Buffer<double> work(work_size);
  TRY(cusolverDnDgeqrf(handle(), kSize, kSize, a.data(), kSize, tau.data(), work.data(), work_size, info.data()));
  const std::string problem = check_info(&info);
  if (!problem.empty()) return "geqrf: " + problem;
  // R'R = A'A whatever the signs.
  const auto r = a.read();
  std::vector<double> got, expected;
  for (int j = 0; j < kSize; ++j) {
    for (int i = 0; i <= j; ++i) {
      double left = 0, right = 0;
      for (int p = 0; p <= i; ++p) left += r[p + i * kSize] * r[p + j * kSize];
      for (int p = 0; p < kSize; ++p) right += ha[p + i * kSize] * ha[p + j * kSize];
      got.push_back(left);
      expected.push_back(right);
    }
  }
  return compare(got, expected, 1e-10);
}

std::string eigenvalues() {
  const auto ha = matrix(true);
  Buffer<double> a(ha), values(kSize);
  Buffer<int> info(1);
  int work_size = 0;
  TRY(cusolverDnDsyevd_bufferSize(handle(), CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER, kSize, a.data(), kSize,
                                  values.data(), &work_size));
  Buffer<double> work(work_size);
  TRY(cusolverDnDsyevd(handle(), CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER, kSize, a.data(), kSize,
                       values.data(), work.data(), work_size, info.data()));
  const std::string problem = check_info(&info);
  if (!problem.empty()) return "syevd: " + problem;
  // Their sum is the trace, the sum of their squares that of all entries.
  double sum = 0, squares = 0, trace = 0, all = 0;
  for (const double value : values.read()) {
    sum += value;
    squares += value * value;
  }
  for (int i = 0; i < kSize; ++i) trace += ha[i + i * kSize];
  for (const double value : ha) all += value * value;
  return compare(std::vector<double>{sum, squares}, {trace, all}, 1e-10);
}

}  // namespace

int main(int argc, char** argv) {
  return run_cases({{"lu_double", lu_double},
                    {"lu_float", lu_float},
                    {"cholesky", cholesky},
                    {"qr", qr},
                    {"eigenvalues", eigenvalues}},
                   argc, argv);
}
