#include "scheduler/planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "scheduler/invariants.h"
#include "scheduler/line.h"
#include "scheduler/promises.h"
#include "scheduler/queues.h"
#include "tests/scheduler/dice.h"
#include "tests/scheduler/policy_text.h"

namespace tide::sched {
namespace {

// kQueues: four beside each other; kTree: many below others, and many jobs; kJobs: priorities, classes, ...
enum class Rules { kNone, kQueues, kTree, kTurns, kJobs, kEstimates, kLine };

// A pool that lives, told to a planner change by change, and asked of assign() as a whole.
class Pool {
 public:
  explicit Pool(uint64_t seed, Rules rules = Rules::kNone)
      : dice_(seed),
        rules_(rules),
        estimates_(rules == Rules::kEstimates || rules == Rules::kLine ||
                   (rules >= Rules::kQueues && rules <= Rules::kTree && seed % 2 == 0)),
        state_(gpus()),
        planner_(state_) {}

  void change() {
    if (estimates_ && dice_.roll(3) == 0) return pass_time();
    if ((has_queues() || rules_ == Rules::kTurns) && dice_.roll(4) == 0) return change_rules();
    const uint32_t what = dice_.roll(10);
    if (what < 4 || state_.jobs.empty()) {
      for (uint32_t more = rules_ == Rules::kTree ? dice_.roll(6) : 0; more-- > 0;) arrive();
      return arrive();
    }
    if (what == 9) return change_gpu();
    const size_t i = dice_.roll(uint32_t(state_.jobs.size()));
    JobView& job = state_.jobs[i];
    if (what == 4 || what == 5) {
      planner_.remove(job.id);
      state_.jobs.erase(state_.jobs.begin() + long(i));
      return;
    }
    if (what == 6) job.target = 1 + dice_.roll(job.vgpus);
    if (what == 7 && !job.places.empty()) job.suspended = !job.suspended;
    if (!job.suspended) {
      job.keeps.clear();
      taken_.erase(job.id);
    }
    if (rules_ == Rules::kJobs && dice_.roll(2) == 0) job.spared = !job.spared;
    if (rules_ == Rules::kJobs && dice_.roll(4) == 0) job.priority = int32_t(dice_.roll(3)) - 1;
    if (what == 8 && !job.running) {
      if (job.failed_on.empty()) {
        job.failed_on = {state_.gpus[dice_.roll(uint32_t(state_.gpus.size()))].id.server};
      } else {
        job.failed_on.clear();
      }
    }
    planner_.put(job);
  }

  // All that is suspended has been parked, mostly.
  void park() {
    if (dice_.roll(3) == 0) return;
    for (JobView& job : state_.jobs) {
      if (!job.suspended || !job.running) continue;
      const auto parked = [](const GpuId& place) { return place.parked(); };
      if (taken_.count(job.id) != 0 && !std::all_of(job.places.begin(), job.places.end(), parked)) continue;
      job.running = job.overrun = false;
      job.keeps.clear();
      job.passes.clear();
      if (taken_.erase(job.id) != 0) {
        job.suspended = false;  // it waits to come back
      } else if (has_queues() || rules_ == Rules::kTurns) {
        job.suspended = dice_.roll(2) == 0;
      }
      planner_.put(job);
    }
  }

  // What is granted in line, of which the planner is told where it is news.
  void stand_in_line() {
    if (rules_ != Rules::kLine) return;
    keep_promises(&state_);
    keep_line(&state_);
    for (const JobView& job : state_.jobs) {
      if (!(job == *planner_.view(job.id))) planner_.put(job);
    }
  }

  void decide() {
    stand_in_line();
    const Assignment wanted = assign(state_);
    ASSERT_EQ(what_is_wrong(state_, wanted), "");
    const std::vector<Planner::Change> changes = planner_.decide();
    news_ = changes.size();
    std::map<std::string, const Planner::Change*> by_id;
    for (const Planner::Change& change : changes) by_id[change.id] = &change;
    std::set<std::string> taken;  // now, for others
    for (const JobView& job : state_.jobs) {
      if (job.running && !job.suspended && !wanted.at(job.id).running) taken.insert(job.id);
    }
    taken_.insert(taken.begin(), taken.end());
    given_ += taken.size();
    for (const JobView& job : state_.jobs) note_moved(job, wanted.at(job.id), by_id);
    for (const JobView& job : state_.jobs) note_passing(job, wanted.at(job.id), by_id);
    state_ = after(state_, wanted);
    for (JobView& job : state_.jobs) {
      const Decision& decision = wanted.at(job.id);
      const JobView& view = *planner_.view(job.id);
      if (taken.count(job.id) != 0) job.running = job.suspended = true;
      ASSERT_EQ(view.running, job.running) << job.id;
      ASSERT_EQ(view.suspended, job.suspended) << job.id;
      ASSERT_EQ(view.places, job.places) << job.id;
      ASSERT_EQ(view.keeps, job.keeps) << job.id;
      ASSERT_EQ(view.ends_ms, job.ends_ms) << job.id;
      ASSERT_EQ(view.passes, job.passes) << job.id;
      const bool waits = !decision.running && taken.count(job.id) == 0;
      ASSERT_EQ(waits ? planner_.why(job.id) : "", waits ? decision.reason : "") << job.id;
    }
    planner_.count_passed(changes);
    count_passed(by_id);
    for (const JobView& job : state_.jobs) ASSERT_EQ(planner_.view(job.id)->skipped, job.skipped) << job.id;
  }

  // As its definition has it: each who waits, by each who has started and comes after it.
  void count_passed(const std::map<std::string, const Planner::Change*>& changes) {
    std::vector<std::pair<int64_t, size_t>> started;
    const auto key = [&](size_t i) { return std::pair(state_.jobs[i].place, i); };
    for (size_t i = 0; i < state_.jobs.size(); ++i) {
      const auto change = changes.find(state_.jobs[i].id);
      if (change != changes.end() && change->second->starts) started.push_back(key(i));
    }
    for (size_t i = 0; i < state_.jobs.size(); ++i) {
      JobView& job = state_.jobs[i];
      if (job.running || job.suspended) continue;
      const auto is_after = [&](const auto& other) { return key(i) < other; };
      const auto times = uint32_t(std::count_if(started.begin(), started.end(), is_after));
      job.skipped = std::min(std::max(job.skipped, kSkipsMax), job.skipped + times);
    }
  }

  void expect_idle() {
    for (int round = 0; round < 5; ++round) ASSERT_TRUE(planner_.decide().empty());
  }

  // It comes to rest, whatever was going on.
  void expect_rest() {
    for (int round = 0; round < 60; ++round) {
      park();
      decide();
      if (testing::Test::HasFatalFailure()) return;
    }
    for (int round = 0; round < 5; ++round) {
      decide();
      ASSERT_EQ(news_, 0u);
    }
  }

  size_t given() const { return given_; }

  // Whole GPUs have one job, others no more than there is of them.
  void expect_sound() const {
    std::map<GpuId, uint32_t> parts;
    for (const JobView& job : state_.jobs) {
      if (!job.running) continue;
      std::set<GpuId> gpus = job.keeps;
      for (const GpuId& place : job.places) {
        ASSERT_FALSE(place.none());
        if (place.on_gpu()) gpus.insert(place);
      }
      for (const GpuId& gpu : gpus) {
        parts[gpu] += job.part;
        ASSERT_LE(parts[gpu], kWholeGpu) << to_text(gpu);
      }
    }
  }

  uint32_t moved() const { return moved_; }
  uint32_t passed() const { return passed_; }
  uint32_t overruns() const { return overruns_; }

 private:
  // Nobody is moved for others' sake who shall not be, and the planner says the same of who is.
  void note_moved(const JobView& job, const Decision& decision,
                  const std::map<std::string, const Planner::Change*>& changes) {
    const auto change = changes.find(job.id);
    ASSERT_EQ(change == changes.end() ? "" : change->second->decision.moved_for, decision.moved_for) << job.id;
    if (decision.moved_for.empty()) return;
    ++moved_;
    ASSERT_TRUE(job.running && !job.spared && !job.pinned) << job.id;
    ASSERT_NE(decision.places, job.places) << job.id;
  }

  bool has_queues() const { return rules_ == Rules::kQueues || rules_ == Rules::kTree; }

  int32_t roll_leaf() {
    for (;;) {
      const uint32_t at = dice_.roll(uint32_t(state_.queues.queues.size()));
      if (state_.queues.queues[at].leaf()) return int32_t(at);
    }
  }

  // Up to four departments, each with up to five teams or none.
  QueueTree make_queues() {
    std::vector<QueueConfig> queues;
    const auto add = [&](const std::string& name, const std::string& parent) {
      queues.push_back({.name = name, .parent = parent, .quota = dice_.roll(6) * (parent.empty() ? 1.0 : 0.5)});
      if (dice_.roll(3) == 0) queues.back().limit = queues.back().quota + dice_.roll(8);
      queues.back().over_quota_weight = dice_.roll(4);
      queues.back().priority = int32_t(dice_.roll(2));
      queues.back().preemptible = dice_.roll(5) != 0;
    };
    for (uint32_t d = 0, departments = 1 + dice_.roll(4); d < departments; ++d) {
      const std::string name = "d" + std::to_string(d);
      add(name, "");
      for (uint32_t t = dice_.roll(6); t-- > 0;) add(name + "t" + std::to_string(t), name);
    }
    return make_tree(queues);
  }

  // Who starts although the pool drains is to be over before that can start, and the planner says so, too.
  void note_passing(const JobView& job, const Decision& decision,
                    const std::map<std::string, const Planner::Change*>& changes) {
    const auto change = changes.find(job.id);
    ASSERT_EQ(change == changes.end() ? "" : change->second->decision.passes, decision.passes) << job.id;
    overruns_ += job.running && job.overrun && !job.suspended && !decision.running ? 1 : 0;
    if (decision.passes.empty()) return;
    ++passed_;
    ASSERT_FALSE(job.running);
    ASSERT_NE(job.left_ms, 0u) << job.id;
  }

  // Some run into their next step, and some are over what was expected of them.
  void pass_time() {
    state_.now_ms += dice_.roll(40) * 1000;
    planner_.put_rules(state_);
    for (JobView& job : state_.jobs) {
      const JobView before = job;
      if (job.running && job.passes.empty() && job.left_ms != 0 && dice_.roll(3) == 0) {
        job.left_ms = 1 + dice_.roll(60) * 1000;
        job.ends_ms = state_.now_ms + job.left_ms;
      }
      job.overrun = job.running && !job.passes.empty() && job.ends_ms <= state_.now_ms;
      if (!(job == before)) planner_.put(job);
    }
  }

  State gpus() {
    State state;
    const uint32_t servers = 1 + dice_.roll(rules_ == Rules::kTree ? 12 : 5);
    const bool unlike = dice_.roll(3) == 0, traits = dice_.roll(2) == 0;
    for (uint32_t s = 0; s < servers; ++s) {
      for (uint32_t g = dice_.roll(5) + 1; g-- > 0;) {
        const uint64_t bytes = unlike && dice_.roll(3) == 0 ? 8 : 16;
        state.gpus.push_back({.id = {"s" + std::to_string(s), g}, .memory_bytes = bytes});
      }
      if (traits) describe_server("s" + std::to_string(s), s % 2 == 0 ? "H200" : "rack=a", &state);
    }
    if (rules_ == Rules::kQueues) {
      for (int32_t i = 0; i < 4; ++i) {
        add_orphan(&state.queues, "q" + std::to_string(i));
        Queue& queue = state.queues.queues.back();
        queue.quota = int64_t(dice_.roll(4)) * kWholeGpu;
        if (dice_.roll(3) == 0) queue.limit = queue.quota + int64_t(dice_.roll(4)) * kWholeGpu;
        queue.priority = int32_t(dice_.roll(2));
        queue.preemptible = dice_.roll(4) != 0;
      }
      state.used.resize(4);
    }
    if (rules_ == Rules::kTree) {
      state.queues = make_queues();
      state.used.resize(state.queues.queues.size());
    }
    state.turns = rules_ == Rules::kTurns;
    return state;
  }

  // The past of a queue, who is next, or how much a queue is owed.
  void change_rules() {
    if (has_queues() && dice_.roll(3) == 0) {
      state_.queues.queues[size_t(roll_leaf())].quota = int64_t(dice_.roll(4)) * kWholeGpu;
    } else if (has_queues()) {
      state_.used[size_t(roll_leaf())] = dice_.roll(10) / 10.0;
    } else {
      state_.next_turn = state_.jobs.empty() ? "" : state_.jobs[dice_.roll(uint32_t(state_.jobs.size()))].id;
    }
    planner_.put_rules(state_);
  }

  void arrive() {
    JobView job{.id = "j" + std::to_string(arrived_++), .vgpus = 1 + dice_.roll(6), .places = {}};
    job.min_gpus = 1 + dice_.roll(job.vgpus);
    if (dice_.roll(3) == 0) {
      job.vgpus = job.min_gpus = 1;
      job.part = 125 * (1 + dice_.roll(7));
    }
    job.memory_given = dice_.roll(2) == 0;
    if (dice_.roll(4) == 0) job.memory_bytes = 2 + dice_.roll(15);
    const bool has_rules = rules_ == Rules::kJobs || rules_ == Rules::kTree;
    if (has_rules || (estimates_ && !has_queues() && dice_.roll(2) == 0)) give_rules(&job);
    if (dice_.roll(4) == 0)
      parse_needs(std::vector<std::string>{"server", "H200", "rack=a"}[dice_.roll(3)], &job.require);
    job.pinned = dice_.roll(8) == 0;
    job.spared = dice_.roll(8) == 0;
    if (has_queues()) {
      put_into_queue(state_.queues, roll_leaf(), &job);
      job.priority = int32_t(dice_.roll(2));
    }
    if (rules_ == Rules::kTurns) job.turn.ticket = 1 + dice_.roll(100);
    if (estimates_) expect_of(&job);
    state_.jobs.push_back(job);
    planner_.put(job);
  }

  void expect_of(JobView* job) {
    if (dice_.roll(6) != 0) job->min_gpus = job->vgpus;  // so that some wait
    if (dice_.roll(10) != 0) job->left_ms = 1 + dice_.roll(60) * 1000;
    if (dice_.roll(2) == 0) job->place = int64_t(dice_.roll(100));
    if (job->vgpus < 3 && dice_.roll(8) != 0) return;
    job->skipped = kSkipsMax;
    job->require = {};
  }

  void give_rules(JobView* job) {
    job->priority = int32_t(dice_.roll(3)) - 1;
    job->job_class = JobClass(dice_.roll(3));
    job->powers_of_two = !job->is_partial() && dice_.roll(3) == 0;
    job->spared = dice_.roll(4) == 0;
    job->bytes = uint64_t(dice_.roll(8)) << 30;
    if (dice_.roll(4) == 0) job->estimate_ms = dice_.roll(20'000);
  }

  void change_gpu() {
    const GpuView gpu = state_.gpus[dice_.roll(uint32_t(state_.gpus.size()))];
    const bool server = dice_.roll(2) == 0;
    for (GpuView& each : state_.gpus) {
      if (server && each.id.server == gpu.id.server) each.online = !gpu.online;
      if (!server && each.id == gpu.id) each.healthy = !gpu.healthy;
      planner_.put_gpu(each);
    }
  }

  Dice dice_;
  const Rules rules_;
  const bool estimates_;
  State state_;
  Planner planner_;
  std::set<std::string> taken_;  // are suspended for others
  uint32_t arrived_ = 0, moved_ = 0, passed_ = 0, overruns_ = 0;
  size_t given_ = 0;  // how often GPUs were taken for others
  size_t news_ = 0;   // changes of the last round
};

class PlannerOf : public testing::TestWithParam<Rules> {};

TEST_P(PlannerOf, answers_each_change_as_the_policy_does_the_whole) {
  size_t given = 0, moved = 0, passed = 0, overruns = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Pool pool(seed, GetParam());
    for (uint32_t step = 0; step < 60; ++step) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", step " + std::to_string(step));
      pool.change();
      if (HasFatalFailure()) return;
      pool.decide();
      if (HasFatalFailure()) return;
      pool.park();
      pool.decide();
      if (HasFatalFailure()) return;
      if (GetParam() == Rules::kJobs || GetParam() == Rules::kTree || GetParam() == Rules::kLine) pool.expect_sound();
      if (HasFatalFailure()) return;
    }
    if (GetParam() == Rules::kNone) pool.expect_idle();
    if (GetParam() == Rules::kLine) pool.expect_rest();
    if (HasFatalFailure()) return;
    given += pool.given();
    moved += pool.moved();
    passed += pool.passed();
    overruns += pool.overruns();
  }
  const bool gives = GetParam() >= Rules::kQueues && GetParam() != Rules::kTurns && GetParam() != Rules::kEstimates;
  EXPECT_TRUE(given > 0 || !gives) << "nothing was reclaimed";
  printf("%zu passed while the pool drained, %zu were suspended since they were not over in time\n", passed, overruns);
  EXPECT_TRUE((passed > 30 && overruns > 2) || GetParam() != Rules::kEstimates);
  EXPECT_TRUE(moved > 10 || GetParam() != Rules::kNone) << "nobody was moved for others";
}

INSTANTIATE_TEST_SUITE_P(Pools, PlannerOf,
                         testing::Values(Rules::kNone, Rules::kQueues, Rules::kTree, Rules::kTurns, Rules::kJobs,
                                         Rules::kEstimates, Rules::kLine));

TEST(Planner, never_gives_more_of_a_gpu_than_there_is) {
  for (uint64_t seed = 1; seed <= 25; ++seed) {
    Pool pool(seed + 1000);
    for (uint32_t step = 0; step < 40; ++step) {
      pool.change();
      pool.decide();
      if (HasFatalFailure()) return;
      pool.expect_sound();
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Planner, packs_sixteen_halves_two_on_each_of_eight_gpus_in_any_order) {
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    Dice dice(seed);
    State state = parse_state(seed % 2 == 0 ? "8 gpus" : "4+4 gpus");
    Planner planner(state);
    uint32_t told = 0;
    while (told < 16) {
      for (uint32_t at_once = 1 + dice.roll(16); at_once-- > 0 && told < 16;)
        planner.put(parse_job("j" + std::to_string(told++) + " part500", state));
      planner.decide();
    }
    std::map<GpuId, uint32_t> jobs;
    for (uint32_t i = 0; i < 16; ++i) {
      const JobView& job = *planner.view("j" + std::to_string(i));
      ASSERT_TRUE(job.running);
      ++jobs[job.places.at(0)];
    }
    ASSERT_EQ(jobs.size(), 8u) << seed;
    for (const auto& [gpu, count] : jobs) ASSERT_EQ(count, 2u) << seed << " " << to_text(gpu);
  }
}

TEST(Planner, a_new_server_is_used_at_once) {
  const State state = parse_state("1 gpus");
  Planner planner(state);
  planner.put(parse_job("A n1", state));
  planner.put(parse_job("B n1", state));
  EXPECT_EQ(planner.decide().size(), 1u);
  planner.put_gpu({.id = {"s9", 0}, .memory_bytes = 16});
  const auto changes = planner.decide();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].id, "B");
  EXPECT_EQ(to_text(changes[0].decision.places.at(0)), "s9/0");
}

}  // namespace
}  // namespace tide::sched
