// `tide simulate --snapshot`: a recorded decision, worked out again, also with something otherwise.

#include "scheduler/replay.h"

#include <stdio.h>

#include <fstream>
#include <sstream>

#include "base/log.h"
#include "scheduler/policy.h"
#include "tools/tide/commands.h"
#include "tools/tide/json.h"
#include "tools/tide/options.h"
#include "tools/tide/times.h"

#ifndef TIDE_VERSION
#define TIDE_VERSION "0"
#endif

namespace tide::cli {
namespace {

using sched::Decision;
using sched::GpuId;
using sched::Replayed;

constexpr const char* kHelp =
    "usage: tide simulate --snapshot FILE [--what-if CHANGE,...] [--all] [--json]\n\n"
    "Decides again, with this version's policy, what the scheduler decided upon (`tide snapshot` fetches it), and\n"
    "compares: exit status 1 where the answers differ. Nothing of the running pool is asked or changed.\n"
    "  --what-if C,...  what would have been decided with something otherwise, one after the other; several at once "
    "with\n"
    "                   '&' between them: gpus=+4, gpus=-2, gpus=16, drain=SERVER, undrain=SERVER, without=JOB,\n"
    "                   job.JOB.min=1, job.JOB.priority=2, job.JOB.preemptible=false, queue.NAME.quota=8 (limit,\n"
    "                   over_quota_weight, priority, preemptible as well)\n"
    "  --all            also jobs for which nothing changes\n";

// One answer beside the one that counts.
struct Otherwise {
  std::string text;
  sched::State state;
  sched::Assignment answer;
};

std::string places_text(const std::vector<GpuId>& places) {
  std::string text;
  for (const GpuId& place : places) text += (text.empty() ? "" : ",") + (place.none() ? "-" : to_text(place));
  return text;
}

std::string decision_text(const Decision& decision) {
  return decision.running ? places_text(decision.places) : "waits";
}

void add_decision(Json& json, const char* name, const Decision& decision) {
  json.key(name).object().add("running", decision.running).key("places").list();
  for (const GpuId& place : decision.places) json.text(place.none() ? "" : to_text(place));
  json.end().add("reason", decision.reason).end();
}

std::string wants_text(const sched::JobView& job) {
  if (job.is_partial()) return format("%g", job.part / 1000.0);
  return job.min_gpus == job.vgpus ? std::to_string(job.vgpus) : format("%u-%u", job.min_gpus, job.vgpus);
}

sched::Decided decided(const sched::JobView& job, const Decision& decision) {
  return {job.id, decision, job.running, job.places};
}

// Who is decided upon otherwise than without it: the job's id, and how.
std::vector<std::pair<std::string, sched::Decided>> otherwise(const Otherwise& other,
                                                              const sched::Assignment& without) {
  std::vector<std::pair<std::string, sched::Decided>> all;
  for (const sched::JobView& job : other.state.jobs) {
    const Decision &is = other.answer.at(job.id), &was = without.at(job.id);
    if (is.running != was.running || is.places != was.places) all.emplace_back(job.id, decided(job, is));
  }
  return all;
}

struct Told {
  sched::Snapshot snapshot;
  std::vector<Replayed> jobs;
  size_t different = 0;
  sched::Assignment answer;
  std::vector<Otherwise> others;
};

void print_json(const Told& told) {
  Json json;
  json.object().add("decision", told.snapshot.number).add("at_ms", told.snapshot.at_ms);
  json.add("version", told.snapshot.version).add("gpus", uint64_t(told.snapshot.state.gpus.size()));
  json.add("equal", told.different == 0).key("jobs").list();
  for (size_t i = 0; i < told.jobs.size(); ++i) {
    const Replayed& each = told.jobs[i];
    json.object().add("id", each.then.job).add("was_running", each.then.was_running).key("was_places").list();
    for (const GpuId& place : each.then.was_places) json.text(place.none() ? "" : to_text(place));
    json.end();
    if (told.snapshot.number != 0) {
      json.add("what", what_of(each.then)).add("equal", each.same);
      add_decision(json, "recorded", each.then.decision);
    }
    add_decision(json, "replayed", each.now);
    json.end();
  }
  json.end().key("what_if").list();
  for (const Otherwise& other : told.others) {
    json.object().add("what_if", other.text).key("otherwise").list();
    for (const auto& [id, how] : otherwise(other, told.answer)) {
      json.object().add("id", id).add("what", what_of(how));
      add_decision(json, "decision", how.decision);
      json.end();
    }
    json.end().end();
  }
  json.end().end().print();
}

void print_jobs(const Told& told, bool all) {
  printf("%-8s %-6s %-24s %-24s %s\n", "JOB", "WANTS", "WAS", "DECIDED", "WHAT AND WHY");
  size_t left = 0;
  for (size_t i = 0; i < told.jobs.size(); ++i) {
    const Replayed& each = told.jobs[i];
    const sched::JobView& job = told.snapshot.state.jobs[i];
    const sched::Decided now = decided(job, each.now);
    const bool still = each.now.running == job.running && each.now.places == job.places;
    if (!all && still && job.running && each.same) {
      ++left;
      continue;
    }
    const std::string was = job.running ? places_text(job.places) : "waits";
    const std::string why = each.now.reason.empty() ? "" : ": " + each.now.reason;
    printf("%-8s %-6s %-24s %-24s %s%s\n", job.id.c_str(), wants_text(job).c_str(), was.c_str(),
           decision_text(each.now).c_str(), still && job.running ? "stays" : what_of(now).c_str(), why.c_str());
  }
  if (left != 0) printf("(%zu jobs stay as they are; --all shows them)\n", left);
}

void print_comparison(const Told& told) {
  if (told.snapshot.number == 0) return;
  if (told.different == 0) {
    puts("replayed: equal to what was decided");
    return;
  }
  printf("replayed: %zu of %zu jobs are decided otherwise now\n", told.different, told.jobs.size());
  for (const Replayed& each : told.jobs) {
    if (each.same) continue;
    const auto said = [](const Decision& d) {
      return decision_text(d) + (d.reason.empty() ? "" : " (" + d.reason + ")");
    };
    printf("  job %s: then %s; now %s\n", each.then.job.c_str(), said(each.then.decision).c_str(),
           said(each.now).c_str());
  }
}

void print(const Told& told, bool all) {
  const sched::Snapshot& snapshot = told.snapshot;
  const std::string what = snapshot.number == 0 ? "the pool" : format("decision %lu", (unsigned long)snapshot.number);
  printf("%s of %s (version %s): %zu GPUs, %zu jobs\n", what.c_str(), moment_text(snapshot.at_ms).c_str(),
         snapshot.version.c_str(), snapshot.state.gpus.size(), snapshot.state.jobs.size());
  if (snapshot.version != TIDE_VERSION) printf("this is version %s\n", TIDE_VERSION);
  print_jobs(told, all);
  print_comparison(told);
  for (const Otherwise& other : told.others) {
    const auto changed = otherwise(other, told.answer);
    printf("\nwith %s: %zu job%s decided otherwise\n", other.text.c_str(), changed.size(),
           changed.size() == 1 ? " is" : "s are");
    for (const auto& [id, how] : changed) {
      const std::string why = how.decision.reason.empty() ? "" : ": " + how.decision.reason;
      printf("  job %s %s%s\n", id.c_str(), what_of(how).c_str(), why.c_str());
    }
  }
}

Outcome read_file(const std::string& path, sched::Snapshot* snapshot) {
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) return Outcome::fail(path + ": cannot be read");
  std::string bytes;
  std::vector<char> piece(1u << 20);
  while (file.read(piece.data(), std::streamsize(piece.size())) || file.gcount() > 0) {
    bytes.append(piece.data(), size_t(file.gcount()));
    if (bytes.size() > sched::kSnapshotBytesMax) return Outcome::fail(path + ": is too large for a snapshot");
  }
  const Outcome outcome = sched::from_bytes(bytes, snapshot);
  return outcome.ok() ? outcome : Outcome::fail(path + ": " + outcome.message());
}

}  // namespace

int replay_snapshot(const Words& words) {
  Options options;
  const std::vector<OptionSpec> specs = {
      {"snapshot"}, {"what-if", 0, true, true}, {"all", 0, false}, {"json", 0, false}};
  if (!options.parse(words, specs, kHelp) || !options.expect_words(0, "")) return options.status();
  Told told;
  const Outcome read = read_file(options.get("snapshot"), &told.snapshot);
  if (!read.ok()) return fail(read.message());
  std::istringstream parts(options.get("what-if"));
  for (std::string text; std::getline(parts, text, ',');) {
    Otherwise other{text, told.snapshot.state, {}};
    const Outcome changed = sched::apply_what_if(text, &other.state);
    if (!changed.ok()) return options.usage_error("--what-if: " + changed.message());
    other.answer = assign(other.state);
    told.others.push_back(std::move(other));
  }
  told.answer = assign(told.snapshot.state);
  told.jobs = sched::replay(told.snapshot, told.answer);
  for (const Replayed& each : told.jobs) told.different += each.same ? 0 : 1;
  if (options.has("json")) {
    print_json(told);
  } else {
    print(told, options.has("all"));
  }
  return told.snapshot.number == 0 || told.different == 0 ? kOk : kFailed;
}

}  // namespace tide::cli
