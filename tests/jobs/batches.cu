// Uploads batches and reads them back, with contents of several kinds; every byte is checked. Prints MB/s of each.
//   ./batches [--mib N] [--rounds N | --seconds S] [--only 0|1|2]
//
// 0 tokens: words of a small vocabulary, which shrink; 1 noise, which does not; 2 repeat: noise, the same in each
// round.

#include <algorithm>
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
  bool same;
};
const Kind kKinds[] = {{"tokens", 500, false}, {"noise", 0, false}, {"repeat", 0, true}};

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

}  // namespace

int main(int argc, char** argv) {
  const size_t bytes = (size_t)option(argc, argv, "--mib", 16) << 20;
  const double limit = option(argc, argv, "--seconds", 0);
  const int rounds = limit > 0 ? 1 << 30 : (int)option(argc, argv, "--rounds", 5);
  const int only = (int)option(argc, argv, "--only", -1);
  char* device = nullptr;
  CHECK(cudaMalloc(&device, bytes));
  Words from(bytes / 8), to(from.size());
  for (int n = 0; n < 3; n++) {
    const Kind& kind = kKinds[n];
    if (only >= 0 && only != n) continue;
    Rates first, rates;  // in the first round the library learns what the network is like
    const double end = now_seconds() + limit / (only >= 0 ? 1 : 3);
    for (int round = 0; round < rounds && (round == 0 || limit == 0 || now_seconds() < end); round++) {
      if (round == 0 || !kind.same) fill(&from, kind.same ? 77 : round + 1, kind.vocabulary);
      EXPECT(there_and_back(from, &to, device, round == 0 ? &first : &rates), "%s, round %d", kind.name, round);
      EXPECT(rows(from, device), "rows of %s, round %d", kind.name, round);
    }
    if (rates.bytes == 0) continue;
    printf("%-7s to the GPU %6.0f MB/s   from the GPU %6.0f MB/s\n", kind.name, 1e-6 * (double)rates.bytes / rates.in_s,
           1e-6 * (double)rates.bytes / rates.out_s);
  }
  CHECK(cudaFree(device));
  return verdict("batches");
}
