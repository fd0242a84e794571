// A training step of the shape that small models have in an eager framework: about 140 small launches, each on what the
// one before it made, and one loss of 4 bytes that the program reads before it goes on. Prints the median time of a
// step.
//   ./launch_bound [--launches N] [--steps N] [--warm-up N] [--gates 1]

#include <algorithm>
#include <vector>

#include "job.h"

namespace {

constexpr int kThreads = 64;

// One operation: whole numbers, so that host and device agree to the bit.
__global__ void operation(unsigned* to, const unsigned* from, const unsigned* weights, unsigned number) {
  const int i = threadIdx.x;
  to[i] = from[i] * weights[i] + from[(i + 1) % kThreads] + number;
}

__global__ void loss_of(unsigned* loss, const unsigned* from) {
  unsigned sum = 0;
  for (int i = 0; i < kThreads; i++) sum += from[i];
  *loss = sum;
}

struct Model {
  unsigned *values[2], *weights, *loss;
};

unsigned weight(int i) { return 2u * (unsigned)i + 3; }

Model make_model() {
  Model model;
  std::vector<unsigned> weights(kThreads);
  for (int i = 0; i < kThreads; i++) weights[i] = weight(i);
  for (unsigned** values : {&model.values[0], &model.values[1], &model.weights}) {
    CHECK(cudaMalloc(values, kThreads * sizeof(unsigned)));
    CHECK(cudaMemset(*values, 0, kThreads * sizeof(unsigned)));
  }
  CHECK(cudaMalloc(&model.loss, sizeof(unsigned)));
  CHECK(cudaMemcpy(model.weights, weights.data(), kThreads * sizeof(unsigned), cudaMemcpyHostToDevice));
  return model;
}

// `before`: the loss of the last step, which is why the program has to wait for it.
unsigned device_step(const Model& model, int launches, unsigned before, cudaStream_t stream) {
  for (int i = 0; i + 1 < launches; i++) {
    operation<<<1, kThreads, 0, stream>>>(model.values[(i + 1) % 2], model.values[i % 2], model.weights, before + i);
  }
  loss_of<<<1, 1, 0, stream>>>(model.loss, model.values[(launches - 1) % 2]);
  CHECK(cudaGetLastError());
  unsigned loss = 0;
  CHECK(cudaMemcpyAsync(&loss, model.loss, sizeof loss, cudaMemcpyDeviceToHost, stream));
  CHECK(cudaStreamSynchronize(stream));
  return loss;
}

unsigned host_step(std::vector<unsigned> values[2], int launches, unsigned before) {
  for (int i = 0; i + 1 < launches; i++) {
    const std::vector<unsigned>& from = values[i % 2];
    for (int t = 0; t < kThreads; t++) {
      values[(i + 1) % 2][t] = from[t] * weight(t) + from[(t + 1) % kThreads] + before + (unsigned)i;
    }
  }
  unsigned sum = 0;
  for (unsigned value : values[(launches - 1) % 2]) sum += value;
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  const int launches = (int)option(argc, argv, "--launches", 140), steps = (int)option(argc, argv, "--steps", 50);
  const int warm_up = (int)option(argc, argv, "--warm-up", 5);
  const bool gates = option(argc, argv, "--gates", 0) != 0;
  if (launches < 2 || steps < 1 || warm_up < 0) return 2;
  cudaStream_t stream;
  const Model model = make_model();
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaDeviceSynchronize());

  std::vector<unsigned> values[2] = {std::vector<unsigned>(kThreads), std::vector<unsigned>(kThreads)};
  std::vector<double> times;
  unsigned loss = 0, expected = 0;
  for (int step = 0; step < warm_up + steps; step++) {
    if (gates && step == warm_up) gate("begin");
    const double began = now_seconds();
    loss = device_step(model, launches, loss, stream);
    if (step >= warm_up) times.push_back(now_seconds() - began);
    expected = host_step(values, launches, expected);
    EXPECT(loss == expected, "step %d: %u, not %u", step, loss, expected);
  }
  if (gates) gate("end");
  std::sort(times.begin(), times.end());
  printf("step_us %.1f\nbest_us %.1f\nlaunches %d\nreads 1\nsteps %d\n", 1e6 * times[times.size() / 2], 1e6 * times[0],
         launches, steps);
  return verdict("launch_bound");
}
