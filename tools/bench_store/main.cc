// What the record of jobs costs: so many jobs submitted, each durable before the next one, and then placed in rounds, a
// round being one group of writes before its actions and one after them, as the scheduler makes them.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "scheduler/kv_etcd.h"
#include "scheduler/kv_memory.h"
#include "scheduler/store.h"

namespace {

using tide::sched::JobRecord;
using tide::sched::Store;

constexpr const char* kHelp =
    "usage: bench_store STORE [--jobs N] [--together N] [--round N] [--json]\n"
    "  STORE      sqlite:DIRECTORY, etcd://ADDRESS:PORT,.../NAME or memory\n"
    "  --jobs N   default 4000\n"
    "  --together N  jobs that are submitted at once (default 1: each waits for the one before)\n"
    "  --round N  jobs that are placed at once (default 64)\n";

tide::Outcome open(const std::string& where, std::unique_ptr<Store>* store) {
  if (where == "memory") {
    *store = std::make_unique<Store>(std::make_unique<tide::sched::MemoryKv>());
    return {};
  }
  if (where.rfind("sqlite:", 0) == 0) return Store::open(where.substr(7), store);
  tide::sched::EtcdPlace place;
  const tide::Outcome parsed = tide::sched::parse_etcd(where, &place);
  if (parsed.ok()) *store = std::make_unique<Store>(std::make_unique<tide::sched::EtcdKv>(place), place.root);
  return parsed;
}

JobRecord new_job() {
  JobRecord job;
  job.token = std::string(32, 't');
  job.user = "somebody";
  job.command = "./train --data /data/set --epochs 100";
  job.vgpus.resize(1);
  return job;
}

tide::Outcome submit(Store* store, std::vector<JobRecord>* jobs, size_t together) {
  for (size_t at = 0; at < jobs->size(); at += together) {
    std::vector<JobRecord*> some;
    for (size_t i = at; i < std::min(at + together, jobs->size()); ++i) {
      (*jobs)[i] = new_job();
      some.push_back(&(*jobs)[i]);
    }
    if (tide::Outcome o = store->add(some); !o.ok()) return o;
  }
  return {};
}

tide::Outcome place(Store* store, std::vector<JobRecord>* jobs, size_t round) {
  for (size_t at = 0; at < jobs->size(); at += round) {
    std::vector<const JobRecord*> placed;
    for (size_t i = at; i < std::min(at + round, jobs->size()); ++i) {
      JobRecord& job = (*jobs)[i];
      job.phase = tide::sched::Phase::kRunning;
      job.vgpus[0] = {
          .at = {"gpu" + std::to_string(i / 8), uint32_t(i % 8)}, .epoch = 1, .device_info = std::string(1200, 'd')};
      placed.push_back(&job);
    }
    if (tide::Outcome o = store->update(placed); !o.ok()) return o;  // before an agent hears of it
    for (size_t i = at; i < at + placed.size(); ++i) (*jobs)[i].started_ms = 1;
    if (tide::Outcome o = store->update(placed); !o.ok()) return o;
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  size_t count = 4000, together = 1, round = 64;
  bool json = false;
  for (int i = 2; i < argc; ++i) {
    if (strcmp(argv[i], "--json") == 0) json = true;
    if (i + 1 < argc && strcmp(argv[i], "--jobs") == 0) count = strtoul(argv[i + 1], nullptr, 10);
    if (i + 1 < argc && strcmp(argv[i], "--together") == 0) together = strtoul(argv[i + 1], nullptr, 10);
    if (i + 1 < argc && strcmp(argv[i], "--round") == 0) round = strtoul(argv[i + 1], nullptr, 10);
  }
  if (argc < 2 || strcmp(argv[1], "--help") == 0 || count == 0 || round == 0 || together == 0 ||
      together > Store::kAddMax) {
    fputs(kHelp, argc < 2 ? stderr : stdout);
    return argc < 2 ? 2 : 0;
  }
  std::unique_ptr<Store> store;
  std::vector<JobRecord> jobs(count);
  tide::Outcome outcome = open(argv[1], &store);
  const uint64_t begin = tide::now_ns();
  if (outcome.ok()) outcome = submit(store.get(), &jobs, together);
  const uint64_t submitted = tide::now_ns();
  if (outcome.ok()) outcome = place(store.get(), &jobs, round);
  const uint64_t placed = tide::now_ns();
  if (!outcome.ok()) {
    fprintf(stderr, "bench_store: %s\n", outcome.message().c_str());
    return 1;
  }
  const double submit_s = double(submitted - begin) / 1e9, place_s = double(placed - submitted) / 1e9;
  printf(json ? "{\"jobs\": %zu, \"round\": %zu, \"submit_s\": %.3f, \"place_s\": %.3f}\n"
              : "%zu jobs, %zu a round: submitted in %.2f s, placed in %.2f s\n",
         count, round, submit_s, place_s);
  return 0;
}
