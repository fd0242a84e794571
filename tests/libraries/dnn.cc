// cuDNN's operations against plain loops: those without a convolution, and the convolution that it offers.

#include <cudnn.h>

#include <functional>

#include "cases.h"

namespace {

constexpr int kN = 2, kC = 6, kH = 9, kW = 10;
constexpr int kCount = kN * kC * kH * kW;

cudnnHandle_t handle() {
  static cudnnHandle_t made = nullptr;
  if (made == nullptr && cudnnCreate(&made) != CUDNN_STATUS_SUCCESS) made = nullptr;
  return made;
}

cudnnTensorDescriptor_t tensor(int n, int c, int h, int w) {
  cudnnTensorDescriptor_t made = nullptr;
  cudnnCreateTensorDescriptor(&made);
  cudnnSetTensor4dDescriptor(made, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, n, c, h, w);
  return made;
}

cudnnTensorDescriptor_t tensor() { return tensor(kN, kC, kH, kW); }

size_t at(int n, int c, int h, int w) { return ((static_cast<size_t>(n) * kC + c) * kH + h) * kW + w; }

const float kOne = 1, kZero = 0;

std::string softmax() {
  const auto hx = Numbers(41).vector(kCount);
  Buffer<float> x(hx), y(kCount);
  TRY(cudnnSoftmaxForward(handle(), CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_CHANNEL, &kOne, tensor(), x.data(),
                          &kZero, tensor(), y.data()));
  std::vector<double> expected(kCount);
  for (int n = 0; n < kN; ++n) {
    for (int p = 0; p < kH * kW; ++p) {
      double sum = 0;
      for (int c = 0; c < kC; ++c) sum += std::exp(static_cast<double>(hx[at(n, c, 0, p)]));
      for (int c = 0; c < kC; ++c) expected[at(n, c, 0, p)] = std::exp(static_cast<double>(hx[at(n, c, 0, p)])) / sum;
    }
  }
  return compare(y.read(), expected, 1e-5);
}

std::string softmax_backward() {
  const auto hx = Numbers(42).vector(kCount), hdy = Numbers(43).vector(kCount);
  Buffer<float> x(hx), y(kCount), dy(hdy), dx(kCount);
  TRY(cudnnSoftmaxForward(handle(), CUDNN_SOFTMAX_LOG, CUDNN_SOFTMAX_MODE_INSTANCE, &kOne, tensor(), x.data(), &kZero,
                          tensor(), y.data()));
  TRY(cudnnSoftmaxBackward(handle(), CUDNN_SOFTMAX_LOG, CUDNN_SOFTMAX_MODE_INSTANCE, &kOne, tensor(), y.data(),
                           tensor(), dy.data(), &kZero, tensor(), dx.data()));
  std::vector<double> expected(kCount);
  const int size = kC * kH * kW;
  for (int n = 0; n < kN; ++n) {
    double sum = 0, slopes = 0;
    for (int i = 0; i < size; ++i) {
      sum += std::exp(static_cast<double>(hx[n * size + i]));
      slopes += hdy[n * size + i];
    }
    for (int i = 0; i < size; ++i) {
      expected[n * size + i] = hdy[n * size + i] - std::exp(static_cast<double>(hx[n * size + i])) / sum * slopes;
    }
  }
  return compare(dx.read(), expected, 1e-4);
}

std::string activation(cudnnActivationMode_t mode, const std::function<double(double)>& function) {
  const auto hx = Numbers(44).vector(kCount);
  Buffer<float> x(hx), y(kCount);
  cudnnActivationDescriptor_t what = nullptr;
  TRY(cudnnCreateActivationDescriptor(&what));
  TRY(cudnnSetActivationDescriptor(what, mode, CUDNN_NOT_PROPAGATE_NAN,
                                   mode == CUDNN_ACTIVATION_CLIPPED_RELU ? 0.5 : 1));
  TRY(cudnnActivationForward(handle(), what, &kOne, tensor(), x.data(), &kZero, tensor(), y.data()));
  std::vector<double> expected;
  for (const float value : hx) expected.push_back(function(value));
  return compare(y.read(), expected, 1e-5);
}

std::string activations() {
  const std::string relu = activation(CUDNN_ACTIVATION_RELU, [](double x) { return std::fmax(x, 0); });
  const std::string sigmoid = activation(CUDNN_ACTIVATION_SIGMOID, [](double x) { return 1 / (1 + std::exp(-x)); });
  const std::string tangent = activation(CUDNN_ACTIVATION_TANH, [](double x) { return std::tanh(x); });
  const std::string elu = activation(CUDNN_ACTIVATION_ELU, [](double x) { return x > 0 ? x : std::expm1(x); });
  for (const std::string& problem : {relu, sigmoid, tangent, elu}) {
    if (!problem.empty()) return problem;
  }
  return activation(CUDNN_ACTIVATION_CLIPPED_RELU, [](double x) { return std::fmin(std::fmax(x, 0), 0.5); });
}

// 3 x 3 windows with stride 2 and a border of 1.
std::string pooling(cudnnPoolingMode_t mode, bool largest) {
  constexpr int oh = (kH + 2 - 3) / 2 + 1, ow = (kW + 2 - 3) / 2 + 1;
  const auto hx = Numbers(45).vector(kCount);
  Buffer<float> x(hx), y(static_cast<size_t>(kN) * kC * oh * ow);
  cudnnPoolingDescriptor_t what = nullptr;
  TRY(cudnnCreatePoolingDescriptor(&what));
  TRY(cudnnSetPooling2dDescriptor(what, mode, CUDNN_NOT_PROPAGATE_NAN, 3, 3, 1, 1, 2, 2));
  TRY(cudnnPoolingForward(handle(), what, &kOne, tensor(), x.data(), &kZero, tensor(kN, kC, oh, ow), y.data()));
  std::vector<double> expected;
  for (int plane = 0; plane < kN * kC; ++plane) {
    for (int i = 0; i < oh; ++i) {
      for (int j = 0; j < ow; ++j) {
        double best = -1e30, sum = 0;
        for (int h = 2 * i - 1; h < 2 * i + 2; ++h) {
          for (int w = 2 * j - 1; w < 2 * j + 2; ++w) {
            if (h < 0 || w < 0 || h >= kH || w >= kW) continue;
            best = std::fmax(best, hx[at(0, plane, h, w)]);
            sum += hx[at(0, plane, h, w)];
          }
        }
        expected.push_back(largest ? best : sum / 9);
      }
    }
  }
  return compare(y.read(), expected, 1e-5);
}

std::string max_pooling() { return pooling(CUDNN_POOLING_MAX, true); }
std::string average_pooling() { return pooling(CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING, false); }

struct Moments {
  std::vector<double> mean, variance;
};

Moments moments(const std::vector<float>& x) {
  Moments m{std::vector<double>(kC), std::vector<double>(kC)};
  constexpr double count = kN * kH * kW;
  for (int c = 0; c < kC; ++c) {
    for (int n = 0; n < kN; ++n) {
      for (int p = 0; p < kH * kW; ++p) m.mean[c] += x[at(n, c, 0, p)] / count;
    }
    for (int n = 0; n < kN; ++n) {
      for (int p = 0; p < kH * kW; ++p) m.variance[c] += std::pow(x[at(n, c, 0, p)] - m.mean[c], 2) / count;
    }
  }
  return m;
}

std::string batch_norm() {
  constexpr double epsilon = 1e-3;
  const auto hx = Numbers(46).vector(kCount), hscale = Numbers(47).vector(kC), hbias = Numbers(48).vector(kC);
  Buffer<float> x(hx), y(kCount), scale(hscale), bias(hbias), mean(std::vector<float>(kC, 0.0f)),
      variance(std::vector<float>(kC, 0.0f)), saved_mean(kC), saved_inverse(kC);
  TRY(cudnnBatchNormalizationForwardTraining(
      handle(), CUDNN_BATCHNORM_SPATIAL, &kOne, &kZero, tensor(), x.data(), tensor(), y.data(), tensor(1, kC, 1, 1),
      scale.data(), bias.data(), 1.0, mean.data(), variance.data(), epsilon, saved_mean.data(), saved_inverse.data()));
  const Moments m = moments(hx);
  std::vector<double> expected(kCount);
  for (int n = 0; n < kN; ++n) {
    for (int c = 0; c < kC; ++c) {
      for (int p = 0; p < kH * kW; ++p) {
        expected[at(n, c, 0, p)] =
            hscale[c] * (hx[at(n, c, 0, p)] - m.mean[c]) / std::sqrt(m.variance[c] + epsilon) + hbias[c];
      }
    }
  }
  std::string problem = compare(y.read(), expected, 1e-4);
  if (problem.empty()) problem = compare(mean.read(), m.mean, 1e-5);
  if (!problem.empty()) return "training: " + problem;
  // With the batch's own moments the inference gives the same.
  Buffer<float> exact_mean(convert<float>(m.mean)), exact_variance(convert<float>(m.variance));
  TRY(cudnnBatchNormalizationForwardInference(handle(), CUDNN_BATCHNORM_SPATIAL, &kOne, &kZero, tensor(), x.data(),
                                              tensor(), y.data(), tensor(1, kC, 1, 1), scale.data(), bias.data(),
                                              exact_mean.data(), exact_variance.data(), epsilon));
  return compare(y.read(), expected, 1e-4);
}

std::string batch_norm_backward() {
  constexpr double epsilon = 1e-3;
  const auto hx = Numbers(49).vector(kCount), hdy = Numbers(50).vector(kCount);
  Buffer<float> x(hx), dy(hdy), dx(kCount), scale(std::vector<float>(kC, 2.0f)), dscale(kC), dbias(kC);
  TRY(cudnnBatchNormalizationBackward(handle(), CUDNN_BATCHNORM_SPATIAL, &kOne, &kZero, &kOne, &kZero, tensor(),
                                      x.data(), tensor(), dy.data(), tensor(), dx.data(), tensor(1, kC, 1, 1),
                                      scale.data(), dscale.data(), dbias.data(), epsilon, nullptr, nullptr));
  const Moments m = moments(hx);
  std::vector<double> scales(kC), biases(kC);
  for (int n = 0; n < kN; ++n) {
    for (int c = 0; c < kC; ++c) {
      for (int p = 0; p < kH * kW; ++p) {
        biases[c] += hdy[at(n, c, 0, p)];
        scales[c] += hdy[at(n, c, 0, p)] * (hx[at(n, c, 0, p)] - m.mean[c]) / std::sqrt(m.variance[c] + epsilon);
      }
    }
  }
  const std::string problem = compare(dscale.read(), scales, 1e-4);
  return problem.empty() ? compare(dbias.read(), biases, 1e-4) : problem;
}

std::string add_and_scale() {
  const auto hx = Numbers(51).vector(kCount), hb = Numbers(52).vector(kC);
  Buffer<float> x(hx), b(hb);
  const float half = 0.5f;
  TRY(cudnnAddTensor(handle(), &kOne, tensor(1, kC, 1, 1), b.data(), &kOne, tensor(), x.data()));
  TRY(cudnnScaleTensor(handle(), tensor(), x.data(), &half));
  std::vector<double> expected(kCount);
  for (int i = 0; i < kCount; ++i) expected[i] = 0.5 * (hx[i] + hb[i / (kH * kW) % kC]);
  return compare(x.read(), expected, 1e-6);
}

std::string reduce() {
  const auto hx = Numbers(53).vector(kCount);
  Buffer<float> x(hx), y(kC), work(1 << 20);
  cudnnReduceTensorDescriptor_t what = nullptr;
  TRY(cudnnCreateReduceTensorDescriptor(&what));
  TRY(cudnnSetReduceTensorDescriptor(what, CUDNN_REDUCE_TENSOR_ADD, CUDNN_DATA_FLOAT, CUDNN_NOT_PROPAGATE_NAN,
                                     CUDNN_REDUCE_TENSOR_NO_INDICES, CUDNN_32BIT_INDICES));
  TRY(cudnnReduceTensor(handle(), what, nullptr, 0, work.data(), 4 << 20, &kOne, tensor(), x.data(), &kZero,
                        tensor(1, kC, 1, 1), y.data()));
  std::vector<double> expected(kC);
  for (int i = 0; i < kCount; ++i) expected[i / (kH * kW) % kC] += hx[i];
  return compare(y.read(), expected, 1e-4);
}

// 3 x 3, border 1, 6 channels to 4; `algorithm` as in cudnnConvolutionFwdAlgo_t.
std::string convolution(cudnnConvolutionFwdAlgo_t algorithm) {
  constexpr int kOut = 4;
  const auto hx = Numbers(54).vector(kCount), hf = Numbers(55).vector(kOut * kC * 9);
  Buffer<float> x(hx), f(hf), y(static_cast<size_t>(kN) * kOut * kH * kW);
  cudnnFilterDescriptor_t filter = nullptr;
  cudnnConvolutionDescriptor_t what = nullptr;
  TRY(cudnnCreateFilterDescriptor(&filter));
  TRY(cudnnSetFilter4dDescriptor(filter, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, kOut, kC, 3, 3));
  TRY(cudnnCreateConvolutionDescriptor(&what));
  TRY(cudnnSetConvolution2dDescriptor(what, 1, 1, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
  TRY(cudnnSetConvolutionMathType(what, CUDNN_FMA_MATH));
  const auto out = tensor(kN, kOut, kH, kW);
  size_t bytes = 0;
  TRY(cudnnGetConvolutionForwardWorkspaceSize(handle(), tensor(), filter, what, out, algorithm, &bytes));
  Buffer<char> work(bytes + 1);
  TRY(cudnnConvolutionForward(handle(), &kOne, tensor(), x.data(), filter, f.data(), what, algorithm, work.data(),
                              bytes, &kZero, out, y.data()));
  std::vector<double> expected;
  for (int n = 0; n < kN; ++n) {
    for (int o = 0; o < kOut; ++o) {
      for (int i = 0; i < kH * kW; ++i) {
        double sum = 0;
        for (int tap = 0; tap < kC * 9; ++tap) {
          const int c = tap / 9, h = i / kW + tap % 9 / 3 - 1, w = i % kW + tap % 3 - 1;
          if (h >= 0 && w >= 0 && h < kH && w < kW)
            sum += static_cast<double>(hx[at(n, c, h, w)]) * hf[o * kC * 9 + tap];
        }
        expected.push_back(sum);
      }
    }
  }
  return compare(y.read(), expected, 1e-4);
}

std::string convolution_implicit_gemm() { return convolution(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM); }
std::string convolution_precomputed() { return convolution(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM); }
std::string convolution_gemm() { return convolution(CUDNN_CONVOLUTION_FWD_ALGO_GEMM); }

}  // namespace

int main(int argc, char** argv) {
  return run_cases({{"softmax", softmax},
                    {"softmax_backward", softmax_backward},
                    {"activations", activations},
                    {"max_pooling", max_pooling},
                    {"average_pooling", average_pooling},
                    {"batch_norm", batch_norm},
                    {"batch_norm_backward", batch_norm_backward},
                    {"add_and_scale", add_and_scale},
                    {"reduce", reduce},
                    {"convolution_implicit_gemm", convolution_implicit_gemm},
                    {"convolution_precomputed", convolution_precomputed},
                    {"convolution_gemm", convolution_gemm}},
                   argc, argv);
}
