#include "scheduler/simulate/deadlines.h"

#include <algorithm>

#include "base/log.h"
#include "scheduler/simulate/csv.h"
#include "scheduler/simulate/policies.h"

namespace tide::simulate {
namespace {

using sched::gpus_of;
using sched::kWorkRounding_s;
using sched::Piece;
using sched::Profile;
using sched::rate_at;
using sched::reserve;
using sched::Timetable;
using sched::Work;

constexpr double kWorthIt = 20;  // a job changes for more GPUs only if it will run for as many pauses

struct Live {
  const Job* job = nullptr;
  const Rates* rates = nullptr;
  double left = 0;  // iterations, at `since_s`
  double since_s = 0;
  double pause_s = 0;          // that is yet to pass before it goes on
  const Rate* rate = nullptr;  // now; null: none
  Timetable plan;
};

class Replay {
 public:
  Replay(const Trace& trace, const DeadlineOptions& options) : trace_(trace), options_(options) {}

  DeadlineResult run(const std::vector<const Rates*>& rates) {
    result_.jobs = uint32_t(trace_.jobs.size());
    for (uint32_t next = 0; next < trace_.jobs.size() || !live_.empty();) {
      double at = next < trace_.jobs.size() ? trace_.jobs[next].submit_s : kNever;
      for (const Live& live : live_) at = std::min({at, end_of(live), change_of(live)});
      now_ = std::max(now_, at);
      for (Live& live : live_) catch_up(live);
      std::erase_if(live_, [this](const Live& live) { return ended(live); });
      for (; next < trace_.jobs.size() && trace_.jobs[next].submit_s <= now_; ++next) {
        const Live live = came(trace_.jobs[next], *rates[next]);
        result_.possible += alone(live);
        result_.promised += promise(live);
      }
      allot();
    }
    if (result_.promised > 0) result_.changes_per_job = double(changes_) / result_.promised;
    return result_;
  }

 private:
  Live came(const Job& job, const Rates& rates) const {
    Live live;
    live.job = &job;
    live.rates = &rates;
    live.left = double(job.iterations);
    live.since_s = now_;
    return live;
  }

  double end_of(const Live& live) const {
    return live.rate == nullptr ? kNever : now_ + live.pause_s + live.left / live.rate->per_s;
  }

  // When its plan says something else than now.
  double change_of(const Live& live) const {
    for (const Piece& piece : live.plan) {
      if (piece.from_s > now_) return piece.from_s;
      if (piece.to_s > now_) return piece.to_s;
    }
    return kNever;
  }

  void catch_up(Live& live) const {
    const double passed_s = now_ - live.since_s, paused_s = std::min(passed_s, live.pause_s);
    live.pause_s -= paused_s;
    live.since_s = now_;
    if (live.rate != nullptr) live.left -= (passed_s - paused_s) * live.rate->per_s;
  }

  bool ended(const Live& live) {
    if (live.rate == nullptr || live.left > kWorkRounding_s * live.rate->per_s) return false;
    const double late_s = now_ - live.job->deadline_s;
    result_.kept += late_s <= kWorkRounding_s;
    result_.late_most_s = std::max(result_.late_most_s, late_s);
    return true;
  }

  bool alone(const Live& live) const {
    Profile empty(now_, options_.gpus);
    Timetable plan;
    return fill(live, empty, &plan);
  }

  // With all others, in the order of deadlines, in what is free from now on. False: nothing has changed.
  bool promise(const Live& fresh) {
    std::vector<Live> all = live_;
    const auto later = [](const Live& a, const Live& b) { return a.job->deadline_s < b.job->deadline_s; };
    all.insert(std::upper_bound(all.begin(), all.end(), fresh, later), fresh);
    Profile profile(now_, options_.gpus);
    for (Live& live : all) {
      if (!fill(live, profile, &live.plan)) return false;
      reserve(live.plan, now_, &profile);
    }
    live_ = std::move(all);
    return true;
  }

  bool fill(const Live& live, const Profile& profile, Timetable* plan) const {
    const Work work{.rates = live.rates,
                    .left = live.left,
                    .deadline_s = live.job->deadline_s,
                    .has = live.rate,
                    .pause_s = live.pause_s,
                    .not_before_s = now_};
    return sched::fill(work, profile, {.gpus_most = options_.gpus, .change_s = options_.change_s}, plan);
  }

  // What was planned; then who has more keeps it; then whoever gains most for each GPU gets what is free.
  void allot() {
    std::vector<const Rate*> given;
    uint32_t free = options_.gpus;
    for (const Live& live : live_) {
      given.push_back(rate_at(live.plan, now_));
      free -= gpus_of(given.back());
    }
    for (size_t i = 0; i < live_.size(); ++i) {
      const uint32_t more = gpus_of(live_[i].rate) - gpus_of(given[i]);
      if (gpus_of(live_[i].rate) <= gpus_of(given[i]) || more > free) continue;
      given[i] = live_[i].rate;
      free -= more;
    }
    std::vector<bool> refused(live_.size());
    for (size_t best; (best = most_gain(given, refused, free)) < live_.size();) {
      const Rate* const next = next_of(*live_[best].rates, given[best]);
      refused[best] = !may_have(best, *next);
      if (refused[best]) continue;
      free -= next->gpus - gpus_of(given[best]);
      given[best] = next;
    }
    for (size_t i = 0; i < live_.size(); ++i) change(live_[i], given[i]);
  }

  static const Rate* next_of(const Rates& rates, const Rate* rate) {
    if (rate == nullptr) return &rates.front();
    return rate == &rates.back() ? nullptr : rate + 1;
  }

  // SIZE_MAX: nobody gains.
  size_t most_gain(const std::vector<const Rate*>& given, const std::vector<bool>& refused, uint32_t free) const {
    size_t best = SIZE_MAX;
    double most = 0;
    for (size_t i = 0; i < live_.size(); ++i) {
      const Rate* const next = refused[i] ? nullptr : next_of(*live_[i].rates, given[i]);
      if (next == nullptr || next->gpus - gpus_of(given[i]) > free) continue;
      const double by = 1 - (given[i] == nullptr ? 0 : given[i]->per_s) / next->per_s;
      const double gain = by / (next->gpus - gpus_of(given[i]));
      if (gain <= most) continue;
      most = gain;
      best = i;
    }
    return best;
  }

  // It is in time even if it comes back to what can be planned for it beside the others at once, with the pauses of
  // both changes, and will run long enough to gain. Plans for it so.
  bool may_have(size_t index, const Rate& rate) {
    if (options_.change_s == 0) return true;
    Live trial = live_[index];
    if (trial.left / rate.per_s < kWorthIt * options_.change_s) return false;
    Profile profile(now_, options_.gpus);
    for (size_t i = 0; i < live_.size(); ++i) {
      if (i != index) reserve(live_[i].plan, now_, &profile);
    }
    if (trial.rate != &rate) trial.pause_s = options_.change_s;
    trial.rate = &rate;
    if (!fill(trial, profile, &trial.plan) || gpus_of(rate_at(trial.plan, now_)) > rate.gpus) return false;
    live_[index].plan = std::move(trial.plan);
    return true;
  }

  void change(Live& live, const Rate* rate) {
    if (live.rate == rate) return;
    live.rate = rate;
    if (rate == nullptr) return;
    live.pause_s = options_.change_s;
    ++changes_;
  }

  const Trace& trace_;
  const DeadlineOptions options_;
  std::vector<Live> live_;  // that were promised, in the order of their deadlines
  double now_ = 0;
  uint64_t changes_ = 0;
  DeadlineResult result_;
};

}  // namespace

Outcome Throughputs::row(const std::vector<std::string>& fields) {
  if (fields.size() < 4) return Outcome::fail(format("%zu fields; at least 4 are needed", fields.size()));
  if (table_.empty()) table_ = fields[0];
  if (fields[0] != table_) return {};
  if (fields[2] == "global_batch_size") {
    file_ = fields[1];
    counts_.assign(fields.size() - 3, 0);
    for (size_t i = 3; i < fields.size(); ++i) {
      uint32_t& count = counts_[i - 3];
      if (!parse_number(fields[i], &count) || count == 0 || (i > 3 && count <= counts_[i - 4])) {
        return Outcome::fail("numbers of GPUs must be whole, above 0, and ascend");
      }
    }
    return {};
  }
  uint32_t batch = 0;
  if (fields[1] != file_ || fields.size() != counts_.size() + 3 || !parse_number(fields[2], &batch)) {
    return Outcome::fail("is no row of a batch of the file above it");
  }
  Rates rates;
  for (size_t i = 3; i < fields.size(); ++i) {
    double per_s = 0;
    if (!fields[i].empty() && (!parse_number(fields[i], &per_s) || !(per_s >= 0 && per_s < 1e12))) {
      return Outcome::fail("'" + fields[i] + "' is no rate");
    }
    if (per_s > (rates.empty() ? 0 : rates.back().per_s)) rates.push_back({counts_[i - 3], per_s});
  }
  if (rates.empty()) return Outcome::fail("has no rate above 0");
  rates_[{file_.substr(0, file_.rfind(".csv")), batch}] = rates;
  return {};
}

Outcome Throughputs::read(const std::string& path) {
  const Outcome outcome = read_rows(
      path,
      [](std::string_view line) {
        const bool good = line.rfind("table,file,c0", 0) == 0;
        return good ? Outcome() : Outcome::fail("the first line must begin with table,file,c0");
      },
      [this](const std::vector<std::string>& fields) { return row(fields); });
  if (!outcome.ok()) return outcome;
  return rates_.empty() ? Outcome::fail(path + ": has no rates") : Outcome();
}

const Rates* Throughputs::find(const std::string& model, uint32_t batch_size) const {
  const auto found = rates_.find({model, batch_size});
  return found == rates_.end() ? nullptr : &found->second;
}

Outcome run_deadlines(const Trace& trace, const Throughputs& throughputs, const DeadlineOptions& options,
                      DeadlineResult* result) {
  std::vector<const Rates*> rates;
  for (const Job& job : trace.jobs) {
    rates.push_back(throughputs.find(job.model, job.batch_size));
    const char* const wrong = job.deadline_s == 0       ? "deadline_s"
                              : job.iterations == 0     ? "iterations"
                              : rates.back() == nullptr ? "model_name and batch_size whose rates were measured"
                                                        : nullptr;
    if (wrong != nullptr) return Outcome::fail(format("line %u: job %s has no %s", job.line, job.id.c_str(), wrong));
  }
  *result = Replay(trace, options).run(rates);
  return {};
}

}  // namespace tide::simulate
