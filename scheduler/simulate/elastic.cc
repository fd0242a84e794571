#include "scheduler/simulate/elastic.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <unordered_map>

#include "base/log.h"
#include "scheduler/estimates.h"
#include "scheduler/expect.h"
#include "scheduler/invariants.h"
#include "scheduler/planner.h"
#include "scheduler/queues.h"
#include "scheduler/simulate/csv.h"
#include "scheduler/simulate/learned.h"
#include "scheduler/simulate/queue_books.h"
#include "scheduler/useful.h"

namespace tide::simulate {
namespace {

constexpr double kFar = std::numeric_limits<double>::infinity();
constexpr double kPastsInHalfLife = 24;  // so often queues are told anew what they had in the past
constexpr int kRoundsMax = 1000;         // at one moment
constexpr double kSoonest_s = 0.001;
constexpr uint64_t kBeginMs = 1'000'000;  // when the trace's clock is at 0; 0 means that a time is not known

uint64_t ms_of(double seconds) { return kBeginMs + uint64_t(seconds * 1000); }

// What the scheduler knows of a job is sched::JobView; this is what only the trace knows.
struct Live {
  uint32_t gpus = 0;
  double left_s = 0;  // at full speed
  double speed = 0;
  double pause_until_s = 0;
  double checked_s = 0;
  double turn_s = 0;  // since when it has just these GPUs
  double end_s = kFar;
  bool started = false;
  // What is expected of it, as the scheduler reckons that (reconciler_expect.cc).
  double given_s = 0;  // by its user; 0: nothing
  sched::Estimates::Kind kind;
  uint32_t step = 0;     // of running time
  double look_s = kFar;  // when it is reckoned anew
};

double speed_of(const ElasticOptions& options, const sched::JobView& view, uint32_t gpus, uint32_t fullest) {
  if (options.scaling == Scaling::kSlowest) return 1.0 / fullest;
  const double part = double(gpus) / view.vgpus;
  return options.scaling == Scaling::kLinear ? part : options.curve.speed(part);
}

class Replay {
 public:
  Replay(const Trace& trace, const Pool& pool, const ElasticOptions& options)
      : trace_(trace), options_(options), live_(trace.jobs.size()) {
    result_.gpus = pool.gpus;
    result_.jobs.resize(trace.jobs.size());
    for (uint32_t i = 0; i < pool.gpus; ++i) {
      const sched::GpuId id{format("s%06u", i / pool.server_gpus), i % pool.server_gpus};
      state_.gpus.push_back({.id = id, .memory_bytes = 1, .online = true, .healthy = true});
    }
    by_estimates_ = pool.policy.by_estimates;
    state_.now_ms = kBeginMs;
    if (pool.queues.empty()) return;
    queues_.configure(pool.queues, pool.policy);
    state_.share_rules = queues_.rules;
    state_.queues = queues_.tree;
    books_ = std::make_unique<QueueBooks>(queues_.tree, int64_t(pool.gpus) * sched::kWholeGpu);
  }

  Outcome run() {
    tell_past();
    while (arrived_ < trace_.jobs.size() || !there_.empty()) {
      const double arrival = arrived_ < trace_.jobs.size() ? trace_.jobs[arrived_].submit_s : kFar;
      const double look = looks_.empty() ? kFar : looks_.begin()->first;
      const double next = std::min({arrival, look, ends_.empty() ? kFar : ends_.begin()->first});
      if (next == kFar) return Outcome::fail("the pool's policy starts none of the jobs that wait");
      go_on_to(std::max(now_, next));
      const size_t before = there_.size();
      finish();
      look_again();
      const bool only_looked = there_.size() == before && arrival > now_;
      if (only_looked && ends_.size() == there_.size()) continue;  // nobody waits who could start by that
      if (Outcome outcome = arrive(); !outcome.ok()) return outcome;
      if (Outcome outcome = decide(); !outcome.ok()) return outcome;
    }
    if (books_) result_.queues = books_->take_results();
    return {};
  }

  Result take_result() { return std::move(result_); }

 private:
  JobResult& sums(uint32_t job) { return result_.jobs[job]; }

  void go_on_to(double now) {
    if (books_) books_->go_on(now - now_);
    now_ = now;
    state_.now_ms = ms_of(now_);
    sched::State rules = rules_;
    rules.used = state_.used;
    rules.now_ms = state_.now_ms;
    planner_->put_rules(std::move(rules));
    if (books_ && now_ >= tell_past_s_) tell_past();
  }

  // The scheduler does so in each round.
  void tell_past() {
    if (books_) state_.used = books_->past(queues_.half_life_ms);
    rules_ = state_;
    rules_.gpus.clear();
    tell_past_s_ = now_ + double(queues_.half_life_ms) / 1000 / kPastsInHalfLife;
    auto planner = std::make_unique<sched::Planner>(state_);
    for (const uint32_t job : there_) planner->put(*planner_->view(trace_.jobs[job].id));
    planner_ = std::move(planner);
  }

  void finish() {
    while (!ends_.empty() && ends_.begin()->first <= now_) {
      const uint32_t job = ends_.begin()->second;
      learn_steps(job);
      leave_gpus(job);
      estimates_.ended(live_[job].kind, live_[job].step);
      sums(job).end_s = now_;
      const sched::JobView& view = *planner_->view(trace_.jobs[job].id);
      if (books_) books_->want(view.queue, -sched::wanted_by(view));
      planner_->remove(view.id);
      there_.erase(job);
    }
  }

  Outcome arrive() {
    for (; arrived_ < trace_.jobs.size() && trace_.jobs[arrived_].submit_s <= now_; ++arrived_) {
      const Job& job = trace_.jobs[arrived_];
      sched::JobView view{.id = job.id, .vgpus = job.gpus, .places = std::vector<sched::GpuId>(job.gpus)};
      view.min_gpus = job.min_gpus != 0 ? job.min_gpus : options_.min_gpus == 0 ? job.gpus : options_.min_gpus;
      view.min_gpus = std::min(view.min_gpus, job.gpus);
      if (view.min_gpus > result_.gpus) {
        return Outcome::fail(format("line %u: job %s needs %u GPUs at least, the pool has %u", job.line, job.id.c_str(),
                                    view.min_gpus, result_.gpus));
      }
      if (Outcome outcome = put_into_queue(job, &view); !outcome.ok()) return outcome;
      numbers_[job.id] = arrived_;
      there_.insert(arrived_);
      Live& live = live_[arrived_];
      live.left_s = job.duration_s;
      live.given_s =
          options_.told == Told::kGiven ? given_s(trace_, arrived_, options_.estimate_error) : job.estimate_s;
      live.kind = estimates_.came(job.team, job.gpus, now_);
      reckon(arrived_, &view);
      planner_->put(view);
    }
    return {};
  }

  double ran_s(uint32_t job) const {
    const Live& live = live_[job];
    const double pause_s = std::clamp(live.pause_until_s - live.checked_s, 0.0, now_ - live.checked_s);
    const double left_s = live.left_s - (live.gpus == 0 ? 0 : (now_ - live.checked_s - pause_s) * live.speed);
    return trace_.jobs[job].duration_s - left_s;
  }

  void learn_steps(uint32_t job) {
    Live& live = live_[job];
    for (const uint32_t step = sched::run_step_of(ran_s(job)); live.step < step;)
      estimates_.reached(live.kind, ++live.step);
  }

  void reckon(uint32_t job, sched::JobView* view) const {
    if (options_.told == Told::kNothing) return;
    const Live& live = live_[job];
    const sched::Expected expected =
        sched::expected_of(estimates_, live.kind, uint64_t(live.given_s * 1000), uint64_t(ran_s(job) * 1000));
    view->left_ms = expected.word == sched::Word::kNone ? 0 : expected.left_ms;
    const bool runs = live.gpus != 0;
    if (!runs && by_estimates_)
      view->place = sched::place_of({}, ms_of(trace_.jobs[job].submit_s), expected.left_ms, trace_.jobs[job].gpus);
    if (!runs) view->ends_ms = 0;
    if (!runs || !view->passes.empty()) return;
    const double part = sched::useful_part(view->vgpus, live.gpus);
    view->ends_ms = view->left_ms == 0 ? 0 : state_.now_ms + uint64_t(double(view->left_ms) / part);
  }

  // When it comes into its next step, or is over what was expected of it.
  double next_look_s(uint32_t job, const sched::JobView& view) const {
    const Live& live = live_[job];
    const double ran = ran_s(job);
    double after_s = live.step + 1 < sched::kRunSteps ? sched::run_step_begins_s(live.step + 1) - ran : kFar;
    if (live.given_s > ran) after_s = std::min(after_s, live.given_s - ran);
    const double next_s = std::max(now_, live.pause_until_s) + std::max(after_s, kSoonest_s) / live.speed;
    const bool passes = !view.passes.empty() && !view.overrun;
    return passes ? std::min(next_s, now_ + (double(view.ends_ms) - double(state_.now_ms)) / 1000 + kSoonest_s)
                  : next_s;
  }

  void set_look(uint32_t job, double at_s) {
    Live& live = live_[job];
    if (live.look_s != kFar) looks_.erase({live.look_s, job});
    live.look_s = at_s;
    if (at_s != kFar) looks_.insert({at_s, job});
  }

  void look(uint32_t job) {
    if (options_.told == Told::kNothing) return;
    learn_steps(job);
    const sched::JobView& known = *planner_->view(trace_.jobs[job].id);
    sched::JobView view = known;
    reckon(job, &view);
    view.overrun = !view.passes.empty() && view.ends_ms <= state_.now_ms;
    set_look(job, next_look_s(job, view));
    if (!(view == known)) planner_->put(view);
  }

  void look_again() {
    while (!looks_.empty() && looks_.begin()->first <= now_) look(looks_.begin()->second);
  }

  // Its team is its queue.
  Outcome put_into_queue(const Job& job, sched::JobView* view) {
    if (!books_) return {};
    const auto where = [&] { return format("line %u: job %s: ", job.line, job.id.c_str()); };
    std::string name = queues_.tree.find(job.team) != sched::kNoQueue ? job.team : "";
    if (Outcome outcome = queues_.choose(&name); !outcome.ok()) {
      return Outcome::fail(where() + "its team '" + job.team + "' is no queue of pool.toml that takes jobs; " +
                           "a queue called 'default' takes those of all other teams");
    }
    const std::string never = queues_.why_never(state_, *view, name, true);
    if (!never.empty()) return Outcome::fail(where() + never);
    view->queue = queues_.tree.find(name);
    view->preemptible = queues_.tree.queues[size_t(view->queue)].preemptible;
    books_->want(view->queue, sched::wanted_by(*view));
    return {};
  }

  // As the reconciler does: asks, and takes what it is told, until there is nothing more.
  Outcome decide() {
    for (int round = 0; round < kRoundsMax; ++round) {
      ++result_.decisions;
      bool freed = false;
      const sched::State seen = options_.check ? all_now() : sched::State();
      const auto changes = planner_->decide();
      if (const std::string wrong = options_.check ? what_is_wrong_with(seen, changes) : ""; !wrong.empty())
        return Outcome::fail(format("at %.3f s: %s", now_, wrong.c_str()));
      for (const auto& change : changes) freed |= apply(numbers_.at(change.id), change.decision);
      planner_->count_passed(changes);
      if (!freed) return {};
    }
    return Outcome::fail(format("the pool's policy does not come to rest at %g s", now_));
  }

  sched::State all_now() const {
    sched::State state = state_;
    for (const uint32_t job : there_) state.jobs.push_back(*planner_->view(trace_.jobs[job].id));
    return state;
  }

  static std::string what_is_wrong_with(const sched::State& seen, const std::vector<sched::Planner::Change>& changes) {
    sched::Assignment answer;
    for (const sched::JobView& job : seen.jobs) answer[job.id] = {job.running, "", job.places, ""};
    for (const auto& change : changes) answer[change.id] = change.decision;
    return sched::what_is_wrong(seen, answer);
  }

  // Whether GPUs have become free by it, which others may now have.
  bool apply(uint32_t job, const sched::Decision& decision) {
    const sched::JobView& view = *planner_->view(trace_.jobs[job].id);
    Live& live = live_[job];
    if (!decision.running) return live.gpus != 0 && (suspend(job, view), true);
    const bool resumed = live.gpus == 0 && live.started;
    if (live.gpus != 0) {
      count_moves(job, decision);
      leave_gpus(job);
    } else if (!live.started) {
      sums(job).start_s = now_;
    }
    live.pause_until_s = resumed ? now_ + options_.costs.resume_s : live.started ? now_ + options_.costs.move_s : now_;
    if (!live.started) estimates_.reached(live.kind, 0);
    live.started = true;
    places_[job] = decision.places;
    take_gpus(job, view, decision.places);
    look(job);
    return false;
  }

  // What is taken from it for another queue is free at once, and it waits from then on.
  void suspend(uint32_t job, sched::JobView view) {
    leave_gpus(job);
    ++sums(job).preemptions;
    for (sched::GpuId& place : view.places) place.index = sched::kParked;
    view.running = view.suspended = view.overrun = false;
    view.keeps.clear();
    view.passes.clear();
    reckon(job, &view);
    planner_->put(view);
  }

  void count_moves(uint32_t job, const sched::Decision& decision) {
    const auto& before = places_[job];
    for (size_t v = 0; v < before.size(); ++v) sums(job).moves += before[v] != decision.places[v];
  }

  // Sums up what it did on the GPUs that it leaves.
  void leave_gpus(uint32_t job) {
    Live& live = live_[job];
    set_look(job, kFar);
    const double pause_s = std::clamp(live.pause_until_s - live.checked_s, 0.0, now_ - live.checked_s);
    live.left_s -= (now_ - live.checked_s - pause_s) * live.speed;
    sums(job).pause_gpu_s += pause_s * live.gpus;
    sums(job).running_s += now_ - live.turn_s;
    sums(job).leased_gpu_s += (now_ - live.turn_s) * live.gpus;
    result_.turns.push_back({job, live.gpus, live.turn_s, now_});
    if (books_) books_->have(queue_of(job), -int64_t(live.gpus) * sched::kWholeGpu);
    ends_.erase({live.end_s, job});
    live.gpus = 0;
    live.end_s = kFar;
  }

  void take_gpus(uint32_t job, const sched::JobView& view, const std::vector<sched::GpuId>& places) {
    Live& live = live_[job];
    std::map<sched::GpuId, uint32_t> load;
    uint32_t fullest = 0;
    for (const sched::GpuId& place : places) fullest = std::max(fullest, ++load[place]);
    live.gpus = uint32_t(load.size());
    live.speed = speed_of(options_, view, live.gpus, fullest);
    live.checked_s = live.turn_s = now_;
    live.end_s = std::max(now_, live.pause_until_s) + live.left_s / live.speed;
    ends_.insert({live.end_s, job});
    if (books_) books_->have(view.queue, int64_t(live.gpus) * sched::kWholeGpu);
  }

  int32_t queue_of(uint32_t job) const { return planner_->view(trace_.jobs[job].id)->queue; }

  const Trace& trace_;
  const ElasticOptions& options_;
  bool by_estimates_ = false;
  sched::Estimates estimates_;
  std::set<std::pair<double, uint32_t>> looks_;  // when who runs is reckoned anew
  sched::State rules_;                           // without GPUs, too
  sched::State state_;                           // without its jobs, which the planner keeps
  sched::Queues queues_;
  std::unique_ptr<QueueBooks> books_;  // null: there are no queues
  std::unique_ptr<sched::Planner> planner_;
  std::unordered_map<std::string, uint32_t> numbers_;  // by job id: index in the trace
  std::unordered_map<uint32_t, std::vector<sched::GpuId>> places_;
  std::vector<Live> live_;                      // as trace_.jobs
  std::set<uint32_t> there_;                    // that have come and not ended
  std::set<std::pair<double, uint32_t>> ends_;  // of those on GPUs
  uint32_t arrived_ = 0;
  double now_ = 0;
  double tell_past_s_ = 0;
  Result result_;
};

}  // namespace

Outcome ScalingCurve::read(const std::string& path) {
  std::string text;
  if (const std::string failed = read_whole(path, &text); !failed.empty()) return Outcome::fail(path + ": " + failed);
  std::istringstream lines(text);
  std::vector<std::string> fields;
  uint32_t number = 0;
  points_ = {{0, 0}};
  for (std::string line; std::getline(lines, line);) {
    const char* wrong = nullptr;
    std::pair<double, double> point;
    if (++number == 1) {
      wrong = line == "gpus_part,speed_part" ? nullptr : "the first line must be gpus_part,speed_part";
    } else if (!split_row(line, &fields) || fields.size() != 2 || !parse_number(fields[0], &point.first) ||
               !parse_number(fields[1], &point.second)) {
      wrong = "a row is two numbers";
    } else if (!(point.first > points_.back().first && point.first <= 1 && point.second > 0 && point.second <= 1)) {
      wrong = "both are above 0 and at most 1, and gpus_part above the row's before";
    }
    if (wrong != nullptr) return Outcome::fail(format("%s:%u: %s", path.c_str(), number, wrong));
    if (number > 1) points_.push_back(point);
  }
  if (points_.back() != std::pair(1.0, 1.0)) return Outcome::fail(path + ": the last row must be 1,1");
  return {};
}

double ScalingCurve::speed(double part) const {
  const auto above = std::lower_bound(points_.begin(), points_.end(), std::pair(part, 0.0));
  if (above == points_.end()) return 1;
  const auto below = std::prev(above);
  return below->second + (part - below->first) / (above->first - below->first) * (above->second - below->second);
}

Outcome run_pool(const Trace& trace, const Pool& pool, const ElasticOptions& options, Result* result) {
  Replay replay(trace, pool, options);
  if (Outcome outcome = replay.run(); !outcome.ok()) return outcome;
  *result = replay.take_result();
  return {};
}

}  // namespace tide::simulate
