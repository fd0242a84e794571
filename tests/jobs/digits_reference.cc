// The arithmetic of train_digits.cu once more, on the CPU and in double precision, written independently of it: prints
// the same lines, so that a test can compare the losses within a tolerance.
//
//   digits_reference FILE [STEPS [SEED [BATCH]]]

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr int kInputs = 64, kUnits = 64, kDigits = 10, kHeldBack = 297;
constexpr double kRate = 0.2, kMomentum = 0.9;

struct Sample {
  double pixel[kInputs];
  int digit;
};

// The same sequence as in the program under test: it decides the weights and the order of the images.
class Sequence {
 public:
  explicit Sequence(uint64_t seed) : state_(seed) {}
  uint32_t next() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state_ >> 33);
  }
  void shuffle(std::vector<int>* order) {
    for (size_t i = order->size() - 1; i > 0; i--) std::swap((*order)[i], (*order)[next() % (i + 1)]);
  }
  double weight(double limit) {
    return static_cast<float>(limit) * (static_cast<float>(next()) / 1073741824.0f - 1.0f);
  }

 private:
  uint64_t state_;
};

std::vector<Sample> read_samples(const char* path) {
  std::vector<Sample> samples;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream cells(line);
    Sample sample;
    std::string cell;
    for (double& pixel : sample.pixel) {
      std::getline(cells, cell, ',');
      pixel = std::atoi(cell.c_str()) / 16.0;
    }
    std::getline(cells, cell, ',');
    sample.digit = std::atoi(cell.c_str());
    samples.push_back(sample);
  }
  return samples;
}

struct Layer {
  int inputs, outputs;
  std::vector<double> weights, speed, slope;  // inputs x outputs, then the biases

  Layer(int in, int out) : inputs(in), outputs(out) {
    for (auto* vector : {&weights, &speed, &slope}) vector->assign(static_cast<size_t>((in + 1) * out), 0.0);
  }
  void draw(Sequence* sequence) {
    const double limit = std::sqrt(6.0 / (inputs + outputs));
    for (int i = 0; i < inputs * outputs; i++) weights[i] = sequence->weight(limit);
  }
  void forward(const double* in, double* out) const {
    for (int o = 0; o < outputs; o++) {
      out[o] = weights[inputs * outputs + o];
      for (int i = 0; i < inputs; i++) out[o] += in[i] * weights[i * outputs + o];
    }
  }
  void learn(const double* in, const double* error) {
    for (int o = 0; o < outputs; o++) {
      for (int i = 0; i < inputs; i++) slope[i * outputs + o] += in[i] * error[o];
      slope[inputs * outputs + o] += error[o];
    }
  }
  void backward(const double* error, double* in_error) const {
    for (int i = 0; i < inputs; i++) {
      in_error[i] = 0;
      for (int o = 0; o < outputs; o++) in_error[i] += error[o] * weights[i * outputs + o];
    }
  }
  void step() {
    for (size_t i = 0; i < weights.size(); i++) {
      speed[i] = kMomentum * speed[i] - kRate * slope[i];
      weights[i] += speed[i];
      slope[i] = 0;
    }
  }
};

struct Network {
  Layer first{kInputs, kUnits}, second{kUnits, kDigits};
  double units[kUnits], scores[kDigits];

  // Leaves probabilities in `scores`; returns the cross-entropy.
  double look(const Sample& sample) {
    first.forward(sample.pixel, units);
    for (double& unit : units) unit = std::max(unit, 0.0);
    second.forward(units, scores);
    const double top = *std::max_element(scores, scores + kDigits);
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - top);
    for (double& score : scores) score /= total;
    return -std::log(scores[sample.digit]);
  }
  void learn(const Sample& sample, double share) {
    double error[kDigits], unit_error[kUnits];
    for (int c = 0; c < kDigits; c++) error[c] = (scores[c] - (c == sample.digit)) * share;
    second.backward(error, unit_error);
    for (int j = 0; j < kUnits; j++) unit_error[j] *= units[j] > 0;
    second.learn(units, error);
    first.learn(sample.pixel, unit_error);
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const int steps = argc > 2 ? std::atoi(argv[2]) : 300;
  Sequence sequence(argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1);
  const int batch = argc > 4 ? std::atoi(argv[4]) : 128;
  const std::vector<Sample> samples = read_samples(argv[1]);
  if (samples.size() != 1797) return 2;

  std::vector<int> order(samples.size());
  std::iota(order.begin(), order.end(), 0);
  sequence.shuffle(&order);
  const std::vector<int> test(order.begin(), order.begin() + kHeldBack);
  order.erase(order.begin(), order.begin() + kHeldBack);

  Network network;
  network.first.draw(&sequence);
  network.second.draw(&sequence);
  size_t next = 0;
  for (int step = 0; step < steps; step++) {
    if (next + batch > order.size()) next = 0;
    if (next == 0) sequence.shuffle(&order);
    double loss = 0;
    for (int i = 0; i < batch; i++) {
      const Sample& sample = samples[order[next + i]];
      loss += network.look(sample);
      network.learn(sample, 1.0 / batch);
    }
    network.first.step();
    network.second.step();
    next += batch;
    std::printf("step %d loss %.9g\n", step, loss / batch);
  }
  int hits = 0;
  for (int i : test) {
    network.look(samples[i]);
    hits += std::max_element(network.scores, network.scores + kDigits) - network.scores == samples[i].digit;
  }
  std::printf("test accuracy %.2f %%\n", 100.0 * hits / kHeldBack);
  return 0;
}
