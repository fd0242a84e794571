// cuRAND's device generators against its host generators, which are documented to give the same sequences, and the
// moments of what they make.

#include <curand.h>

#include "cases.h"

namespace {

constexpr size_t kCount = 20000;

template <typename T, typename Generate>
std::string both(curandRngType_t type, T* device, std::vector<T>* on_host, Generate generate) {
  curandGenerator_t gpu = nullptr, cpu = nullptr;
  TRY(curandCreateGenerator(&gpu, type));
  TRY(curandCreateGeneratorHost(&cpu, type));
  for (curandGenerator_t one : {gpu, cpu}) {
    if (type >= CURAND_RNG_QUASI_DEFAULT) {
      TRY(curandSetQuasiRandomGeneratorDimensions(one, 4));
    } else {
      TRY(curandSetPseudoRandomGeneratorSeed(one, 1234ULL));
    }
  }
  on_host->resize(kCount);
  TRY(generate(gpu, device));
  TRY(cudaDeviceSynchronize());
  TRY(generate(cpu, on_host->data()));
  TRY(curandDestroyGenerator(gpu));
  TRY(curandDestroyGenerator(cpu));
  return "";
}

std::string equal_bits(curandRngType_t type) {
  Buffer<unsigned> device(kCount);
  std::vector<unsigned> expected;
  const std::string problem = both(type, device.data(), &expected,
                                   [](curandGenerator_t g, unsigned* out) { return curandGenerate(g, out, kCount); });
  if (!problem.empty()) return problem;
  const std::vector<unsigned> got = device.read();
  for (size_t i = 0; i < kCount; ++i) {
    if (got[i] == expected[i]) continue;
    return "number " + std::to_string(i) + " is " + std::to_string(got[i]) + ", the host generator's is " +
           std::to_string(expected[i]);
  }
  return "";
}

std::string xorwow() { return equal_bits(CURAND_RNG_PSEUDO_XORWOW); }
std::string mrg32k3a() { return equal_bits(CURAND_RNG_PSEUDO_MRG32K3A); }
std::string mtgp32() { return equal_bits(CURAND_RNG_PSEUDO_MTGP32); }
std::string mt19937() { return equal_bits(CURAND_RNG_PSEUDO_MT19937); }
std::string philox() { return equal_bits(CURAND_RNG_PSEUDO_PHILOX4_32_10); }
std::string sobol32() { return equal_bits(CURAND_RNG_QUASI_SOBOL32); }
std::string scrambled_sobol32() { return equal_bits(CURAND_RNG_QUASI_SCRAMBLED_SOBOL32); }

template <typename T, typename Generate>
std::string close_to_host(curandRngType_t type, double allowed, Generate generate) {
  Buffer<T> device(kCount);
  std::vector<T> expected;
  const std::string problem = both(type, device.data(), &expected, generate);
  if (!problem.empty()) return problem;
  return compare(device.read(), std::vector<double>(expected.begin(), expected.end()), allowed);
}

std::string uniform() {
  return close_to_host<float>(CURAND_RNG_PSEUDO_PHILOX4_32_10, 0,
                              [](curandGenerator_t g, float* out) { return curandGenerateUniform(g, out, kCount); });
}

std::string uniform_double() {
  return close_to_host<double>(CURAND_RNG_PSEUDO_XORWOW, 0, [](curandGenerator_t g, double* out) {
    return curandGenerateUniformDouble(g, out, kCount);
  });
}

std::string normal() {
  return close_to_host<float>(CURAND_RNG_PSEUDO_XORWOW, 1e-5, [](curandGenerator_t g, float* out) {
    return curandGenerateNormal(g, out, kCount, 1.0f, 2.0f);
  });
}

std::string log_normal() {
  return close_to_host<float>(CURAND_RNG_PSEUDO_PHILOX4_32_10, 1e-4, [](curandGenerator_t g, float* out) {
    return curandGenerateLogNormal(g, out, kCount, 0.0f, 0.5f);
  });
}

std::string poisson_moments() {
  Buffer<unsigned> device(kCount);
  curandGenerator_t g = nullptr;
  TRY(curandCreateGenerator(&g, CURAND_RNG_PSEUDO_PHILOX4_32_10));
  TRY(curandGeneratePoisson(g, device.data(), kCount, 6.0));
  double sum = 0, squares = 0;
  for (const unsigned value : device.read()) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  TRY(curandDestroyGenerator(g));
  const double mean = sum / kCount;
  return compare(std::vector<double>{mean, squares / kCount - mean * mean}, {6.0, 6.0}, 0.03);
}

}  // namespace

int main(int argc, char** argv) {
  return run_cases({{"xorwow", xorwow},
                    {"philox", philox},
                    {"mrg32k3a", mrg32k3a},
                    {"mtgp32", mtgp32},
                    {"mt19937", mt19937, true},
                    {"sobol32", sobol32},
                    {"scrambled_sobol32", scrambled_sobol32},
                    {"uniform", uniform},
                    {"uniform_double", uniform_double},
                    {"normal", normal},
                    {"log_normal", log_normal},
                    {"poisson_moments", poisson_moments}},
                   argc, argv);
}
