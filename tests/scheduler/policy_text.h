#pragma once

// Pools in one line, for tables of tests: "4 gpus; A n4 min1 on 0,1,2,3; B n2". GPUs are numbered over the servers:
// "2+2 gpus" are servers s0 and s1 with two each, and GPU 2 is s1/0. A GPU's memory is 16; "mem8" is a quota that the
// user chose, "part250" a quarter of a GPU, "lasts60" that it will run for a minute, "due90" that it shall be done 90 s
// after the story began, "ran20" what it has run. "t2" is a target, "skip16" a count of skips, "pinned" what `tide
// migrate` leaves. "on p0" is parked on server s0, "suspended" what `tide suspend` wants, "waiting" who is on places
// and not admitted; "keeps1": GPU 1 is kept for it, "refused0": server s0 cannot keep it, "failed0": it could not be
// resumed there. Where jobs take turns ("4 gpus turns"): "ticket2" who waits, "had7" of its turn "of9", "endless";
// "prio3", "interactive", "inference" (behind "n"), "pow2" (powers of two only), "spared" (not to be disturbed); what
// disturbing it costs: "bytes4" GiB in use, "switch500" ms measured, "ran20" of "lasts30" s.
// "keeper" keeps its GPUs until it ends; "for B" after the GPUs: B's turn is next. "drain1": server s1 is being
// drained; "s0:H200", "s0:rack=a", "s0:switch=x": its GPUs' model, a label, its switch; "needs:H200", "needs:rack=a",
// "needs:server", "needs:switch": what a job requires. "unmoved": jobs are not moved for others; "spared": this one is
// not; "bytes5": GiB that it has in use.

#include <gtest/gtest.h>

#include <cstring>
#include <sstream>
#include <string>

#include "scheduler/expect.h"
#include "scheduler/policy.h"

namespace tide::sched {

inline constexpr uint64_t kBeginMs = 1'795'000'000'000;  // when stories begin, on the clock of State::now_ms

inline GpuId gpu_number(const State& state, size_t number) { return state.gpus.at(number).id; }

inline std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, at);) parts.push_back(part);
  return parts;
}

inline void describe_server(const std::string& server, const std::string& what, State* state) {
  for (GpuView& gpu : state->gpus) {
    if (gpu.id.server != server) continue;
    GpuTraits traits = gpu.traits == nullptr ? GpuTraits() : *gpu.traits;
    if (what.rfind("switch=", 0) == 0) {
      traits.network_switch = what.substr(7);
    } else if (is_label(what)) {
      traits.labels.insert(what);
    } else {
      traits.model = "NVIDIA " + what;
    }
    gpu.traits = std::make_shared<const GpuTraits>(traits);
  }
}

inline void parse_needs(const std::string& what, Requirements* require) {
  if (parse_together(what, &require->together)) return;
  if (is_label(what)) {
    require->labels.insert(what);
  } else {
    require->model = what;
  }
}

inline void parse_gpus(const std::string& text, State* state) {
  std::istringstream in(text);
  std::string counts, word;
  in >> counts >> word;
  uint32_t server = 0;
  for (const std::string& count : split(counts, '+')) {
    for (uint32_t i = 0; i < std::stoul(count); ++i) {
      state->gpus.push_back(
          {.id = {"s" + std::to_string(server), i}, .memory_bytes = 16, .online = true, .healthy = true});
    }
    ++server;
  }
  for (in >> word; in; in >> word) {  // "sick3", "off2"
    if (word == "turns") state->turns = true;
    if (word == "unmoved") state->consolidate = false;
    if (word.find(':') != std::string::npos)
      describe_server(word.substr(0, word.find(':')), word.substr(word.find(':') + 1), state);
    for (GpuView& gpu : state->gpus) {
      if (word == "drain" + gpu.id.server.substr(1)) gpu.draining = gpu.healthy, gpu.healthy = false;
    }
    if (word == "for") in >> state->next_turn;
    if (word.rfind("sick", 0) == 0) state->gpus.at(std::stoul(word.substr(4))).healthy = false;
    if (word.rfind("off", 0) == 0) state->gpus.at(std::stoul(word.substr(3))).online = false;
    if (word.rfind("small", 0) == 0) state->gpus.at(std::stoul(word.substr(5))).memory_bytes = 8;
  }
}

inline GpuId parse_place(const std::string& text, const State& state) {
  if (text == "-") return {};
  if (text[0] == 'p') return {"s" + text.substr(1), kParked};
  return gpu_number(state, std::stoul(text));
}

// Who comes first, and what disturbing it costs. False: it is no such word.
inline bool parse_rule(const std::string& word, JobView* job) {
  const auto behind = [&](const char* key, uint64_t* number) {
    if (word.rfind(key, 0) != 0) return false;
    *number = std::stoull(word.substr(strlen(key)));
    return true;
  };
  uint64_t number = 0;
  if (word.rfind("prio", 0) == 0) return job->priority = std::stoi(word.substr(4)), true;
  if (word == "spared") return job->spared = true;
  if (word == "pow2") return job->powers_of_two = true;
  if (behind("bytes", &number)) return job->bytes = number << 30, true;
  if (behind("switch", &number)) return job->switch_ms = number, true;
  if (behind("ran", &number)) return job->useful_ms = number * 1000, true;
  if (behind("lasts", &number)) return job->estimate_ms = number * 1000, true;
  if (!parse_job_class(word, &job->job_class)) return false;
  if (job->job_class == JobClass::kInference) job->min_gpus = job->vgpus;
  return true;
}

inline JobView parse_job(const std::string& text, const State& state) {
  JobView job;
  bool waiting = false, keeper = false;
  job.turn.length_ms = 9;
  std::istringstream in(text);
  in >> job.id;
  for (std::string word; in >> word;) {
    if (word == "on") {
      in >> word;
      job.running = true;
      for (const std::string& number : split(word, ',')) {
        job.places.push_back(parse_place(number, state));
      }
    } else if (word.rfind("needs:", 0) == 0) {
      parse_needs(word.substr(6), &job.require);
    } else if (word.rfind("ticket", 0) == 0) {
      job.turn.ticket = std::stoul(word.substr(6));
    } else if (word.rfind("had", 0) == 0) {
      job.turn.had_ms = std::stoul(word.substr(3));
    } else if (word.rfind("of", 0) == 0) {
      job.turn.length_ms = std::stoul(word.substr(2));
    } else if (word == "endless") {
      job.turn.length_ms = kEndless;
    } else if (word == "keeper") {
      keeper = true;
    } else if (parse_rule(word, &job)) {
      continue;
    } else if (word.rfind("due", 0) == 0) {
      job.deadline_ms = kBeginMs + std::stoul(word.substr(3)) * 1000;
    } else if (word.rfind("part", 0) == 0) {
      job.part = uint32_t(std::stoul(word.substr(4)));
    } else if (word == "pinned") {
      job.pinned = true;
    } else if (word == "suspended") {
      job.suspended = true;
    } else if (word == "waiting") {
      waiting = true;
    } else if (word.rfind("keeps", 0) == 0) {
      job.keeps.insert(gpu_number(state, std::stoul(word.substr(5))));
    } else if (word.rfind("refused", 0) == 0) {
      job.refused_by.insert("s" + word.substr(7));
    } else if (word.rfind("failed", 0) == 0) {
      job.failed_on.insert("s" + word.substr(6));
    } else if (word.rfind("min", 0) == 0) {
      job.min_gpus = uint32_t(std::stoul(word.substr(3)));
    } else if (word.rfind("mem", 0) == 0) {
      job.memory_bytes = std::stoul(word.substr(3));
      job.memory_given = true;
    } else if (word.rfind("skip", 0) == 0) {
      job.skipped = uint32_t(std::stoul(word.substr(4)));
    } else if (word[0] == 't') {
      job.target = uint32_t(std::stoul(word.substr(1)));
    } else if (word[0] == 'n') {
      job.vgpus = uint32_t(std::stoul(word.substr(1)));
    }
  }
  job.running &= !waiting;
  job.turn.gives = job.running && !keeper;
  return job;
}

inline State parse_state(const std::string& text) {
  State state;
  const auto parts = split(text, ';');
  parse_gpus(parts.at(0), &state);
  for (size_t i = 1; i < parts.size(); ++i) state.jobs.push_back(parse_job(parts[i], state));
  return state;
}

// "A 0,1; B waits".
inline std::string to_text(const State& state, const Assignment& assignment) {
  std::string text;
  for (const JobView& job : state.jobs) {
    const Decision& decision = assignment.at(job.id);
    text += (text.empty() ? "" : "; ") + job.id + " ";
    if (!decision.running) text += "waits";
    for (size_t v = 0; decision.running && v < decision.places.size(); ++v) {
      if (v > 0) text += ",";
      for (size_t g = 0; g < state.gpus.size(); ++g) {
        if (state.gpus[g].id == decision.places[v]) text += std::to_string(g);
      }
      if (decision.places[v].none()) text += "-";
      if (decision.places[v].parked()) text += "p" + decision.places[v].server.substr(1);
    }
  }
  return text;
}

inline State after(const State& state, const Assignment& assignment) {
  State next = state;
  for (JobView& job : next.jobs) {
    const Decision& decision = assignment.at(job.id);
    if (decision.running && !job.running) note_start(decision, state.now_ms, &job);
    job.running = decision.running;
    for (size_t v = 0; job.suspended && v < job.places.size(); ++v) {
      if (job.places[v].on_gpu() && decision.places[v].parked()) job.keeps.insert(job.places[v]);
    }
    if (decision.running) job.places = decision.places;
  }
  return next;
}

}  // namespace tide::sched
