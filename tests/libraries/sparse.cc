// cuSPARSE: products of a sparse matrix in its usual forms, and the way from a dense one, against plain loops.

#include <cusparse.h>

#include "cases.h"

namespace {

constexpr int kRows = 70, kColumns = 50, kWide = 8;

struct Csr {
  std::vector<int> begins{0}, columns;
  std::vector<float> values;
};

// About a fifth of the elements; some rows have none.
Csr make_csr() {
  Csr csr;
  Numbers numbers(3);
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kColumns; ++column) {
      const float value = numbers.next();
      if (row % 7 == 3 || (row * 5 + column * 3) % 5 != 0) continue;
      csr.columns.push_back(column);
      csr.values.push_back(value == 0 ? 0.5f : value);
    }
    csr.begins.push_back(static_cast<int>(csr.columns.size()));
  }
  return csr;
}

// alpha * A * B + beta * C, B and C in columns.
std::vector<double> product(const Csr& a, const std::vector<float>& b, const std::vector<float>& c, int wide,
                            double alpha, double beta) {
  std::vector<double> out(c.begin(), c.end());
  for (int column = 0; column < wide; ++column) {
    for (int row = 0; row < kRows; ++row) {
      double sum = 0;
      for (int i = a.begins[row]; i < a.begins[row + 1]; ++i) {
        sum += static_cast<double>(a.values[i]) * b[column * kColumns + a.columns[i]];
      }
      double& value = out[column * kRows + row];
      value = alpha * sum + beta * value;
    }
  }
  return out;
}

struct Scratch {
  void* data = nullptr;
  ~Scratch() { cudaFree(data); }
  cudaError_t make(size_t bytes) { return cudaMalloc(&data, bytes == 0 ? 1 : bytes); }
};

std::string csr_times_vector() {
  const Csr csr = make_csr();
  Numbers numbers(5);
  const std::vector<float> x = numbers.vector(kColumns), y = numbers.vector(kRows);
  Buffer<int> begins(csr.begins), columns(csr.columns);
  Buffer<float> values(csr.values), in(x), out(y);
  cusparseHandle_t handle = nullptr;
  cusparseSpMatDescr_t a = nullptr;
  cusparseDnVecDescr_t b = nullptr, c = nullptr;
  const float alpha = 2, beta = 0.5f;
  size_t bytes = 0;
  Scratch scratch;
  TRY(cusparseCreate(&handle));
  TRY(cusparseCreateCsr(&a, kRows, kColumns, static_cast<int64_t>(csr.values.size()), begins.data(), columns.data(),
                        values.data(), CUSPARSE_INDEX_32I, CUSPARSE_INDEX_32I, CUSPARSE_INDEX_BASE_ZERO, CUDA_R_32F));
  TRY(cusparseCreateDnVec(&b, kColumns, in.data(), CUDA_R_32F));
  TRY(cusparseCreateDnVec(&c, kRows, out.data(), CUDA_R_32F));
  TRY(cusparseSpMV_bufferSize(handle, CUSPARSE_OPERATION_NON_TRANSPOSE, &alpha, a, b, &beta, c, CUDA_R_32F,
                              CUSPARSE_SPMV_ALG_DEFAULT, &bytes));
  TRY(scratch.make(bytes));
  TRY(cusparseSpMV(handle, CUSPARSE_OPERATION_NON_TRANSPOSE, &alpha, a, b, &beta, c, CUDA_R_32F,
                   CUSPARSE_SPMV_ALG_DEFAULT, scratch.data));
  TRY(cudaDeviceSynchronize());
  TRY(cusparseDestroySpMat(a));
  TRY(cusparseDestroyDnVec(b));
  TRY(cusparseDestroyDnVec(c));
  TRY(cusparseDestroy(handle));
  return compare(out.read(), product(csr, x, y, 1, alpha, beta), 1e-5);
}

std::string csr_times_matrix() {
  const Csr csr = make_csr();
  Numbers numbers(7);
  const std::vector<float> x = numbers.vector(kColumns * kWide), y = numbers.vector(kRows * kWide);
  Buffer<int> begins(csr.begins), columns(csr.columns);
  Buffer<float> values(csr.values), in(x), out(y);
  cusparseHandle_t handle = nullptr;
  cusparseSpMatDescr_t a = nullptr;
  cusparseDnMatDescr_t b = nullptr, c = nullptr;
  const float alpha = -1, beta = 1;
  size_t bytes = 0;
  Scratch scratch;
  TRY(cusparseCreate(&handle));
  TRY(cusparseCreateCsr(&a, kRows, kColumns, static_cast<int64_t>(csr.values.size()), begins.data(), columns.data(),
                        values.data(), CUSPARSE_INDEX_32I, CUSPARSE_INDEX_32I, CUSPARSE_INDEX_BASE_ZERO, CUDA_R_32F));
  TRY(cusparseCreateDnMat(&b, kColumns, kWide, kColumns, in.data(), CUDA_R_32F, CUSPARSE_ORDER_COL));
  TRY(cusparseCreateDnMat(&c, kRows, kWide, kRows, out.data(), CUDA_R_32F, CUSPARSE_ORDER_COL));
  TRY(cusparseSpMM_bufferSize(handle, CUSPARSE_OPERATION_NON_TRANSPOSE, CUSPARSE_OPERATION_NON_TRANSPOSE, &alpha, a, b,
                              &beta, c, CUDA_R_32F, CUSPARSE_SPMM_ALG_DEFAULT, &bytes));
  TRY(scratch.make(bytes));
  TRY(cusparseSpMM(handle, CUSPARSE_OPERATION_NON_TRANSPOSE, CUSPARSE_OPERATION_NON_TRANSPOSE, &alpha, a, b, &beta, c,
                   CUDA_R_32F, CUSPARSE_SPMM_ALG_DEFAULT, scratch.data));
  TRY(cudaDeviceSynchronize());
  TRY(cusparseDestroySpMat(a));
  TRY(cusparseDestroyDnMat(b));
  TRY(cusparseDestroyDnMat(c));
  TRY(cusparseDestroy(handle));
  return compare(out.read(), product(csr, x, y, kWide, alpha, beta), 1e-5);
}

std::string dense_to_csr() {
  const Csr csr = make_csr();
  std::vector<float> dense(kRows * kColumns, 0.0f);
  for (int row = 0; row < kRows; ++row) {
    for (int i = csr.begins[row]; i < csr.begins[row + 1]; ++i) dense[row * kColumns + csr.columns[i]] = csr.values[i];
  }
  Buffer<float> from(dense), values(csr.values.size());
  Buffer<int> begins(kRows + 1), columns(csr.values.size());
  cusparseHandle_t handle = nullptr;
  cusparseDnMatDescr_t a = nullptr;
  cusparseSpMatDescr_t b = nullptr;
  size_t bytes = 0;
  Scratch scratch;
  int64_t rows = 0, wide = 0, count = 0;
  TRY(cusparseCreate(&handle));
  TRY(cusparseCreateDnMat(&a, kRows, kColumns, kColumns, from.data(), CUDA_R_32F, CUSPARSE_ORDER_ROW));
  TRY(cusparseCreateCsr(&b, kRows, kColumns, 0, begins.data(), nullptr, nullptr, CUSPARSE_INDEX_32I, CUSPARSE_INDEX_32I,
                        CUSPARSE_INDEX_BASE_ZERO, CUDA_R_32F));
  TRY(cusparseDenseToSparse_bufferSize(handle, a, b, CUSPARSE_DENSETOSPARSE_ALG_DEFAULT, &bytes));
  TRY(scratch.make(bytes));
  TRY(cusparseDenseToSparse_analysis(handle, a, b, CUSPARSE_DENSETOSPARSE_ALG_DEFAULT, scratch.data));
  TRY(cusparseSpMatGetSize(b, &rows, &wide, &count));
  if (count != static_cast<int64_t>(csr.values.size())) return "found " + std::to_string(count) + " elements";
  TRY(cusparseCsrSetPointers(b, begins.data(), columns.data(), values.data()));
  TRY(cusparseDenseToSparse_convert(handle, a, b, CUSPARSE_DENSETOSPARSE_ALG_DEFAULT, scratch.data));
  TRY(cudaDeviceSynchronize());
  TRY(cusparseDestroyDnMat(a));
  TRY(cusparseDestroySpMat(b));
  TRY(cusparseDestroy(handle));
  if (begins.read() != csr.begins || columns.read() != csr.columns) return "the elements are in other places";
  return compare(values.read(), std::vector<double>(csr.values.begin(), csr.values.end()), 0);
}

const std::vector<Case> kCases = {
    {"csr_times_vector", csr_times_vector}, {"csr_times_matrix", csr_times_matrix}, {"dense_to_csr", dense_to_csr}};

}  // namespace

int main(int argc, char** argv) { return run_cases(kCases, argc, argv); }
