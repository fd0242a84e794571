// Copies from page-locked memory, allocated or registered, of random sizes, from random places, on some streams,
// without a wait until all are sent; then the memory is changed, or given back, at once, and every byte is looked at.
// Copies back land in the same blocks, also in random places of them.
//   ./pinned [--rounds N] [--seconds N] [--seed N] [--kib N] [--behind N]    N KiB: each block
// --behind: in the end, so often: work that changes what is being copied back, behind the copy.

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "job.h"

namespace {

constexpr int kStreams = 3;
constexpr int kCopies = 12;
size_t block_bytes = 3 << 20;

struct Random {
  uint64_t state;
  unsigned next(unsigned below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(state >> 33) % below;
  }
};

unsigned char byte_at(unsigned seed, size_t i) { return (unsigned char)((seed + i) * 2654435761u >> 13); }

void fill(unsigned char* to, size_t bytes, unsigned seed) {
  for (size_t i = 0; i < bytes; i++) to[i] = byte_at(seed, i);
}

struct Block {
  unsigned char* host;
  bool registered;
  unsigned seed;
};

Block make_block(Random* random) {
  Block block = {nullptr, random->next(2) == 0, random->next(1u << 30)};
  if (block.registered) {
    block.host = (unsigned char*)aligned_alloc(4096, block_bytes);
    CHECK(cudaHostRegister(block.host, block_bytes, cudaHostRegisterDefault));
  } else {
    CHECK(cudaMallocHost(&block.host, block_bytes));
  }
  fill(block.host, block_bytes, block.seed);
  return block;
}

// What was in it is of no use any more: that nobody reads it comes out here.
void free_block(const Block& block) {
  if (!block.registered) {
    CHECK(cudaFreeHost(block.host));
    return;
  }
  CHECK(cudaHostUnregister(block.host));
  memset(block.host, 0xee, block_bytes);
  free(block.host);
}

struct Copy {
  unsigned seed;
  size_t from, rows, width, pitch;
};

Copy send(Random* random, const Block& block, unsigned char* device, cudaStream_t stream) {
  const size_t from = random->next((unsigned)block_bytes / 2), most = block_bytes - from;
  const size_t bytes = random->next(3) == 0 ? 1 + random->next(100000) : 1 + random->next((unsigned)most);
  if (random->next(4) != 0) {
    CHECK(cudaMemcpyAsync(device, block.host + from, bytes, cudaMemcpyHostToDevice, stream));
    return {block.seed, from, 1, bytes, bytes};
  }
  const size_t rows = 1 + random->next(4), pitch = most / rows, width = pitch - random->next((unsigned)pitch / 2);
  CHECK(cudaMemcpy2DAsync(device, width, block.host + from, pitch, width, rows, cudaMemcpyHostToDevice, stream));
  return {block.seed, from, rows, width, pitch};
}

struct Bench {
  cudaStream_t streams[kStreams];
  unsigned char* device[kCopies];
};

void look(const Copy& copy, const unsigned char* device, const char* when, int round) {
  std::vector<unsigned char> got(copy.rows * copy.width);
  CHECK(cudaMemcpy(got.data(), device, got.size(), cudaMemcpyDeviceToHost));
  size_t wrong = 0;
  for (size_t row = 0; row < copy.rows; row++) {
    for (size_t i = 0; i < copy.width; i++) {
      wrong += got[row * copy.width + i] != byte_at(copy.seed, copy.from + row * copy.pitch + i);
    }
  }
  EXPECT(wrong == 0, "round %d, %s: %zu of %zu bytes", round, when, wrong, got.size());
}

void send_some(Random* random, const Bench& bench, const Block* blocks, int count, Copy* copies) {
  for (int i = 0; i < count; i++) {
    copies[i] = send(random, blocks[random->next(2)], bench.device[i], bench.streams[random->next(kStreams)]);
  }
}

// From the device to random places of page-locked memory, one after the other without a gap or apart, by rows, by calls
// that wait and calls that do not. What lies between stays as it is.
void bring(Random* random, const Bench& bench, const Block& source, const Block& target, int round) {
  CHECK(cudaMemcpy(bench.device[0], source.host, block_bytes, cudaMemcpyHostToDevice));
  std::vector<unsigned char> want(block_bytes, 0xcc);
  memset(target.host, 0xcc, block_bytes);
  for (size_t at = random->next(1000); at + 8 < block_bytes;) {
    const size_t room = block_bytes - at, rows = room < 4096 ? 1 : 1 + random->next(3);
    const size_t most = random->next(3) == 0 ? std::min<size_t>(room, 40000) : room;
    const size_t pitch = 1 + random->next((unsigned)(most / rows)),
                 width = pitch - random->next((unsigned)pitch / 4 + 1);
    const size_t from = random->next((unsigned)(block_bytes - rows * width) + 1);
    unsigned char* to = target.host + at;
    for (size_t row = 0; row < rows; row++) memcpy(&want[at + row * pitch], source.host + from + row * width, width);
    const cudaStream_t stream = bench.streams[random->next(kStreams)];
    if (random->next(4) == 0) {
      CHECK(cudaMemcpy2D(to, pitch, bench.device[0] + from, width, width, rows, cudaMemcpyDeviceToHost));
      EXPECT(memcmp(to, &want[at], width) == 0, "round %d: a copy that waits came wrong", round);
    } else {
      CHECK(cudaMemcpy2DAsync(to, pitch, bench.device[0] + from, width, width, rows, cudaMemcpyDeviceToHost, stream));
    }
    at += rows * pitch + random->next(2) * random->next(500);
  }
  CHECK(cudaDeviceSynchronize());
  size_t wrong = 0;
  for (size_t i = 0; i < block_bytes; i++) wrong += target.host[i] != want[i];
  EXPECT(wrong == 0, "round %d: %zu of %zu bytes came wrong", round, wrong, block_bytes);
}

// What comes back is what was there before the next work of the stream, also where that is sent while bytes are still
// on their way.
void change_behind(Random* random, const Bench& bench, const Block& target, int round) {
  const cudaStream_t stream = bench.streams[0];
  for (int i = 0; i < 16; i++) {  // on a fast path that is known to be one, bytes may go from where they lie
    CHECK(cudaMemcpyAsync(target.host, bench.device[0], block_bytes, cudaMemcpyDeviceToHost, stream));
  }
  for (int i = 0; i < 8; i++) {
    unsigned char* const device = bench.device[i % 2];
    CHECK(cudaMemsetAsync(device, 0x50 + i, block_bytes, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemcpyAsync(target.host, device, block_bytes, cudaMemcpyDeviceToHost, stream));
    usleep(random->next(600));
    if (random->next(2) == 0) {
      CHECK(cudaMemsetAsync(device, 0xee, block_bytes, stream));
    } else {
      CHECK(cudaMemcpyAsync(device, target.host, block_bytes, cudaMemcpyHostToDevice, stream));
    }
    CHECK(cudaStreamSynchronize(stream));
    const size_t right = (size_t)std::count(target.host, target.host + block_bytes, (unsigned char)(0x50 + i));
    EXPECT(right == block_bytes, "round %d: %zu of %zu bytes are of later work", round, block_bytes - right,
           block_bytes);
  }
}

void round_trip(Random* random, const Bench& bench, int round) {
  Block blocks[2] = {make_block(random), make_block(random)};
  Copy copies[kCopies];
  send_some(random, bench, blocks, kCopies, copies);
  CHECK(cudaDeviceSynchronize());
  for (const Block& block : blocks) memset(block.host, 0xdd, block_bytes);
  for (int i = 0; i < kCopies; i++) look(copies[i], bench.device[i], "after a wait", round);
  for (const Block& block : blocks) fill(block.host, block_bytes, block.seed);

  // There and back within one stream: what comes back is what was sent, not what it lands on.
  const size_t half = block_bytes / 2;
  Block& block = blocks[0];
  CHECK(cudaMemcpyAsync(bench.device[0], block.host, half, cudaMemcpyHostToDevice, bench.streams[0]));
  CHECK(cudaMemcpyAsync(block.host + half, bench.device[0], half, cudaMemcpyDeviceToHost, bench.streams[0]));
  CHECK(cudaMemcpyAsync(bench.device[1], block.host + half, half, cudaMemcpyHostToDevice, bench.streams[0]));
  CHECK(cudaMemcpyAsync(blocks[1].host, bench.device[1], half, cudaMemcpyDeviceToHost, bench.streams[0]));
  CHECK(cudaStreamSynchronize(bench.streams[0]));
  EXPECT(memcmp(block.host, block.host + half, half) == 0, "round %d: came back differently", round);
  EXPECT(memcmp(block.host, blocks[1].host, half) == 0, "round %d: came back differently the second time", round);

  for (const Block& each : blocks) fill(each.host, block_bytes, each.seed);
  bring(random, bench, blocks[0], blocks[1], round);

  // Of the last ones nobody waits but who gives the memory back.
  for (const Block& each : blocks) fill(each.host, block_bytes, each.seed);
  send_some(random, bench, blocks, kStreams, copies);
  for (const Block& each : blocks) free_block(each);
  for (int i = 0; i < kStreams; i++) look(copies[i], bench.device[i], "after the memory's end", round);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = (int)option(argc, argv, "--rounds", 5);
  const double seconds = option(argc, argv, "--seconds", 0), began = now_seconds();
  block_bytes = (size_t)option(argc, argv, "--kib", 3072) << 10;
  Random random = {(uint64_t)option(argc, argv, "--seed", 1)};
  Bench bench;
  for (cudaStream_t& stream : bench.streams) CHECK(cudaStreamCreate(&stream));
  for (unsigned char*& device : bench.device) CHECK(cudaMalloc(&device, block_bytes));
  int round = 0;
  while (round < rounds || now_seconds() - began < seconds) round_trip(&random, bench, round++);
  const int behind = (int)option(argc, argv, "--behind", 0);
  const Block target = make_block(&random);
  for (int i = 0; i < behind; i++) change_behind(&random, bench, target, i);
  free_block(target);
  printf("rounds %d\n", round);
  return verdict("pinned");
}
