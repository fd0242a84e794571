#include "scheduler/change.h"

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "scheduler/policy.h"
#include "scheduler/reservations.h"
#include "scheduler/turns.h"

namespace tide::sched {
namespace {

constexpr double kAlike = 2;  // so many times as large or as small is still about the same size

std::string said(const std::string& text) { return text.empty() ? "none" : text; }

void note(const std::string& what, const std::string& before, const std::string& after, const std::string& end,
          std::vector<std::string>* lines) {
  if (before != after) lines->push_back(what + ": " + said(before) + " -> " + said(after) + end);
}

std::string to_text(const ServerTraits& traits) {
  std::string text;
  for (const std::string& label : traits.labels) text += (text.empty() ? "" : ", ") + label;
  if (!traits.network_switch.empty()) text += (text.empty() ? "switch " : "; switch ") + traits.network_switch;
  return text;
}

// As it is written in pool.toml.
std::string time_text(uint64_t ms) { return ms == 0 ? "off" : to_text(TurnRules{.on = true, .fixed_ms = ms}); }

std::string to_text(const QueueConfig& queue) {
  std::string text = format("quota %g", queue.quota);
  if (queue.limit) text += format(", limit %g", *queue.limit);
  if (!queue.parent.empty()) text += ", parent " + queue.parent;
  text += format(", over_quota_weight %g, priority %d", queue.over_quota_weight, queue.priority);
  if (queue.job_class) text += std::string(", class ") + sched::to_text(*queue.job_class);
  if (queue.min_runtime_ms) text += ", min_runtime " + time_text(*queue.min_runtime_ms);
  for (const ModelQuota& model : queue.models) {
    text += ", " + model.model + format(" quota %u", model.quota);
    if (model.limit) text += format(" limit %u", *model.limit);
  }
  return text + (queue.preemptible ? "" : ", not preemptible");
}

std::string reservation_text(const PoolConfig& config, const std::string& name) {
  for (const ReservationConfig& each : config.reservations) {
    if (each.is.name == name) return sched::to_text(each);
  }
  return "";
}

template <class Of>
const auto* find_named(const std::vector<Of>& list, const std::string& name) {
  const auto found = std::find_if(list.begin(), list.end(), [&](const Of& each) { return each.name == name; });
  return found == list.end() ? nullptr : &*found;
}

template <class Of>
std::set<std::string> names_of(const std::vector<Of>& a, const std::vector<Of>& b) {
  std::set<std::string> names;
  for (const auto* list : {&a, &b}) {
    for (const Of& each : *list) names.insert(each.name);
  }
  return names;
}

void compare_rules(const PolicyConfig& before, const PolicyConfig& after, ConfigChange* change) {
  const auto runtime = [](const PolicyConfig& policy) {
    return policy.min_runtime_ms ? time_text(*policy.min_runtime_ms) : std::string();
  };
  const auto often = [](const PolicyConfig& policy) { return std::to_string(policy.disturbances_per_hour); };
  note("min_runtime", runtime(before), runtime(after), "", &change->now);
  note("disturbances_per_hour", often(before), often(after), "", &change->now);
  note("idle_return", time_text(before.idle_return_ms), time_text(after.idle_return_ms), "", &change->now);
}

void compare_servers(const PoolConfig& before, const PoolConfig& after, ConfigChange* change) {
  const ServerConfig nothing;
  for (const std::string& name : names_of(before.servers, after.servers)) {
    const ServerConfig *was = find_named(before.servers, name), *is = find_named(after.servers, name);
    if (was == nullptr) was = &nothing;
    if (is == nullptr) is = &nothing;
    note("server " + name, to_text(was->traits), to_text(is->traits), "", &change->now);
    std::set<std::string> keys;
    for (const auto* each : {was, is}) {
      for (const auto& [key, value] : each->settings) keys.insert(key);
    }
    for (const std::string& key : keys) {
      const auto value = [&](const ServerConfig* of) { return of->settings.count(key) ? of->settings.at(key) : ""; };
      note("server " + name + ", " + key, value(was), value(is), "; needs a restart of its agent", &change->restart);
    }
  }
}

// "2 virtual GPUs move: 0 from a/0 to b/0, 1 from a/1 to b/1"
std::string moves_text(const JobView& job, const std::vector<GpuId>& places, const std::vector<uint32_t>& moves) {
  constexpr size_t kShown = 4;
  std::string text = format("%zu virtual GPU%s", moves.size(), moves.size() == 1 ? " moves: " : "s move: ");
  for (size_t i = 0; i < moves.size() && i < kShown; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(moves[i]) + " from " + sched::to_text(job.places[moves[i]]) + " to " +
            sched::to_text(places[moves[i]]);
  }
  return moves.size() > kShown ? text + " ..." : text;
}

size_t distinct(const std::vector<GpuId>& places) {
  std::set<GpuId> gpus(places.begin(), places.end());
  std::erase_if(gpus, [](const GpuId& place) { return !place.on_gpu(); });
  return gpus.size();
}

Touch touch_of(const JobView& job, const Decision& is, const Decision& then) {
  Touch touch{.job = job.id, .what = {}, .moves = {}};
  if (!is.running && then.running) touch.what = "starts";
  if (is.running && !job.running && !then.running) touch.what = "does not start yet: " + then.reason;
  if (job.running && is.running && !then.running) {
    touch.what = "is suspended, and comes back when there is room: it " + then.reason;
    touch.switches = true;
  }
  if (!job.running || !then.running) return touch;
  for (uint32_t v = 0; v < job.places.size() && v < then.places.size(); ++v) {
    const bool moves = v >= is.places.size() || is.places[v] != then.places[v];
    if (moves && job.places[v].on_gpu() && then.places[v].on_gpu() && job.places[v] != then.places[v])
      touch.moves.push_back(v);
  }
  if (touch.moves.empty()) return touch;
  const size_t has = distinct(job.places), gets = distinct(then.places);
  if (gets != has) touch.what = format("%zu -> %zu GPUs; ", has, gets);
  touch.what += moves_text(job, then.places, touch.moves);
  return touch;
}

}  // namespace

void configure(Ledger* ledger, const PoolConfig& config) {
  ledger->turns = config.turns;
  ledger->queues.configure(config.queues, config.policy);
  ledger->disturbance.configure(config.queues, config.policy);
  ledger->consolidate = config.policy.consolidate;
  ledger->by_estimates = config.policy.by_estimates;
  ledger->prices = config.price;
  ledger->history_keep_ms = config.history_keep_ms;
  ledger->reservations = config.reservations;
  ledger->traits.clear();
  for (const ServerConfig& server : config.servers) ledger->traits[server.name] = server.traits;
  for (auto& [name, server] : ledger->servers) ledger->describe(&server);
  ledger->jobs.mark_all();  // what is true of a job may be something else now
  if (config.turns.on) return;
  for (auto& [number, job] : ledger->jobs) {  // nobody is told of turns any more
    job.turn.length_ms = job.turn.ends_ns = job.turn.comes_ns = 0;
    job.turn.next.clear();
  }
}

ConfigChange compare(const PoolConfig& before, const PoolConfig& after) {
  ConfigChange change;
  const std::string restart = "; needs a restart of the scheduler";
  note("listen", before.listen, after.listen, restart, &change.restart);
  note("door", before.door, after.door, restart, &change.restart);
  note("state", before.state, after.state, restart, &change.restart);
  note("store", to_text(before.etcd), to_text(after.etcd), restart, &change.restart);
  note("history", before.history, after.history, restart, &change.restart);
  note("turns", to_text(before.turns), to_text(after.turns), "", &change.now);
  note("price", to_text(before.price), to_text(after.price), "", &change.now);
  const auto keep = [](const PoolConfig& config) {
    return format("%lu h", (unsigned long)(config.history_keep_ms / 3'600'000));
  };
  note("keep", keep(before), keep(after), "", &change.now);
  const auto half_life = [](const PoolConfig& config) {
    return format("%lu s", (unsigned long)(config.policy.half_life_ms / 1000));
  };
  const auto weight = [](const PoolConfig& config) { return format("%g", config.policy.past_weight); };
  note("half_life", half_life(before), half_life(after), "", &change.now);
  note("past_weight", weight(before), weight(after), "", &change.now);
  compare_rules(before.policy, after.policy, &change);
  const auto consolidate = [](const PoolConfig& config) { return config.policy.consolidate ? "true" : "false"; };
  note("consolidate", consolidate(before), consolidate(after), "", &change.now);
  const auto order = [](const PoolConfig& config) { return config.policy.by_estimates ? "estimates" : "submission"; };
  note("order", order(before), order(after), "", &change.now);
  const auto journal = [](const PoolConfig& config) {
    const uint64_t bytes = config.policy.journal_bytes;
    return bytes == 0 ? std::string("off") : format("%lu KiB", (unsigned long)(bytes >> 10));
  };
  note("journal", journal(before), journal(after), "", &change.now);
  for (const std::string& name : names_of(before.queues, after.queues)) {
    const QueueConfig *was = find_named(before.queues, name), *is = find_named(after.queues, name);
    note("queue " + name, was == nullptr ? "" : to_text(*was), is == nullptr ? "" : to_text(*is), "", &change.now);
  }
  std::set<std::string> names;
  for (const auto* config : {&before, &after}) {
    for (const ReservationConfig& each : config->reservations) names.insert(each.is.name);
  }
  for (const std::string& name : names)
    note("reservation " + name, reservation_text(before, name), reservation_text(after, name), "", &change.now);
  compare_servers(before, after, &change);
  return change;
}

PauseGuess guess_pause(const std::string& job, uint32_t vgpu, uint64_t bytes, const std::vector<Moved>& moved) {
  const Moved* nearest = nullptr;
  const auto ratio = [&](const Moved& each) {
    const double a = double(std::max<uint64_t>(each.bytes, 1)), b = double(std::max<uint64_t>(bytes, 1));
    return std::max(a / b, b / a);
  };
  for (const Moved& each : moved) {
    if (each.job == job && each.vgpu == vgpu) return {each.pause_ms, "as its last move took"};
    if (bytes != 0 && ratio(each) <= kAlike && (nearest == nullptr || ratio(each) < ratio(*nearest))) nearest = &each;
  }
  if (nearest == nullptr) {
    return {-1, bytes == 0
                    ? "not known: what it has in use was not heard, and it has not moved yet"
                    : format("not known: nothing of about its size (%lu MiB) has moved since the scheduler started",
                             (unsigned long)(bytes >> 20))};
  }
  return {nearest->pause_ms, format("as a virtual GPU of job %s of about its size (%lu MiB) took", nearest->job.c_str(),
                                    (unsigned long)(nearest->bytes >> 20))};
}

std::vector<Touch> touched(const State& before, State after) {
  std::map<std::string, const TurnEnd*> ends;
  const TurnPlan turns = plan_turns(rest_of(after));
  after.next_turn = turns.empty() ? "" : turns.front().next;
  for (const TurnEnd& end : turns) {
    for (const std::string& id : end.over) ends[id] = &end;
  }
  const TurnPlan turns_now = plan_turns(rest_of(before));
  std::set<std::string> ending;  // whose turns end anyway
  for (const TurnEnd& end : turns_now) ending.insert(end.over.begin(), end.over.end());
  const Assignment is = assign(before), then = assign(after);
  std::vector<Touch> all;
  for (const JobView& job : before.jobs) {
    if (is.count(job.id) == 0 || then.count(job.id) == 0) continue;
    Touch touch = touch_of(job, is.at(job.id), then.at(job.id));
    if (ends.count(job.id) != 0 && ending.count(job.id) == 0) {
      const TurnEnd& end = *ends.at(job.id);
      touch.switches = true;
      touch.what = format("is suspended in about %lu s, because it is the turn of job ",
                          (unsigned long)((end.in_ms + 500) / 1000)) +
                   end.next + ", and comes back when it is its own";
    }
    if (!touch.what.empty()) all.push_back(std::move(touch));
  }
  return all;
}

}  // namespace tide::sched
