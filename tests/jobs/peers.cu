// Copies between virtual GPUs of every kind: many sizes, rows with gaps, both directions and whole rings at once; every
// byte is checked.
//   ./peers [--rounds N | --seconds S]     checks
//   ./peers --mib N [--rounds N]           copies N MiB from 0 to 1 again and again and says how long one took
//   --gate: says `ready` before the copies and `copied` behind them, and waits for a line each time

#include <algorithm>
#include <vector>

#include "job.h"

namespace {

struct Shape {
  size_t width, height, to_pitch, from_pitch;
};

// A worker's piece is 1 MiB.
const Shape kShapes[] = {
    {1, 1, 1, 1},
    {4099, 1, 4099, 4099},
    {1 << 20, 1, 1 << 20, 1 << 20},
    {(1 << 20) + 1, 1, (1 << 20) + 1, (1 << 20) + 1},
    {(9 << 20) + 17, 1, (9 << 20) + 17, (9 << 20) + 17},
    {3000, 700, 3072, 3333},
    {512, 4096, 512, 512},
    {512, 4096, 512, 640},
    {(1 << 20) + 5, 3, (1 << 20) + 64, (1 << 20) + 5},
    {1, 5000, 1, 3},
};

unsigned char value_at(size_t at, unsigned seed) { return (unsigned char)((at * 2654435761u + seed) >> 13); }

struct Buffer {
  int device = 0;
  size_t bytes = 0;
  unsigned char* data = nullptr;
  void make(int on, size_t size) {
    device = on, bytes = size;
    CHECK(cudaSetDevice(device));
    CHECK(cudaMalloc(&data, bytes));
  }
  void fill(unsigned seed) {
    std::vector<unsigned char> values(bytes);
    for (size_t i = 0; i < bytes; i++) values[i] = value_at(i, seed);
    CHECK(cudaSetDevice(device));
    CHECK(cudaMemcpy(data, values.data(), bytes, cudaMemcpyHostToDevice));
  }
  void clear() {
    CHECK(cudaSetDevice(device));
    CHECK(cudaMemset(data, 0xee, bytes));
    CHECK(cudaDeviceSynchronize());
  }
  std::vector<unsigned char> read() const {
    std::vector<unsigned char> values(bytes);
    CHECK(cudaSetDevice(device));
    CHECK(cudaMemcpy(values.data(), data, bytes, cudaMemcpyDeviceToHost));
    return values;
  }
  void free() {
    CHECK(cudaSetDevice(device));
    CHECK(cudaFree(data));
  }
};

size_t wrong_bytes(const Buffer& to, const Shape& s, unsigned seed) {
  const std::vector<unsigned char> found = to.read();
  size_t wrong = 0;
  for (size_t at = 0; at < found.size(); at++) {
    const size_t row = at / s.to_pitch, column = at % s.to_pitch;
    const bool copied = column < s.width;
    wrong += found[at] != (copied ? value_at(row * s.from_pitch + column, seed) : 0xee);
  }
  return wrong;
}

void copy(Buffer& to, const Buffer& from, const Shape& s, cudaStream_t stream) {
  if (s.height == 1) {
    CHECK(cudaMemcpyPeerAsync(to.data, to.device, from.data, from.device, s.width, stream));
    return;
  }
  cudaMemcpy3DPeerParms p = {};
  p.dstDevice = to.device, p.srcDevice = from.device;
  p.dstPtr = make_cudaPitchedPtr(to.data, s.to_pitch, s.width, s.height);
  p.srcPtr = make_cudaPitchedPtr(from.data, s.from_pitch, s.width, s.height);
  p.extent = make_cudaExtent(s.width, s.height, 1);
  CHECK(cudaMemcpy3DPeerAsync(&p, stream));
}

// Every vGPU sends to its two neighbours at once; nobody waits for anybody.
void all_at_once(const Shape& s, int devices, unsigned seed) {
  const size_t from_bytes = s.from_pitch * (s.height - 1) + s.width, to_bytes = s.to_pitch * (s.height - 1) + s.width;
  std::vector<Buffer> from(devices), next(devices), last(devices);
  std::vector<cudaStream_t> streams(devices);
  for (int d = 0; d < devices; d++) {
    from[d].make(d, from_bytes), next[d].make(d, to_bytes), last[d].make(d, to_bytes);
    from[d].fill(seed + d);
    next[d].clear(), last[d].clear();
    CHECK(cudaStreamCreateWithFlags(&streams[d], cudaStreamNonBlocking));
  }
  for (int d = 0; d < devices; d++) {
    CHECK(cudaSetDevice(d));
    copy(next[(d + 1) % devices], from[d], s, streams[d]);
    copy(last[(d + devices - 1) % devices], from[d], s, streams[d]);
  }
  for (int d = 0; d < devices; d++) {
    CHECK(cudaSetDevice(d));
    CHECK(cudaStreamSynchronize(streams[d]));
    CHECK(cudaStreamDestroy(streams[d]));
  }
  for (int d = 0; d < devices; d++) {
    size_t wrong = wrong_bytes(next[(d + 1) % devices], s, seed + d);
    wrong += wrong_bytes(last[(d + devices - 1) % devices], s, seed + d);
    EXPECT(wrong == 0, "from %d, %zu x %zu: %zu bytes", d, s.width, s.height, wrong);
    from[d].free();
  }
  for (int d = 0; d < devices; d++) next[d].free(), last[d].free();
}

// What comes later on the stream waits for the copy, and the copy for what came before.
void in_order(int devices, unsigned seed) {
  const size_t bytes = (3 << 20) + 11;
  Buffer from, to;
  from.make(0, bytes), to.make(1 % devices, bytes);
  from.fill(seed);
  to.clear();
  cudaStream_t stream;
  CHECK(cudaSetDevice(0));
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaMemsetAsync(from.data, 1, bytes, stream));
  CHECK(cudaMemcpyPeerAsync(to.data, to.device, from.data, 0, bytes, stream));
  CHECK(cudaMemsetAsync(from.data, 2, bytes, stream));
  CHECK(cudaStreamSynchronize(stream));
  const std::vector<unsigned char> found = to.read();
  EXPECT(std::count(found.begin(), found.end(), 1) == (long)bytes, "what was there when the copy's turn came");
  // Without a stream: before and after everything of both.
  from.fill(seed);
  CHECK(cudaMemcpyPeer(to.data, to.device, from.data, 0, bytes));
  const size_t wrong = wrong_bytes(to, {bytes, 1, bytes, bytes}, seed);
  EXPECT(wrong == 0, "without a stream: %zu bytes", wrong);
  CHECK(cudaStreamDestroy(stream));
  from.free(), to.free();
}

void check_all(int argc, char** argv, int devices) {
  const double seconds = option(argc, argv, "--seconds", 0);
  const int rounds = (int)option(argc, argv, "--rounds", 1);
  const double end = now_seconds() + seconds;
  for (int round = 0; seconds > 0 ? now_seconds() < end : round < rounds; round++) {
    for (const Shape& shape : kShapes) all_at_once(shape, devices, round * 31u);
    in_order(devices, round);
    if (round == 0) printf("a round\n"), fflush(stdout);
  }
}

void time_one(int argc, char** argv, size_t bytes, bool gates) {
  const int rounds = (int)option(argc, argv, "--rounds", 5);
  Buffer from, to;
  from.make(0, bytes), to.make(1, bytes);
  from.fill(7);
  to.clear();
  if (gates) gate("ready");
  std::vector<double> took;
  for (int round = 0; round < rounds; round++) {
    const double begin = now_seconds();
    CHECK(cudaMemcpyPeer(to.data, 1, from.data, 0, bytes));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaSetDevice(1 - round % 2));
    CHECK(cudaDeviceSynchronize());
    took.push_back(now_seconds() - begin);
  }
  if (gates) gate("copied");
  std::sort(took.begin(), took.end());
  printf("%zu MiB: %.1f ms, %.2f GB/s\n", bytes >> 20, took[took.size() / 2] * 1e3,
         bytes / took[took.size() / 2] / 1e9);
  const size_t wrong = wrong_bytes(to, {bytes, 1, bytes, bytes}, 7);
  EXPECT(wrong == 0, "%zu bytes", wrong);
}

}  // namespace

int main(int argc, char** argv) {
  int devices = 0;
  CHECK(cudaGetDeviceCount(&devices));
  const size_t bytes = (size_t)option(argc, argv, "--mib", 0) << 20;
  const bool gates = std::any_of(argv, argv + argc, [](const char* word) { return strcmp(word, "--gate") == 0; });
  if (bytes != 0 && devices > 1) {
    time_one(argc, argv, bytes, gates);
  } else {
    check_all(argc, argv, devices);
  }
  return verdict("peers");
}
