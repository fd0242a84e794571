// tide-bench-hashes [MIB]: hashing the software GPU's memory, chunk by chunk, beside reading it and copying it, in one
// run. Of each figure the best of some runs counts.

#include <cuda.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/chunk_hash.h"
#include "base/clock.h"
#include "base/mix.h"

extern "C" CUresult softgpuHashChunks(const tide::ChunkSecret* secret, const CUdeviceptr* addresses, size_t count,
                                      tide::ChunkHash* hashes);
extern "C" CUresult softgpuForgetHashes();

namespace tide {
namespace {

constexpr int kRuns = 5;
constexpr uint64_t kPage = 4096;

double best_ms(const std::function<void()>& prepare, const std::function<void()>& run) {
  double best = 1e300;
  for (int i = 0; i < kRuns; ++i) {
    prepare();
    const uint64_t begin = now_ns();
    run();
    best = std::min(best, double(now_ns() - begin) / 1e6);
  }
  return best;
}

void say(const char* what, double ms, uint64_t bytes) {
  printf("%-52s %9.3f ms %9.2f GB/s\n", what, ms, double(bytes) / ms / 1e6);
}

void ask(CUresult result) {
  if (result == CUDA_SUCCESS) return;
  fprintf(stderr, "tide-bench-hashes: CUDA error %d\n", int(result));
  exit(1);
}

// work(part) for each of all cores' parts.
void on_all_cores(const std::function<void(unsigned part, unsigned parts)>& work) {
  const unsigned parts = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < parts; ++i) threads.emplace_back(work, i, parts);
  work(0, parts);
  for (std::thread& thread : threads) thread.join();
}

// What any way of looking at memory costs at least.
uint64_t read_all(const std::vector<uint64_t>& words, unsigned part, unsigned parts) {
  uint64_t sums[8] = {};
  const size_t from = words.size() / parts * part / 8 * 8, to = words.size() / parts * (part + 1) / 8 * 8;
  for (size_t i = from; i < to; i += 8) {
    for (size_t k = 0; k < 8; ++k) sums[k] ^= words[i + k];
  }
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

void floors(uint64_t bytes) {
  std::vector<uint64_t> from(bytes / 8, 1), to(bytes / 8, 2);
  volatile uint64_t seen = 0;
  const auto nothing = [] {};
  say("read, one core", best_ms(nothing, [&] { seen = read_all(from, 0, 1); }), bytes);
  say("read, all cores",
      best_ms(nothing,
              [&] { on_all_cores([&](unsigned part, unsigned parts) { seen = read_all(from, part, parts); }); }),
      bytes);
  say("memcpy, one core (bytes copied)", best_ms(nothing, [&] { memcpy(to.data(), from.data(), bytes); }), bytes);
  const ChunkSecret secret;
  volatile uint64_t sum = 0;
  const auto hash = [&](uint64_t chunks, uint64_t different) {
    for (uint64_t i = 0; i < chunks; ++i) sum = hash_chunk(secret, &from[i % different * kChunkBytes / 8]).low;
  };
  say("XXH3 of one chunk again and again, one core", best_ms(nothing, [&] { hash(64, 1); }), 64 * kChunkBytes);
  say("XXH3 of all chunks, one core", best_ms(nothing, [&] { hash(bytes / kChunkBytes, bytes / kChunkBytes); }), bytes);
}

void through_the_driver(uint64_t bytes) {
  CUcontext context = nullptr;
  CUdeviceptr memory = 0;
  ask(cuInit(0));
  ask(cuCtxCreate(&context, nullptr, 0, 0));
  ask(cuMemAlloc(&memory, bytes));
  ChunkSecret secret;
  if (!make_secret(&secret)) exit(1);
  std::vector<CUdeviceptr> addresses;
  for (uint64_t at = 0; at < bytes; at += kChunkBytes) addresses.push_back(memory + at);
  std::vector<ChunkHash> hashes(addresses.size());
  const auto hash = [&] { ask(softgpuHashChunks(&secret, addresses.data(), addresses.size(), hashes.data())); };
  const auto forget = [] { ask(softgpuForgetHashes()); };
  const auto write = [&](uint64_t share) {  // one page of so many
    for (uint64_t page = 0; page < bytes / kPage; ++page) {
      if (mix(page) % share == 0) ask(cuMemsetD32Async(memory + page * kPage, unsigned(page), 1, nullptr));
    }
    ask(cuCtxSynchronize());
  };
  say("software GPU: memory that nobody touched", best_ms(forget, hash), bytes);
  write(1);
  say("software GPU: all of it, for the first time", best_ms(forget, hash), bytes);
  hash();
  say("software GPU: nothing was written since", best_ms([] {}, hash), bytes);
  say("software GPU: one page of 1000 was written since", best_ms([&] { write(1000); }, hash), bytes);
  say("software GPU: one page of 10 was written since", best_ms([&] { write(10); }, hash), bytes);
  const auto fill = [&] {
    ask(cuMemsetD32Async(memory, 3, bytes / 4, nullptr));
    ask(cuCtxSynchronize());
  };
  say("software GPU: a fill of all of it after that", best_ms(hash, fill), bytes);
  forget();
  say("software GPU: a fill of all of it, unwatched", best_ms([] {}, fill), bytes);
  ask(cuCtxDestroy(context));
}

int main_of(int count, char** arguments) {
  const uint64_t mib = count > 1 ? strtoull(arguments[1], nullptr, 10) : 1024;
  if (count > 2 || mib < 2 || mib > 1u << 20) {
    fprintf(stderr, "tide-bench-hashes [MIB]: hashing beside reading and copying, of 1024 MiB if not said\n");
    return 2;
  }
  const uint64_t bytes = mib / 2 * kChunkBytes;
  setenv("SOFTGPU_MEMORY", (std::to_string(mib + 64) + "MiB").c_str(), 1);
  printf("%llu MiB, %u cores\n", static_cast<unsigned long long>(bytes >> 20), std::thread::hardware_concurrency());
  floors(bytes);
  through_the_driver(bytes);
  return 0;
}

}  // namespace
}  // namespace tide

int main(int count, char** arguments) { return tide::main_of(count, arguments); }
