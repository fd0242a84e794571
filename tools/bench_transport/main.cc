// tide-bench-transport: what the transports cost, each figure beside its floor, measured in turns within the same
// second, because the placement of virtual cores changes from second to second. Medians, never means.

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "tools/bench_transport/child.h"
#include "tools/bench_transport/ping.h"
#include "transport/link.h"
#include "transport/ring.h"
#include "transport/verbs.h"

namespace tide::bench {
namespace {

constexpr int kRounds = 15;
constexpr uint32_t kQuietUs = 25'000;  // who answered the measurement before this one has gone to sleep by then

struct Figure {
  std::string name;
  const char* unit = "us";
  double value = 0, floor = 0, ratio = 0, ratio_of_minima = 0;
  int runs = 0;
  double budget = 0;  // the most that the value may be; 0: there is none
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
  const double of_minima =
      *std::min_element(ours.begin(), ours.end()) / *std::min_element(floors.begin(), floors.end());
  return {name, unit, median(ours) * scale, median(floors) * scale, median(ratios), of_minima, int(ours.size())};
}

// What is measured in turns between the same two processes: ours first, then its floors.
struct Contest {
  const char* name;
  std::vector<std::string> kinds;
  int round_trips;
  double most = 0;  // times the first floor that a budget allows; 0: there is none
  std::vector<std::string> floor_names;
};

// Every one in each round; the pings go before the process that answers them.
Outcome measure(const Contest& contest, std::vector<std::vector<double>>* ns) {
  Child child;
  std::vector<std::unique_ptr<Ping>> pings(contest.kinds.size());
  Outcome outcome = child.start(contest.kinds);
  for (size_t i = 0; outcome.ok() && i < pings.size(); ++i) {
    outcome = start_ping(contest.kinds[i], child.take_socket(i), &pings[i]);
  }
  ns->assign(pings.size(), {});
  for (int round = 0; outcome.ok() && round < kRounds; ++round) {
    for (size_t i = 0; i < pings.size(); ++i) {
      sleep_us(kQuietUs);
      (*ns)[i].push_back(pings[i]->measure(contest.round_trips));
      if ((*ns)[i].back() == 0) outcome = Outcome::fail(contest.kinds[i] + ": a round trip failed");
    }
  }
  return outcome;
}

Outcome compare(const Contest& contest, std::vector<Figure>* figures) {
  std::vector<std::vector<double>> ns;
  const Outcome outcome = measure(contest, &ns);
  if (!outcome.ok()) return Outcome::fail(std::string(contest.name) + ": " + outcome.message());
  for (size_t i = 1; i < ns.size(); ++i) {
    const std::string name = std::string("transport: ") + contest.name + " / " + contest.floor_names[i - 1];
    Figure figure = figure_of(name, "us", 1e-3, ns[0], ns[i]);
    if (i == 1) figure.budget = contest.most * figure.floor;
    figures->push_back(figure);
  }
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

void print_line(const Figure& f) {
  printf("%-72s %9.3f %s   floor %9.3f   ratio %5.2f   of minima %5.2f   runs %d\n", f.name.c_str(), f.value, f.unit,
         f.floor, f.ratio, f.ratio_of_minima, f.runs);
}

// `met` is of the median of the ratios, not the ratio of medians.
void print_json(const Figure& f) {
  printf(
      "  {\"name\": \"%s\", \"value\": %.3f, \"unit\": \"%s\", \"floor\": %.3f, \"ratio\": %.2f, "
      "\"ratio_of_minima\": %.2f, \"runs\": %d",
      f.name.c_str(), f.value, f.unit, f.floor, f.ratio, f.ratio_of_minima, f.runs);
  if (f.budget > 0) {
    printf(", \"budget\": %.3f, \"met\": %s", f.budget, f.ratio * f.floor <= f.budget ? "true" : "false");
  }
  printf("}");
}

void print(const std::vector<Figure>& figures, bool json) {
  if (json) printf("[\n");
  for (size_t i = 0; i < figures.size(); ++i) {
    if (json && i > 0) printf(",\n");
    (json ? print_json : print_line)(figures[i]);
  }
  if (json) printf("\n]\n");
}

std::vector<Contest> contests() {
  std::vector<Contest> all{
      {"null round trip on shm", {"shm", "raw"}, 2000, 1.5, {"raw shared memory"}},
      {"null round trip on ucx", {"ucx", "ucx-raw"}, 300, 1.3, {"UCX active messages"}},
      {"null round trip on verbs",
       {"verbs", "verbs-raw", "verbs-poll"},
       300,
       1.3,
       {"RC writes with immediate", "RC writes, the last word polled"}},
      {"null round trip on sim:rtt_us=100", {"sim:rtt_us=100", "shm"}, 50, 0, {"shm"}},
  };
  const Outcome usable = verbs_usable();
  if (!usable.ok()) {
    fprintf(stderr, "tide-bench-transport: left out: verbs: %s\n", usable.message().c_str());
    all.erase(all.begin() + 2);
  }
  return all;
}

// `only`: what has this word in its name; null: all.
int run(bool json, const char* only) {
  keep_to_core(0);
  std::vector<Figure> figures;
  int status = 0;
  const auto note = [&](const Outcome& outcome) {
    if (outcome.ok()) return;
    fprintf(stderr, "tide-bench-transport: %s\n", outcome.message().c_str());
    status = 1;
  };
  if (only == nullptr) note(producer(&figures));
  for (const Contest& contest : contests()) {
    if (only == nullptr || strstr(contest.name, only) != nullptr) note(compare(contest, &figures));
  }
  print(figures, json);
  return status;
}

// Pairs of a role and its socket.
int serve_all(int count, char** words) {
  std::vector<std::thread> threads;
  std::atomic<int> status{0};
  for (int i = 0; i + 1 < count; i += 2) {
    threads.emplace_back([&, i] { status |= serve(words[i], atoi(words[i + 1])); });
  }
  for (std::thread& thread : threads) thread.join();
  return status;
}

}  // namespace
}  // namespace tide::bench

int main(int argc, char** argv) {
  if (argc > 2 && strcmp(argv[1], "--serve") == 0) return tide::bench::serve_all(argc - 2, argv + 2);
  bool json = false, good = true;
  const char* only = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--json") == 0) {
      json = true;
    } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      only = argv[++i];
    } else {
      good = false;
    }
  }
  if (!good) {
    fprintf(stderr, "usage: tide-bench-transport [--json] [--only WORD]\n");
    return 2;
  }
  return tide::bench::run(json, only);
}
