#include "scheduler/replay.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <unordered_map>

#include "base/log.h"

namespace tide::sched {

const char* const kWhatIfHelp =
    "gpus=+4, gpus=-2, gpus=16, drain=SERVER, undrain=SERVER, without=JOB, job.JOB.min=1, job.JOB.priority=2, "
    "job.JOB.preemptible=false, queue.NAME.quota=8, queue.NAME.limit=8 (or none), queue.NAME.over_quota_weight=2, "
    "queue.NAME.priority=1, queue.NAME.preemptible=false";

namespace {

constexpr int64_t kGpusMost = 1'000'000;
constexpr const char* kAddedServer = "what-if";

Outcome not_understood(const std::string& text) {
  return Outcome::fail("'" + text + "' is not understood; there are " + kWhatIfHelp);
}

bool parse_whole(const std::string& text, int64_t* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

bool parse_amount(const std::string& text, double most, double* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size() && *number >= 0 && *number <= most;
}

bool usable(const GpuView& gpu) { return gpu.online && gpu.healthy; }

void take_gpus(int64_t count, State* state) {
  std::set<GpuId> held;
  for (const JobView& job : state->jobs) held.insert(job.places.begin(), job.places.end());
  for (const bool also_held : {false, true}) {
    for (auto gpu = state->gpus.rbegin(); gpu != state->gpus.rend() && count > 0; ++gpu) {
      if (!usable(*gpu) || (!also_held && held.count(gpu->id) != 0)) continue;
      gpu->healthy = false;
      --count;
    }
  }
}

// Like the pool's first, on servers of their own with as many as the largest has.
void add_gpus(int64_t count, State* state) {
  GpuView like{.id = {}, .memory_bytes = uint64_t(80) << 30};
  if (!state->gpus.empty()) like = state->gpus.front();
  std::map<std::string, int64_t> sizes;
  int64_t each = 1;
  for (const GpuView& gpu : state->gpus) each = std::max(each, ++sizes[gpu.id.server]);
  like.online = like.healthy = true;
  like.draining = false;
  int64_t server = 0;
  const auto name = [&] { return format("%s%ld", kAddedServer, long(server)); };
  for (int64_t i = 0; i < count; ++i) {
    if (i % each == 0) {
      do ++server;
      while (sizes.count(name()) != 0);
    }
    like.id = {name(), uint32_t(i % each)};
    state->gpus.push_back(like);
  }
}

Outcome change_gpus(const std::string& text, const std::string& value, State* state) {
  const bool is_change = !value.empty() && (value[0] == '+' || value[0] == '-');
  int64_t count = 0;
  if (!parse_whole(is_change ? value.substr(1) : value, &count) || count < 0 || count > kGpusMost)
    return not_understood(text);
  const auto now = int64_t(std::count_if(state->gpus.begin(), state->gpus.end(), usable));
  const int64_t by = !is_change ? count - now : value[0] == '+' ? count : -count;
  if (now + by < 0) return Outcome::fail(format("'%s': the pool had %ld usable GPUs", text.c_str(), long(now)));
  if (by < 0) take_gpus(-by, state);
  if (by > 0) add_gpus(by, state);
  return {};
}

Outcome change_drain(const std::string& server, bool drain, State* state) {
  bool found = false;
  for (GpuView& gpu : state->gpus) {
    if (gpu.id.server != server) continue;
    found = true;
    if (drain ? gpu.healthy : gpu.draining) {
      gpu.healthy = !drain;
      gpu.draining = drain;
    }
  }
  return found ? Outcome() : Outcome::fail("the pool had no server '" + server + "' with GPUs");
}

bool parse_bool(const std::string& text, bool* value) {
  *value = text == "true";
  return text == "true" || text == "false";
}

Outcome change_queue(const std::string& text, const std::string& name, const std::string& key, const std::string& value,
                     State* state) {
  const int32_t index = state->queues.find(name);
  if (index == kNoQueue) return Outcome::fail("the pool had no queue '" + name + "' (in its pool.toml)");
  Queue& queue = state->queues.queues[size_t(index)];
  double amount = 0;
  int64_t whole = 0;
  if (key == "limit" && value == "none") return queue.limit = kNoLimit, Outcome();
  if ((key == "quota" || key == "limit") && parse_amount(value, double(kGpusMost), &amount)) {
    (key == "quota" ? queue.quota : queue.limit) = std::llround(amount * kWholeGpu);
  } else if (key == "over_quota_weight" && parse_amount(value, 1e6, &amount)) {
    queue.weight = amount;
  } else if (key == "priority" && parse_whole(value, &whole) && std::abs(whole) <= 1'000'000) {
    queue.priority = int32_t(whole);
  } else if (key != "preemptible" || !parse_bool(value, &queue.preemptible)) {
    return not_understood(text);
  }
  return {};
}

Outcome change_job(const std::string& text, const std::string& id, const std::string& key, const std::string& value,
                   State* state) {
  const auto job =
      std::find_if(state->jobs.begin(), state->jobs.end(), [&](const JobView& each) { return each.id == id; });
  if (job == state->jobs.end()) return Outcome::fail("the pool had no job " + id);
  int64_t whole = 0;
  if (key == "min" && parse_whole(value, &whole) && whole >= 1 && whole <= int64_t(job->vgpus)) {
    job->min_gpus = uint32_t(whole);
  } else if (key == "priority" && parse_whole(value, &whole) && std::abs(whole) <= 1'000'000) {
    job->priority = int32_t(whole);
  } else if (key != "preemptible" || !parse_bool(value, &job->preemptible)) {
    return not_understood(text);
  }
  return {};
}

// "queue.NAME.quota": the name may have points in it.
bool split_key(const std::string& key, const char* kind, std::string* name, std::string* field) {
  const std::string front = std::string(kind) + ".";
  const size_t last = key.rfind('.');
  if (key.rfind(front, 0) != 0 || last < front.size()) return false;
  *name = key.substr(front.size(), last - front.size());
  *field = key.substr(last + 1);
  return !name->empty() && !field->empty();
}

Outcome apply_one(const std::string& text, State* state) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals + 1 == text.size()) return not_understood(text);
  const std::string key = text.substr(0, equals), value = text.substr(equals + 1);
  std::string name, field;
  if (key == "gpus") return change_gpus(text, value, state);
  if (key == "drain" || key == "undrain") return change_drain(value, key == "drain", state);
  if (split_key(key, "queue", &name, &field)) return change_queue(text, name, field, value, state);
  if (split_key(key, "job", &name, &field)) return change_job(text, name, field, value, state);
  if (key != "without") return not_understood(text);
  const size_t gone = std::erase_if(state->jobs, [&](const JobView& job) { return job.id == value; });
  return gone != 0 ? Outcome() : Outcome::fail("the pool had no job " + value);
}

}  // namespace

std::vector<Decided> changes_of(const State& state, const Assignment& answer) {
  std::vector<Decided> changes;
  const auto look_at = [&](const JobView& job, const Decision& decision) {
    if (decision.running != job.running || decision.places != job.places)
      changes.push_back({job.id, decision, job.running, job.places});
  };
  for (const JobView& job : state.jobs) {
    const auto found = answer.find(job.id);
    if (found != answer.end()) look_at(job, found->second);
  }
  return changes;
}

std::vector<Replayed> replay(const Snapshot& snapshot, const Assignment& now) {
  std::unordered_map<std::string, const Decided*> recorded;
  for (const Decided& each : snapshot.answer) recorded[each.job] = &each;
  std::vector<Replayed> all;
  for (const JobView& job : snapshot.state.jobs) {
    Replayed one;
    const auto found = recorded.find(job.id);
    one.recorded = found != recorded.end();
    one.then = one.recorded ? *found->second
                            : Decided{.job = job.id,
                                      .decision = {.running = job.running, .reason = "", .places = job.places},
                                      .was_running = job.running,
                                      .was_places = job.places};
    one.now = now.at(job.id);
    one.same = one.now.running == one.then.decision.running && one.now.places == one.then.decision.places &&
               (one.then.decision.reason.empty() || one.now.reason == one.then.decision.reason);
    all.push_back(std::move(one));
  }
  return all;
}

Outcome apply_what_if(const std::string& text, State* state) {
  State changed = *state;
  std::istringstream in(text);
  bool any = false;
  for (std::string part; std::getline(in, part, '&'); any = true) {
    const Outcome outcome = apply_one(part, &changed);
    if (!outcome.ok()) return outcome;
  }
  if (!any) return not_understood(text);
  *state = std::move(changed);
  return {};
}

}  // namespace tide::sched
