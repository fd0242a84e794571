#include "scheduler/explain.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/log.h"
#include "scheduler/line.h"
#include "scheduler/policy.h"
#include "scheduler/reservations.h"
#include "scheduler/turns.h"

namespace tide::sched {
namespace {

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string gpus(size_t count) { return format("%zu GPU%s", count, count == 1 ? "" : "s"); }

JobView* view_in(State* state, const std::string& id) {
  for (JobView& job : state->jobs) {
    if (job.id == id) return &job;
  }
  return nullptr;
}

// Distinct physical GPUs that it has.
std::set<GpuId> held_by(const JobView& job) {
  std::set<GpuId> held;
  for (const GpuId& place : job.places) {
    if (place.on_gpu()) held.insert(place);
  }
  return held;
}

std::string labels_text(const State& state) {
  std::map<std::string, std::set<std::string>> servers;  // by label
  for (const GpuView& gpu : state.gpus) {
    if (gpu.traits == nullptr) continue;
    for (const std::string& label : gpu.traits->labels) servers[label].insert(gpu.id.server);
  }
  std::vector<std::string> parts;
  for (const auto& [label, names] : servers) {
    parts.push_back(label + " (" + joined({names.begin(), names.end()}) + ")");
  }
  return parts.empty() ? "no server has a label (`labels` of a [[server]] in pool.toml)"
                       : "the labels are " + joined(parts);
}

std::string servers_that_drain(const State& state) {
  std::set<std::string> names;
  for (const GpuView& gpu : state.gpus) {
    if (gpu.draining) names.insert(gpu.id.server);
  }
  return joined({names.begin(), names.end()});
}

State without_drains(State state) {
  for (GpuView& gpu : state.gpus) {
    gpu.healthy |= gpu.draining;
    gpu.draining = false;
  }
  return state;
}

State without_requirements(State state, const std::string& id) {
  if (JobView* job = view_in(&state, id)) job->require = {};
  return state;
}

// As if nobody had a deadline.
State without_promises(State state) {
  for (JobView& job : state.jobs) {
    if (job.in_line) continue;
    job.due_gpus = job.due_more = 0;
    job.yields_to.clear();
    job.kept_out_for.clear();
  }
  return state;
}

// As if somebody could be disturbed who cannot: what was promised stays as it is.
void share_anew(State* state) {
  for (JobView& job : state->jobs) {
    if (!job.in_line) continue;
    job.due_gpus = job.due_more = 0;
    job.yields_to.clear();
  }
  keep_line(state);
}

std::string who_is_due(const State& state) {
  std::vector<std::string> parts;
  for (const JobView& job : state.jobs) {
    if (job.due_gpus != 0 && !job.in_line)
      parts.push_back(format("job %s has to have %u", job.id.c_str(), job.due_gpus));
  }
  return joined(parts);
}

bool runs(const State& state, const std::string& id) {
  const Assignment answer = assign(state);
  const auto found = answer.find(id);
  return found != answer.end() && found->second.running;
}

// Whether it starts when those have left whom the answer lets leave.
bool starts_without(State state, const Assignment& answer, const std::string& id) {
  if (answer.at(id).running) return true;
  for (JobView& job : state.jobs) {
    if (!job.running || answer.at(job.id).running) continue;
    job.running = false;
    for (GpuId& place : job.places) place.index = place.none() ? place.index : kParked;
  }
  return runs(state, id);
}

State without_reservations(State state) {
  state.reservations.clear();
  return state;
}

// Which ones keep GPUs now: "'night' has 4 until ...".
std::string who_keeps(const State& state) {
  const std::vector<ReservationState> states = states_of(state);
  std::vector<std::string> parts;
  for (size_t i = 0; i < states.size(); ++i) {
    const Reservation& each = state.reservations[i];
    if (states[i].kept != 0)
      parts.push_back("'" + each.name + "' keeps " + gpus(states[i].kept) + " until " + time_text(each.until_ms));
  }
  return joined(parts);
}

// Of a job that waits for a reservation, its own or others'; none: it would wait without any, too.
std::optional<Explanation> why_reserved(const State& state, const JobView& job) {
  for (const Reservation& each : state.reservations) {
    if (each.name != job.reservation || each.begun(state.now_ms)) continue;
    return Explanation{
        .reason = "waits until " + time_text(each.from_ms) + ", when its reservation '" + each.name + "' begins",
        .next = "it starts by itself then; without --reservation it would wait for free GPUs instead",
        .evidence = {"'" + each.name + "' has " + gpus(each.gpus) + " until " + time_text(each.until_ms)}};
  }
  if (state.reservations.empty() || !runs(without_reservations(state), job.id)) return std::nullopt;
  const Assignment answer = assign(state);
  const std::string keeps = who_keeps(state);
  return Explanation{
      .reason = keeps.empty() ? answer.at(job.id).reason : "waits because of reservations: " + keeps,
      .next = "it starts by itself when that is over, or GPUs fall free; `tide status` shows reservations",
      .evidence = {"without reservations it would start now"}};
}

size_t gpus_of(const State& state, const std::string& id) {
  const Assignment answer = assign(state);
  const auto found = answer.find(id);
  if (found == answer.end()) return 0;
  return std::set<GpuId>(found->second.places.begin(), found->second.places.end()).size();
}

size_t count_draining(const State& state) {
  return size_t(std::count_if(state.gpus.begin(), state.gpus.end(), [](const GpuView& gpu) { return gpu.draining; }));
}

// Of the GPUs that meet what it requires: who has them.
std::string who_has_them(const State& state, const JobView& job) {
  std::map<std::string, size_t> held;  // by job
  size_t all = 0, unusable = 0;
  for (const GpuView& gpu : state.gpus) {
    if (!may_use(job, gpu)) continue;
    ++all;
    unusable += gpu.online && gpu.healthy ? 0 : 1;
    for (const JobView& each : state.jobs) held[each.id] += held_by(each).count(gpu.id);
  }
  std::vector<std::string> parts;
  for (const auto& [id, count] : held) {
    if (count != 0 && id != job.id) parts.push_back(format("job %s has %zu", id.c_str(), count));
  }
  std::string text = format("%s of the pool meet%s it", gpus(all).c_str(), all == 1 ? "s" : "");
  if (!parts.empty()) text += ": " + joined(parts);
  if (unusable != 0) text += format("; %zu %s not usable now", unusable, unusable == 1 ? "is" : "are");
  return text;
}

// It would start if others were moved who are not to be.
std::optional<Explanation> why_in_pieces(const State& state, const std::string& id) {
  const std::string reason = "waits because what it needs is free in pieces only, and ";
  State moving = state;
  moving.consolidate = true;
  if (!state.consolidate && runs(moving, id)) {
    return Explanation{.reason = reason + "jobs are not moved for others in this pool",
                       .next =
                           "it starts by itself when they end; `tide migrate` moves one, and `consolidate = true` in "
                           "[policy] of pool.toml lets the scheduler do so"};
  }
  std::vector<std::string> kept;
  for (JobView& job : moving.jobs) {
    if (job.pinned) kept.push_back("job " + job.id + " is where `tide migrate` put it");
    job.pinned = false;
  }
  if (!state.consolidate || kept.empty() || !runs(moving, id)) return std::nullopt;
  return Explanation{.reason = reason + "who could make way was placed by hand",
                     .next = "it starts by itself when one of them ends; `tide migrate` moves one",
                     .evidence = kept};
}

}  // namespace

std::string models_text(const State& state) {
  std::map<std::string, size_t> models;
  for (const GpuView& gpu : state.gpus) ++models[gpu.traits == nullptr ? "of unknown model" : gpu.traits->model];
  std::vector<std::string> parts;
  for (const auto& [model, count] : models) parts.push_back(format("%zu %s", count, model.c_str()));
  return joined(parts);
}

std::string why_unmet(const State& state, const JobView& job, bool min_given) {
  if (!job.require.any() || state.gpus.empty()) return "";
  const auto any_gpu = [&](const JobView& like) {
    return std::any_of(state.gpus.begin(), state.gpus.end(), [&](const GpuView& gpu) { return may_use(like, gpu); });
  };
  JobView like = job;
  like.require.labels.clear();
  if (!any_gpu(like)) {
    return "no GPU of the pool is of model " + job.require.model + "; it has " + models_text(state) +
           " (`tide gpus` shows where)";
  }
  for (const std::string& label : job.require.labels) {
    like.require = {.model = {}, .labels = {label}, .together = {}};
    if (!any_gpu(like)) return "no server of the pool has the label " + label + "; " + labels_text(state);
  }
  if (!any_gpu(job))
    return "no GPU of the pool has all of: " + to_text(job.require) + "; it has " + models_text(state) + ", and " +
           labels_text(state);
  std::map<std::string, size_t> groups;
  for (const GpuView& gpu : state.gpus) groups[group_of(job, gpu)] += may_use(job, gpu) ? 1 : 0;
  size_t most = 0;
  for (const auto& [group, count] : groups) most = std::max(most, count);
  const size_t asked = min_given ? job.min_gpus : job.vgpus;
  if (asked <= most || job.is_partial()) return "";
  const char* where = job.require.together == Together::kServer   ? " on one server"
                      : job.require.together == Together::kSwitch ? " behind one switch"
                                                                  : "";
  return format("the pool has at most %s%s that meet%s (%s); %s %zu asks for more. Use %s", gpus(most).c_str(), where,
                most == 1 ? "s it" : " it", to_text(job.require).c_str(), min_given ? "--min" : "-g", asked,
                min_given
                    ? format("--min %zu or less", most).c_str()
                    : format("-g %zu, or --min %zu to let %u virtual GPUs share them", most, most, job.vgpus).c_str());
}

std::optional<Explanation> why_waits(const State& state, const std::string& id) {
  State changed = state;
  const JobView* job = view_in(&changed, id);
  if (job == nullptr || job->running || job->suspended || runs(state, id)) return std::nullopt;
  if (const auto reserved = why_reserved(state, *job)) return reserved;
  const size_t draining = count_draining(state);
  if (draining != 0 && runs(without_drains(state), id)) {
    const std::string names = servers_that_drain(state);
    return Explanation{
        .reason = "waits because servers are being drained: " + names,
        .next = "it starts by itself when there is room elsewhere, or after `tide undrain` of one of them",
        .evidence = {gpus(draining) + " of " + gpus(state.gpus.size()) + " are on them, and take nothing new",
                     "with them it would start now"}};
  }
  if (const std::string due = who_is_due(state); !due.empty() && runs(without_promises(state), id)) {
    return Explanation{.reason = "waits because GPUs were promised to jobs with a deadline, which need them now",
                       .next = "it starts by itself when these have ended, or need fewer",
                       .evidence = {"GPUs: " + due, "without their deadlines it would run now"}};
  }
  if (job->require.any() && runs(without_requirements(state, id), id)) {
    return Explanation{
        .reason = "waits for GPUs that meet what it requires: " + to_text(job->require),
        .next =
            "it starts by itself when they are free; `tide migrate` takes others off them, and without the "
            "requirement it would start now",
        .evidence = {who_has_them(state, *job), "any other GPUs would be there now"}};
  }
  return why_in_pieces(state, id);
}

std::set<std::string> spared_before(const State& state, const std::string& id) {
  std::set<std::string> spared;
  State changed = state;
  bool in_line = false;
  for (JobView& job : changed.jobs) {
    if (std::exchange(job.spared, false)) spared.insert(job.id);
    in_line |= job.in_line;
  }
  if (spared.empty() || runs(state, id)) return {};
  if (in_line) share_anew(&changed);
  std::set<std::string> touched;
  if (state.turns) {
    for (const TurnEnd& end : plan_turns(changed)) {
      if (end.next == id) touched = end.over;
    }
  } else {
    const Assignment is = assign(state), then = assign(changed);
    for (const JobView& job : state.jobs) {
      if (job.running && (!then.at(job.id).running || then.at(job.id).places != is.at(job.id).places))
        touched.insert(job.id);
    }
    if (!starts_without(changed, then, id)) return {};
  }
  std::erase_if(touched, [&](const std::string& each) { return spared.count(each) == 0; });
  return touched;
}

std::optional<Explanation> why_small(const State& state, const std::string& id) {
  State changed = state;
  const JobView* job = view_in(&changed, id);
  if (job == nullptr || !job->running || job->suspended || job->is_partial()) return std::nullopt;
  const size_t has = held_by(*job).size();
  if (has >= job->vgpus || has == 0) return std::nullopt;
  const std::string small = format("runs on %zu of %u GPUs", has, job->vgpus);
  if (job->target != 0 && has >= job->target) {
    return Explanation{
        .reason = small + ", because `tide resize` said so",
        .next = format("`tide resize %s --gpus %u` lets it have as many as there are", id.c_str(), job->vgpus)};
  }
  if (count_draining(state) != 0 && gpus_of(without_drains(state), id) > has) {
    return Explanation{
        .reason = small + ", because servers are being drained: " + servers_that_drain(state),
        .next = "it grows by itself after `tide undrain` of one of them, or when GPUs elsewhere fall free"};
  }
  if (job->require.any() && gpus_of(without_requirements(state, id), id) > has) {
    return Explanation{
        .reason = small + ", because there are no more for it that meet what it requires: " + to_text(job->require),
        .next = "it grows by itself when such GPUs are free",
        .evidence = {who_has_them(state, *job)}};
  }
  if (const std::string due = who_is_due(state);
      !due.empty() && job->due_gpus == 0 && gpus_of(without_promises(state), id) > has) {
    return Explanation{.reason = small + ", because GPUs were promised to jobs with a deadline, which need them now",
                       .next = "it grows by itself when these have ended, or need fewer",
                       .evidence = {"GPUs: " + due}};
  }
  if (job->in_line) {
    return Explanation{.reason = small + ", because the others go to jobs that are before it in line",
                       .next = "it grows by itself when those have ended; --min keeps a job from shrinking below that",
                       .evidence = {"who is before it follows from what each is expected to need and when it came"}};
  }
  std::vector<std::string> others;
  for (const JobView& each : state.jobs) {
    const size_t count = held_by(each).size();
    if (each.id != id && each.running && count != 0) others.push_back(format("job %s has %zu", each.id.c_str(), count));
  }
  const size_t usable = size_t(std::count_if(state.gpus.begin(), state.gpus.end(),
                                             [](const GpuView& gpu) { return gpu.online && gpu.healthy; }));
  if (others.empty()) {
    return Explanation{.reason = small + ": the pool has no more",
                       .next = "it grows by itself when there are more",
                       .evidence = {gpus(usable) + " of " + gpus(state.gpus.size()) + " are usable"}};
  }
  return Explanation{.reason = small + ", because other jobs share the pool",
                     .next = "it grows by itself when GPUs fall free; --min keeps a job from shrinking below that",
                     .evidence = {gpus(usable) + " usable: " + joined(others)}};
}

}  // namespace tide::sched
