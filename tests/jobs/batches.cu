// Uploads batches and reads them back, with contents of several kinds; every byte is checked. Prints MB/s of each.
//   ./batches [--mib N] [--rounds N | --seconds S] [--only 0|1|2|3] [--threads N]
//
// 0 tokens: words of a small vocabulary, which shrink; 1 noise, which does not; 2 repeat: noise, the same in each
// round; 3 turns: one of five noises in turns. Threads do the same, each with memory of its own.

#include <algorithm>
#include <thread>
#include <vector>

#include "job.h"

namespace {

using Words = std::vector<unsigned long long>;

unsigned long long next(unsigned long long* state) {
  *state = *state * 6364136223846793005ull + 1442695040888963407ull;
  unsigned long long x = *state;
  x ^= x >> 29;
  return x * 0x9E3779B97F4A7C15ull ^ x >> 32;
}

void fill(Words* words, unsigned long long seed, unsigned long long vocabulary) {
  for (auto& word : *words) word = vocabulary == 0 ? next(&seed) : next(&seed) % vocabulary;
}

struct Rates {
  double in_s = 0, out_s = 0;
  unsigned long long bytes = 0;
};

bool there_and_back(const Words& from, Words* to, char* device, Rates* rates) {
  const size_t bytes = from.size() * 8;
  const double begin = now_seconds();
  CHECK(cudaMemcpy(device, from.data(), bytes, cudaMemcpyHostToDevice));
  CHECK(cudaDeviceSynchronize());
  const double middle = now_seconds();
  CHECK(cudaMemcpy(to->data(), device, bytes, cudaMemcpyDeviceToHost));
  rates->in_s += middle - begin;
  rates->out_s += now_seconds() - middle;
  rates->bytes += bytes;
  return memcmp(from.data(), to->data(), bytes) == 0;
}

struct Kind {
  const char* name;
  unsigned long long vocabulary;
  int contents;  // 0: another one in each round
};
const Kind kKinds[] = {{"tokens", 500, 0}, {"noise", 0, 0}, {"repeat", 0, 1}, {"turns", 0, 5}};
constexpr int kKindCount = sizeof kKinds / sizeof *kKinds;

struct Work {
  size_t bytes = 0;
  double seconds = 0;  // in all; 0: as many rounds
  int rounds = 0, only = -1;
};

// A rectangle of it, too: rows that are packed together.
bool rows(const Words& from, char* device) {
  const size_t pitch = 3000, width = 2000, height = 300;
  std::vector<char> to(pitch * height);
  CHECK(cudaMemcpy2D(device, 2048, from.data(), pitch, width, height, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy2D(to.data(), pitch, device, 2048, width, height, cudaMemcpyDeviceToHost));
  for (size_t row = 0; row < height; row++) {
    if (memcmp(to.data() + row * pitch, (const char*)from.data() + row * pitch, width) != 0) return false;
  }
  return true;
}

void run(const Work& work, int thread) {
  char* device = nullptr;
  CHECK(cudaMalloc(&device, work.bytes));
  Words from(work.bytes / 8), to(from.size());
  for (int n = 0; n < kKindCount; n++) {
    const Kind& kind = kKinds[n];
    if (work.only >= 0 && work.only != n) continue;
    Rates first, rates;  // in the first round the library learns what the network is like
    const double end = now_seconds() + work.seconds / (work.only >= 0 ? 1 : kKindCount);
    for (int round = 0; round < work.rounds && (round == 0 || work.seconds == 0 || now_seconds() < end); round++) {
      const unsigned long long seed = kind.contents == 0 ? round + 1 : 77 + (round + thread) % kind.contents;
      if (round == 0 || kind.contents != 1) fill(&from, seed, kind.vocabulary);
      EXPECT(there_and_back(from, &to, device, round == 0 ? &first : &rates), "%s, round %d", kind.name, round);
      EXPECT(rows(from, device), "rows of %s, round %d", kind.name, round);
    }
    if (rates.bytes == 0 || thread != 0) continue;
    printf("%-7s to the GPU %6.0f MB/s   from the GPU %6.0f MB/s\n", kind.name, 1e-6 * (double)rates.bytes / rates.in_s,
           1e-6 * (double)rates.bytes / rates.out_s);
  }
  CHECK(cudaFree(device));
}

}  // namespace

int main(int argc, char** argv) {
  Work work;
  work.bytes = (size_t)option(argc, argv, "--mib", 16) << 20;
  work.seconds = option(argc, argv, "--seconds", 0);
  work.rounds = work.seconds > 0 ? 1 << 30 : (int)option(argc, argv, "--rounds", 5);
  work.only = (int)option(argc, argv, "--only", -1);
  std::vector<std::thread> others;
  for (int n = 1; n < (int)option(argc, argv, "--threads", 1); n++) others.emplace_back(run, work, n);
  run(work, 0);
  for (std::thread& other : others) other.join();
  return verdict("batches");
}
