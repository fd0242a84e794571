// NVRTC and nvJitLink: source compiled at run time, and units linked at run time, whose kernels then execute.

#include <cuda.h>
#include <nvJitLink.h>
#include <nvrtc.h>

#include "cases.h"

namespace {

constexpr int kCount = 100;

const char* const kWhole = R"(
extern "C" __global__ void scale(float* x, float by, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) x[i] = sqrtf(x[i] * x[i]) * by;
}
)";
const char* const kPart = "extern \"C\" __device__ float twice(float x) { return 2 * x; }\n";
const char* const kUser = R"(
extern "C" __device__ float twice(float x);
extern "C" __global__ void scale(float* x, float by, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) x[i] = twice(x[i]) * by;
}
)";

std::string compile(const char* source, std::vector<const char*> options, bool lto, std::vector<char>* out) {
  nvrtcProgram program = nullptr;
  size_t bytes = 0;
  TRY(nvrtcCreateProgram(&program, source, "source.cu", 0, nullptr, nullptr));
  TRY(nvrtcCompileProgram(program, static_cast<int>(options.size()), options.data()));
  TRY(lto ? nvrtcGetLTOIRSize(program, &bytes) : nvrtcGetPTXSize(program, &bytes));
  out->resize(bytes);
  TRY(lto ? nvrtcGetLTOIR(program, out->data()) : nvrtcGetPTX(program, out->data()));
  TRY(nvrtcDestroyProgram(&program));
  return "";
}

// A function of the driver, found as libraries find it: programs that have the runtime need not be linked with libcuda.
template <typename Function>
Function* driver(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult how{};
  const cudaError_t result = cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &how);
  return result == cudaSuccess ? reinterpret_cast<Function*>(found) : nullptr;
}
#define DRIVER(name) driver<decltype(name)>(#name)

// Runs `scale` of a module and compares with `factor` times what was there.
std::string run_scale(const void* image, double factor) {
  std::vector<float> values(kCount);
  std::vector<double> expected(kCount);
  for (int i = 0; i < kCount; ++i) expected[i] = factor * (values[i] = static_cast<float>(i) / 8);
  Buffer<float> data(values);
  CUmodule module = nullptr;
  CUfunction scale = nullptr;
  float* where = data.data();
  float by = 3;
  int count = kCount;
  void* parameters[] = {&where, &by, &count};
  TRY(DRIVER(cuModuleLoadData)(&module, image));
  TRY(DRIVER(cuModuleGetFunction)(&scale, module, "scale"));
  TRY(DRIVER(cuLaunchKernel)(scale, 2, 1, 1, 64, 1, 1, 0, nullptr, parameters, nullptr));
  TRY(cudaDeviceSynchronize());
  TRY(DRIVER(cuModuleUnload)(module));
  return compare(data.read(), expected, 1e-6);
}

std::string source_to_ptx() {
  std::vector<char> ptx;
  const std::string problem = compile(kWhole, {"--gpu-architecture=compute_90"}, false, &ptx);
  return problem.empty() ? run_scale(ptx.data(), 3) : problem;
}

std::string errors_are_named() {
  nvrtcProgram program = nullptr;
  size_t bytes = 0;
  TRY(nvrtcCreateProgram(&program, "__global__ void k() { nonsense }", "wrong.cu", 0, nullptr, nullptr));
  if (nvrtcCompileProgram(program, 0, nullptr) != NVRTC_ERROR_COMPILATION) return "nonsense was compiled";
  TRY(nvrtcGetProgramLogSize(program, &bytes));
  std::vector<char> log(bytes);
  TRY(nvrtcGetProgramLog(program, log.data()));
  TRY(nvrtcDestroyProgram(&program));
  return std::string(log.data()).find("wrong.cu(1)") == std::string::npos ? log.data() : "";
}

// Two units, linked to PTX by nvJitLink.
std::string units_to_ptx() {
  const std::vector<const char*> options = {"--gpu-architecture=compute_90", "-dlto", "--relocatable-device-code=true"};
  nvJitLinkHandle link = nullptr;
  const char* wanted[] = {"-arch=sm_90", "-lto", "-ptx"};
  size_t bytes = 0;
  TRY(nvJitLinkCreate(&link, 3, wanted));
  for (const char* source : {kPart, kUser}) {
    std::vector<char> unit;
    const std::string problem = compile(source, options, true, &unit);
    if (!problem.empty()) return problem;
    TRY(nvJitLinkAddData(link, NVJITLINK_INPUT_LTOIR, unit.data(), unit.size(), "unit"));
  }
  TRY(nvJitLinkComplete(link));
  TRY(nvJitLinkGetLinkedPtxSize(link, &bytes));
  std::vector<char> ptx(bytes + 1, 0);
  TRY(nvJitLinkGetLinkedPtx(link, ptx.data()));
  TRY(nvJitLinkDestroy(&link));
  return run_scale(ptx.data(), 6);
}

// The same by the driver's own linker, from PTX.
std::string units_by_the_driver() {
  const std::vector<const char*> options = {"--gpu-architecture=compute_90", "--relocatable-device-code=true"};
  CUlinkState link = nullptr;
  void* image = nullptr;
  size_t bytes = 0;
  TRY(cudaFree(nullptr));
  TRY(driver<decltype(cuLinkCreate_v2)>("cuLinkCreate")(0, nullptr, nullptr, &link));
  for (const char* source : {kPart, kUser}) {
    std::vector<char> unit;
    const std::string problem = compile(source, options, false, &unit);
    if (!problem.empty()) return problem;
    TRY(driver<decltype(cuLinkAddData_v2)>("cuLinkAddData")(link, CU_JIT_INPUT_PTX, unit.data(), unit.size(), "unit", 0,
                                                            nullptr, nullptr));
  }
  TRY(DRIVER(cuLinkComplete)(link, &image, &bytes));
  const std::string problem = run_scale(image, 6);
  TRY(DRIVER(cuLinkDestroy)(link));
  return problem;
}

const std::vector<Case> kCases = {{"source_to_ptx", source_to_ptx},
                                  {"errors_are_named", errors_are_named},
                                  {"units_to_ptx", units_to_ptx},
                                  {"units_by_the_driver", units_by_the_driver}};

}  // namespace

int main(int argc, char** argv) { return run_cases(kCases, argc, argv); }
