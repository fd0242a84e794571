// cuBLASLt: whatever its heuristic offers for a product, run and compared with a plain loop.

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "cases.h"

namespace {

constexpr int kM = 64, kN = 48, kK = 32;
constexpr size_t kWorkspace = 4 << 20;

cublasLtHandle_t handle() {
  static cublasLtHandle_t made = nullptr;
  if (made == nullptr && cublasLtCreate(&made) != CUBLAS_STATUS_SUCCESS) made = nullptr;
  return made;
}

// C = epilogue(op(A) * B); A is transposed: it is kK x kM, and all are column by column.
struct Product {
  cudaDataType type;
  cudaDataType out_type;
  cublasComputeType_t compute;
  cublasLtEpilogue_t epilogue;
};

std::string matmul(const Product& p, const void* a, const void* b, const void* bias, void* c) {
  cublasLtMatmulDesc_t what = nullptr;
  cublasLtMatrixLayout_t la = nullptr, lb = nullptr, lc = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  TRY(cublasLtMatmulDescCreate(&what, p.compute, CUDA_R_32F));
  TRY(cublasLtMatmulDescSetAttribute(what, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
  TRY(cublasLtMatmulDescSetAttribute(what, CUBLASLT_MATMUL_DESC_EPILOGUE, &p.epilogue, sizeof(p.epilogue)));
  if (bias != nullptr) {
    TRY(cublasLtMatmulDescSetAttribute(what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)));
  }
  TRY(cublasLtMatrixLayoutCreate(&la, p.type, kK, kM, kK));
  TRY(cublasLtMatrixLayoutCreate(&lb, p.type, kK, kN, kK));
  TRY(cublasLtMatrixLayoutCreate(&lc, p.out_type, kM, kN, kM));
  TRY(cublasLtMatmulPreferenceCreate(&preference));
  TRY(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                                           sizeof(kWorkspace)));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  TRY(cublasLtMatmulAlgoGetHeuristic(handle(), what, la, lb, lc, lc, preference, 1, &found, &count));
  if (count == 0) return "the heuristic offers nothing";
  Buffer<char> workspace(kWorkspace);
  const float one = 1, zero = 0;
  TRY(cublasLtMatmul(handle(), what, &one, a, la, b, lb, &zero, c, lc, c, lc, &found.algo, workspace.data(), kWorkspace,
                     nullptr));
  TRY(cudaDeviceSynchronize());
  cublasLtMatmulPreferenceDestroy(preference);
  for (cublasLtMatrixLayout_t layout : {la, lb, lc}) cublasLtMatrixLayoutDestroy(layout);
  cublasLtMatmulDescDestroy(what);
  return "";
}

std::vector<double> expected(const std::vector<float>& a, const std::vector<float>& b, const float* bias, bool relu) {
  std::vector<double> out;
  for (int j = 0; j < kN; ++j) {
    for (int i = 0; i < kM; ++i) {
      double sum = bias == nullptr ? 0 : bias[i];
      for (int k = 0; k < kK; ++k) sum += static_cast<double>(a[k + i * kK]) * b[k + j * kK];
      out.push_back(relu ? std::fmax(sum, 0) : sum);
    }
  }
  return out;
}

template <typename T, typename Out>
std::string run_one(const Product& p, double allowed) {
  Numbers numbers(31);
  const auto ha = numbers.vector(kM * kK), hb = numbers.vector(kN * kK), hbias = numbers.vector(kM);
  Buffer<T> a(convert<T>(ha)), b(convert<T>(hb));
  Buffer<Out> c(static_cast<size_t>(kM) * kN), bias(convert<Out>(hbias));
  const bool biased = p.epilogue != CUBLASLT_EPILOGUE_DEFAULT;
  const std::string problem = matmul(p, a.data(), b.data(), biased ? bias.data() : nullptr, c.data());
  if (!problem.empty()) return problem;
  return compare(convert<float>(c.read()),
                 expected(convert<float>(convert<T>(ha)), convert<float>(convert<T>(hb)),
                          biased ? hbias.data() : nullptr, p.epilogue == CUBLASLT_EPILOGUE_RELU_BIAS),
                 allowed);
}

std::string f32() {
  return run_one<float, float>({CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUBLASLT_EPILOGUE_DEFAULT}, 1e-5);
}
std::string f32_bias() {
  return run_one<float, float>({CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUBLASLT_EPILOGUE_BIAS}, 1e-5);
}
std::string f16() {
  return run_one<__half, __half>({CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F, CUBLASLT_EPILOGUE_DEFAULT}, 1e-3);
}
std::string bf16() {
  return run_one<__nv_bfloat16, __nv_bfloat16>(
      {CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUBLASLT_EPILOGUE_DEFAULT}, 8e-3);
}
std::string bf16_relu_bias() {
  return run_one<__nv_bfloat16, __nv_bfloat16>(
      {CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUBLASLT_EPILOGUE_RELU_BIAS}, 8e-3);
}
std::string fp8() {
  return run_one<__nv_fp8_e4m3, __nv_bfloat16>(
      {CUDA_R_8F_E4M3, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUBLASLT_EPILOGUE_DEFAULT}, 8e-3);
}

}  // namespace

int main(int argc, char** argv) {
  return run_cases({{"f32", f32},
                    {"f32_bias", f32_bias},
                    {"f16", f16},
                    {"bf16", bf16},
                    {"bf16_relu_bias", bf16_relu_bias},
                    {"fp8", fp8}},
                   argc, argv);
}
