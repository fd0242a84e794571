// Trains a small network (64-64-10) on 8 x 8 handwritten digits, data-parallel over all devices. An ordinary CUDA
// runtime program: it knows nothing of Tidepool. For a number of devices its output is a fixed function of the seed:
// no float atomics, every sum in a fixed order. It leans on what a move of a device could break: device pointers that
// lie in device memory, copies between devices, several streams and events per device, pinned memory.
//
//   nvcc -O2 train_digits.cu -o train_digits
//   ./train_digits [--gpus N] [--steps N] [--batch N] [--seed N] [--step-ms N] [--data FILE] [--quiet] [--measured N]
//
// With --measured, it prints what one of the last N steps took, and at their beginning and end waits for a line of
// input.

#include <cuda_runtime.h>
#include <libgen.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

constexpr int kPixels = 64;
constexpr int kHidden = 64;
constexpr int kClasses = 10;
constexpr int kTestImages = 297;  // 1,500 remain to train on
constexpr float kRate = 0.2f;
constexpr float kMomentum = 0.9f;
constexpr int kSlots = 2;  // steps in flight

void check(cudaError_t error, const char* what, int line) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "train_digits: line %d: %s: %s (%d)\n", line, what, cudaGetErrorString(error),
          static_cast<int>(error));
  exit(1);
}
#define CHECK(call) check((call), #call, __LINE__)

// The parameters are four tensors; one flat vector of this length holds a copy of all their gradients.
enum { kW1, kB1, kW2, kB2, kTensors };
constexpr int kCounts[kTensors] = {kPixels * kHidden, kHidden, kHidden* kClasses, kClasses};
constexpr int kParameters = kCounts[0] + kCounts[1] + kCounts[2] + kCounts[3];

struct Tensor {
  float* value;
  float* velocity;
  int count;
  int offset;  // of its gradient in the flat vector
};

// Lies in device memory, and so do the arrays that it points to.
struct Model {
  Tensor* tensors;
  float** gathered;  // one flat gradient vector per device
  int devices;
};

__global__ void hidden_layer(const Model* model, const float* images, float* hidden, int rows) {
  __shared__ float image[kPixels];
  const float* w1 = model->tensors[kW1].value;
  const int row = blockIdx.x;
  if (row >= rows) return;
  image[threadIdx.x] = images[row * kPixels + threadIdx.x];
  __syncthreads();
  float sum = model->tensors[kB1].value[threadIdx.x];
#pragma unroll 8
  for (int k = 0; k < kPixels; k++) sum = fmaf(image[k], w1[k * kHidden + threadIdx.x], sum);
  hidden[row * kHidden + threadIdx.x] = fmaxf(sum, 0.0f);
}

// One warp a row: class scores, softmax, cross-entropy, and its derivative by the scores.
__global__ void output_layer(const Model* model, const float* hidden, const int* labels, float* delta, float* losses,
                             int* hits, int rows, float scale) {
  const float* w2 = model->tensors[kW2].value;
  const int row = blockIdx.x;
  const int c = threadIdx.x;
  if (row >= rows) return;
  __shared__ float scores[kClasses];
  if (c < kClasses) {
    float sum = model->tensors[kB2].value[c];
#pragma unroll 8
    for (int j = 0; j < kHidden; j++) sum = fmaf(hidden[row * kHidden + j], w2[j * kClasses + c], sum);
    scores[c] = sum;
  }
  __syncthreads();
  float top = scores[0];
  for (int i = 1; i < kClasses; i++) top = fmaxf(top, scores[i]);
  float total = 0.0f;
  for (int i = 0; i < kClasses; i++) total += expf(scores[i] - top);
  const int label = labels[row];
  if (c < kClasses) {
    const float probability = expf(scores[c] - top) / total;
    delta[row * kClasses + c] = (probability - (c == label ? 1.0f : 0.0f)) * scale;
  }
  const unsigned best = __ballot_sync(0xffffffffu, c < kClasses && scores[c < kClasses ? c : 0] == top);
  if (c == 0) {
    losses[row] = logf(total) - (scores[label] - top);
    hits[row] = __ffs(best) - 1 == label;
  }
}

__global__ void hidden_delta(const Model* model, const float* hidden, const float* delta, float* hidden_delta,
                             int rows) {
  const float* w2 = model->tensors[kW2].value;
  const int row = blockIdx.x;
  if (row >= rows) return;
  float sum = 0.0f;
  for (int c = 0; c < kClasses; c++) sum = fmaf(delta[row * kClasses + c], w2[threadIdx.x * kClasses + c], sum);
  hidden_delta[row * kHidden + threadIdx.x] = hidden[row * kHidden + threadIdx.x] > 0.0f ? sum : 0.0f;
}

// Block k < 64 makes row k of the gradient of W1, block 64 that of b1, block 65 + j row j of W2, the last one b2.
__global__ void gradients(const Model* model, const float* images, const float* hidden, const float* delta,
                          const float* hidden_delta, float* flat, int rows) {
  const int block = blockIdx.x;
  const int t = threadIdx.x;
  float sum = 0.0f;
  if (block <= kPixels) {
    for (int row = 0; row < rows; row++) {
      const float input = block < kPixels ? images[row * kPixels + block] : 1.0f;
      sum = fmaf(input, hidden_delta[row * kHidden + t], sum);
    }
    flat[block < kPixels ? block * kHidden + t : model->tensors[kB1].offset + t] = sum;
    return;
  }
  if (t >= kClasses) return;
  const int j = block - kPixels - 1;
  for (int row = 0; row < rows; row++) {
    const float input = j < kHidden ? hidden[row * kHidden + j] : 1.0f;
    sum = fmaf(input, delta[row * kClasses + t], sum);
  }
  flat[j < kHidden ? model->tensors[kW2].offset + j * kClasses + t : model->tensors[kB2].offset + t] = sum;
}

// Adds the gradients of all devices in the order of the devices, so that every replica stays the same to the bit.
__global__ void update(Model* model, float rate, float momentum) {
  Tensor tensor = model->tensors[blockIdx.y];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= tensor.count) return;
  float gradient = 0.0f;
  for (int d = 0; d < model->devices; d++) gradient += model->gathered[d][tensor.offset + i];
  const float velocity = fmaf(momentum, tensor.velocity[i], -rate * gradient);
  tensor.velocity[i] = velocity;
  tensor.value[i] += velocity;
}

struct Options {
  int gpus = 0;
  int steps = 300;
  int batch = 128;
  unsigned seed = 1;
  int step_ms = 0;
  bool quiet = false;
  int measured = 0;
  std::string data;
};

struct Digits {
  std::vector<float> images;  // kPixels each, 0 to 1
  std::vector<int> labels;
  int count() const { return static_cast<int>(labels.size()); }
};

struct Random {
  uint64_t state;
  uint32_t next() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state >> 33);
  }
  float symmetric() { return static_cast<float>(next()) / 1073741824.0f - 1.0f; }  // [-1, 1)
};

// What a step uses that the host fills or reads; one per step in flight.
struct Slot {
  float* images;       // device
  int* labels;         // device
  float* host_images;  // pinned
  int* host_labels;    // pinned
  float* host_losses;  // pinned
  cudaEvent_t uploaded, consumed, finished;
};

struct Device {
  int index = 0, first_row = 0, rows = 0;  // its share of the batch
  cudaStream_t compute, upload, exchange;
  cudaEvent_t gradients_ready, gradients_sent, updated;
  Tensor tensors[kTensors];
  Model* model;
  float *hidden, *delta, *hidden_delta, *losses, *flat;
  std::vector<float*> gathered;
  int* hits;
  Slot slots[kSlots];
};

template <typename T>
T* device_array(size_t count) {
  void* pointer = nullptr;
  CHECK(cudaMalloc(&pointer, count * sizeof(T)));
  return static_cast<T*>(pointer);
}

template <typename T>
T* device_copy(const T* host, size_t count) {
  T* pointer = device_array<T>(count);
  CHECK(cudaMemcpy(pointer, host, count * sizeof(T), cudaMemcpyHostToDevice));
  return pointer;
}

template <typename T>
T* pinned_array(size_t count) {
  void* pointer = nullptr;
  CHECK(cudaMallocHost(&pointer, count * sizeof(T)));
  return static_cast<T*>(pointer);
}

cudaEvent_t make_event() {
  cudaEvent_t event;
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

std::string beside_the_program(const char* name) {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length < 0) return name;
  path[length] = 0;
  return std::string(dirname(path)) + "/" + name;
}

bool load(const std::string& path, Digits* digits) {
  FILE* file = fopen(path.c_str(), "r");
  if (file == nullptr) return false;
  int value = 0;
  for (int column = 0; fscanf(file, "%d%*[,\n]", &value) == 1; column = (column + 1) % (kPixels + 1)) {
    if (column < kPixels) digits->images.push_back(static_cast<float>(value) / 16.0f);
    if (column == kPixels) digits->labels.push_back(value);
  }
  fclose(file);
  return digits->count() > kTestImages && digits->images.size() == digits->labels.size() * kPixels;
}

void shuffle(std::vector<int>* order, Random* random) {
  for (size_t i = order->size() - 1; i > 0; i--) std::swap((*order)[i], (*order)[random->next() % (i + 1)]);
}

void make_device(Device* device, const Options& options, const std::vector<float>& weights) {
  CHECK(cudaSetDevice(device->index));
  CHECK(cudaStreamCreateWithFlags(&device->compute, cudaStreamNonBlocking));
  CHECK(cudaStreamCreateWithFlags(&device->upload, cudaStreamNonBlocking));
  CHECK(cudaStreamCreateWithFlags(&device->exchange, cudaStreamNonBlocking));
  device->gradients_ready = make_event();
  device->gradients_sent = make_event();
  device->updated = make_event();
  for (int t = 0, offset = 0; t < kTensors; offset += kCounts[t++]) {
    device->tensors[t] = {device_copy(&weights[offset], kCounts[t]), device_array<float>(kCounts[t]), kCounts[t],
                          offset};
    CHECK(cudaMemset(device->tensors[t].velocity, 0, kCounts[t] * sizeof(float)));
  }
  const int rows = device->rows > kTestImages ? device->rows : kTestImages;
  device->hidden = device_array<float>(rows * kHidden);
  device->hidden_delta = device_array<float>(rows * kHidden);
  device->delta = device_array<float>(rows * kClasses);
  device->losses = device_array<float>(rows);
  device->hits = device_array<int>(rows);
  device->flat = device_array<float>(kParameters);
  for (int d = 0; d < options.gpus; d++) {
    device->gathered.push_back(d == device->index ? device->flat : device_array<float>(kParameters));
  }
  const Model model = {device_copy(device->tensors, kTensors),
                       device_copy(device->gathered.data(), device->gathered.size()), options.gpus};
  device->model = device_copy(&model, 1);
  for (Slot& slot : device->slots) {
    slot.images = device_array<float>(rows * kPixels);
    slot.labels = device_array<int>(rows);
    slot.host_images = pinned_array<float>(rows * kPixels);
    slot.host_labels = pinned_array<int>(rows);
    slot.host_losses = pinned_array<float>(rows);
    slot.uploaded = make_event();
    slot.consumed = make_event();
    slot.finished = make_event();
  }
  CHECK(cudaDeviceSynchronize());  // the streams above do not wait for the default stream
}

// Copies the device's rows of the batch into pinned memory and sends them off. Requires: the slot's last step is over.
void upload(Device* device, Slot* slot, const Digits& digits, const int* batch, int rows) {
  for (int row = 0; row < rows; row++) {
    const int image = batch[row];
    memcpy(slot->host_images + row * kPixels, &digits.images[image * kPixels], kPixels * sizeof(float));
    slot->host_labels[row] = digits.labels[image];
  }
  CHECK(cudaStreamWaitEvent(device->upload, slot->consumed, 0));
  CHECK(cudaMemcpyAsync(slot->images, slot->host_images, rows * kPixels * sizeof(float), cudaMemcpyHostToDevice,
                        device->upload));
  CHECK(cudaMemcpyAsync(slot->labels, slot->host_labels, rows * sizeof(int), cudaMemcpyHostToDevice, device->upload));
  CHECK(cudaEventRecord(slot->uploaded, device->upload));
}

void forward(Device* device, Slot* slot, int rows, float scale) {
  CHECK(cudaStreamWaitEvent(device->compute, slot->uploaded, 0));
  hidden_layer<<<rows, kHidden, 0, device->compute>>>(device->model, slot->images, device->hidden, rows);
  output_layer<<<rows, 32, 0, device->compute>>>(device->model, device->hidden, slot->labels, device->delta,
                                                 device->losses, device->hits, rows, scale);
  CHECK(cudaGetLastError());
}

void backward(Device* device, Slot* slot, std::vector<Device>* devices) {
  hidden_delta<<<device->rows, kHidden, 0, device->compute>>>(device->model, device->hidden, device->delta,
                                                              device->hidden_delta, device->rows);
  // The last step's gradients must have left before they are overwritten.
  CHECK(cudaStreamWaitEvent(device->compute, device->gradients_sent, 0));
  gradients<<<kPixels + kHidden + 2, kHidden, 0, device->compute>>>(
      device->model, slot->images, device->hidden, device->delta, device->hidden_delta, device->flat, device->rows);
  CHECK(cudaGetLastError());
  CHECK(cudaEventRecord(device->gradients_ready, device->compute));
  CHECK(cudaEventRecord(slot->consumed, device->compute));
  CHECK(cudaStreamWaitEvent(device->exchange, device->gradients_ready, 0));
  for (Device& peer : *devices) {
    if (peer.index == device->index) continue;
    CHECK(cudaStreamWaitEvent(device->exchange, peer.updated, 0));  // it has read what we sent last time
    CHECK(cudaMemcpyPeerAsync(peer.gathered[device->index], peer.index, device->flat, device->index,
                              kParameters * sizeof(float), device->exchange));
  }
  CHECK(cudaEventRecord(device->gradients_sent, device->exchange));
}

void apply(Device* device, Slot* slot, std::vector<Device>* devices) {
  for (Device& peer : *devices) CHECK(cudaStreamWaitEvent(device->compute, peer.gradients_sent, 0));
  const dim3 grid((kPixels * kHidden + 127) / 128, kTensors);
  update<<<grid, 128, 0, device->compute>>>(device->model, kRate, kMomentum);
  CHECK(cudaGetLastError());
  CHECK(cudaMemcpyAsync(slot->host_losses, device->losses, device->rows * sizeof(float), cudaMemcpyDeviceToHost,
                        device->compute));
  CHECK(cudaEventRecord(slot->finished, device->compute));
  CHECK(cudaEventRecord(device->updated, device->compute));
}

void issue_step(std::vector<Device>* devices, int step, const Digits& digits, const int* batch,
                const Options& options) {
  const int slot = step % kSlots;
  for (Device& device : *devices) {
    CHECK(cudaSetDevice(device.index));
    upload(&device, &device.slots[slot], digits, batch + device.first_row, device.rows);
    forward(&device, &device.slots[slot], device.rows, 1.0f / static_cast<float>(options.batch));
  }
  for (Device& device : *devices) {
    CHECK(cudaSetDevice(device.index));
    backward(&device, &device.slots[slot], devices);
  }
  for (Device& device : *devices) {
    CHECK(cudaSetDevice(device.index));
    apply(&device, &device.slots[slot], devices);
  }
}

void report_step(std::vector<Device>* devices, int step, const Options& options) {
  float sum = 0.0f;
  for (Device& device : *devices) {
    Slot& slot = device.slots[step % kSlots];
    CHECK(cudaEventSynchronize(slot.finished));
    for (int row = 0; row < device.rows; row++) sum += slot.host_losses[row];
  }
  if (options.quiet) return;
  printf("step %d loss %.9g\n", step, sum / static_cast<float>(options.batch));
  fflush(stdout);
}

double now_seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Says `word`, and goes on when a line has come: a benchmark reads the job's counters meanwhile.
void gate(const char* word) {
  char line[64];
  printf("%s\n", word);
  fflush(stdout);
  if (fgets(line, sizeof line, stdin) == nullptr) fprintf(stderr, "train_digits: nobody answers at the gate\n");
}

// `ends`: when the losses of one step after the other were there. As many steps are under way at once as there are
// slots.
void report_time(const std::vector<double>& ends) {
  std::vector<double> times;
  for (size_t i = kSlots; i < ends.size(); i++) times.push_back((ends[i] - ends[i - kSlots]) / kSlots);
  if (times.empty()) return;
  std::sort(times.begin(), times.end());
  printf("step_us %.1f\nbest_us %.1f\nin_flight %d\n", 1e6 * times[times.size() / 2], 1e6 * times[0], kSlots);
}

void train(std::vector<Device>* devices, const Digits& digits, std::vector<int> order, Random* random,
           const Options& options) {
  size_t next = 0;
  const int first_measured = options.steps - options.measured;
  std::vector<double> ends;
  for (int step = 0; step < options.steps; step++) {
    if (options.measured > 0 && step == first_measured) gate("begin");
    if (next + options.batch > order.size()) next = 0;
    if (next == 0) shuffle(&order, random);
    if (step >= kSlots) report_step(devices, step - kSlots, options);
    if (step >= first_measured + kSlots) ends.push_back(now_seconds());
    issue_step(devices, step, digits, &order[next], options);
    next += options.batch;
    if (options.step_ms > 0) usleep(static_cast<useconds_t>(options.step_ms) * 1000);
  }
  if (options.measured > 0) {
    gate("end");
    report_time(ends);
  }
  for (int step = options.steps > kSlots ? options.steps - kSlots : 0; step < options.steps; step++) {
    report_step(devices, step, options);
  }
}

double accuracy(Device* device, const Digits& digits, const std::vector<int>& test) {
  CHECK(cudaSetDevice(device->index));
  upload(device, &device->slots[0], digits, test.data(), kTestImages);
  forward(device, &device->slots[0], kTestImages, 1.0f);
  std::vector<int> hits(kTestImages);
  CHECK(cudaStreamSynchronize(device->compute));
  CHECK(cudaMemcpy(hits.data(), device->hits, hits.size() * sizeof(int), cudaMemcpyDeviceToHost));
  int sum = 0;
  for (int hit : hits) sum += hit;
  return 100.0 * sum / kTestImages;
}

// All replicas must hold the same bits; prints a digest of them.
bool compare_replicas(const std::vector<Device>& devices) {
  std::vector<float> first(kParameters), other(kParameters);
  for (const Device& device : devices) {
    std::vector<float>& into = device.index == 0 ? first : other;
    CHECK(cudaSetDevice(device.index));
    CHECK(cudaDeviceSynchronize());
    for (const Tensor& tensor : device.tensors) {
      CHECK(cudaMemcpy(&into[tensor.offset], tensor.value, tensor.count * sizeof(float), cudaMemcpyDeviceToHost));
    }
    if (device.index > 0 && memcmp(first.data(), other.data(), kParameters * sizeof(float)) != 0) {
      printf("replica %d differs from replica 0\n", device.index);
      return false;
    }
  }
  uint64_t digest = 1469598103934665603ull;
  for (int i = 0; i < kParameters; i++) {
    uint32_t bits;
    memcpy(&bits, &first[i], sizeof bits);
    digest = (digest ^ bits) * 1099511628211ull;
  }
  printf("replicas %d equal, digest %016llx\n", static_cast<int>(devices.size()),
         static_cast<unsigned long long>(digest));
  return true;
}

void free_device(Device* device) {
  CHECK(cudaSetDevice(device->index));
  for (Slot& slot : device->slots) {
    CHECK(cudaFreeHost(slot.host_images));
    CHECK(cudaFreeHost(slot.host_labels));
    CHECK(cudaFreeHost(slot.host_losses));
    CHECK(cudaFree(slot.images));
    CHECK(cudaFree(slot.labels));
    CHECK(cudaEventDestroy(slot.uploaded));
    CHECK(cudaEventDestroy(slot.consumed));
    CHECK(cudaEventDestroy(slot.finished));
  }
  CHECK(cudaStreamDestroy(device->compute));
  CHECK(cudaStreamDestroy(device->upload));
  CHECK(cudaStreamDestroy(device->exchange));
  for (float* gradient : device->gathered) CHECK(cudaFree(gradient));
}

int usage() {
  fprintf(stderr,
          "usage: train_digits [--gpus N] [--steps N] [--batch N] [--seed N] [--step-ms N] [--data FILE] [--quiet] "
          "[--measured N]\n");
  return 2;
}

bool parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    if (word == "--quiet") {
      options->quiet = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const char* value = argv[++i];
    if (word == "--gpus")
      options->gpus = atoi(value);
    else if (word == "--steps")
      options->steps = atoi(value);
    else if (word == "--batch")
      options->batch = atoi(value);
    else if (word == "--seed")
      options->seed = static_cast<unsigned>(strtoul(value, nullptr, 10));
    else if (word == "--step-ms")
      options->step_ms = atoi(value);
    else if (word == "--measured")
      options->measured = atoi(value);
    else if (word == "--data")
      options->data = value;
    else
      return false;
  }
  return options->steps > 0 && options->batch > 0 && options->gpus >= 0 && options->measured <= options->steps;
}

std::vector<float> first_weights(Random* random) {
  std::vector<float> weights(kParameters, 0.0f);
  const float limit1 = sqrtf(6.0f / (kPixels + kHidden)), limit2 = sqrtf(6.0f / (kHidden + kClasses));
  for (int i = 0; i < kCounts[kW1]; i++) weights[i] = limit1 * random->symmetric();
  for (int i = 0; i < kCounts[kW2]; i++) weights[kCounts[kW1] + kCounts[kB1] + i] = limit2 * random->symmetric();
  return weights;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, &options)) return usage();
  Digits digits;
  if (options.data.empty()) options.data = beside_the_program("digits.csv");
  if (!load(options.data, &digits)) {
    fprintf(stderr, "train_digits: no digits in %s (name the file with --data)\n", options.data.c_str());
    return 2;
  }
  int present = 0;
  CHECK(cudaGetDeviceCount(&present));
  if (options.gpus == 0) options.gpus = present;
  if (options.gpus > present || options.batch < options.gpus || options.batch > digits.count() - kTestImages) {
    fprintf(stderr, "train_digits: %d devices wanted for a batch of %d; there are %d devices and %d images\n",
            options.gpus, options.batch, present, digits.count() - kTestImages);
    return 2;
  }

  Random random{options.seed};
  std::vector<int> order(digits.count());
  for (int i = 0; i < digits.count(); i++) order[i] = i;
  shuffle(&order, &random);
  const std::vector<int> test(order.begin(), order.begin() + kTestImages);
  order.erase(order.begin(), order.begin() + kTestImages);

  const std::vector<float> weights = first_weights(&random);
  std::vector<Device> devices(options.gpus);
  for (int d = 0; d < options.gpus; d++) {
    devices[d].index = d;
    devices[d].first_row = options.batch * d / options.gpus;
    devices[d].rows = options.batch * (d + 1) / options.gpus - devices[d].first_row;
    make_device(&devices[d], options, weights);
  }
  printf("training on %d devices: %d steps of %d images\n", options.gpus, options.steps, options.batch);
  train(&devices, digits, order, &random, options);
  if (!compare_replicas(devices)) return 1;
  printf("test accuracy %.2f %%\n", accuracy(&devices[0], digits, test));
  for (Device& device : devices) free_device(&device);
  return 0;
}
