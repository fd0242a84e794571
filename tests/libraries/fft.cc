// cuFFT: transforms of all kinds of lengths and shapes against sums, and there and back again.

#include <cufft.h>

#include <algorithm>
#include <complex>

#include "cases.h"

namespace {

using Complex = std::complex<float>;

std::vector<Complex> signal(size_t count) {
  Numbers numbers(11);
  std::vector<Complex> values(count);
  for (Complex& value : values) {
    const float real = numbers.next();
    value = {real, numbers.next()};
  }
  return values;
}

// Real and imaginary parts by turns.
template <typename T>
std::vector<T> parts(const std::vector<Complex>& values) {
  std::vector<T> out;
  for (const Complex& value : values) {
    out.push_back(value.real());
    out.push_back(value.imag());
  }
  return out;
}

// The interleaved parts of what a transform by sums gives.
std::vector<double> summed(const std::vector<Complex>& in, int length) {
  std::vector<double> out;
  for (size_t begin = 0; begin < in.size(); begin += length) {
    for (int k = 0; k < length; ++k) {
      std::complex<double> sum = 0;
      for (int i = 0; i < length; ++i) {
        const double turn = -2 * M_PI * static_cast<double>(static_cast<int64_t>(k) * i % length) / length;
        sum += std::complex<double>(in[begin + i]) * std::polar(1.0, turn);
      }
      out.push_back(sum.real());
      out.push_back(sum.imag());
    }
  }
  return out;
}

std::string transform(int length, int batch) {
  const std::vector<Complex> in = signal(static_cast<size_t>(length) * batch);
  Buffer<float> data(parts<float>(in));
  cufftHandle plan = 0;
  TRY(cufftPlan1d(&plan, length, CUFFT_C2C, batch));
  auto* values = reinterpret_cast<cufftComplex*>(data.data());
  TRY(cufftExecC2C(plan, values, values, CUFFT_FORWARD));
  TRY(cudaDeviceSynchronize());
  TRY(cufftDestroy(plan));
  return compare(data.read(), summed(in, length), 1e-4);
}

// There and back gives every value as often as there are values.
std::string round_trip(cufftHandle plan, size_t count) {
  const std::vector<Complex> in = signal(count);
  Buffer<float> data(parts<float>(in));
  cudaStream_t stream = nullptr;
  auto* values = reinterpret_cast<cufftComplex*>(data.data());
  TRY(cudaStreamCreate(&stream));
  TRY(cudaDeviceSynchronize());
  TRY(cufftSetStream(plan, stream));
  TRY(cufftExecC2C(plan, values, values, CUFFT_FORWARD));
  TRY(cufftExecC2C(plan, values, values, CUFFT_INVERSE));
  TRY(cudaStreamSynchronize(stream));
  TRY(cufftDestroy(plan));
  TRY(cudaStreamDestroy(stream));
  std::vector<float> got = data.read();
  for (float& value : got) value /= static_cast<float>(count);
  return compare(got, parts<double>(in), 1e-5);
}

std::string powers_of_two() {
  const std::string problem = transform(64, 5);
  return problem.empty() ? transform(1024, 1) : problem;
}
std::string small_factors() { return transform(360, 2); }
std::string a_prime() { return transform(1009, 1); }

std::string two_dimensions() {
  cufftHandle plan = 0;
  TRY(cufftPlan2d(&plan, 64, 32, CUFFT_C2C));
  return round_trip(plan, 64 * 32);
}

std::string three_dimensions() {
  cufftHandle plan = 0;
  TRY(cufftPlan3d(&plan, 8, 16, 12, CUFFT_C2C));
  return round_trip(plan, 8 * 16 * 12);
}

// Real to complex and back, in a work area of the program's.
std::string real_numbers() {
  int length = 512;
  constexpr int kBatch = 3;
  Numbers numbers(13);
  const std::vector<float> in = numbers.vector(length * kBatch);
  Buffer<float> data(in), middle(2 * (512 / 2 + 1) * kBatch);
  cufftHandle there = 0, back = 0;
  size_t bytes = 0, more = 0;
  TRY(cufftCreate(&there));
  TRY(cufftCreate(&back));
  TRY(cufftSetAutoAllocation(there, 0));
  TRY(cufftSetAutoAllocation(back, 0));
  TRY(cufftMakePlanMany(there, 1, &length, nullptr, 1, length, nullptr, 1, length / 2 + 1, CUFFT_R2C, kBatch, &bytes));
  TRY(cufftMakePlanMany(back, 1, &length, nullptr, 1, length / 2 + 1, nullptr, 1, length, CUFFT_C2R, kBatch, &more));
  Buffer<char> area(std::max({bytes, more, size_t{1}}));
  TRY(cufftSetWorkArea(there, area.data()));
  TRY(cufftSetWorkArea(back, area.data()));
  TRY(cufftExecR2C(there, data.data(), reinterpret_cast<cufftComplex*>(middle.data())));
  TRY(cufftExecC2R(back, reinterpret_cast<cufftComplex*>(middle.data()), data.data()));
  TRY(cudaDeviceSynchronize());
  TRY(cufftDestroy(there));
  TRY(cufftDestroy(back));
  std::vector<float> got = data.read();
  for (float& value : got) value /= 512;
  return compare(got, std::vector<double>(in.begin(), in.end()), 1e-5);
}

std::string wrong_plans_are_refused() {
  cufftHandle plan = 0;
  if (cufftPlan1d(&plan, 0, CUFFT_C2C, 1) == CUFFT_SUCCESS) return "a plan of no elements was made";
  if (cufftDestroy(12345) == CUFFT_SUCCESS) return "a plan that there is not was destroyed";
  return "";
}

const std::vector<Case> kCases = {{"powers_of_two", powers_of_two},
                                  {"small_factors", small_factors},
                                  {"a_prime", a_prime},
                                  {"two_dimensions", two_dimensions},
                                  {"three_dimensions", three_dimensions},
                                  {"real_numbers", real_numbers},
                                  {"wrong_plans_are_refused", wrong_plans_are_refused}};

}  // namespace

int main(int argc, char** argv) { return run_cases(kCases, argc, argv); }
