// tide-bench-transport: what the transports cost, each figure beside its floor, measured in turns within the same
// second, because the placement of virtual cores changes from second to second. Medians, never means.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tools/bench_transport/ping.h"
#include "transport/link.h"
#include "transport/ring.h"
#include "transport/verbs.h"

namespace tide::bench {
namespace {

constexpr int kRounds = 15;

struct Figure {
  std::string name;
  const char* unit = "us";
  double value = 0, floor = 0, ratio = 0;
  int runs = 0;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + long(values.size() / 2), values.end());
  return values[values.size() / 2];
}

Figure figure_of(const std::string& name, const char* unit, double scale, const std::vector<double>& ours,
                 const std::vector<double>& floors) {
  std::vector<double> ratios;
  for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(floors[i] > 0 ? ours[i] / floors[i] : 0);
  return {name, unit, median(ours) * scale, median(floors) * scale, median(ratios), int(ours.size())};
}

Outcome compare(const std::string& name, const std::string& ours, const std::string& floor, int round_trips,
                std::vector<Figure>* figures) {
  std::unique_ptr<Ping> our_ping, floor_ping;
  Outcome outcome = start_ping(floor, &floor_ping);
  if (outcome.ok()) outcome = start_ping(ours, &our_ping);
  if (!outcome.ok()) return outcome;
  std::vector<double> our_ns, floor_ns;
  for (int i = 0; i < kRounds; ++i) {
    floor_ns.push_back(floor_ping->measure(round_trips));
    our_ns.push_back(our_ping->measure(round_trips));
    if (floor_ns.back() == 0 || our_ns.back() == 0) return Outcome::fail(name + ": a round trip failed");
  }
  figures->push_back(figure_of(name, "us", 1e-3, our_ns, floor_ns));
  return {};
}

// Client time of one asynchronous command of 128 bytes; the floor is copying the same bytes and one release store.
Outcome producer(std::vector<Figure>* figures) {
  constexpr uint32_t kPayload = 128 - sizeof(CommandHeader);
  constexpr int kRecords = 50'000;
  int fd = -1;
  Region region;
  const Outcome outcome = create_region(&fd, &region);
  if (!outcome.ok()) return outcome;
  unsigned char payload[128] = {};
  std::vector<double> ours, floors;
  for (int round = 0; round < kRounds + 1; ++round) {
    CommandWriter writer(region);
    uint64_t begin = now_ns();
    for (int i = 0; i < kRecords; ++i) {
      CommandHeader* header = writer.reserve(kPayload);
      if (header == nullptr) break;
      header->call = 1;
      memcpy(payload_of(header), payload, kPayload);
      writer.publish(header);
      std::atomic_thread_fence(std::memory_order_seq_cst);  // notify() without a sleeper
      if (region.worker().asleep.load(std::memory_order_relaxed) != 0) break;
    }
    const double our_ns = double(now_ns() - begin) / kRecords;
    region.worker().command_tail.store(region.client().command_head.load());  // the worker's part
    begin = now_ns();
    for (int i = 0; i < kRecords; ++i) {
      payload[i % 128] = static_cast<unsigned char>(i);
      memcpy(region.commands() + uint64_t(i) * 128, payload, 128);
      region.client().signals[0].store(uint64_t(i), std::memory_order_release);
    }
    const double floor_ns = double(now_ns() - begin) / kRecords;
    if (round == 0) continue;  // touches the pages
    ours.push_back(our_ns);
    floors.push_back(floor_ns);
  }
  figures->push_back(figure_of("transport: publish a command of 128 bytes", "ns", 1, ours, floors));
  destroy_region(fd, region);
  return {};
}

void print(const std::vector<Figure>& figures, bool json) {
  if (json) printf("[");
  for (size_t i = 0; i < figures.size(); ++i) {
    const Figure& f = figures[i];
    const char* form = json ? "%s\n  {\"name\": \"%s\", \"value\": %.3f, \"unit\": \"%s\", \"floor\": %.3f, "
                              "\"ratio\": %.2f, \"runs\": %d}"
                            : "%s%-56s %9.3f %s   floor %9.3f   ratio %5.2f   runs %d\n";
    printf(form, json && i > 0 ? "," : "", f.name.c_str(), f.value, f.unit, f.floor, f.ratio, f.runs);
  }
  if (json) printf("\n]\n");
}

int run(bool json) {
  std::vector<Figure> figures;
  std::vector<Outcome> outcomes;
  outcomes.push_back(producer(&figures));
  outcomes.push_back(compare("transport: null round trip on shm / raw shared memory", "shm", "raw", 2000, &figures));
  outcomes.push_back(
      compare("transport: null round trip on ucx / UCX active messages", "ucx", "ucx-raw", 300, &figures));
  if (const Outcome usable = verbs_usable(); usable.ok()) {
    outcomes.push_back(
        compare("transport: null round trip on verbs / RC writes with immediate", "verbs", "verbs-raw", 300, &figures));
  } else {
    fprintf(stderr, "tide-bench-transport: left out: verbs: %s\n", usable.message().c_str());
  }
  outcomes.push_back(
      compare("transport: null round trip on sim:rtt_us=100 / shm", "sim:rtt_us=100", "shm", 50, &figures));
  print(figures, json);
  int status = 0;
  for (const Outcome& outcome : outcomes) {
    if (outcome.ok()) continue;
    fprintf(stderr, "tide-bench-transport: %s\n", outcome.message().c_str());
    status = 1;
  }
  return status;
}

}  // namespace
}  // namespace tide::bench

int main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "--serve") == 0) return tide::bench::serve(argv[2], atoi(argv[3]));
  const bool json = argc == 2 && strcmp(argv[1], "--json") == 0;
  if (argc > 1 && !json) {
    fprintf(stderr, "usage: tide-bench-transport [--json]\n");
    return 2;
  }
  return tide::bench::run(json);
}
