// Copies of pageable memory of many shapes and sizes, out and back, by several threads at once and behind a host
// function that holds the stream up; every byte is checked.
//   ./copies [--threads N] [--rounds N | --seconds S]

#include <unistd.h>

#include <thread>
#include <vector>

#include "job.h"

namespace {

struct Shape {
  size_t width, height, host_pitch, device_pitch;
};

// Below and above what goes through staging memory, in rows shorter and longer than one of its pieces.
const Shape kShapes[] = {
    {1, 1, 1, 1},
    {131071, 1, 131071, 131071},
    {131072, 1, 131072, 131072},
    {(4 << 20) + 3, 1, (4 << 20) + 3, (4 << 20) + 3},
    {(9 << 20) + 17, 1, (9 << 20) + 17, (9 << 20) + 17},
    {3000, 700, 3333, 3072},
    {600001, 9, 600100, 600064},
    {17, 40001, 19, 32},
};

unsigned char value_at(size_t at, unsigned seed) { return (unsigned char)((at * 2654435761u + seed) >> 13); }

void hold_up(void* us) { usleep((useconds_t)(size_t)us); }

bool there_and_back(const Shape& s, cudaStream_t stream, unsigned seed, bool synchronous, size_t hold_us) {
  std::vector<unsigned char> from(s.host_pitch * s.height), to(from.size(), 0xee);
  for (size_t i = 0; i < from.size(); i++) from[i] = value_at(i, seed);
  void* device = nullptr;
  CHECK(cudaMalloc(&device, s.device_pitch * s.height));
  if (hold_us != 0) CHECK(cudaLaunchHostFunc(stream, hold_up, (void*)hold_us));
  if (synchronous) {
    CHECK(cudaMemcpy2D(device, s.device_pitch, from.data(), s.host_pitch, s.width, s.height, cudaMemcpyHostToDevice));
  } else {
    CHECK(cudaMemcpy2DAsync(device, s.device_pitch, from.data(), s.host_pitch, s.width, s.height,
                            cudaMemcpyHostToDevice, stream));
    // The call has taken the bytes.
    std::fill(from.begin(), from.end(), 0x11);
  }
  if (synchronous) {
    CHECK(cudaMemcpy2D(to.data(), s.host_pitch, device, s.device_pitch, s.width, s.height, cudaMemcpyDeviceToHost));
  } else {
    CHECK(cudaMemcpy2DAsync(to.data(), s.host_pitch, device, s.device_pitch, s.width, s.height, cudaMemcpyDeviceToHost,
                            stream));
    CHECK(cudaStreamSynchronize(stream));
  }
  CHECK(cudaFree(device));
  for (size_t at = 0; at < to.size(); at++) {
    const bool copied = at % s.host_pitch < s.width;
    if (to[at] != (copied ? value_at(at, seed) : 0xee)) return false;
  }
  return true;
}

void work(unsigned thread, int rounds, double until, int* wrong) {
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (int round = 0; round < rounds || now_seconds() < until; round++) {
    for (const Shape& shape : kShapes) {
      *wrong += !there_and_back(shape, stream, thread * 1000 + round, round % 2 == 0, 0);
    }
  }
  CHECK(cudaStreamDestroy(stream));
}

}  // namespace

int main(int argc, char** argv) {
  const int count = (int)option(argc, argv, "--threads", 3), rounds = (int)option(argc, argv, "--rounds", 2);
  const double until = now_seconds() + option(argc, argv, "--seconds", 0);
  std::vector<int> wrong(count);
  std::vector<std::thread> threads;
  for (int i = 0; i < count; i++) threads.emplace_back(work, i, rounds, until, &wrong[i]);
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < count; i++) EXPECT(wrong[i] == 0, "thread %d: %d copies", i, wrong[i]);

  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (const Shape& shape : kShapes) {
    EXPECT(there_and_back(shape, stream, 7, false, 30'000), "%zu x %zu behind a host function", shape.width,
           shape.height);
  }
  // More than twice what the ring of commands holds: it is read from where it lies, where that is another machine's.
  for (const Shape& shape :
       {Shape{(40 << 20) + 5, 1, (40 << 20) + 5, (40 << 20) + 5}, Shape{600001, 70, 600100, 600064}}) {
    EXPECT(there_and_back(shape, stream, 9, false, 30'000), "%zu x %zu", shape.width, shape.height);
    EXPECT(there_and_back(shape, stream, 11, true, 0), "%zu x %zu, synchronous", shape.width, shape.height);
  }
  return verdict("copies");
}
